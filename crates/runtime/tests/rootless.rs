//! Containers of an ordinary user: of whoever runs the tests, or, run by root, of a user who exists in a mount namespace with a
//! passwd file of its own only, and has been given no cgroup.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{Bundle, Outcome, eventually, unified};
use rustix::process::{getegid, geteuid};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// The user that root becomes, and the first of the ids that are given to it.
const UID: u32 = 54_321;
const SUBORDINATE: u32 = 700_000;
const COUNT: u32 = 65_536;

/// Who the containers are of.
#[derive(Debug, Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
    /// The first of its subordinate ids, and how many it has.
    subordinate: (u32, u32),
    /// Whether it is root that becomes the user.
    assumed: bool,
}

impl User {
    fn find() -> Self {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        if geteuid().is_root() {
            return Self {
                uid: UID,
                gid: UID,
                subordinate: (SUBORDINATE, COUNT),
                assumed: true,
            };
        }
        let name = Command::new("id").arg("-un").output().unwrap().stdout;
        let name = String::from_utf8(name).unwrap();
        let given = std::fs::read_to_string("/etc/subuid").unwrap();
        let line = given
            .lines()
            .find(|line| line.split(':').next() == Some(name.trim()));
        let line = line.expect("the user has subordinate ids");
        let numbers: Vec<u32> = line
            .split(':')
            .skip(1)
            .map(|word| word.parse().unwrap())
            .collect();
        Self {
            uid,
            gid,
            subordinate: (numbers[0], numbers[1]),
            assumed: false,
        }
    }
}

/// A bundle of the user's.
struct Own {
    bundle: Bundle,
    user: User,
}

impl Own {
    fn shell(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    fn new(arguments: &[&str]) -> Self {
        let mut own = Self {
            bundle: Bundle::of_anybody(arguments),
            user: User::find(),
        };
        let path = own.bundle.path().to_owned();
        let program = own.bundle.command(&[]).get_program().to_owned();
        std::fs::copy(program, path.join("hull-runtime")).unwrap();
        let passwd = format!("root:x:0:0::/:/bin/sh\nuser:x:{UID}:{UID}::/:/bin/sh\n");
        let given = format!("user:{SUBORDINATE}:{COUNT}\n");
        for (name, text) in [("passwd", passwd), ("subid", given)] {
            std::fs::write(path.join(name), text).unwrap();
        }
        std::fs::create_dir(path.join("run")).unwrap();
        std::fs::remove_file(path.join("config.json")).unwrap();
        own.give(&path);
        own.invoke(&["spec", "--rootless"]).ok();
        let text = std::fs::read_to_string(path.join("config.json")).unwrap();
        own.bundle.config = serde_json::from_str(&text).unwrap();
        own.bundle.config["process"]["terminal"] = json!(false);
        own.bundle.config["process"]["args"] = json!(arguments);
        own
    }

    /// Gives a tree to the user.
    fn give(&self, path: &Path) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        if self.user.assumed {
            let mut command = Command::new("chown");
            command.arg("-R").arg(format!("{UID}:{UID}")).arg(path);
            assert!(command.status().unwrap().success());
        }
    }

    /// Maps the subordinate ids above the user's own.
    fn map_subordinate(&mut self) {
        let (first, count) = self.user.subordinate;
        for (name, own) in [
            ("uidMappings", self.user.uid),
            ("gidMappings", self.user.gid),
        ] {
            self.bundle.config["linux"][name] = json!([
                {"containerID": 0, "hostID": own, "size": 1},
                {"containerID": 1, "hostID": first, "size": count},
            ]);
        }
    }

    /// An invocation by the user, who may run newuidmap unless `bare`, which takes root to arrange.
    fn command(&self, arguments: &[&str], bare: bool) -> Command {
        let path = self.bundle.path();
        if arguments.first() != Some(&"spec") {
            let text = self.bundle.config.to_string();
            std::fs::write(path.join("config.json"), text).unwrap();
        }
        let mut command = if self.user.assumed {
            let hide =
                "for name in newuidmap newgidmap; do mount --bind /dev/null /usr/bin/$name; done";
            let script = format!(
                "set -e; mount --make-rprivate /; mount --bind passwd /etc/passwd
                for file in /etc/subuid /etc/subgid; do mount --bind subid $file; done; {}
                exec setpriv --reuid {UID} --regid {UID} --clear-groups ./hull-runtime \"$@\"",
                if bare { hide } else { "" }
            );
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", &script, "sh"]);
            command.env("XDG_RUNTIME_DIR", path.join("run"));
            command
        } else {
            assert!(!bare);
            let mut command = Command::new(path.join("hull-runtime"));
            // The bus of the user's systemd is found by the real one.
            command.arg("--root").arg(path.join("run/hull/runtime"));
            command
        };
        command
            .args(arguments)
            .current_dir(path)
            .stdin(Stdio::null());
        command
    }

    fn invoke(&self, arguments: &[&str]) -> Outcome {
        self.command(arguments, false).output().unwrap().into()
    }

    fn run(&self) -> Outcome {
        self.invoke(&["run", &self.bundle.id])
    }

    /// Starts it with standard streams that nobody waits for.
    fn run_detached(&self, flags: &[&str]) {
        let arguments = [flags, &["run", "--detach", &self.bundle.id]].concat();
        let mut command = self.command(&arguments, false);
        let errors = self.bundle.path().join("errors");
        let file = std::fs::File::create(&errors).unwrap();
        let status = command.stdout(Stdio::null()).stderr(file).status().unwrap();
        assert!(
            status.success(),
            "{}",
            std::fs::read_to_string(errors).unwrap()
        );
    }
}

#[test]
fn the_own_id_is_root_inside_without_any_program() {
    let own = Own::shell(
        "id; cat /proc/self/uid_map /proc/self/setgroups; touch /dev/shm/x; stat -c %u /dev/shm/x /dev/null",
    );
    let mut command = own.command(&["run", &own.bundle.id], own.user.assumed);
    let inside = Outcome::from(command.output().unwrap()).ok();
    assert!(inside.starts_with("uid=0 gid=0"), "{inside}");
    let words: Vec<_> = { inside.lines().skip(1) }
        .flat_map(str::split_whitespace)
        .collect();
    let own_id = own.user.uid.to_string();
    assert!(
        words.ends_with(&["0", &own_id, "1", "deny", "0", "65534"]),
        "{inside}"
    );
}

#[test]
fn subordinate_ids_are_mapped_by_the_programs_for_it() {
    let mut own = Own::shell(
        "cat /proc/self/uid_map /proc/self/gid_map; id; echo x > /tmp/file; chown 7:8 /tmp/file",
    );
    own.map_subordinate();
    own.bundle.config["root"]["readonly"] = json!(false);
    for set in ["bounding", "effective", "permitted"] {
        own.bundle.config["process"]["capabilities"][set] = json!(["CAP_CHOWN"]);
    }
    own.bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [5]});
    let inside = own.run().ok();
    let (first, count) = own.user.subordinate;
    let line = ["1".to_owned(), first.to_string(), count.to_string()];
    assert!(
        inside
            .lines()
            .any(|words| words.split_whitespace().eq(&line)),
        "{inside}"
    );
    assert!(inside.contains("groups=5"), "{inside}");
    let file = own.bundle.rootfs().join("tmp/file").metadata().unwrap();
    assert_eq!((file.uid(), file.gid()), (first + 6, first + 7));
}

#[test]
fn ids_that_are_not_given_are_refused_and_missing_programs_named() {
    let mut own = Own::new(&["true"]);
    own.map_subordinate();
    own.bundle.config["linux"]["uidMappings"][1]["hostID"] = json!(own.user.subordinate.0 - 1);
    let error = own.run().failed();
    assert!(
        error.contains("newuidmap") && error.contains("/etc/subuid"),
        "{error}"
    );
    own.map_subordinate();
    own.bundle.config["linux"]["gidMappings"][1]["size"] = json!(own.user.subordinate.1 + 1);
    let error = own.run().failed();
    assert!(
        error.contains("newgidmap") && error.contains("/etc/subgid"),
        "{error}"
    );
    own.map_subordinate();
    if own.user.assumed {
        let mut command = own.command(&["run", &own.bundle.id], true);
        let error = Outcome::from(command.output().unwrap()).failed();
        assert!(
            error.contains("newuidmap") && error.contains("package uidmap"),
            "{error}"
        );
    }
    own.bundle.remove_namespace("user");
    own.bundle.config["linux"]["uidMappings"] = json!([]);
    own.bundle.config["linux"]["gidMappings"] = json!([]);
    let error = own.run().failed();
    assert!(error.contains("needs a user namespace"), "{error}");
}

#[test]
fn a_container_lives_without_a_cgroup_and_limits_are_an_error() {
    let mut own = Own::new(&["sleep", "60"]);
    own.map_subordinate();
    own.run_detached(&[]);
    let id = own.bundle.id.clone();
    // Its state is the user's.
    assert!(
        own.bundle
            .path()
            .join("run/hull/runtime")
            .join(&id)
            .is_dir()
    );
    assert!(own.invoke(&["list"]).ok().contains(&id));
    let inside = own.invoke(&["exec", "--user", "3:4", &id, "id"]).ok();
    assert!(inside.starts_with("uid=3 gid=4"), "{inside}");
    let shown = own.invoke(&[
        "exec",
        &id,
        "sh",
        "-c",
        "hostname; ps; readlink /proc/self/ns/user; readlink /proc/1/ns/user",
    ]);
    let shown = shown.ok();
    let namespaces: Vec<_> = shown.lines().rev().take(2).collect();
    assert_eq!(namespaces[0], namespaces[1], "{shown}");
    assert!(shown.contains("sleep 60"), "{shown}");
    own.invoke(&["kill", &id, "KILL"]).ok();
    assert!(eventually(|| own
        .invoke(&["state", &id])
        .ok()
        .contains("stopped")));
    own.invoke(&["delete", &id]).ok();
}

#[test]
fn limits_bind_where_the_user_has_a_cgroup_and_are_an_error_elsewhere() {
    let mut own = Own::shell("sleep 1 & sleep 1 & sleep 1; wait");
    own.bundle.config["linux"]["resources"] = json!({"pids": {"limit": 2}});
    let outcome = own.run();
    if unified() && !own.user.assumed {
        assert!(outcome.stderr.contains("fork"), "{outcome:?}");
    } else {
        assert!(outcome.failed().contains("cgroup"));
        own.bundle.config["linux"]["resources"] = Value::Null;
        let strict = ["--rootless", "false", "run", &own.bundle.id];
        assert!(own.invoke(&strict).failed().contains("cgroup"));
    }
    own.bundle.config["linux"]["resources"] = Value::Null;
    own.run().ok();
}

#[test]
fn the_users_own_systemd_makes_scopes() {
    let mut own = Own::new(&["sleep", "60"]);
    let bus = std::env::var_os("XDG_RUNTIME_DIR").is_some();
    if own.user.assumed || !unified() || !bus {
        // Such a user has no systemd of its own; and one on cgroup v1 has no groups to give.
        return;
    }
    own.bundle.config["linux"]["cgroupsPath"] = json!(format!(":hull:{}", own.bundle.id));
    own.bundle.config["linux"]["resources"] = json!({"pids": {"limit": 7}});
    own.run_detached(&["--systemd-cgroup"]);
    let id = own.bundle.id.clone();
    let unit = format!("hull-{id}.scope");
    let show = ["--user", "show", "--property", "TasksMax", "--value", &unit];
    let shown = Command::new("systemctl").args(show).output().unwrap();
    assert_eq!(String::from_utf8(shown.stdout).unwrap().trim(), "7");
    own.invoke(&["exec", &id, "true"]).ok();
    own.invoke(&["--systemd-cgroup", "delete", "--force", &id])
        .ok();
    let active = Command::new("systemctl")
        .args(["--user", "--quiet", "is-active", &unit])
        .status();
    assert!(!active.unwrap().success());
}

#[test]
fn mounts_masks_and_names_are_as_configured() {
    let mut own = Own::shell(
        "cat /data/file; echo y > /data/new; hostname; cat /proc/kcore | wc -c; grep ' /data ' /proc/self/mountinfo; ls /dev",
    );
    let source = own.bundle.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "of the user\n").unwrap();
    own.give(&source);
    own.bundle.add_mount(json!({"destination": "/data", "type": "bind", "source": source, "options": ["bind", "nosuid"]}));
    own.bundle.config["root"]["readonly"] = json!(false);
    own.bundle.config["hostname"] = json!("inner");
    let inside = own.run().ok();
    assert!(inside.starts_with("of the user\ninner\n0\n"), "{inside}");
    assert!(
        inside.contains("nosuid") && inside.contains("urandom"),
        "{inside}"
    );
    assert_eq!(std::fs::read_to_string(source.join("new")).unwrap(), "y\n");
    // What the user cannot read, its container cannot either.
    own.bundle.add_mount(json!({"destination": "/secret", "type": "bind", "source": "/etc/shadow", "options": ["bind"]}));
    own.bundle.config["process"]["args"] = json!(["cat", "/secret"]);
    let error = own.run().failed();
    assert!(error.contains("Permission denied"), "{error}");
}
