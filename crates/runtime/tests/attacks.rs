//! Known attacks on container runtimes, tried: each by the number it has in the project's list, with a malicious root or
//! configuration, and each must not get out.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{Bundle, eventually};
use serde_json::json;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

/// A directory of the host that an attack reaches for.
struct Outside {
    directory: tempfile::TempDir,
}

impl Outside {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "host secret").unwrap();
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Nothing was added, nothing changed.
    #[track_caller]
    fn assert_untouched(&self) {
        let names: Vec<_> = std::fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(
            std::fs::read_to_string(self.path().join("secret")).unwrap(),
            "host secret"
        );
    }
}

#[test]
fn attack_01_a_process_on_its_way_in_cannot_be_traced_or_robbed() {
    // The container looks at every process that appears in it and tries to reach what it has open.
    let mut bundle = Bundle::shell(
        "while [ ! -e /tmp/stop ]; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || ls -l $p/fd $p/root/ $p/cwd/ 2>/dev/null; done; done > /tmp/seen",
    );
    bundle.config["root"]["readonly"] = json!(false);
    bundle.create().ok();
    bundle.start().ok();
    for _ in 0..50 {
        bundle.exec(&["true"]).ok();
    }
    std::fs::write(bundle.rootfs().join("tmp/stop"), "").unwrap();
    bundle.await_status("stopped");
    let seen = std::fs::read_to_string(bundle.rootfs().join("tmp/seen")).unwrap();
    assert!(
        !seen.contains("socket:") && !seen.contains("cgroup") && !seen.contains("state"),
        "{seen}"
    );
    bundle.delete().ok();
}

#[test]
fn attack_02_a_number_that_is_no_user_is_never_root() {
    // 4294967295 is what setresuid(2) takes for "stay who you are".
    for id in [
        json!(4_294_967_295_u64),
        json!(4_294_967_296_u64),
        json!(18_446_744_073_709_551_615_u64),
        json!(-1),
        json!(0.5),
        json!("0"),
        json!(null),
    ] {
        for key in ["uid", "gid", "additionalGids"] {
            let mut bundle = Bundle::new(&["id"]);
            bundle.config["process"]["user"] = json!({"uid": 1, "gid": 1});
            bundle.config["process"]["user"][key] = match key {
                "additionalGids" => json!([id]),
                _ => id.clone(),
            };
            let outcome = bundle.run();
            // Told by who reads it, not by an assertion that a release build lacks.
            assert!(
                outcome.code == Some(1) && !outcome.stderr.contains("panicked"),
                "{key} {id}: {outcome:?}"
            );
        }
    }
}

#[test]
fn attack_03_the_runtimes_executable_cannot_be_overwritten() {
    // The image's program is the runtime itself, by way of its own /proc/self/exe; whoever is executed by that tries to
    // write to it, and a waiting process tries once it runs no more.
    let runtime = Path::new(env!("CARGO_BIN_EXE_hull-runtime"));
    let before = std::fs::metadata(runtime).unwrap();
    let mut bundle = Bundle::shell(
        "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.02; for p in /proc/[0-9]*; do
           exec 9<$p/exe && case $(readlink $p/exe) in */busybox) ;; *) echo reached; echo x > /proc/self/fd/9 && echo WRITTEN;; esac
         done; done 2>/dev/null; true",
    );
    let evil = bundle.rootfs().join("evil");
    std::fs::write(&evil, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&evil, PermissionsExt::from_mode(0o755)).unwrap();
    let all = json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]);
    bundle.config["process"]["capabilities"] =
        json!({"bounding": all, "permitted": all, "effective": all});
    let mut command = bundle.command(&["run", &bundle.id]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..8 {
        // Whatever it says: it is the runtime, executed in the container.
        drop(bundle.exec(&["/evil", "events", "--interval", "1s", "x"]));
    }
    let output = common::Outcome::from(child.wait_with_output().unwrap());
    assert!(!output.stdout.contains("WRITTEN"), "{output:?}");
    let after = std::fs::metadata(runtime).unwrap();
    assert_eq!(
        (before.len(), before.mtime_nsec(), before.ino()),
        (after.len(), after.mtime_nsec(), after.ino())
    );
}

#[test]
fn attack_03_nothing_of_the_runtimes_file_stays_mapped() {
    let bundle = Bundle::shell("echo up; sleep 1000");
    let mut command = bundle.command(&["run", &bundle.id]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 3];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    let of = |file: &str| format!("/proc/{}/{file}", child.id());
    assert_eq!(std::fs::read_link(of("exe")).unwrap(), Path::new("/"));
    let maps = std::fs::read_to_string(of("maps")).unwrap();
    assert!(!maps.contains("hull-runtime"), "{maps}");
    // It has come there without executing itself again, which it does where the kernel does not let it.
    let environment = std::fs::read(of("environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("_HULL_SEALED"));
    bundle.invoke(&["kill", &bundle.id, "KILL"]).ok();
    child.wait().unwrap();
}

#[test]
fn attack_04_a_procfs_cannot_be_faked() {
    let mut bundle = Bundle::new(&["true"]);
    let fake = Outside::new();
    for (destination, kind) in [
        ("/proc", "bind"),
        ("/proc/self/attr", "bind"),
        ("/proc/sys/kernel", "bind"),
        ("/proc", "tmpfs"),
    ] {
        let mounts = bundle.config["mounts"].clone();
        let options = if kind == "bind" {
            json!(["rbind"])
        } else {
            json!([])
        };
        bundle.add_mount(json!({"destination": destination, "type": kind, "source": fake.path(), "options": options}));
        assert!(
            bundle.run().failed().contains("procfs"),
            "{destination} {kind}"
        );
        bundle.config["mounts"] = mounts;
    }
    // By a link of the image, whose words are harmless.
    symlink("proc/self/attr", bundle.rootfs().join("harmless")).unwrap();
    bundle.add_mount(json!({"destination": "/harmless", "type": "bind", "source": fake.path(), "options": ["rbind"]}));
    assert!(bundle.run().code != Some(0));
    fake.assert_untouched();
}

#[test]
fn attack_05_proc_as_a_link_is_refused() {
    let bundle = Bundle::new(&["true"]);
    std::fs::remove_dir(bundle.rootfs().join("proc")).unwrap();
    std::fs::create_dir(bundle.rootfs().join("other")).unwrap();
    symlink("other", bundle.rootfs().join("proc")).unwrap();
    assert!(
        bundle
            .run()
            .failed()
            .contains("must be a directory, not a link")
    );
}

#[test]
fn attack_06_and_07_links_as_destinations_stay_inside() {
    let outside = Outside::new();
    let up = "../".repeat(20);
    let escape = format!("{up}{}", outside.path().display());
    for (link, target) in [
        ("absolute", outside.path().to_str().unwrap()),
        ("relative", escape.as_str()),
        ("magic", "/proc/self/cwd"),
        ("fd", "/proc/self/fd/5"),
    ] {
        let mut bundle = Bundle::shell(
            "touch /DEST/made /DEST/below/made 2>/dev/null; cat /DEST/secret 2>/dev/null",
        );
        let script = bundle.config["process"]["args"][2]
            .as_str()
            .unwrap()
            .replace("DEST", link);
        bundle.config["process"]["args"][2] = json!(script);
        symlink(target, bundle.rootfs().join(link)).unwrap();
        bundle.config["root"]["readonly"] = json!(false);
        bundle.add_mount(
            json!({"destination": format!("/{link}/below"), "type": "tmpfs", "source": "tmpfs"}),
        );
        bundle.add_mount(
            json!({"destination": format!("/{link}"), "type": "tmpfs", "source": "tmpfs"}),
        );
        let outcome = bundle.run();
        assert!(
            !outcome.stdout.contains("host secret"),
            "{link}: {outcome:?}"
        );
        outside.assert_untouched();
    }
}

#[test]
fn attack_07_a_destination_that_changes_meanwhile_stays_inside() {
    // A volume's other user exchanges a directory for a link to the outside, as fast as it can.
    let outside = Outside::new();
    let volume = tempfile::tempdir().unwrap();
    std::fs::create_dir(volume.path().join("place")).unwrap();
    symlink(outside.path(), volume.path().join("link")).unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let racer = {
        let (stop, path) = (stop.clone(), volume.path().to_owned());
        std::thread::spawn(move || {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                renameat_with(
                    CWD,
                    path.join("place"),
                    CWD,
                    path.join("link"),
                    RenameFlags::EXCHANGE,
                )
                .unwrap();
            }
        })
    };
    let mut bundle = Bundle::shell("touch /volume/place/x/made; cat /volume/place/secret; true");
    bundle.add_mount(json!({"destination": "/volume", "type": "bind", "source": volume.path(), "options": ["rbind"]}));
    bundle.add_mount(json!({"destination": "/volume/place/x", "type": "tmpfs", "source": "tmpfs"}));
    for _ in 0..15 {
        let outcome = bundle.run();
        assert!(!outcome.stdout.contains("host secret"), "{outcome:?}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    racer.join().unwrap();
    outside.assert_untouched();
}

#[test]
fn attack_08_what_is_long_arrives_whole_or_not_at_all() {
    // Longer than 16 bits count: what was cut off would be read as the next thing.
    const LONG: usize = (1 << 16) + 100;
    let long = "x".repeat(LONG);
    let mut bundle = Bundle::new(&["sh", "-c", "echo ${#1} ${#LONG}", "sh", &long]);
    bundle.config["process"]["env"] = json!(["PATH=/bin", format!("LONG={long}")]);
    bundle.config["annotations"] = json!({"long": long});
    let seen = bundle.path().join("seen");
    bundle.config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh",
        "args": ["sh", "-c", format!("cat > {}", seen.display())], "env": ["PATH=/bin"]}]});
    assert_eq!(bundle.run().ok(), format!("{LONG} {LONG}\n"));
    let state = std::fs::read(seen).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    assert_eq!(state["annotations"]["long"].as_str(), Some(&*long));
    let mapping = json!({"containerID": 0, "hostID": 100_000, "size": 1});
    for (pointer, value) in [
        ("/hostname", json!(long)),
        ("/process/cwd", json!(format!("/{long}"))),
        ("/root/path", json!(long)),
        ("/linux/cgroupsPath", json!(format!("/{long}"))),
        ("/mounts/0/source", json!(long)),
        ("/mounts/0/destination", json!(format!("/{long}"))),
        (
            "/linux/namespaces/0",
            json!({"type": "pid", "path": format!("/proc/self/ns/{long}")}),
        ),
        ("/linux/uidMappings", json!(vec![mapping; 5000])),
    ] {
        let mut bundle = Bundle::new(&["true"]);
        bundle.config["mounts"] =
            json!([{"destination": "/x", "source": "/", "options": ["rbind"]}]);
        match pointer.rsplit_once('/').unwrap() {
            ("/linux", key) => bundle.config["linux"][key] = value,
            ("", key) => bundle.config[key] = value,
            _ => *bundle.config.pointer_mut(pointer).unwrap() = value,
        }
        let outcome = bundle.run();
        assert_eq!(outcome.code, Some(1), "{pointer}: {:.300}", outcome.stderr);
        bundle.assert_gone();
    }
}

#[test]
fn attack_10_and_11_the_hosts_cgroups_cannot_be_written() {
    let script = "for f in $(find /sys/fs/cgroup -name release_agent -o -name cgroup.procs -o -name devices.allow); do echo x 2>/dev/null > $f && echo wrote $f; done; mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; true";
    let mut bundle = Bundle::shell(script);
    let all = json!(["CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE", "CAP_MKNOD"]);
    bundle.config["process"]["capabilities"] =
        json!({"bounding": all, "permitted": all, "effective": all});
    assert_eq!(bundle.run().ok(), "");
    if !common::unified() {
        bundle.add_namespace(json!({"type": "cgroup"}));
        assert_eq!(bundle.run().ok(), "");
    }
}

#[test]
fn attack_12_the_working_directory_cannot_be_outside() {
    for (number, cwd) in (0..20).map(|number| (number, format!("/proc/self/fd/{number}"))) {
        let mut bundle = Bundle::shell("ls; ls ../../../../etc");
        bundle.config["process"]["cwd"] = json!(cwd);
        let outcome = bundle.run();
        assert!(outcome.code != Some(0), "{number}: {outcome:?}");
        assert!(!outcome.stdout.contains("shadow"), "{outcome:?}");
    }
    // By a link of the image, and by exec.
    let mut bundle = Bundle::new(&["sleep", "60"]);
    symlink("/proc/self/fd/7", bundle.rootfs().join("work")).unwrap();
    bundle.config["root"]["readonly"] = json!(false);
    bundle.create().ok();
    for cwd in [
        "/work",
        "/proc/self/fd/7",
        "/proc/self/fd/8",
        "/proc/1/cwd/../../..",
    ] {
        let outcome = bundle.invoke(&["exec", "--cwd", cwd, &bundle.id, "ls", "etc/shadow"]);
        assert!(outcome.code != Some(0), "{cwd}: {outcome:?}");
    }
    bundle.delete().ok();
}

#[test]
fn attack_13_nothing_is_made_outside_for_a_mount() {
    let outside = Outside::new();
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["root"]["readonly"] = json!(false);
    let file = bundle.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        symlink(outside.path().join(name), bundle.rootfs().join(name)).unwrap();
        let source = if index == 0 {
            file.clone()
        } else {
            bundle.path().to_owned()
        };
        bundle.add_mount(json!({"destination": format!("/{name}"), "type": "bind", "source": source, "options": ["bind"]}));
    }
    bundle.run().ok();
    outside.assert_untouched();
    // They were made where the links lead inside.
    assert!(
        bundle
            .rootfs()
            .join(outside.path().strip_prefix("/").unwrap())
            .join("a")
            .is_file()
    );
}

#[test]
fn attack_14_a_mask_is_never_the_containers_own_file() {
    let mut bundle = Bundle::shell("wc -c < /masked; ls -l /dev/null");
    // No tmpfs on /dev: the image's own null device is a link to what it wants to have written over.
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    bundle.config["root"]["readonly"] = json!(false);
    std::fs::write(bundle.rootfs().join("masked"), "secret").unwrap();
    symlink(
        "/proc/sys/kernel/core_pattern",
        bundle.rootfs().join("dev/null"),
    )
    .unwrap();
    bundle.config["linux"]["maskedPaths"] = json!(["/masked"]);
    // A link where a device belongs is not taken for one.
    assert!(
        bundle
            .run()
            .failed()
            .contains("something else at /dev/null")
    );
    std::fs::remove_file(bundle.rootfs().join("dev/null")).unwrap();
    assert!(bundle.run().ok().starts_with("0\n"));
}

#[test]
fn attack_14_the_hosts_null_device_is_not_the_containers_to_change() {
    use std::os::unix::fs::MetadataExt;
    // Root in the container is who owns it: by its standard streams, and by the files that it masks.
    let script = "for f in /proc/self/fd/0 /proc/self/fd/1 /proc/keys /masked; do chmod 0640 $f; chown 7:7 $f; done; : < /proc/keys";
    let mut bundle = Bundle::shell(script);
    let names = json!(["CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE"]);
    bundle.config["process"]["capabilities"] =
        json!({"bounding": names, "permitted": names, "effective": names});
    std::fs::write(bundle.rootfs().join("masked"), "secret").unwrap();
    bundle.config["linux"]["maskedPaths"]
        .as_array_mut()
        .unwrap()
        .push(json!("/masked"));
    bundle.config["root"]["readonly"] = json!(false);
    let before = std::fs::metadata("/dev/null").unwrap();
    let mut run = bundle.command(&["run", &bundle.id]);
    let status = run.stdout(Stdio::null()).status().unwrap();
    let after = std::fs::metadata("/dev/null").unwrap();
    // Whatever it is now, it is put back for everybody else on this machine.
    std::fs::set_permissions("/dev/null", before.permissions()).unwrap();
    std::os::unix::fs::chown("/dev/null", Some(before.uid()), Some(before.gid())).unwrap();
    assert_eq!(
        (before.mode(), before.uid(), before.gid()),
        (after.mode(), after.uid(), after.gid())
    );
    assert!(status.success());
}

#[test]
fn attack_15_a_console_is_never_a_path_of_the_image() {
    let outside = Outside::new();
    let mut bundle = Bundle::shell("ls -l /dev/console; cat /dev/console < /dev/null");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["destination"] != "/dev/pts");
    let path = bundle.path().join("console.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let create = |bundle: &Bundle| {
        bundle.invoke(&[
            "create",
            "--console-socket",
            path.to_str().unwrap(),
            &bundle.id,
        ])
    };
    // Without a devpts there is no terminal, whatever the image has by that name.
    assert!(create(&bundle).code != Some(0));
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| {
            mount["destination"] != "/dev"
                && mount["destination"] != "/dev/shm"
                && mount["destination"] != "/dev/mqueue"
        });
    bundle.config["root"]["readonly"] = json!(false);
    std::fs::create_dir_all(bundle.rootfs().join("dev/pts")).unwrap();
    std::fs::write(bundle.rootfs().join("dev/pts/ptmx"), "").unwrap();
    assert!(create(&bundle).failed().contains("devpts"));
    // With one, a link at the console's place is not followed.
    std::fs::remove_file(bundle.rootfs().join("dev/pts/ptmx")).unwrap();
    bundle.add_mount(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}));
    symlink(
        outside.path().join("secret"),
        bundle.rootfs().join("dev/console"),
    )
    .unwrap();
    assert!(create(&bundle).code != Some(0));
    bundle.assert_gone();
    outside.assert_untouched();
}

#[test]
fn attack_16_a_parameter_is_written_to_the_hosts_procfs_only() {
    // The container's /proc/sys is a directory of the attacker's; what is set must be set, and there nothing written.
    let outside = Outside::new();
    let mut bundle = Bundle::shell("cat /tmp/real/sys/kernel/shmmni");
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["destination"] != "/proc");
    std::fs::remove_dir(bundle.rootfs().join("proc")).unwrap();
    symlink(outside.path(), bundle.rootfs().join("proc")).unwrap();
    bundle.add_mount(json!({"destination": "/tmp/real", "type": "proc", "source": "proc"}));
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["linux"]["sysctl"] = json!({"kernel.shmmni": "123"});
    bundle.config["linux"]
        .as_object_mut()
        .unwrap()
        .remove("readonlyPaths");
    bundle.config["linux"]
        .as_object_mut()
        .unwrap()
        .remove("maskedPaths");
    assert_eq!(bundle.run().ok(), "123\n");
    outside.assert_untouched();
    bundle.config["linux"]["sysctl"] = json!({"kernel.core_pattern": "|/evil"});
    assert!(bundle.run().failed().contains("would change the host"));
}

#[test]
fn attack_17_dev_as_a_link_stays_inside() {
    let outside = Outside::new();
    for keep_mounts in [true, false] {
        let mut bundle = Bundle::new(&["true"]);
        if !keep_mounts {
            bundle.config["mounts"]
                .as_array_mut()
                .unwrap()
                .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        }
        bundle.config["root"]["readonly"] = json!(false);
        std::fs::remove_dir(bundle.rootfs().join("dev")).unwrap();
        symlink(outside.path(), bundle.rootfs().join("dev")).unwrap();
        drop(bundle.run());
        outside.assert_untouched();
    }
}

#[test]
fn attack_18_a_user_is_never_another() {
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    for user in [
        "4294967296",
        "4294967295",
        "-1",
        "+0",
        "1000:4294967296",
        "root",
        "0x0",
        "1,0",
        "",
    ] {
        let outcome = bundle.invoke(&["exec", "--user", user, &bundle.id, "id", "-u"]);
        assert_eq!(outcome.code, Some(255), "{user}: {outcome:?}");
    }
    bundle.delete().ok();
}

#[test]
fn attack_19_nothing_of_the_runtimes_own_lies_in_the_root() {
    let mut bundle = Bundle::shell("find / -xdev | grep -v -e /bin/ | sort | tr '\\n' ' '");
    bundle.config["root"]["readonly"] = json!(false);
    assert_eq!(bundle.run().ok(), "/ /bin /dev /etc /proc /sys /tmp ");
    assert!(eventually(|| bundle.cgroups().is_empty()));
}
