//! Containers of an ordinary user. The tests have root's rights themselves, to become that user, who exists in a mount namespace
//! with a passwd file of its own only.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{Bundle, Outcome, eventually};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

const UID: u32 = 54_321;
/// The first of the ids that are given to the user.
const SUBORDINATE: u32 = 700_000;
const COUNT: u32 = 65_536;

/// A bundle of the user's.
struct Own {
    bundle: Bundle,
}

impl Own {
    fn shell(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    fn new(arguments: &[&str]) -> Self {
        let mut bundle = Bundle::new(arguments);
        let path = bundle.path().to_owned();
        let program = bundle.command(&[]).get_program().to_owned();
        std::fs::copy(program, path.join("hull-runtime")).unwrap();
        let passwd = format!("root:x:0:0::/:/bin/sh\nuser:x:{UID}:{UID}::/:/bin/sh\n");
        for (name, text) in [
            ("passwd", passwd),
            ("subid", format!("user:{SUBORDINATE}:{COUNT}\n")),
        ] {
            std::fs::write(path.join(name), text).unwrap();
        }
        std::fs::create_dir(path.join("run")).unwrap();
        give(&path);
        std::fs::remove_file(path.join("config.json")).unwrap();
        let mut own = Self {
            bundle: Bundle::shell(""),
        };
        std::mem::swap(&mut own.bundle, &mut bundle);
        own.invoke(&["spec", "--rootless"]).ok();
        let text = std::fs::read_to_string(path.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(arguments);
        own.bundle.config = config;
        own
    }

    /// Maps the subordinate ids above the user's own.
    fn map_subordinate(&mut self) {
        let mappings = json!([
            {"containerID": 0, "hostID": UID, "size": 1},
            {"containerID": 1, "hostID": SUBORDINATE, "size": COUNT},
        ]);
        self.bundle.config["linux"]["uidMappings"] = mappings.clone();
        self.bundle.config["linux"]["gidMappings"] = mappings;
    }

    /// An invocation by the user, who may run newuidmap unless `bare`.
    fn command(&self, arguments: &[&str], bare: bool) -> Command {
        let path = self.bundle.path();
        let config = path.join("config.json");
        if !self.bundle.config.is_null() && arguments.first() != Some(&"spec") {
            std::fs::write(&config, self.bundle.config.to_string()).unwrap();
        }
        let hide =
            "mount --bind /dev/null /usr/bin/newuidmap; mount --bind /dev/null /usr/bin/newgidmap;";
        let script = format!(
            "set -e; cd {0}; mount --make-rprivate /; mount --bind passwd /etc/passwd
            for file in /etc/subuid /etc/subgid; do mount --bind subid $file; done; {1}
            exec setpriv --reuid {UID} --regid {UID} --clear-groups ./hull-runtime \"$@\"",
            path.display(),
            if bare { hide } else { "" }
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]);
        command
            .args(arguments)
            .env("XDG_RUNTIME_DIR", path.join("run"));
        command.stdin(Stdio::null());
        command
    }

    fn invoke(&self, arguments: &[&str]) -> Outcome {
        self.command(arguments, false).output().unwrap().into()
    }

    fn run(&self) -> Outcome {
        self.invoke(&["run", &self.bundle.id])
    }

    /// Starts it with standard streams that nobody waits for.
    fn run_detached(&self) {
        let arguments = ["run", "--detach", &self.bundle.id];
        let mut command = self.command(&arguments, false);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success());
    }
}

/// Gives a tree to the user.
fn give(path: &Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new("chown")
        .arg("-R")
        .arg(format!("{UID}:{UID}"))
        .arg(path)
        .output();
    assert!(output.unwrap().status.success());
}

#[test]
fn the_own_id_is_root_inside_without_any_program() {
    let own = Own::shell(
        "id; cat /proc/self/uid_map /proc/self/setgroups; touch /dev/shm/x; stat -c %u /dev/shm/x /dev/null",
    );
    let mut command = own.command(&["run", &own.bundle.id], true);
    let inside = Outcome::from(command.output().unwrap()).ok();
    assert!(inside.starts_with("uid=0 gid=0"), "{inside}");
    let words: Vec<_> = inside.split_whitespace().skip(2).take(8).collect();
    let own_id = UID.to_string();
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
    assert!(
        inside.contains(&format!("1     {SUBORDINATE}      {COUNT}")),
        "{inside}"
    );
    assert!(inside.contains("groups=5"), "{inside}");
    let file = own.bundle.rootfs().join("tmp/file").metadata().unwrap();
    assert_eq!((file.uid(), file.gid()), (SUBORDINATE + 6, SUBORDINATE + 7));
}

#[test]
fn ids_that_are_not_given_are_refused_and_missing_programs_named() {
    let mut own = Own::new(&["true"]);
    own.map_subordinate();
    own.bundle.config["linux"]["uidMappings"][1]["hostID"] = json!(SUBORDINATE - 1);
    let error = own.run().failed();
    assert!(
        error.contains("newuidmap") && error.contains("/etc/subuid"),
        "{error}"
    );
    own.map_subordinate();
    own.bundle.config["linux"]["gidMappings"][1]["size"] = json!(COUNT + 1);
    let error = own.run().failed();
    assert!(
        error.contains("newgidmap") && error.contains("/etc/subgid"),
        "{error}"
    );
    own.map_subordinate();
    let mut command = own.command(&["run", &own.bundle.id], true);
    let error = Outcome::from(command.output().unwrap()).failed();
    assert!(
        error.contains("newuidmap") && error.contains("uidmap"),
        "{error}"
    );
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
    own.run_detached();
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
    own.bundle.config["linux"]["resources"] = json!({"pids": {"limit": 10}});
    // Where the user has been given no group, which the tests' user has not.
    let error = own.run().failed();
    assert!(error.contains("cgroup"), "{error}");
    own.bundle.config["linux"]["resources"] = Value::Null;
    own.bundle.config["process"]["args"] = json!(["true"]);
    own.run().ok();
    let strict = own.invoke(&["--rootless", "false", "run", &id]).failed();
    assert!(strict.contains("cgroup"), "{strict}");
}

#[test]
fn mounts_masks_and_names_are_as_configured() {
    let mut own = Own::shell(
        "cat /data/file; echo y > /data/new; hostname; cat /proc/kcore | wc -c; grep ' /data ' /proc/self/mountinfo; ls /dev",
    );
    let source = own.bundle.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "of the user\n").unwrap();
    give(&source);
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
    let secret = own.bundle.path().join("secret");
    std::fs::write(&secret, "of root").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    chown(&secret, Some(0), Some(0)).unwrap();
    own.bundle.add_mount(
        json!({"destination": "/secret", "type": "bind", "source": secret, "options": ["bind"]}),
    );
    own.bundle.config["process"]["args"] = json!(["cat", "/secret"]);
    let error = own.run().failed();
    assert!(error.contains("Permission denied"), "{error}");
}
