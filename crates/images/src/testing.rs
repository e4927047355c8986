//! What the tests share: archives made by hand, and stores in temporary directories.

use crate::copy::Rest;
use crate::records::MemoryRecords;
use crate::tar::{Entry, Kind, Time, Writer};
use crate::{Hold, Images, ImportOptions, ListFilter, Loaded, Result, Snapshot};
use oci::image::{
    ArchiveImage, Config, ConfigFile, Descriptor, Index, Platform, RootFs, annotation, media_type,
};
use oci::{Digest, Reference};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A store that goes with its directory.
pub(crate) struct Store {
    pub(crate) images: Images,
    pub(crate) records: Arc<MemoryRecords>,
    pub(crate) directory: tempfile::TempDir,
}

impl Store {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let records = Arc::new(MemoryRecords::default());
        let images = Images::open(directory.path(), records.clone()).unwrap();
        Self {
            images,
            records,
            directory,
        }
    }

    /// As after a restart.
    pub(crate) fn reopen(&mut self) {
        self.images = Images::open(self.directory.path(), self.records.clone()).unwrap();
    }

    /// The layer of what has been written to a snapshot, if anything has.
    pub(crate) fn take(
        &self,
        snapshot: &Snapshot,
        mtime_max: Option<i64>,
    ) -> Option<(Digest, Hold<'_>)> {
        let made = self
            .images
            .make_layer(snapshot, Rest::default(), mtime_max, &|| false);
        made.unwrap()
    }

    pub(crate) fn load(&self, archive: &[u8]) -> Result<Vec<Loaded>> {
        self.images.load(archive, None, &mut |_| {})
    }

    /// An image of one file, under a name.
    pub(crate) fn import(&self, name: &str, content: &str) -> Digest {
        let options = ImportOptions {
            reference: Some(name.parse().unwrap()),
            ..ImportOptions::default()
        };
        let archive = tar(&[(file("file"), content.as_bytes())]);
        self.images.import(archive.as_slice(), &options).unwrap()
    }

    /// Images for several platforms under names, of which the content is what each is for. In the order of the platforms.
    pub(crate) fn several(&self, names: &[&str], platforms: &[&str]) -> Vec<Digest> {
        let made = platforms.iter().map(|platform| {
            let id = self.import("parts", platform);
            let layers = self.images.get(&id.to_string()).unwrap().layers().to_vec();
            let config = ConfigFile {
                platform: platform.parse().unwrap(),
                ..ConfigFile::default()
            };
            (config, layers)
        });
        let made: Vec<_> = made.collect();
        let parts = { made.iter() }.map(|(config, layers)| (config.clone(), layers.as_slice()));
        let names: Vec<Reference> = names.iter().map(|name| name.parse().unwrap()).collect();
        self.images.make_images(parts.collect(), &names).unwrap();
        self.images
            .prune(false, &ListFilter::default(), &|_| Vec::new())
            .unwrap();
        self.images.remove("parts", false, &|_| Vec::new()).unwrap();
        let get = |platform: &&str| {
            let wanted = platform.parse().unwrap();
            let name = names[0].to_string();
            self.images.get_for(&name, Some(&wanted)).unwrap().id
        };
        platforms.iter().map(get).collect()
    }

    /// All paths below the store, but for the fixed directories.
    pub(crate) fn content(&self) -> Vec<PathBuf> {
        ["blobs/sha256", "layers", "snapshots", "tmp"]
            .iter()
            .flat_map(|name| crate::store::list(&self.directory.path().join(name)).unwrap())
            .map(|path| path.strip_prefix(self.directory.path()).unwrap().to_owned())
            .collect()
    }

    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.directory
            .path()
            .join("layers")
            .join(diff_id.hex())
            .join("diff")
    }
}

/// A tar of entries with their content.
pub(crate) fn tar(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer
            .entry(&Entry {
                size: content.len() as u64,
                ..entry.clone()
            })
            .unwrap();
        if !content.is_empty() {
            writer.content(content).unwrap();
        }
    }
    writer.finish().unwrap()
}

pub(crate) fn file(path: &str) -> Entry {
    let mtime = Time {
        seconds: 1_700_000_000,
        nanoseconds: 0,
    };
    Entry {
        mtime,
        ..Entry::new(path, Kind::File, 0o644)
    }
}

pub(crate) fn directory(path: &str) -> Entry {
    let mtime = Time {
        seconds: 1_600_000_000,
        nanoseconds: 0,
    };
    Entry {
        mtime,
        ..Entry::new(path, Kind::Directory, 0o755)
    }
}

pub(crate) fn symlink(path: &str, target: &str) -> Entry {
    Entry::new(
        path,
        Kind::Symlink {
            target: target.into(),
        },
        0o777,
    )
}

pub(crate) fn hard_link(path: &str, target: &str) -> Entry {
    Entry::new(
        path,
        Kind::HardLink {
            target: target.into(),
        },
        0o644,
    )
}

/// A layer with one file.
pub(crate) fn small_layer(path: &str, content: &[u8]) -> Vec<u8> {
    tar(&[(file(path), content)])
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// The configuration of an image with these layers, uncompressed.
pub(crate) fn config(layers: &[&[u8]]) -> Vec<u8> {
    let config = ConfigFile {
        created: Some("2024-01-02T03:04:05Z".to_owned()),
        platform: Platform {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            ..Platform::default()
        },
        config: Config {
            cmd: Some(vec!["sh".to_owned()]),
            ..Config::default()
        },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: layers.iter().map(|layer| Digest::sha256(layer)).collect(),
        },
        ..ConfigFile::default()
    };
    serde_json::to_vec(&config).unwrap()
}

/// The files of an archive as `docker save` writes it.
pub(crate) fn docker_files(names: &[&str], layers: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
    let config = config(layers);
    let mut files = vec![(format!("{}.json", Digest::sha256(&config).hex()), config)];
    let mut paths = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let path = format!("{number}/layer.tar");
        files.push((path.clone(), layer.to_vec()));
        paths.push(path);
    }
    let image = ArchiveImage {
        config: files[0].0.clone(),
        repo_tags: names.iter().map(|name| (*name).to_owned()).collect(),
        layers: paths,
    };
    files.push((
        "manifest.json".to_owned(),
        serde_json::to_vec(&[image]).unwrap(),
    ));
    files
}

/// The same as an archive.
pub(crate) fn docker_archive(names: &[&str], layers: &[&[u8]]) -> Vec<u8> {
    archive(&docker_files(names, layers))
}

pub(crate) fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<_> = files
        .iter()
        .map(|(path, bytes)| (file(path), bytes.as_slice()))
        .collect();
    tar(&entries)
}

pub(crate) fn blob(bytes: &[u8]) -> (String, Vec<u8>) {
    (
        format!("blobs/sha256/{}", Digest::sha256(bytes).hex()),
        bytes.to_vec(),
    )
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::sha256(bytes), bytes.len() as u64)
}

/// A manifest of a configuration and layers as they are stored.
pub(crate) fn manifest(config: &[u8], layers: &[(&str, &[u8])]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|(kind, bytes)| descriptor(kind, bytes))
        .collect();
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, config),
        "layers": layers,
    }))
    .unwrap()
}

pub(crate) fn index(manifests: Vec<Descriptor>) -> Vec<u8> {
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: BTreeMap::new(),
    };
    serde_json::to_vec(&index).unwrap()
}

/// The files of an OCI layout with one image, whose layers are compressed with gzip.
pub(crate) fn layout_files(name: &str, layers: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
    let config = config(layers);
    let layers: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
    let typed: Vec<_> = layers
        .iter()
        .map(|layer| (media_type::OCI_LAYER_GZIP, layer.as_slice()))
        .collect();
    let manifest = manifest(&config, &typed);
    let mut named = descriptor(media_type::OCI_MANIFEST, &manifest);
    named
        .annotations
        .insert(annotation::REF_NAME.to_owned(), name.to_owned());
    let mut files: Vec<_> = layers.iter().map(|layer| blob(layer)).collect();
    files.extend([blob(&config), blob(&manifest)]);
    files.push(("index.json".to_owned(), index(vec![named])));
    files.push((
        "oci-layout".to_owned(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    ));
    files
}

/// What a path is, for comparing trees: type, mode, owner, time, content or target, attributes.
pub(crate) fn describe(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let content = if kind.is_dir() {
            left.extend(crate::store::list(&path).unwrap());
            "directory".to_owned()
        } else if kind.is_symlink() {
            format!("link {:?}", std::fs::read_link(&path).unwrap())
        } else if kind.is_file() {
            Digest::sha256(&std::fs::read(&path).unwrap()).to_string()
        } else {
            format!("{kind:?} {} {}", kind.is_fifo(), metadata.rdev())
        };
        let time = if kind.is_symlink() {
            0
        } else {
            metadata.mtime()
        };
        lines.push(format!(
            "{:?} {:o} {}:{} {time} {content}",
            path.strip_prefix(root).unwrap(),
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
        ));
    }
    lines.sort();
    lines
}
