//! The store as a whole: what it takes, what it refuses, and that it leaves nothing behind.

use crate::records::{
    CacheRecord, ImageId, ImageRecord, LayerRecord, MemoryRecords, Records, RecordsError,
    ReferenceRecord, Update,
};
use crate::testing::*;
use crate::{Error, ErrorKind, Images, ListFilter, Progress, Removed, User};
use oci::Digest;
use oci::image::{ArchiveImage, annotation, media_type};
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::Arc;

fn no_users(_: &Digest) -> Vec<User> {
    Vec::new()
}

/// An archive that gives its first bytes and then fails as `then` says.
struct Cut<'a> {
    bytes: &'a [u8],
    then: fn() -> io::Result<usize>,
}

impl Read for Cut<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            (self.then)()
        } else {
            self.bytes.read(buffer)
        }
    }
}

#[test]
fn ext4_is_told_to_spread_what_is_made() {
    let store = Store::new();
    for name in ["tmp", "snapshots"] {
        let directory = std::fs::File::open(store.directory.path().join(name)).unwrap();
        // Other file systems have no such attribute.
        if let Ok(flags) = rustix::fs::ioctl_getflags(&directory)
            && rustix::fs::fstatfs(&directory).unwrap().f_type == 0xef53
        {
            assert!(flags.contains(rustix::fs::IFlags::TOPDIR), "{name}");
        }
    }
}

#[test]
fn a_docker_archive_is_loaded_and_saved_again() {
    let store = Store::new();
    let (lower, upper) = (small_layer("a", b"lower"), small_layer("b", b"upper"));
    let archive = docker_archive(&["app:1", "r.example/app:2"], &[&lower, &upper]);
    let loaded = store.load(&archive).unwrap();
    let image = store.images.get("app:1").unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].id, Digest::sha256(&config(&[&lower, &upper])));
    assert_eq!(image.id, loaded[0].id);
    assert_eq!(
        image.layers(),
        [Digest::sha256(&lower), Digest::sha256(&upper)]
    );
    assert_eq!(image.size, 10);
    assert_eq!(
        image.tags.iter().map(|t| t.familiar()).collect::<Vec<_>>(),
        ["app:1", "r.example/app:2"]
    );

    let mut saved = Vec::new();
    store
        .images
        .save(&["app:1".to_owned()], None, &mut saved)
        .unwrap();
    let other = Store::new();
    let again = other.load(&saved).unwrap();
    assert_eq!(again[0].id, loaded[0].id);
    assert_eq!(again[0].references.len(), 1);
    assert_eq!(
        other.images.get("app:1").unwrap().record.manifest,
        image.record.manifest
    );
    let trees = |store: &Store| {
        image
            .layers()
            .iter()
            // The archives do not say of when the root is.
            .flat_map(|id| describe(&store.layer(id)).split_off(1))
            .collect::<Vec<_>>()
    };
    assert_eq!(trees(&store), trees(&other));
    let mut twice = Vec::new();
    other
        .images
        .save(&["app".to_owned()], None, &mut twice)
        .unwrap();
    assert!(saved == twice, "saving is deterministic");
}

#[test]
fn an_oci_layout_is_loaded_in_any_order() {
    let layers: [&[u8]; 2] = [&small_layer("a", b"1"), &small_layer("b", b"2")];
    let mut files = layout_files("app:1", &layers);
    for _ in 0..files.len() {
        files.rotate_left(1);
        let store = Store::new();
        let loaded = store.load(&archive(&files)).unwrap();
        assert_eq!(loaded[0].id, Digest::sha256(&config(&layers)));
        assert_eq!(loaded[0].references[0].familiar(), "app:1");
    }
    for whole in [
        gzip(&archive(&files)),
        zstd::encode_all(&archive(&files)[..], 1).unwrap(),
    ] {
        assert_eq!(Store::new().load(&whole).unwrap().len(), 1);
    }
}

#[test]
fn a_name_that_is_only_a_tag_names_nothing() {
    let store = Store::new();
    let files = layout_files("latest", &[&small_layer("a", b"1")]);
    let loaded = store.load(&archive(&files)).unwrap();
    assert!(loaded[0].references.is_empty());
    assert!(
        store
            .images
            .get(&loaded[0].id.to_string())
            .unwrap()
            .is_dangling()
    );
    assert_eq!(
        store.images.get(&loaded[0].id.hex()[..7]).unwrap().id,
        loaded[0].id
    );
}

#[test]
fn links_in_an_archive_are_followed_and_loops_end() {
    let layer = small_layer("a", b"1");
    let config = config(&[&layer]);
    let manifest = |path: &str| {
        let image = ArchiveImage {
            config: "c.json".to_owned(),
            repo_tags: vec!["a:1".to_owned()],
            layers: vec![path.to_owned()],
        };
        serde_json::to_vec(&[image]).unwrap()
    };
    let load = |path: &str| {
        Store::new().load(&tar(&[
            (file("blob.tar"), &layer),
            (file("c.json"), &config),
            (symlink("x/layer.tar", "../blob.tar"), b""),
            (hard_link("y/layer.tar", "x/layer.tar"), b""),
            (symlink("loop", "loop"), b""),
            (file("manifest.json"), &manifest(path)),
        ]))
    };
    load("blob.tar").unwrap();
    load("x/layer.tar").unwrap();
    load("y/layer.tar").unwrap();
    for path in ["loop", "missing", "c.json", "../blob.tar"] {
        assert_eq!(load(path).unwrap_err().kind(), ErrorKind::Invalid, "{path}");
    }
}

#[test]
fn a_shared_layer_is_stored_once() {
    let mut store = Store::new();
    let (shared, own) = (small_layer("a", b"shared"), small_layer("b", b"own"));
    store.load(&docker_archive(&["one:1"], &[&shared])).unwrap();
    store
        .load(&archive(&layout_files("two:1", &[&shared, &own, &shared])))
        .unwrap();
    let layers = |store: &Store| {
        crate::store::list(&store.directory.path().join("layers"))
            .unwrap()
            .len()
    };
    assert_eq!(layers(&store), 2);
    assert_eq!(store.images.get("two:1").unwrap().size, 15);
    store.images.remove("one:1", false, &no_users).unwrap();
    store.reopen();
    assert_eq!(layers(&store), 2);
    let removed = store.images.remove("two:1", false, &no_users).unwrap();
    assert_eq!(removed.len(), 4, "{removed:?}");
    assert_eq!(store.content(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_layer_that_begins_like_json_is_a_layer() {
    let store = Store::new();
    store
        .load(&docker_archive(&["a:1"], &[&small_layer("[", b"test")]))
        .unwrap();
    assert_eq!(store.images.get("a:1").unwrap().size, 4);
}

#[test]
fn loading_what_is_there_changes_nothing() {
    let store = Store::new();
    let files = docker_files(&["a:1"], &[&small_layer("a", b"1")]);
    let first = store.load(&archive(&files)).unwrap();
    let content = store.content();
    assert_eq!(store.load(&archive(&files)).unwrap(), first);
    assert_eq!(store.content(), content);
    // As `save` names plain layers: by a digest that the store knows.
    let mut saved = Vec::new();
    store
        .images
        .save(&["a:1".to_owned()], None, &mut saved)
        .unwrap();
    assert_eq!(store.load(&saved).unwrap(), first);
    assert_eq!(store.content(), content);
    // The same name with other content proves nothing.
    let lie = small_layer("a", b"2");
    let (path, _) = blob(&small_layer("a", b"1"));
    let config = config(&[&small_layer("a", b"1")]);
    let image = ArchiveImage {
        config: "c".to_owned(),
        repo_tags: vec![],
        layers: vec![path.clone()],
    };
    let manifest = serde_json::to_vec(&[image]).unwrap();
    let lying = [
        ("c".to_owned(), config),
        (path, lie),
        ("manifest.json".to_owned(), manifest),
    ];
    assert_eq!(
        store.load(&archive(&lying)).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(store.content(), content);
}

#[test]
fn an_archive_cut_anywhere_leaves_nothing() {
    let mut store = Store::new();
    let layers: [&[u8]; 2] = [&small_layer("a", &[7; 3000]), &small_layer("b", b"2")];
    for files in [
        docker_files(&["a:1"], &layers),
        layout_files("a:1", &layers),
    ] {
        let plain = archive(&files);
        for whole in [plain.clone(), gzip(&plain)] {
            // The end-of-archive blocks may be missing.
            let needed = if whole == plain {
                plain.len() - 1024
            } else {
                whole.len()
            };
            let step = if whole == plain {
                512
            } else {
                whole.len() / 16
            };
            for end in (0..needed).step_by(step).chain((1..needed).step_by(step)) {
                for then in [(|| Ok(0)) as fn() -> _, || {
                    Err(io::ErrorKind::TimedOut.into())
                }] {
                    let cut = Cut {
                        bytes: &whole[..end],
                        then,
                    };
                    let error = store.images.load(cut, None, &mut |_| {}).unwrap_err();
                    assert!(!error.to_string().is_empty());
                    assert_eq!(
                        store.content(),
                        Vec::<std::path::PathBuf>::new(),
                        "cut at {end}"
                    );
                }
            }
        }
    }
    assert!(
        store
            .images
            .list(&ListFilter::default())
            .unwrap()
            .is_empty()
    );
    store.reopen();
    assert_eq!(store.content(), Vec::<std::path::PathBuf>::new());
}

/// Records that end as they are told when they should be written.
struct Failing {
    inner: MemoryRecords,
    fail: fn() -> Result<(), RecordsError>,
}

impl Records for Failing {
    fn images(&self) -> Result<Vec<ImageRecord>, RecordsError> {
        self.inner.images()
    }

    fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, RecordsError> {
        self.inner.image(id)
    }

    fn layers(&self) -> Result<Vec<LayerRecord>, RecordsError> {
        self.inner.layers()
    }

    fn references(&self) -> Result<Vec<ReferenceRecord>, RecordsError> {
        self.inner.references()
    }

    fn reference(
        &self,
        reference: &oci::Reference,
    ) -> Result<Option<ReferenceRecord>, RecordsError> {
        self.inner.reference(reference)
    }

    fn caches(&self) -> Result<Vec<CacheRecord>, RecordsError> {
        self.inner.caches()
    }

    fn cache(&self, key: &Digest) -> Result<Option<CacheRecord>, RecordsError> {
        self.inner.cache(key)
    }

    fn update(&self, _: &[Update]) -> Result<(), RecordsError> {
        (self.fail)()
    }
}

fn failing(directory: &Path, fail: fn() -> Result<(), RecordsError>) -> Images {
    let records = Failing {
        inner: MemoryRecords::default(),
        fail,
    };
    Images::open(directory, Arc::new(records)).unwrap()
}

/// Loads into the store that the environment names, dying at the byte that it says, or else when the records should be
/// written. Run by the test below, in a process of its own.
#[test]
fn child_that_dies_while_loading() {
    let Ok(directory) = std::env::var("HULL_TEST_STORE") else {
        return;
    };
    let images = failing(Path::new(&directory), || std::process::abort());
    let layers: [&[u8]; 2] = [&small_layer("a", &[7; 3000]), &small_layer("b", b"2")];
    let whole = docker_archive(&["a:1"], &layers);
    let loaded = match std::env::var("HULL_TEST_END").unwrap().parse::<usize>() {
        Ok(end) => {
            let bytes = &whole[..end.min(whole.len())];
            images.load(
                Cut {
                    bytes,
                    then: || std::process::abort(),
                },
                None,
                &mut |_| {},
            )
        }
        Err(_) => images.load(&whole[..], None, &mut |_| {}),
    };
    panic!("it should have died: {loaded:?}");
}

#[test]
fn a_process_that_dies_while_loading_leaves_what_the_next_start_removes() {
    let mut store = Store::new();
    let mut ends: Vec<String> = (0..10240)
        .step_by(1024)
        .map(|end| end.to_string())
        .collect();
    ends.push("records".to_owned());
    for end in ends {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::child_that_dies_while_loading"])
            .env("HULL_TEST_STORE", store.directory.path())
            .env("HULL_TEST_END", &end)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(
            status.signal(),
            Some(rustix::process::Signal::ABORT.as_raw()),
            "at {end}"
        );
        let layers = store
            .content()
            .iter()
            .filter(|path| path.starts_with("layers"))
            .count();
        assert_eq!(layers, if end == "records" { 2 } else { 0 }, "at {end}");
        assert!(!store.content().is_empty(), "it died before it had begun");
        store.reopen();
        assert_eq!(store.content(), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn records_that_fail_leave_nothing() {
    let mut store = Store::new();
    store.images = failing(store.directory.path(), || Err("the disk is full".into()));
    let error = store
        .load(&docker_archive(&["a:1"], &[&small_layer("a", b"1")]))
        .unwrap_err();
    assert!(matches!(error, Error::Records(_)));
    assert_eq!(store.content(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn archives_that_lie_are_refused_and_say_why() {
    let layer = small_layer("a", b"1");
    let other = small_layer("a", b"2");
    let swap = |files: &[(String, Vec<u8>)], from: &[u8], to: &[u8]| {
        let swapped: Vec<_> = files
            .iter()
            .map(|(name, bytes)| {
                (
                    name.clone(),
                    if bytes == from {
                        to.to_vec()
                    } else {
                        bytes.clone()
                    },
                )
            })
            .collect();
        archive(&swapped)
    };
    let docker = docker_files(&["a:1"], &[&layer]);
    let oci = layout_files("a:1", &[&layer]);
    let packed = gzip(&layer);
    let text = |archive: &[u8]| {
        let store = Store::new();
        let error = store.load(archive).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert_eq!(store.content(), Vec::<std::path::PathBuf>::new());
        crate::error::chain(&error)
    };
    assert!(text(&swap(&docker, &layer, &other)).contains("has the digest"));
    assert!(text(&swap(&oci, &packed, &gzip(&other))).contains("has the digest"));
    assert!(text(&swap(&oci, &packed, b"BZh91AY")).contains("compressed data"));
    assert!(text(&swap(&docker, &layer, b"no tar")).contains("neither JSON nor a layer"));
    let mut broken = layer.clone();
    broken[600] = 1;
    broken.splice(1024..1024, vec![b'x'; 512]);
    assert!(text(&swap(&docker, &layer, &broken)).contains("checksum"));
    let escaping = small_layer("../../x", b"1");
    assert!(text(&docker_archive(&["a:1"], &[&escaping])).contains("out of the archive's root"));
    let manifest = &docker.last().unwrap().1;
    assert!(
        text(&swap(
            &docker,
            manifest,
            br#"[{"Config":"x","Layers":["0/layer.tar"]}]"#
        ))
        .contains("missing")
    );
    assert!(text(&swap(&docker, manifest, b"[{")).contains("manifest.json"));
    assert!(
        text(&swap(
            &docker,
            &config(&[&layer]),
            br#"{"rootfs":{"type":"layers"}}"#
        ))
        .contains("layers")
    );
    assert!(
        text(&archive(&[("x".to_owned(), b"{}".to_vec())]))
            .contains("neither manifest.json nor index.json")
    );
    assert!(text(&archive(&[("repositories".to_owned(), b"{}".to_vec())])).contains("before 1.10"));
    assert!(text(&archive(&oci[..oci.len() - 1])).contains("oci-layout"));
    assert!(text(b"\xfd7zXZ\0\0").contains("compressed data"));
    assert!(text(&vec![b'x'; 1024]).contains("checksum"));
}

#[test]
fn attack_44_a_digest_is_never_a_path() {
    let layer = small_layer("a", b"1");
    let mut files = layout_files("a:1", &[&layer]);
    let config = config(&[&layer]);
    let manifest = manifest(&config, &[(media_type::OCI_LAYER, &layer)]);
    let evil = String::from_utf8(manifest).unwrap().replace(
        &Digest::sha256(&layer).to_string(),
        "sha256:../../../../../../etc/passwd",
    );
    let named = descriptor(media_type::OCI_MANIFEST, evil.as_bytes());
    files.push(blob(evil.as_bytes()));
    let at = files
        .iter()
        .position(|(name, _)| name == "index.json")
        .unwrap();
    files[at].1 = index(vec![named]);
    let error = Store::new().load(&archive(&files)).unwrap_err();
    assert!(
        crate::error::chain(&error).contains("lower-case hexadecimal"),
        "{error}"
    );
}

#[test]
fn an_index_is_resolved_for_this_machine_and_nested_ones_end() {
    let layer = small_layer("a", b"1");
    let config = config(&[&layer]);
    let manifest = manifest(&config, &[(media_type::OCI_LAYER, &layer)]);
    let platform = |architecture: &str, os: &str| {
        let mut named = descriptor(media_type::OCI_MANIFEST, &manifest);
        named.platform = Some(oci::image::Platform {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            ..Default::default()
        });
        named
    };
    let absent = |architecture: &str| {
        let mut named = platform(architecture, "linux");
        named.digest = Digest::sha256(b"absent");
        named
    };
    let archive_of = |inner: Vec<u8>, more: Vec<(String, Vec<u8>)>| {
        let mut named = descriptor(media_type::OCI_INDEX, &inner);
        named.annotations.insert(
            annotation::CONTAINERD_NAME.to_owned(),
            "docker.io/library/a:1".to_owned(),
        );
        let mut files = vec![blob(&layer), blob(&config), blob(&manifest), blob(&inner)];
        files.extend(more);
        files.push(("index.json".to_owned(), index(vec![named])));
        files.push((
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ));
        (Store::new(), archive(&files))
    };
    let load = |inner, more| {
        let (store, archive) = archive_of(inner, more);
        store.load(&archive)
    };
    let host = crate::platform::host_platform().architecture;
    let chosen = load(
        index(vec![
            absent("vax"),
            platform(&host, "linux"),
            platform("unknown", "unknown"),
        ]),
        vec![],
    );
    assert_eq!(chosen.unwrap()[0].references[0].familiar(), "a:1");
    let lone = index(vec![absent("vax"), platform("pdp11", "linux")]);
    load(lone, vec![]).unwrap();
    let wanted = |name: &str| {
        let both = index(vec![platform(&host, "linux"), platform("pdp11", "linux")]);
        let (store, archive) = archive_of(both, vec![]);
        let platform = name.parse().unwrap();
        store
            .images
            .load(&archive[..], Some(&platform), &mut |_| {})
    };
    wanted(&host).unwrap();
    // The index says so, the configuration does not.
    let other = wanted("linux/pdp11").unwrap_err();
    assert!(matches!(other, Error::OtherPlatform { .. }), "{other}");
    let none = load(index(vec![absent("vax"), absent("pdp11")]), vec![]).unwrap_err();
    assert!(none.to_string().contains(&host), "{none}");
    let (mut inner, mut more) = (index(vec![platform(&host, "linux")]), Vec::new());
    for _ in 0..6 {
        more.push(blob(&inner));
        inner = index(vec![descriptor(media_type::OCI_INDEX, &inner)]);
    }
    let deep = load(inner, more).unwrap_err();
    assert!(deep.to_string().contains("nested"), "{deep}");
}

#[test]
fn progress_counts_to_the_size_of_each_layer() {
    let store = Store::new();
    let layer = small_layer("a", &[7; 1 << 20]);
    let archive = docker_archive(&["a:1"], &[&layer]);
    let mut seen = Vec::new();
    let mut progress = |p: Progress<'_>| seen.push((p.layer.to_owned(), p.read, p.size));
    store
        .images
        .load(&archive[..], None, &mut progress)
        .unwrap();
    let size = layer.len() as u64;
    assert_eq!(seen.last(), Some(&("0/layer.tar".to_owned(), size, size)));
    assert!(seen.is_sorted_by_key(|(_, read, _)| *read) && seen.len() > 2);
}

/// What a removal did, as Docker prints it.
fn shown(removed: Vec<Removed>) -> Vec<String> {
    let step = |step| match step {
        Removed::Untagged(name, _) => name.familiar(),
        Removed::Deleted(digest) | Removed::DeletedLayer(digest) => digest.to_string(),
    };
    removed.into_iter().map(step).collect()
}

/// A container that uses every image.
fn user(running: bool) -> impl Fn(&Digest) -> Vec<User> {
    move |_| {
        vec![User {
            container: "c".repeat(64),
            running,
        }]
    }
}

/// A store with an image of these names.
fn with_names(names: &[&str]) -> (Store, Digest) {
    let store = Store::new();
    let loaded = store
        .load(&docker_archive(names, &[&small_layer("a", b"1")]))
        .unwrap();
    (store, loaded[0].id)
}

#[test]
fn a_name_goes_alone_until_it_is_the_last() {
    let (store, id) = with_names(&["a:1", "a:2"]);
    let remove =
        |name: &str, force, running| store.images.remove(name, force, &user(running)).map(shown);
    assert_eq!(remove("a:1", false, true).unwrap(), ["a:1"]);
    let error = remove("a:2", false, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to remove repository reference \"a:2\" (must force) - container {} \
             is using its referenced image {}",
            "c".repeat(12),
            &id.hex()[..12]
        )
    );
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(remove("a:2", true, true).unwrap(), ["a:2"]);
    assert!(store.images.get(&id.to_string()).unwrap().is_dangling());
    assert_eq!(
        remove("a:2", false, true).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn an_id_takes_its_names_along_when_they_are_of_one_repository() {
    let (store, id) = with_names(&["a:1", "b:1"]);
    let short = &id.hex()[..12];
    let error = store
        .images
        .remove(short, false, &no_users)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("must be forced) - image is referenced in multiple"),
        "{error}"
    );
    assert_eq!(
        shown(store.images.remove("b:1", false, &no_users).unwrap()),
        ["b:1"]
    );
    let removed = shown(store.images.remove(short, false, &no_users).unwrap());
    let layer = Digest::sha256(&small_layer("a", b"1")).to_string();
    assert_eq!(removed, ["a:1".to_owned(), id.to_string(), layer]);
    assert_eq!(store.content(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn containers_keep_their_image() {
    let (store, id) = with_names(&["a:1"]);
    let short = &id.hex()[..12];
    let remove = |force, running| store.images.remove(short, force, &user(running)).map(shown);
    for force in [false, true] {
        let error = remove(force, true).unwrap_err();
        let reason = "cannot be forced) - image is being used by running container";
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    let error = remove(false, false).unwrap_err().to_string();
    assert!(
        error.contains("must be forced) - image is being used by stopped"),
        "{error}"
    );
    assert_eq!(remove(true, false).unwrap().len(), 3);
}

#[test]
fn a_tag_moves_and_leaves_a_dangling_image_for_prune() {
    let store = Store::new();
    let old = store
        .load(&docker_archive(&["a:1"], &[&small_layer("a", b"old")]))
        .unwrap()[0]
        .id;
    let new = store
        .load(&docker_archive(&["a:1"], &[&small_layer("a", b"new")]))
        .unwrap()[0]
        .id;
    assert_eq!(store.images.get("a:1").unwrap().id, new);
    store.images.tag("a:1", &"b".parse().unwrap()).unwrap();
    assert_eq!(store.images.get("b:latest").unwrap().id, new);
    let by_digest = format!("b@{new}").parse().unwrap();
    assert_eq!(
        store.images.tag("a:1", &by_digest).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        store
            .images
            .tag("x:1", &"b".parse().unwrap())
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    let before = store.images.disk_usage().unwrap().bytes;
    let (removed, bytes) = store
        .images
        .prune(false, &ListFilter::default(), &no_users)
        .unwrap();
    let after = store.images.disk_usage().unwrap().bytes;
    assert_eq!(
        (removed[0].clone(), bytes),
        (Removed::Deleted(old), before - after)
    );
    assert!(bytes > 0);
    let user = |_: &Digest| {
        vec![User {
            container: "c".to_owned(),
            running: false,
        }]
    };
    assert!(
        store
            .images
            .prune(true, &ListFilter::default(), &user)
            .unwrap()
            .0
            .is_empty()
    );
    let (_, bytes) = store
        .images
        .prune(true, &ListFilter::default(), &no_users)
        .unwrap();
    assert_eq!(bytes, after);
    assert_eq!(store.images.disk_usage().unwrap().bytes, 0);
    assert_eq!(store.content(), Vec::<std::path::PathBuf>::new());
}

/// A store with `a:1`, `b:1` and `b:2`, made on the first three days of 2024 and labelled with the day.
fn three_images() -> Store {
    let store = Store::new();
    for (name, day) in [("a:1", 1), ("b:1", 2), ("b:2", 3)] {
        let layer = small_layer("x", name.as_bytes());
        let mut files = docker_files(&[name], &[&layer]);
        let config = String::from_utf8(files[0].1.clone()).unwrap();
        let labels = format!(r#""config":{{"Labels":{{"n":"{day}","k":""}},"#);
        let config = config.replace(r#""config":{"#, &labels);
        files[0].1 = config
            .replace("2024-01-02", &format!("2024-01-0{day}"))
            .into();
        store.load(&archive(&files)).unwrap();
    }
    store
}

fn assert_listed(store: &Store, filter: &ListFilter, expected: &[&str]) {
    let images = store.images.list(filter).unwrap();
    let names: Vec<_> = images
        .iter()
        .map(|image| image.tags[0].familiar())
        .collect();
    assert_eq!(names, expected, "{filter:?}");
}

#[test]
fn lists_are_filtered_by_name_and_time() {
    let store = three_images();
    let all = ListFilter::default;
    let some = |text: &str| Some(text.to_owned());
    let named = |pattern: &str| ListFilter {
        references: vec![pattern.to_owned()],
        ..all()
    };
    let until = Some("2024-01-02T00:00:00Z".parse().unwrap());
    assert_listed(&store, &all(), &["b:2", "b:1", "a:1"]);
    assert_listed(&store, &named("b"), &["b:2", "b:1"]);
    assert_listed(&store, &named("*:1"), &["b:1", "a:1"]);
    assert_listed(
        &store,
        &ListFilter {
            before: some("b:1"),
            ..all()
        },
        &["a:1"],
    );
    assert_listed(
        &store,
        &ListFilter {
            since: some("b:1"),
            ..all()
        },
        &["b:2"],
    );
    assert_listed(&store, &ListFilter { until, ..all() }, &["a:1"]);
    assert_listed(
        &store,
        &ListFilter {
            dangling: Some(true),
            ..all()
        },
        &[],
    );
    let bad = store.images.list(&named("[")).unwrap_err();
    assert_eq!(bad.kind(), ErrorKind::Invalid);
    let absent = ListFilter {
        since: some("absent"),
        ..all()
    };
    assert_eq!(
        store.images.list(&absent).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn lists_are_filtered_by_label() {
    let store = three_images();
    let all = ListFilter::default;
    let label = |key: &str, value: Option<&str>| vec![(key.to_owned(), value.map(str::to_owned))];
    let with = |key, value| ListFilter {
        labels: label(key, value),
        ..all()
    };
    let without = |key, value| ListFilter {
        without_labels: label(key, value),
        ..all()
    };
    assert_listed(&store, &with("n", Some("2")), &["b:1"]);
    assert_listed(&store, &with("k", None), &["b:2", "b:1", "a:1"]);
    assert_listed(&store, &with("k", Some("x")), &[]);
    assert_listed(&store, &without("n", Some("2")), &["b:2", "a:1"]);
    assert_listed(&store, &without("k", None), &[]);
}

#[test]
fn ids_that_begin_alike_are_ambiguous() {
    let store = Store::new();
    let mut starts = std::collections::HashSet::new();
    for number in 0..40 {
        let layer = small_layer("x", &[number]);
        let id = store.load(&docker_archive(&[], &[&layer])).unwrap()[0].id;
        if !starts.insert(id.hex()[..1].to_owned()) {
            let error = store.images.get(&id.hex()[..1]).unwrap_err();
            assert!(matches!(error, Error::AmbiguousId(_)));
            return;
        }
    }
    panic!("of 40 images two begin with the same of 16 digits");
}

#[test]
fn damage_is_found_when_it_is_read() {
    let store = Store::new();
    store
        .load(&docker_archive(&["a:1"], &[&small_layer("a", b"content")]))
        .unwrap();
    let layer = store.images.get("a:1").unwrap().layers()[0];
    std::fs::write(store.layer(&layer).join("a"), "CONTENT").unwrap();
    let save = || store.images.save(&["a:1".to_owned()], None, io::sink());
    assert!(matches!(save(), Err(Error::Damaged { .. })));
    std::fs::write(store.layer(&layer).join("a"), "short").unwrap();
    save().unwrap_err();
    std::fs::remove_dir_all(store.layer(&layer)).unwrap();
    save().unwrap_err();
}

#[test]
fn directories_are_for_root_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut store = Store::new();
    let layers = store.directory.path().join("layers");
    std::fs::set_permissions(&layers, std::fs::Permissions::from_mode(0o755)).unwrap();
    store.reopen();
    for name in ["", "blobs", "blobs/sha256", "layers", "snapshots", "tmp"] {
        let mode = std::fs::metadata(store.directory.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o700, "{name}");
    }
}

#[test]
fn loads_and_removals_at_once_never_lose_a_layer() {
    let store = Store::new();
    let shared = small_layer("shared", b"shared");
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (store, shared) = (&store, &shared);
            scope.spawn(move || {
                let own = small_layer("own", &[thread]);
                let name = format!("image{thread}:1");
                let archive = docker_archive(&[&name], &[shared, &own]);
                for _ in 0..12 {
                    match store.load(&archive) {
                        Ok(loaded) => {
                            let snapshot = store
                                .images
                                .prepare(&name.replace(':', "-"), &loaded[0].id)
                                .unwrap();
                            assert!(snapshot.lowers.iter().all(|lower| lower.is_dir()));
                            store.images.remove(&name, true, &no_users).unwrap();
                            assert!(snapshot.lowers.iter().all(|lower| lower.is_dir()));
                            store.images.remove_snapshot(&snapshot.id).unwrap();
                        }
                        Err(error) => panic!("{}", crate::error::chain(&error)),
                    }
                }
            });
        }
    });
    assert_eq!(store.content(), Vec::<std::path::PathBuf>::new());
}
