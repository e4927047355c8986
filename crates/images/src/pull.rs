//! Pulling an image: its manifest for a platform, its configuration, and the layers that are not here yet.
//!
//! Layers come at the same time, and each is hashed, decompressed and unpacked while it comes: every byte is written once.
//! They become visible together with the image, or none does. Everything is asked for by digest once the tag is resolved, so
//! that a tag which moves meanwhile does not matter, and what arrives has the digest it was asked for by, or is refused.

use crate::compression::{Compression, MAGIC_BYTES};
use crate::parallel;
use crate::platform::{self, host_platform};
use crate::records::{ImageId, ImageRecord, ReferenceRecord, Update};
use crate::store::{Ingest, NewLayer};
use crate::unpacker::{Unpacked, Unpacker};
use crate::{Error, Images, Result};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use oci::image::{
    ConfigFile, Descriptor, Document, INDEX_DEPTH_MAX, Index, Manifest, Platform, media_type,
};
use oci::{Digest, Reference};
use registry::policy::Policy;
use registry::{BlobStream, Repository};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Layers that come at the same time, as in Docker.
const LAYERS_AT_ONCE: usize = 3;

/// What to pull.
#[derive(Debug)]
pub struct PullRequest {
    /// Where from.
    pub repository: Arc<Repository>,
    /// Which image: a tag or a digest of the repository.
    pub reference: Reference,
    /// What the image has to run on; this machine's platform without.
    pub platform: Option<Platform>,
    /// What it is asked for by means it from then on, beside other images of the same index; without, only where it means
    /// such already.
    pub named: bool,
    /// What may be pulled.
    pub policy: Policy,
    /// Becomes true when nobody wants the image any more.
    pub stop: watch::Receiver<bool>,
}

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// The digest of what the reference names: a manifest or an index.
    pub digest: Digest,
    /// Whether the reference meant another image before, or none.
    pub changed: bool,
}

/// How far a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// It is to be fetched.
    Waiting,
    /// It was here already.
    Exists,
    /// It comes.
    Downloading {
        /// Bytes that have come.
        done: u64,
        /// All its bytes.
        size: u64,
    },
    /// It has come, and what is left of it is unpacked.
    Downloaded,
    /// It is unpacked.
    Complete,
}

/// A layer as the manifest and the configuration describe it.
#[derive(Debug, Clone)]
struct Wanted {
    descriptor: Descriptor,
    diff_id: Digest,
    path: PathBuf,
}

impl Images {
    /// Pulls an image, telling of each layer, by the digest of its blob, how far it is. Blocks; network is waited for by
    /// `runtime`.
    pub fn pull(
        &self,
        runtime: &Handle,
        request: &PullRequest,
        progress: &(dyn Fn(&Digest, LayerState) + Sync),
    ) -> Result<Pulled> {
        let fetcher = Fetcher { runtime, request };
        let wanted = request.platform.clone().unwrap_or_else(host_platform);
        let (top, manifest_digest, manifest_bytes, manifest) = fetcher.manifest(&wanted)?;
        let id = manifest.config.digest;
        let known = self.records.image(&id).map_err(Error::Records)?;
        let asked = request.reference.clone().to_target();
        let before = self.records.reference(&asked).map_err(Error::Records)?;
        let pulled = Pulled {
            id,
            digest: top,
            changed: before.is_none_or(|before| !before.means(&id)),
        };
        if known.is_some() {
            for layer in &manifest.layers {
                progress(&layer.digest, LayerState::Exists);
            }
            let platform = self.config(&id)?.platform.clone();
            self.add_references(|| self.names_of(request, &top, (id, platform)))?;
            return Ok(pulled);
        }
        let config = fetcher.document(&manifest.config)?;
        let ConfigFile {
            rootfs, platform, ..
        } = check_config(&id, &config, &manifest, &wanted)?;
        let diff_ids = rootfs.diff_ids;
        let claim = self.arrivals.claim(&diff_ids, &request.stop)?;
        let mut ingest = self.ingest()?;
        let missing = missing(&mut ingest, &manifest, &diff_ids, progress);
        let layers = parallel::each(missing, LAYERS_AT_ONCE, |wanted| {
            fetcher.layer(&wanted, progress)
        })?;
        let added_ns = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let image = Update::PutImage(ImageRecord {
            id,
            manifest: manifest_digest,
            layers: diff_ids.clone(),
            added_ns,
        });
        let blobs = [
            (id, config.to_vec()),
            (manifest_digest, manifest_bytes.to_vec()),
        ];
        ingest.publish(&layers, &blobs, || {
            let names = self.names_of(request, &top, (id, platform))?;
            let names = names.into_iter().map(Update::SetReference);
            Ok(std::iter::once(image).chain(names).collect())
        })?;
        drop(claim);
        Ok(pulled)
    }

    /// The names that an image gets: the one it was asked for by, and the digest's of what that names. Both mean the images that are
    /// here of the same index.
    fn names_of(
        &self,
        request: &PullRequest,
        top: &Digest,
        image: (ImageId, Platform),
    ) -> Result<Vec<ReferenceRecord>> {
        let asked = request.reference.clone().to_target();
        let by_digest = asked.clone().with_digest(*top);
        let meant = |name: &Reference| self.records.reference(name).map_err(Error::Records);
        let known = meant(&by_digest)?;
        let beside: Vec<ImageId> = { known.iter() }.flat_map(ReferenceRecord::images).collect();
        let is_of_index = |record: ReferenceRecord| record.images().all(|id| beside.contains(&id));
        if !request.named && !meant(&asked)?.is_some_and(is_of_index) {
            return Ok(Vec::new());
        }
        let others = beside.iter().filter(|id| **id != image.0);
        let others = others.map(|id| Ok((*id, self.config(id)?.platform.clone())));
        let mut images = others.collect::<Result<Vec<_>>>()?;
        images.push(image);
        let ids = platform::ordered(&images);
        let mut names = vec![asked];
        if names[0] != by_digest {
            names.push(by_digest);
        }
        let names = names.into_iter();
        Ok(names.map(|name| ReferenceRecord::of(name, &ids)).collect())
    }
}

/// Waits for something of the network, unless whoever wants it goes.
///
/// # Errors
/// What it fails with, or that nobody wants it any more.
pub fn wait<T>(
    runtime: &Handle,
    stop: &watch::Receiver<bool>,
    work: impl Future<Output = registry::Result<T>>,
) -> Result<T> {
    let mut stop = stop.clone();
    runtime.block_on(async {
        tokio::select! {
            done = work => Ok(done?),
            Ok(_) = stop.wait_for(|stopped| *stopped) => Err(Error::Stopped),
        }
    })
}

/// Fetches what a request names.
#[derive(Clone, Copy)]
struct Fetcher<'a> {
    runtime: &'a Handle,
    request: &'a PullRequest,
}

impl Fetcher<'_> {
    fn wait<T>(&self, work: impl Future<Output = registry::Result<T>>) -> Result<T> {
        wait(self.runtime, &self.request.stop, work).map_err(|error| self.explained(error))
    }

    fn explained(&self, error: Error) -> Error {
        match error {
            Error::Registry(registry::Error::Denied { message, .. }) => Error::PullDenied {
                name: self.request.reference.familiar_name(),
                message,
            },
            other => other,
        }
    }

    /// The manifest for a platform, its digest and bytes, and the digest of what the reference names.
    fn manifest(&self, wanted: &Platform) -> Result<(Digest, Digest, Bytes, Box<Manifest>)> {
        let PullRequest {
            repository,
            reference,
            policy,
            ..
        } = self.request;
        let demand = policy.demand(reference)?;
        let mut found = self.wait(repository.manifest(reference))?;
        let top = found.digest;
        // From here on everything is asked for by digest: what is verified is what is pulled.
        self.wait(demand.check(repository, reference, &top))?;
        for _ in 0..=INDEX_DEPTH_MAX {
            let index = match found.parse()? {
                Document::Manifest(manifest) => {
                    self.check_manifest(&manifest)?;
                    return Ok((top, sha256(&found.digest)?, found.bytes, manifest));
                }
                Document::Index(index) => index,
            };
            let chosen = self.choose(&index, wanted)?;
            let name = reference.clone().with_digest(chosen.digest);
            found = self.wait(repository.manifest(&name))?;
        }
        Err(self.refused(format!(
            "its indexes are nested more than {INDEX_DEPTH_MAX} deep"
        )))
    }

    fn choose<'i>(&self, index: &'i Index, wanted: &Platform) -> Result<&'i Descriptor> {
        let images = || {
            index
                .manifests
                .iter()
                .filter(|one| !platform::is_attestation(one))
        };
        let nested = || {
            images().find(|one| {
                matches!(
                    one.media_type.as_str(),
                    media_type::OCI_INDEX | media_type::DOCKER_INDEX
                )
            })
        };
        platform::choose(images(), wanted)
            .or_else(nested)
            .ok_or_else(|| {
                let platform = platform::shown(wanted);
                self.refused(format!(
                    "no matching manifest for {platform} in the manifest list entries"
                ))
            })
    }

    fn refused(&self, reason: String) -> Error {
        Error::Refused {
            name: self.request.reference.familiar(),
            reason,
        }
    }

    /// Refuses what is no image of layers.
    fn check_manifest(&self, manifest: &Manifest) -> Result<()> {
        let kind = &manifest.config.media_type;
        if !media_type::is_config(kind) {
            return Err(self.refused(format!("it is no image but an artifact, of type {kind:?}")));
        }
        sha256(&manifest.config.digest)?;
        for layer in &manifest.layers {
            sha256(&layer.digest)?;
            if !media_type::is_layer(&layer.media_type) {
                let kind = &layer.media_type;
                return Err(self.refused(format!("it has a layer of the unknown type {kind:?}")));
            }
        }
        Ok(())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.wait(self.request.repository.document(descriptor))
    }

    fn layer(
        &self,
        wanted: &Wanted,
        progress: &(dyn Fn(&Digest, LayerState) + Sync),
    ) -> Result<NewLayer> {
        let Wanted {
            descriptor,
            diff_id,
            path,
        } = wanted;
        let (digest, size) = (&descriptor.digest, descriptor.size);
        // Its task is one of the runtime's.
        let _entered = self.runtime.enter();
        let mut stream = self.request.repository.blob(descriptor);
        let start = self.start(&mut stream)?;
        let mut unpacker = Unpacker::start(Some(path.clone()), Compression::detect(&start))?;
        let mut piece = start;
        let mut done = 0;
        while !piece.is_empty() {
            done += piece.len() as u64;
            if unpacker.send(&piece).is_err() {
                // How it failed is told below.
                break;
            }
            progress(digest, LayerState::Downloading { done, size });
            piece = self.wait(stream.next())?.unwrap_or_default();
        }
        progress(digest, LayerState::Downloaded);
        let Unpacked {
            blob,
            diff_id: found,
            tar_size,
            size,
        } = unpacker.finish().map_err(|error| Error::InLayer {
            digest: Box::new(*digest),
            source: Box::new(error),
        })?;
        for (what, expected, found) in [
            ("layer", digest, blob),
            ("the tar of layer", diff_id, found),
        ] {
            if *expected != found {
                return Err(Error::Digest {
                    what: format!("{what} {digest}"),
                    expected: Box::new(*expected),
                    found: Box::new(found),
                });
            }
        }
        progress(digest, LayerState::Complete);
        let size = size.expect("it was unpacked into a directory");
        Ok(NewLayer {
            diff_id: found,
            size,
            tar_size,
            path: path.clone(),
        })
    }

    /// The first pieces of a blob: as many as tell how it is compressed.
    fn start(&self, stream: &mut BlobStream) -> Result<Bytes> {
        let mut start = BytesMut::new();
        while start.len() < MAGIC_BYTES {
            match self.wait(stream.next())? {
                Some(piece) => start.extend_from_slice(&piece),
                None => break,
            }
        }
        Ok(start.freeze())
    }
}

/// The layers of a manifest that the store lacks, each once.
fn missing(
    ingest: &mut Ingest<'_>,
    manifest: &Manifest,
    diff_ids: &[Digest],
    progress: &(dyn Fn(&Digest, LayerState) + Sync),
) -> Vec<Wanted> {
    let mut seen = HashSet::new();
    let mut missing = Vec::new();
    for (descriptor, diff_id) in manifest.layers.iter().zip(diff_ids) {
        if ingest.has_layer(diff_id) || !seen.insert(*diff_id) {
            progress(&descriptor.digest, LayerState::Exists);
            continue;
        }
        progress(&descriptor.digest, LayerState::Waiting);
        missing.push(Wanted {
            descriptor: descriptor.clone(),
            diff_id: *diff_id,
            path: ingest.path(),
        });
    }
    missing
}

/// A configuration, which has to fit its manifest and the platform that was asked for.
fn check_config(
    id: &Digest,
    bytes: &[u8],
    manifest: &Manifest,
    wanted: &Platform,
) -> Result<ConfigFile> {
    let config = ConfigFile::parse(bytes).map_err(|source| Error::Document {
        what: id.to_string(),
        source,
    })?;
    let (said, found) = (config.rootfs.diff_ids.len(), manifest.layers.len());
    let refused = |reason| {
        Err(Error::Refused {
            name: id.to_string(),
            reason,
        })
    };
    if said != found {
        return refused(format!("it has {said} layers and its manifest {found}"));
    }
    let os = config.platform.os.as_str();
    if !os.is_empty() && os != wanted.os {
        return refused(format!("it is for {os}, not for {}", wanted.os));
    }
    if let Some(other) = config.rootfs.diff_ids.iter().find(|id| sha256(id).is_err()) {
        return refused(format!("{other}: only layers under sha256 are supported"));
    }
    Ok(config)
}

/// Content is kept under SHA-256 only.
fn sha256(digest: &Digest) -> Result<Digest> {
    match digest {
        Digest::Sha256(_) => Ok(*digest),
        Digest::Sha512(_) => Err(Error::Refused {
            name: digest.to_string(),
            reason: "only content under sha256 is supported".to_owned(),
        }),
    }
}

/// How often somebody who waits for another pull looks whether he still has to.
const LOOK_MS: u64 = 200;

/// Which layers are on their way: what two pulls want comes once, and the second waits for the first.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    claimed: Mutex<HashSet<Digest>>,
    changed: Condvar,
}

/// Layers that one pull fetches.
#[derive(Debug)]
struct Claim<'a> {
    arrivals: &'a Arrivals,
    layers: &'a [Digest],
}

impl Arrivals {
    /// Claims all layers at once, so that no two pulls wait for each other.
    fn claim<'a>(
        &'a self,
        layers: &'a [Digest],
        stop: &watch::Receiver<bool>,
    ) -> Result<Claim<'a>> {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if *stop.borrow() {
                return Err(Error::Stopped);
            }
            if layers.iter().all(|layer| !claimed.contains(layer)) {
                claimed.extend(layers);
                return Ok(Claim {
                    arrivals: self,
                    layers,
                });
            }
            let waited = self
                .changed
                .wait_timeout(claimed, Duration::from_millis(LOOK_MS));
            claimed = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claimed = self
            .arrivals
            .claimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for layer in self.layers {
            claimed.remove(layer);
        }
        self.arrivals.changed.notify_all();
    }
}
