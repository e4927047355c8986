//! Making images here: of a tar of a root file system, and of what a container changed.

use crate::compression::Compression;
use crate::diff::open_upper;
use crate::image::{CommitOptions, ImportOptions};
use crate::load::detect;
use crate::manifests::plain_manifest;
use crate::pipe::read_chunk;
use crate::platform::{self, host_platform};
use crate::records::{ImageId, ImageRecord, ReferenceRecord, Update};
use crate::store::{Ingest, NewLayer};
use crate::tar::Writer;
use crate::tree::{Options, TreeWriter};
use crate::unpacker::{Feed, Unpacked, Unpacker};
use crate::walk::Node;
use crate::{Error, Images, Result, Snapshot, apply_changes};
use jiff::Timestamp;
use oci::image::{ConfigFile, History, LAYERS_MAX, Platform};
use oci::{Digest, Reference};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use sys::root::Root;

impl Images {
    /// Makes an image with one layer of the tar of a root file system (plain, or compressed by gzip, zstd, bzip2 or xz).
    pub fn import(&self, tar: impl Read + Send, options: &ImportOptions) -> Result<ImageId> {
        let mut config = ConfigFile {
            created: Some(Timestamp::now().to_string()),
            platform: options.platform.clone().unwrap_or_else(host_platform),
            comment: options.message.clone(),
            ..ConfigFile::default()
        };
        apply_changes(&mut config.config, &options.changes)?;
        config.history.push(History {
            created: config.created.clone(),
            comment: options.message.clone(),
            ..History::default()
        });
        let mut ingest = self.ingest()?;
        let (compression, mut source) = detect(tar)?;
        let path = ingest.path();
        let mut unpacker = Unpacker::start(Some(path.clone()), compression)?;
        loop {
            let chunk = read_chunk(&mut source).map_err(Error::Input)?;
            if chunk.is_empty() || unpacker.send(&chunk).is_err() {
                break;
            }
        }
        let layer = new_layer(unpacker.finish()?, path);
        publish(
            &mut ingest,
            config,
            Vec::new(),
            Some(layer),
            options.reference.as_ref(),
        )
    }

    /// Makes an image of a snapshot: the base's layers and one with the changes (or see [`CommitOptions::flatten`]).
    pub fn commit(
        &self,
        snapshot: &Snapshot,
        base: Option<&ImageId>,
        options: &CommitOptions,
    ) -> Result<ImageId> {
        let mut ingest = self.ingest()?;
        let based = match base {
            Some(id) => (*self.config(id)?).clone(),
            None => ConfigFile {
                platform: host_platform(),
                ..ConfigFile::default()
            },
        };
        let mut config = ConfigFile {
            created: Some(Timestamp::now().to_string()),
            author: options.author.clone(),
            comment: options.message.clone(),
            docker_version: String::new(),
            config: options
                .config
                .clone()
                .unwrap_or_else(|| based.config.clone()),
            ..based
        };
        apply_changes(&mut config.config, &options.changes)?;
        let mut stack = Vec::new();
        if options.flatten {
            config.history.clear();
        } else if let Some(id) = base {
            let missing = || Error::NoSuchImage(id.to_string());
            let record = self
                .records
                .image(id)
                .map_err(Error::Records)?
                .ok_or_else(missing)?;
            stack = self.stack(&mut ingest, &record.layers)?;
        }
        config.rootfs.diff_ids.clear();
        let layer = self.commit_layer(&mut ingest, snapshot, options.flatten)?;
        if layer.is_some() && stack.len() == LAYERS_MAX {
            let reason = format!("an image has at most {LAYERS_MAX} layers");
            return Err(Error::Argument(reason));
        }
        config.history.push(History {
            created: config.created.clone(),
            created_by: options.created_by.clone(),
            author: options.author.clone(),
            comment: options.message.clone(),
            empty_layer: layer.is_none(),
        });
        publish(
            &mut ingest,
            config,
            stack,
            layer,
            options.reference.as_ref(),
        )
    }

    /// Pins the layers of a stack, and gives the sizes of their tars.
    fn stack(&self, ingest: &mut Ingest<'_>, layers: &[Digest]) -> Result<Vec<(Digest, u64)>> {
        if let Some(lost) = layers.iter().find(|layer| !ingest.has_layer(layer)) {
            return Err(Error::MissingLayer(Box::new(*lost)));
        }
        let known = self.records.layers().map_err(Error::Records)?;
        let size = |layer: &Digest| {
            let found = known.iter().find(|known| known.diff_id == *layer);
            let found = found.ok_or_else(|| Error::MissingLayer(Box::new(*layer)))?;
            Ok((*layer, found.tar_size))
        };
        layers.iter().map(size).collect()
    }

    /// Makes images, of each platform one and one at least, of configurations and stacks of layers that are there, the lowest first;
    /// all of them or none. The configurations' own lists of layers are replaced. The first of what is returned is the image that the
    /// names mean where no platform is asked for.
    pub fn make_images(
        &self,
        parts: Vec<(ConfigFile, &[Digest])>,
        names: &[Reference],
    ) -> Result<Vec<ImageId>> {
        let mut ingest = self.ingest()?;
        let mut images = Vec::new();
        for (config, layers) in parts {
            if layers.len() > LAYERS_MAX {
                let reason = format!("an image has at most {LAYERS_MAX} layers");
                return Err(Error::Argument(reason));
            }
            images.push(Made::of(config, self.stack(&mut ingest, layers)?));
        }
        publish_all(&mut ingest, images, &[], names)
    }

    /// Makes a layer of a snapshot's changes, or of its whole tree; none where nothing was changed.
    fn commit_layer(
        &self,
        ingest: &mut Ingest<'_>,
        snapshot: &Snapshot,
        flatten: bool,
    ) -> Result<Option<NewLayer>> {
        let options = Options {
            whiteouts: !flatten,
            sparse: true,
            // The store may itself be in the directory that the container stands on.
            exclude: flatten.then(|| self.inside(snapshot)).flatten(),
            ..Options::default()
        };
        let upper = open_upper(snapshot)?;
        let tree = match flatten {
            true => Some(Root::from_fd(self.mount_detached(snapshot)?)),
            false => None,
        };
        let top = match &tree {
            Some(root) => Node::reopen(root.resolve(Path::new("/"))?, Path::new("/"))?,
            None => upper,
        };
        let path = ingest.path();
        let feed = Feed::new(Unpacker::start(Some(path.clone()), Compression::None)?);
        let mut tar = Writer::new(feed);
        let written = TreeWriter::new(&mut tar, options).layer(&top);
        let entries = match written {
            Ok(entries) => entries,
            // Where the unpacker failed, writing to it fails too, and says less.
            Err(error) if matches!(error, Error::Tar(crate::tar::TarError::Write(_))) => {
                return Err(tar.into_inner().finish().err().unwrap_or(error));
            }
            Err(error) => return Err(error),
        };
        let unpacked = tar.finish()?.finish()?;
        Ok((entries > 0 || flatten).then(|| new_layer(unpacked, path)))
    }

    /// Where the store is in the tree of a container that stands on a directory.
    fn inside(&self, snapshot: &Snapshot) -> Option<PathBuf> {
        let below = self.root().strip_prefix(snapshot.lowers.first()?).ok()?;
        Some(Path::new("/").join(below))
    }
}

fn new_layer(unpacked: Unpacked, path: PathBuf) -> NewLayer {
    let Unpacked {
        diff_id,
        tar_size,
        size,
        ..
    } = unpacked;
    NewLayer {
        diff_id,
        size: size.unwrap_or(0),
        tar_size,
        path,
    }
}

/// An image that is made here.
struct Made {
    record: ImageRecord,
    platform: Platform,
    config: Vec<u8>,
    manifest: (Digest, Vec<u8>),
}

impl Made {
    /// Of a configuration, whose own list of layers is replaced, and layers with the sizes of their tars.
    fn of(mut config: ConfigFile, stack: Vec<(Digest, u64)>) -> Self {
        config.rootfs.diff_ids = stack.iter().map(|(diff_id, _)| *diff_id).collect();
        let bytes = serde_json::to_vec(&config).expect("a configuration has only strings as keys");
        let id = Digest::sha256(&bytes);
        let manifest = plain_manifest(id, bytes.len(), stack.into_iter(), BTreeMap::new());
        let added_ns = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        Self {
            record: ImageRecord {
                id,
                manifest: manifest.0,
                layers: config.rootfs.diff_ids,
                added_ns,
            },
            platform: config.platform,
            config: bytes,
            manifest,
        }
    }
}

/// Makes an image of a configuration and layers part of the store. `stack` has the layers that are there, with the sizes of
/// their tars.
fn publish(
    ingest: &mut Ingest<'_>,
    config: ConfigFile,
    mut stack: Vec<(Digest, u64)>,
    layer: Option<NewLayer>,
    reference: Option<&Reference>,
) -> Result<ImageId> {
    stack.extend(layer.as_ref().map(|layer| (layer.diff_id, layer.tar_size)));
    let layers: Vec<NewLayer> = layer.into_iter().collect();
    let names: Vec<Reference> = reference.into_iter().cloned().collect();
    let ids = publish_all(ingest, vec![Made::of(config, stack)], &layers, &names)?;
    Ok(ids[0])
}

/// Makes images for several platforms, of which there is one at least, part of the store under the same names. The first is the one
/// that the names mean where no platform is asked for.
fn publish_all(
    ingest: &mut Ingest<'_>,
    images: Vec<Made>,
    layers: &[NewLayer],
    names: &[Reference],
) -> Result<Vec<ImageId>> {
    if let Some(name) = names.iter().find(|name| name.digest().is_some()) {
        let name = name.familiar();
        let reason = format!("{name} has a digest: an image that is made gets a tag");
        return Err(Error::Argument(reason));
    }
    let platforms = { images.iter() }.map(|image| (image.record.id, image.platform.clone()));
    let ids = platform::ordered(&platforms.collect::<Vec<_>>());
    let (mut updates, mut blobs) = (Vec::new(), Vec::new());
    for image in images {
        blobs.extend([(image.record.id, image.config), image.manifest]);
        updates.push(Update::PutImage(image.record));
    }
    let targets = names.iter().map(|name| name.clone().to_target());
    updates.extend(targets.map(|name| Update::SetReference(ReferenceRecord::of(name, &ids))));
    ingest.publish(layers, &blobs, || Ok(updates))?;
    Ok(ids)
}
