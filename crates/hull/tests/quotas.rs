//! Limits of writable layers and volumes, on filesystems that have project quotas, and what is said on others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use support::Engine;

/// How each filesystem with project quotas is made and mounted.
const FILESYSTEMS: [(&str, &[&str], &str); 2] = [
    (
        "mkfs.ext4",
        &["-q", "-O", "quota,project", "-E", "quotatype=prjquota"],
        "loop,prjquota",
    ),
    ("mkfs.xfs", &["-q"], "loop,pquota"),
];

/// A filesystem in a file, mounted on an engine's data root while no engine runs there.
struct Disk {
    place: PathBuf,
}

impl Disk {
    /// None: the machine has no such filesystem, which is said.
    fn new(engine: &mut Engine, program: &str, flags: &[&str], options: &str) -> Option<Self> {
        engine.kill();
        let file = engine.path(&format!("{program}.image"));
        let made = std::fs::File::create(&file).unwrap();
        made.set_len(512 << 20).unwrap();
        let place = engine.path("data");
        let mkfs = Command::new(program).args(flags).arg(&file).output();
        let why = match mkfs {
            Err(error) => format!("{program}: {error}"),
            Ok(said) if !said.status.success() => format!("{program}: {said:?}"),
            Ok(_) => {
                let mut mount = Command::new("mount");
                let said = mount.args(["-o", options]).arg(&file).arg(&place).output();
                let said = said.unwrap();
                if said.status.success() {
                    return Some(Self { place });
                }
                let text = String::from_utf8_lossy(&said.stderr).into_owned();
                format!("the kernel does not mount it with {options}: {text}")
            }
        };
        let text = format!("skipped for a filesystem of {program}: {why}\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.place).status();
        assert!(unmounted.unwrap().success() || std::thread::panicking());
    }
}

/// Whether a file of so many MiB can be written in a container; it is deleted otherwise.
fn fits(engine: &Engine, name: &str, file: &str, mib: u32) -> bool {
    let script =
        format!("dd if=/dev/zero of={file} bs=1M count={mib} 2>&1 || {{ rm {file}; exit 9; }}");
    let said = engine.run(&["exec", name, "sh", "-c", &script]);
    assert!(matches!(said.code, 0 | 9), "{said:?}");
    let full = ["Disk quota exceeded", "Quota exceeded", "No space left"];
    assert!(
        said.code == 0 || full.iter().any(|text| said.stdout.contains(text)),
        "{said:?}"
    );
    said.code == 0
}

#[test]
fn layers_and_volumes_hold_as_much_as_was_asked_for() {
    for (program, flags, options) in FILESYSTEMS {
        let mut engine = Engine::empty();
        let Some(disk) = Disk::new(&mut engine, program, flags, options) else {
            continue;
        };
        engine.start();
        let tar = support::busybox_tar();
        engine.ok_with_input(&["import", "-", "busybox"], &tar);
        let run = |name: &str, more: &str| {
            let line = format!("run -d --network none --name {name} {more} busybox sleep 600");
            engine.words(&line);
        };
        run("small", "--storage-opt size=10m");
        run("large", "--storage-opt size=40M -v free:/free");
        run("free", "");
        assert_eq!(
            engine.words("inspect -f {{.HostConfig.StorageOpt.size}} small"),
            "10m"
        );
        assert!(!fits(&engine, "small", "/f", 20) && fits(&engine, "small", "/f", 8));
        assert!(!fits(&engine, "small", "/tmp/g", 8));
        assert!(fits(&engine, "large", "/f", 20) && fits(&engine, "free", "/f", 60));
        assert!(fits(&engine, "large", "/free/f", 50));
        engine.words("volume create --opt size=5m vol");
        run("mounts", "-v vol:/vol");
        assert!(!fits(&engine, "mounts", "/vol/f", 8) && fits(&engine, "mounts", "/vol/f", 4));
        // The next engine gives nobody's project away.
        engine.kill();
        engine.start();
        let run = |name: &str, more: &str| {
            let line = format!("run -d --network none --name {name} {more} busybox sleep 600");
            engine.words(&line);
        };
        run("next", "--storage-opt size=10m");
        assert!(fits(&engine, "next", "/f", 8) && !fits(&engine, "next", "/g", 8));
        assert!(!fits(&engine, "mounts", "/vol/g", 4) && !fits(&engine, "small", "/g", 8));
        // What is removed makes room, also for the next of its project.
        engine.words("rm -f small mounts");
        engine.words("volume rm vol");
        run("again", "--storage-opt size=30m");
        assert!(fits(&engine, "again", "/f", 20) && !fits(&engine, "again", "/g", 20));
        engine.words("restart -t 0 again");
        assert!(!fits(&engine, "again", "/g", 20));
        engine.words("rm -f large free next again");
        engine.words("volume rm free");
        engine.assert_nothing_left();
        engine.kill();
        drop(disk);
    }
}

#[test]
fn without_quotas_nothing_is_promised() {
    let engine = Engine::new();
    let none = "no quota support";
    engine.refused("volume create --opt size=5m vol", none);
    engine.refused("create --storage-opt size=10m --name c1 busybox", none);
    engine.refused(
        "create -v anew:/x --mount type=volume,src=vol,dst=/v,volume-opt=size=1m busybox",
        none,
    );
    engine.refused(
        "create --storage-opt color=red busybox",
        "Unknown option color",
    );
    engine.refused(
        "create --storage-opt size=red busybox",
        "invalid size: 'red'",
    );
    engine.refused(
        "volume create --opt size=1m --opt type=tmpfs --opt device=t vol",
        "without a type",
    );
    assert_eq!(engine.words("ps -aq"), "");
    let entries = std::fs::read_dir(engine.path("data/volumes")).unwrap();
    let left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "anew"), "{left:?}");
    engine.assert_nothing_left();
}
