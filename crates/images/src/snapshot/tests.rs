//! Snapshots, what is changed in them, and images made of that; through the kernel's overlayfs.

use crate::records::Records as _;
use crate::testing::*;
use crate::{Change, ChangeKind, CommitOptions, Error, ErrorKind, ImportOptions, Snapshot};
use oci::Digest;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink as ln};
use std::path::{Path, PathBuf};
use sys::root::fd_path;

/// A store with the image `app:1` of two layers, and a snapshot of it.
fn prepared() -> (Store, Digest, Snapshot) {
    let store = Store::new();
    let lower = tar(&[
        (directory("./"), b""),
        (directory("etc/"), b""),
        (file("etc/passwd"), b"root"),
        (file("etc/gone"), b"x"),
        (directory("opt/"), b""),
        (file("opt/a"), b"a"),
        (file("opt/b"), b"b"),
        (directory("same/"), b""),
        (file("same/f"), b"f"),
    ]);
    let upper = tar(&[
        (file("etc/.wh.gone"), b""),
        (directory("etc/"), b""),
        (file("etc/new"), b"new"),
    ]);
    let id = store
        .load(&docker_archive(&["app:1"], &[&lower, &upper]))
        .unwrap()[0]
        .id;
    let snapshot = store.images.prepare("container", &id).unwrap();
    (store, id, snapshot)
}

/// A mount and the path to it.
fn mounted(store: &Store, snapshot: &Snapshot) -> (OwnedFd, PathBuf) {
    let mount = store.images.mount_detached(snapshot).unwrap();
    let path = fd_path(mount.as_fd());
    (mount, path)
}

/// Whether the file system of a mount can be seen anywhere.
fn is_attached(root: &Path) -> bool {
    let device = fs::metadata(root).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let shown = format!("{major}:{minor}");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    { table.lines() }.any(|line| line.split(' ').nth(2) == Some(shown.as_str()))
}

fn shown(changes: &[Change]) -> Vec<String> {
    let letter = |kind| match kind {
        ChangeKind::Modified => 'C',
        ChangeKind::Added => 'A',
        ChangeKind::Deleted => 'D',
    };
    changes
        .iter()
        .map(|change| format!("{} {}", letter(change.kind), change.path.display()))
        .collect()
}

/// Changes of every kind.
fn change(root: &Path) {
    fs::remove_file(root.join("etc/passwd")).unwrap();
    fs::write(root.join("etc/new"), "changed").unwrap();
    fs::create_dir_all(root.join("srv/www")).unwrap();
    fs::write(root.join("srv/www/index"), "x").unwrap();
    ln("/etc/new", root.join("srv/link")).unwrap();
    fs::hard_link(root.join("srv/www/index"), root.join("srv/hard")).unwrap();
    // Removed and made again: opaque.
    fs::remove_dir_all(root.join("opt")).unwrap();
    fs::create_dir(root.join("opt")).unwrap();
    fs::write(root.join("opt/b"), "again").unwrap();
    fs::rename(root.join("same/f"), root.join("same/g")).unwrap();
    fs::set_permissions(
        root.join("srv/www/index"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    chown(root.join("srv/www/index"), Some(5), Some(6)).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(
        root.join("opt/b"),
        "security.capability",
        &capability,
        flags,
    )
    .unwrap();
}

const CHANGED: [&str; 15] = [
    "C /etc",
    "C /etc/new",
    "D /etc/passwd",
    "C /opt",
    "D /opt/a",
    "C /opt/b",
    "C /same",
    "D /same/f",
    "A /same/g",
    "A /srv",
    "A /srv/hard",
    "A /srv/link",
    "A /srv/www",
    "A /srv/www/index",
    "",
];

#[test]
fn a_snapshot_shows_the_image_and_takes_changes() {
    let (store, id, snapshot) = prepared();
    assert_eq!(snapshot.lowers.len(), 2);
    assert_eq!(store.images.prepare("container", &id).unwrap(), snapshot);
    assert_eq!(
        store.images.snapshot("container").unwrap().as_ref(),
        Some(&snapshot)
    );
    assert_eq!(store.images.snapshot("other").unwrap(), None);
    assert_eq!(store.images.snapshots().unwrap(), ["container"]);
    let (mount, root) = mounted(&store, &snapshot);
    assert_eq!(fs::read_to_string(root.join("etc/passwd")).unwrap(), "root");
    assert!(!root.join("etc/gone").exists());
    assert!(store.images.diff(&snapshot).unwrap().is_empty());
    change(&root);
    assert!(!is_attached(&root));
    drop(mount);
    let expected: Vec<_> = CHANGED.iter().filter(|line| !line.is_empty()).collect();
    assert_eq!(
        shown(&store.images.diff(&snapshot).unwrap()),
        expected.iter().map(|l| l.to_string()).collect::<Vec<_>>()
    );
    // "changed", "again", "x" once, "f", and the link's target.
    assert_eq!(store.images.usage(&snapshot).unwrap(), 7 + 5 + 1 + 1 + 8);
    store.images.remove_snapshot("container").unwrap();
    store.images.remove_snapshot("container").unwrap();
    assert_eq!(store.images.snapshots().unwrap(), Vec::<String>::new());
}

#[test]
fn a_directory_is_changed_by_its_attributes_alone() {
    let (store, _, snapshot) = prepared();
    let (_mount, root) = mounted(&store, &snapshot);
    fs::set_permissions(root.join("same"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(shown(&store.images.diff(&snapshot).unwrap()), ["C /same"]);
    fs::remove_dir_all(root.join("opt")).unwrap();
    fs::write(root.join("opt"), "a file").unwrap();
    assert_eq!(
        shown(&store.images.diff(&snapshot).unwrap()),
        ["C /opt", "C /same"]
    );
}

#[test]
fn a_commit_shows_what_the_container_saw() {
    let (store, id, snapshot) = prepared();
    let (mount, root) = mounted(&store, &snapshot);
    change(&root);
    let seen = describe(&root);
    drop(mount);
    let options = CommitOptions {
        author: "me".to_owned(),
        message: "why".to_owned(),
        changes: vec!["ENV A=b".to_owned()],
        reference: Some("new:1".parse().unwrap()),
        ..CommitOptions::default()
    };
    let made = store.images.commit(&snapshot, Some(&id), &options).unwrap();
    let image = store.images.get("new:1").unwrap();
    assert_eq!((image.id, image.layers().len()), (made, 3));
    assert_eq!(image.config.config.env, ["A=b"]);
    assert_eq!(
        image.config.config.cmd,
        Some(vec!["sh".to_owned()]),
        "inherited"
    );
    let history = &store.images.history("new:1").unwrap()[..];
    assert_eq!(
        history
            .iter()
            .filter(|(step, _)| step.comment == "why")
            .count(),
        1
    );
    let check = |snapshot: &Snapshot| {
        let (_mount, root) = mounted(&store, snapshot);
        assert_eq!(describe(&root), seen);
        let mut value = [0; 20];
        rustix::fs::getxattr(root.join("opt/b"), "security.capability", &mut value[..]).unwrap();
        let stat = fs::metadata(root.join("srv/www/index")).unwrap();
        assert_eq!(stat.nlink(), 2);
    };
    check(&store.images.prepare("second", &made).unwrap());
    // Nothing was changed in it, so nothing is added.
    let second = store.images.snapshot("second").unwrap().unwrap();
    let same = store
        .images
        .commit(&second, Some(&made), &CommitOptions::default())
        .unwrap();
    assert_eq!(
        store.images.get(&same.to_string()).unwrap().layers().len(),
        3
    );
    // The whole tree as one layer, and through an archive into another store.
    let flat = CommitOptions {
        flatten: true,
        ..CommitOptions::default()
    };
    let flat = store.images.commit(&second, None, &flat).unwrap();
    assert_eq!(
        store.images.get(&flat.to_string()).unwrap().layers().len(),
        1
    );
    check(&store.images.prepare("third", &flat).unwrap());
    let mut saved = Vec::new();
    store
        .images
        .save(&["new:1".to_owned()], None, &mut saved)
        .unwrap();
    let other = Store::new();
    other.load(&saved).unwrap();
    let copy = other.images.prepare("copy", &made).unwrap();
    let (_mount, root) = mounted(&other, &copy);
    assert_eq!(describe(&root), seen);
}

#[test]
fn a_commit_that_fails_leaves_nothing() {
    let (store, id, snapshot) = prepared();
    let before = store.content();
    let (mount, root) = mounted(&store, &snapshot);
    fs::write(root.join("etc/.wh.evil"), "").unwrap();
    drop(mount);
    let error = store
        .images
        .commit(&snapshot, Some(&id), &CommitOptions::default())
        .unwrap_err();
    assert!(matches!(error, Error::Path { .. }), "{error}");
    let changes = vec!["RUN x".to_owned()];
    let options = CommitOptions {
        changes,
        ..CommitOptions::default()
    };
    assert_eq!(
        store
            .images
            .commit(&snapshot, Some(&id), &options)
            .unwrap_err()
            .kind(),
        ErrorKind::Invalid
    );
    assert_eq!(store.content(), before);
}

#[test]
fn a_directory_of_the_host_can_be_below() {
    let store = Store::new();
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("a"), "host").unwrap();
    fs::create_dir(host.path().join("d")).unwrap();
    fs::write(host.path().join("d/b"), "b").unwrap();
    let snapshot = store.images.prepare_directory("c", host.path()).unwrap();
    let (mount, root) = mounted(&store, &snapshot);
    fs::write(root.join("a"), "container").unwrap();
    fs::remove_file(root.join("d/b")).unwrap();
    drop(mount);
    assert_eq!(fs::read_to_string(host.path().join("a")).unwrap(), "host");
    assert_eq!(
        shown(&store.images.diff(&snapshot).unwrap()),
        ["C /a", "C /d", "D /d/b"]
    );
    let changes = store
        .images
        .commit(&snapshot, None, &CommitOptions::default())
        .unwrap();
    assert_eq!(store.images.get(&changes.to_string()).unwrap().size, 9);
    for wrong in ["a", "d/missing"] {
        store
            .images
            .prepare_directory("x", &host.path().join(wrong))
            .unwrap_err();
    }
    assert_eq!(
        store
            .images
            .prepare_directory("x", Path::new("tmp"))
            .unwrap_err()
            .kind(),
        ErrorKind::Invalid
    );
    assert_eq!(store.images.snapshots().unwrap(), ["c"]);
}

#[test]
fn a_flat_commit_of_a_directory_leaves_the_store_out() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("a"), "host").unwrap();
    let records = std::sync::Arc::new(crate::records::MemoryRecords::default());
    let images = crate::Images::open(&host.path().join("var/hull"), records).unwrap();
    let snapshot = images.prepare_directory("c", host.path()).unwrap();
    let flat = CommitOptions {
        flatten: true,
        ..CommitOptions::default()
    };
    let id = images.commit(&snapshot, None, &flat).unwrap();
    let made = images.prepare("made", &id).unwrap();
    assert!(made.lowers[0].join("var").is_dir() && made.lowers[0].join("a").is_file());
    assert!(!made.lowers[0].join("var/hull").exists());
}

#[test]
fn layers_live_as_long_as_a_snapshot_stands_on_them() {
    let (mut store, id, snapshot) = prepared();
    let stopped = |_: &Digest| {
        vec![crate::User {
            container: "container".to_owned(),
            running: false,
        }]
    };
    store
        .images
        .remove(&id.to_string(), true, &stopped)
        .unwrap();
    assert!(store.images.get(&id.to_string()).is_err());
    assert!(snapshot.lowers.iter().all(|lower| lower.is_dir()));
    store.reopen();
    let again = store.images.snapshot("container").unwrap().unwrap();
    assert_eq!(again, snapshot);
    assert!(snapshot.lowers.iter().all(|lower| lower.is_dir()));
    assert_eq!(store.records.layers().unwrap().len(), 2);
    store.images.remove_snapshot("container").unwrap();
    assert_eq!(store.content(), Vec::<PathBuf>::new());
    assert_eq!(store.records.layers().unwrap().len(), 0);
}

#[test]
fn the_rest_of_a_crash_is_removed_or_repaired() {
    let (mut store, id, snapshot) = prepared();
    let snapshots = store.directory.path().join("snapshots");
    fs::create_dir_all(snapshots.join("half/upper")).unwrap();
    fs::write(snapshot.upper.join("kept"), "kept").unwrap();
    // As after a power failure: the file was never written out.
    fs::write(snapshots.join("container/lower"), "").unwrap();
    store.reopen();
    assert_eq!(store.images.snapshots().unwrap(), ["container"]);
    assert_eq!(store.images.snapshot("container").unwrap(), None);
    assert_eq!(store.images.prepare("container", &id).unwrap(), snapshot);
    assert_eq!(
        fs::read_to_string(snapshot.upper.join("kept")).unwrap(),
        "kept"
    );
    fs::create_dir_all(snapshots.join("half/upper")).unwrap();
    store.images.prepare("half", &id).unwrap();
}

#[test]
fn identifiers_are_no_paths() {
    let (store, id, _) = prepared();
    for bad in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        ".hidden",
        "a\0",
        "ä",
        &"x".repeat(129),
    ] {
        assert!(
            matches!(store.images.prepare(bad, &id), Err(Error::SnapshotId(_))),
            "{bad:?}"
        );
        assert!(
            matches!(store.images.remove_snapshot(bad), Err(Error::SnapshotId(_))),
            "{bad:?}"
        );
    }
    let unknown = Digest::sha256(b"unknown");
    assert_eq!(
        store.images.prepare("x", &unknown).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn many_layers_mount_in_both_ways() {
    let store = Store::new();
    let layers: Vec<Vec<u8>> = (0..127)
        .map(|n| small_layer(&format!("f{n}"), n.to_string().as_bytes()))
        .collect();
    let slices: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let id = store.load(&docker_archive(&["many:1"], &slices)).unwrap()[0].id;
    let snapshot = store.images.prepare("c", &id).unwrap();
    for by_page in [false, true] {
        let mount = match by_page {
            false => store.images.mount_detached(&snapshot).unwrap(),
            true => crate::mount::by_page(&store.images, &snapshot).unwrap(),
        };
        let root = fd_path(mount.as_fd());
        for n in [0, 63, 126] {
            assert_eq!(
                fs::read_to_string(root.join(format!("f{n}"))).unwrap(),
                n.to_string()
            );
        }
        fs::write(root.join("written"), "x").unwrap();
        assert!(!is_attached(&root));
    }
    assert_eq!(
        shown(&store.images.diff(&snapshot).unwrap()),
        ["A /written"]
    );
    let full = store
        .images
        .commit(&snapshot, Some(&id), &CommitOptions::default())
        .unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Invalid);
}

#[test]
fn an_import_is_an_image_of_one_layer() {
    let store = Store::new();
    let rootfs = tar(&[(directory("./"), b""), (file("./bin/sh"), b"shell")]);
    let options = ImportOptions {
        reference: Some("base".parse().unwrap()),
        changes: vec!["CMD [\"/bin/sh\"]".to_owned(), "EXPOSE 80".to_owned()],
        message: "from a tar".to_owned(),
        platform: None,
    };
    for stream in [rootfs.clone(), gzip(&rootfs)] {
        let id = store.images.import(&stream[..], &options).unwrap();
        let image = store.images.get("base:latest").unwrap();
        assert_eq!(
            (image.id, image.layers()),
            (id, &[Digest::sha256(&rootfs)][..])
        );
        assert_eq!(image.config.config.cmd, Some(vec!["/bin/sh".to_owned()]));
        assert_eq!(image.config.platform, crate::platform::host_platform());
    }
    let before = store.content();
    for bad in [&b"no tar"[..], b"\x1f\x8b", b"\xfd7zXZ\0\0", &rootfs[..700]] {
        let error = store.images.import(bad, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert_eq!(store.content(), before);
    }
}

#[test]
fn holes_survive_a_commit() {
    let (store, id, snapshot) = prepared();
    let (mount, root) = mounted(&store, &snapshot);
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", 1 << 29).unwrap();
    drop((sparse, mount));
    let made = store
        .images
        .commit(&snapshot, Some(&id), &CommitOptions::default())
        .unwrap();
    let made = store.images.prepare("made", &made).unwrap();
    let stat = fs::metadata(made.lowers[0].join("sparse")).unwrap();
    assert_eq!(stat.size(), 1 << 30);
    assert!(stat.blocks() * 512 < 1 << 20);
}
