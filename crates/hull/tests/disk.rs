//! Builds where the engine's disk is full: they say so, leave nothing, and the engine goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use support::buildx::Bench;
use support::{Engine, Said};

/// Bytes of the disk.
const DISK_BYTES: u64 = 96 << 20;
/// What is said of a full one.
const FULL: &str = "No space left on device";

fn run(program: &str, arguments: &[&str]) {
    let said = Command::new(program).args(arguments).output().unwrap();
    assert!(said.status.success(), "{program} {arguments:?}: {said:?}");
}

/// A small ext4 where an engine keeps its data. It is unmounted with this value.
struct SmallDisk {
    place: PathBuf,
    _directory: tempfile::TempDir,
}

impl SmallDisk {
    /// With the image `busybox`.
    fn new(bench: &mut Bench) -> Self {
        let engine = &mut bench.engine;
        engine.kill();
        let directory = tempfile::tempdir().unwrap();
        let [image, place] = ["image", "place"].map(|name| directory.path().join(name));
        std::fs::File::create(&image)
            .unwrap()
            .set_len(DISK_BYTES)
            .unwrap();
        std::fs::create_dir(&place).unwrap();
        let paths = [&image, &place].map(|path| path.display().to_string());
        run("mkfs.ext4", &["-q", "-m", "0", &paths[0]]);
        run("mount", &["-o", "loop", &paths[0], &paths[1]]);
        std::fs::remove_dir_all(engine.path("data")).unwrap();
        symlink(&place, engine.path("data")).unwrap();
        let disk = Self {
            place,
            _directory: directory,
        };
        engine.start();
        let import = ["import", "--change", "CMD [\"sh\"]", "-", "busybox"];
        engine.ok_with_input(&import, &support::busybox_tar());
        disk
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.place).unwrap();
        stat.f_bfree * stat.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &["-l", &self.place.display().to_string()]);
    }
}

fn bench(dockerfile: &str) -> Bench {
    let engine = Engine::empty();
    let context = engine.path("context");
    let bench = Bench { engine, context };
    bench.write("context/Dockerfile", dockerfile);
    bench
}

/// Builds by hull's own client, and by buildx.
fn by_both(bench: &Bench, arguments: &[&str]) -> [Said; 2] {
    let context = bench.context.display().to_string();
    let own = [&["build"], arguments, &[&context]].concat();
    [bench.engine.run(&own), bench.try_build(arguments)]
}

/// A build has failed for want of room, and has left no more on the disk than before.
fn assert_full(bench: &Bench, disk: &SmallDisk, free_bytes: u64, said: &Said) {
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains(FULL), "{said:?}");
    bench.assert_clean();
    bench.engine.until("the disk is as free as before", || {
        disk.free_bytes() + (1 << 20) >= free_bytes
    });
}

fn assert_goes_on(bench: &Bench) {
    bench.write(
        "context/Dockerfile",
        "FROM busybox\nRUN echo goes on > /on\n",
    );
    for said in by_both(bench, &["-t", "t", "--no-cache"]) {
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(bench.shell("cat /on"), "goes on");
    }
}

#[test]
fn a_context_that_does_not_fit_ends_its_build() {
    let mut bench = bench("FROM busybox\nCOPY . /context\n");
    let disk = SmallDisk::new(&mut bench);
    let large = std::fs::File::create(bench.context.join("large")).unwrap();
    large.set_len(2 * DISK_BYTES).unwrap();
    let free_bytes = disk.free_bytes();
    for said in by_both(&bench, &[]) {
        assert_full(&bench, &disk, free_bytes, &said);
    }
    std::fs::remove_file(bench.context.join("large")).unwrap();
    assert_goes_on(&bench);
}

#[test]
fn an_export_that_does_not_fit_ends_its_build() {
    let mut bench = bench("FROM busybox\nRUN dd if=/dev/urandom of=/large bs=1M count=50\n");
    let disk = SmallDisk::new(&mut bench);
    bench.build(&[]);
    let free_bytes = disk.free_bytes();
    let output = format!("type=oci,dest={}", bench.path("image.tar"));
    for said in by_both(&bench, &["-o", &output]) {
        assert_full(&bench, &disk, free_bytes, &said);
    }
    // What was built before is still in the cache, and in the image.
    bench.build(&[]);
    assert_eq!(bench.shell("stat -c %s /large"), (50 << 20).to_string());
    assert_goes_on(&bench);
}

#[test]
fn a_stage_that_does_not_fit_twice_ends_its_build() {
    let mut bench = bench(
        "FROM busybox AS stage\nRUN dd if=/dev/urandom of=/large bs=1M count=50\n\
         FROM busybox\nCOPY --from=stage /large /\n",
    );
    let disk = SmallDisk::new(&mut bench);
    bench.build(&["--target", "stage"]);
    let free_bytes = disk.free_bytes();
    for said in by_both(&bench, &[]) {
        assert_full(&bench, &disk, free_bytes, &said);
    }
    assert_goes_on(&bench);
}
