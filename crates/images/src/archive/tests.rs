//! Copies in and out, also against a container that fights back.

use super::*;
use crate::tar::Reader;
use crate::testing::*;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink as ln};

struct Container {
    outer: tempfile::TempDir,
    root: Root,
}

impl Container {
    /// A root, and beside it a secret.
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir_all(outer.path().join("root/dir/sub")).unwrap();
        fs::write(outer.path().join("secret"), "outside").unwrap();
        fs::write(outer.path().join("root/dir/file"), "content").unwrap();
        ln("dir/file", outer.path().join("root/link")).unwrap();
        ln("/dir", outer.path().join("root/dirlink")).unwrap();
        ln("../../../../secret", outer.path().join("root/escape")).unwrap();
        let root = Root::open(&outer.path().join("root")).unwrap();
        Self { outer, root }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.outer.path().join("root").join(path)
    }

    fn names(&self, path: &str) -> Vec<String> {
        let mut archive = Vec::new();
        read(&self.root, Path::new(path), &mut archive).unwrap();
        names(&archive)
    }

    fn extract(&self, dir: &str, entries: &[(Entry, &[u8])]) -> Result<()> {
        self.extract_with(dir, entries, ExtractOptions::default())
    }

    fn extract_with(
        &self,
        dir: &str,
        entries: &[(Entry, &[u8])],
        options: ExtractOptions,
    ) -> Result<()> {
        let archive = tar(entries);
        extract(&self.root, Path::new(dir), &archive[..], &options)
    }
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(archive);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap());
    }
    names
}

#[test]
fn a_path_is_described_as_docker_cp_asks() {
    let container = Container::new();
    let stat = |path: &str| stat(&container.root, Path::new(path)).unwrap();
    let file = stat("/dir/file");
    assert_eq!(
        (file.name.to_str(), file.size, file.mode & 0o170_000),
        (Some("file"), 7, 0o100_000)
    );
    assert_eq!(file.link_target, Path::new(""));
    let link = stat("link");
    assert_eq!(
        (link.mode & 0o170_000, link.link_target.to_str()),
        (0o120_000, Some("/dir/file"))
    );
    assert_eq!(stat("/dirlink").link_target, Path::new("/dir"));
    assert_eq!(stat("/dirlink/").mode & 0o170_000, 0o040_000);
    assert_eq!(stat("/dirlink/.").name, Path::new("."));
    assert_eq!(stat("/dirlink/file").name, Path::new("file"));
    assert_eq!(stat("/").name, Path::new("/"));
    assert_eq!(
        stat("/escape").link_target,
        Path::new("/secret"),
        "missing, and inside"
    );
    assert_eq!(
        super::stat(&container.root, Path::new("/nowhere"))
            .unwrap_err()
            .kind(),
        crate::ErrorKind::NotFound
    );
    super::stat(&container.root, Path::new("/dir/file/")).unwrap_err();
    ln("loop", container.path("loop")).unwrap();
    super::stat(&container.root, Path::new("/loop")).unwrap_err();
}

#[test]
fn archives_are_named_by_the_last_component() {
    let container = Container::new();
    assert_eq!(container.names("/dir"), ["dir/", "dir/file", "dir/sub/"]);
    assert_eq!(container.names("dir/"), ["dir/", "dir/file", "dir/sub/"]);
    assert_eq!(container.names("dir/."), ["./", "./file", "./sub/"]);
    assert_eq!(container.names("dirlink"), ["dirlink"]);
    assert_eq!(
        container.names("dirlink/"),
        ["dirlink/", "dirlink/file", "dirlink/sub/"]
    );
    assert_eq!(container.names("/dir/file"), ["file"]);
    assert_eq!(container.names("/link"), ["link"]);
    assert_eq!(container.names("/")[..3], ["/", "/dir/", "/dir/file"]);
    let mut whole = Vec::new();
    export(&container.root, &mut whole).unwrap();
    assert_eq!(
        names(&whole),
        ["dir/", "dir/file", "dir/sub/", "dirlink", "escape", "link"]
    );
}

#[test]
fn what_is_read_can_be_extracted_elsewhere() {
    let container = Container::new();
    fs::hard_link(container.path("dir/file"), container.path("dir/hard")).unwrap();
    fs::set_permissions(
        container.path("dir/file"),
        fs::Permissions::from_mode(0o4711),
    )
    .unwrap();
    std::os::unix::fs::chown(container.path("dir/sub"), Some(12), Some(34)).unwrap();
    let mut archive = Vec::new();
    read(&container.root, Path::new("/dir"), &mut archive).unwrap();
    fs::create_dir(container.path("copy")).unwrap();
    for stream in [archive.clone(), gzip(&archive)] {
        extract(
            &container.root,
            Path::new("/copy"),
            &stream[..],
            &ExtractOptions::default(),
        )
        .unwrap();
        assert_eq!(
            describe(&container.path("copy/dir")),
            describe(&container.path("dir"))
        );
        let inode = |path: &str| fs::metadata(container.path(path)).unwrap().ino();
        assert_eq!(inode("copy/dir/file"), inode("copy/dir/hard"));
    }
}

#[test]
fn attack_20_symlinks_lead_nowhere_outside() {
    let container = Container::new();
    let secret = container.outer.path().join("secret");
    let untouched = || {
        assert_eq!(fs::read_to_string(&secret).unwrap(), "outside");
        assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(container.outer.path()).unwrap().count(), 2);
    };
    read(&container.root, Path::new("/escape/"), std::io::sink()).unwrap_err();
    read(&container.root, Path::new("/../secret"), std::io::sink()).unwrap_err();
    let mut link = Vec::new();
    read(&container.root, Path::new("/escape"), &mut link).unwrap();
    assert!(!link.windows(7).any(|bytes| bytes == b"outside"));
    ln("../../..", container.path("up")).unwrap();
    let mut evil = file("escape");
    evil.mode = 0o6777;
    container.extract("/", &[(evil.clone(), b"evil")]).unwrap();
    untouched();
    assert_eq!(
        fs::read_to_string(container.path("escape")).unwrap(),
        "evil",
        "the link is replaced"
    );
    container
        .extract(
            "/",
            &[
                (symlink("x", "../../../secret"), b""),
                (hard_link("y", "x"), b""),
            ],
        )
        .unwrap();
    container
        .extract("/", &[(file("up/secret"), b"evil")])
        .unwrap();
    assert_eq!(
        fs::read_to_string(container.path("secret")).unwrap(),
        "evil",
        "resolved inside"
    );
    container
        .extract("/up", &[(directory("dir"), b""), (file("dir/new"), b"")])
        .unwrap();
    assert!(container.path("dir/new").is_file());
    for path in ["../secret", "a/../../secret"] {
        container
            .extract("/dir", &[(file(path), b"evil")])
            .unwrap_err();
        container
            .extract("/dir", &[(hard_link("h", path), b"")])
            .unwrap_err();
    }
    untouched();
}

#[test]
fn attack_22_an_absolute_symlink_is_followed_inside() {
    let container = Container::new();
    container
        .extract(
            "/dirlink",
            &[(file("new"), b"new"), (file("sub/deep"), b"deep")],
        )
        .unwrap();
    assert_eq!(
        fs::read_to_string(container.path("dir/new")).unwrap(),
        "new"
    );
    container
        .extract("/", &[(file("dirlink/other"), b"other")])
        .unwrap();
    assert_eq!(
        fs::read_to_string(container.path("dir/other")).unwrap(),
        "other"
    );
}

#[test]
fn a_swapping_container_never_gets_a_file_outside() {
    let container = Container::new();
    let outside = container.outer.path().join("target");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(container.path("a")).unwrap();
    ln("../../target", container.path("b")).unwrap();
    let (a, b) = (container.path("a"), container.path("b"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, flags).unwrap();
            }
        });
        let mut landed = 0;
        for _ in 0..300 {
            // It fails whenever `a` is the dangling link; it may not land outside.
            landed += u32::from(container.extract("/a", &[(file("f"), b"x")]).is_ok());
            let _ = container.extract("/", &[(file("a/g"), b"x")]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(landed > 0, "nothing was ever extracted");
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn what_is_in_the_way_is_replaced_unless_that_is_forbidden() {
    let container = Container::new();
    let forbid = ExtractOptions {
        no_overwrite_dir_non_dir: true,
        owner: None,
    };
    for (entry, content, reason) in [
        (
            file("dir"),
            &b"x"[..],
            "cannot overwrite directory with non-directory",
        ),
        (
            directory("link/"),
            b"",
            "cannot overwrite non-directory with directory",
        ),
    ] {
        let entries = [(entry, content)];
        let error = container.extract_with("/", &entries, forbid).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        container.extract("/", &entries).unwrap();
    }
    assert_eq!(fs::read_to_string(container.path("dir")).unwrap(), "x");
    assert!(
        fs::symlink_metadata(container.path("link"))
            .unwrap()
            .is_dir()
    );
    let same: [(Entry, &[u8]); 2] = [(directory("link/"), b""), (file("dir"), b"y")];
    container.extract_with("/", &same, forbid).unwrap();
    container.extract("/dir", &same).unwrap_err();
    container.extract("/nowhere", &same).unwrap_err();
}

#[test]
fn owners_can_be_given() {
    let container = Container::new();
    let mut own = file("own");
    (own.uid, own.gid, own.mode) = (1, 2, 0o4755);
    container.extract("/", &[(own.clone(), b"")]).unwrap();
    let owner = |path: &str| {
        let stat = fs::metadata(container.path(path)).unwrap();
        (stat.uid(), stat.gid(), stat.mode() & 0o7777)
    };
    assert_eq!(owner("own"), (1, 2, 0o4755));
    let options = ExtractOptions {
        owner: Some((7, 8)),
        ..ExtractOptions::default()
    };
    container
        .extract_with("/", &[(own, b""), (directory("d/"), b"")], options)
        .unwrap();
    assert_eq!(owner("own"), (7, 8, 0o4755));
    assert_eq!(owner("d"), (7, 8, 0o755));
}

#[test]
fn what_is_mounted_is_copied_but_not_exported() {
    use rustix::mount::{MountPropagationFlags, UnmountFlags};
    let container = Container::new();
    // In a namespace of its own, so that nothing is left if this fails.
    std::thread::spawn(move || {
        #[expect(
            deprecated,
            reason = "the flags are right for this thread alone, which ends here"
        )]
        rustix::thread::unshare(
            rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS,
        )
        .unwrap();
        rustix::mount::mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .unwrap();
        let volume = container.outer.path().join("volume");
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("data"), "data").unwrap();
        rustix::mount::mount_bind(&volume, container.path("dir/sub")).unwrap();
        fs::create_dir(container.path("dir/proc")).unwrap();
        rustix::mount::mount_bind("/proc", container.path("dir/proc")).unwrap();
        let root = Root::open(&container.path("")).unwrap();
        let mut archive = Vec::new();
        export(&root, &mut archive).unwrap();
        let exported = names(&archive);
        archive.clear();
        read(&root, Path::new("/dir"), &mut archive).unwrap();
        let copied = names(&archive);
        // Replacing the directory would have to unmount it.
        let entries = tar(&[(file("dir"), b"x")]);
        let replaced = extract(
            &root,
            Path::new("/"),
            &entries[..],
            &ExtractOptions::default(),
        );
        rustix::mount::unmount(container.path("dir/sub"), UnmountFlags::DETACH).unwrap();
        rustix::mount::unmount(container.path("dir/proc"), UnmountFlags::DETACH).unwrap();
        assert_eq!(exported[..4], ["dir/", "dir/file", "dir/proc/", "dir/sub/"]);
        assert!(!exported.iter().any(|name| name.contains("data")));
        assert_eq!(
            copied,
            ["dir/", "dir/file", "dir/proc/", "dir/sub/", "dir/sub/data"]
        );
        replaced.unwrap_err();
        assert_eq!(fs::read_to_string(volume.join("data")).unwrap(), "data");
    })
    .join()
    .unwrap();
}
