//! Caches that are read: which results they have, and their layers when a step wants one.

use super::document::{CONFIG_TYPE, Document, MOUNT_TYPE};
use super::{BlobSource, CacheSource};
use crate::build::Build;
use crate::cache::Kept;
use crate::error::{Doing, Error, Result};
use crate::progress::Event;
use crate::request::Request;
use engine::Engine;
use images::registry::Repository;
use images::{Hold, RemoteBlob};
use oci::image::{
    CONFIG_BYTES_MAX, ConfigFile, Descriptor, Document as Top, MANIFEST_BYTES_MAX, Manifest,
    from_json, media_type,
};
use oci::{Digest, Reference};
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The caches that a build may take from.
#[derive(Debug, Default)]
pub(crate) struct Imported<'r> {
    sources: Vec<Source<'r>>,
}

/// A cache mount of a cache.
pub(crate) type ImportedMount<'i> = Box<dyn Read + Send + 'i>;

#[derive(Debug)]
struct Source<'r> {
    name: String,
    blobs: Blobs<'r>,
    results: HashMap<Digest, Kept>,
    /// The blobs of layers, by diff ID.
    layers: HashMap<Digest, Descriptor>,
    mounts: BTreeMap<String, Descriptor>,
    /// Something in it was not what it should be: it is left alone.
    is_broken: AtomicBool,
}

/// Where blobs come from.
#[derive(Debug)]
enum Blobs<'r> {
    Registry {
        handle: Handle,
        repository: Arc<Repository>,
        stop: watch::Receiver<bool>,
    },
    Client(&'r dyn BlobSource),
    /// Nothing comes: all there can be is in the engine's store.
    Here,
}

impl Blobs<'_> {
    fn open(&self, digest: &Digest, size: Option<u64>) -> Result<Box<dyn Read + Send + '_>> {
        match (self, size) {
            (Self::Client(blobs), size) => blobs.read(digest, size),
            (Self::Here, _) => Err(Error::NotFound(format!("{digest} is not here"))),
            (
                Self::Registry {
                    handle,
                    repository,
                    stop,
                },
                size,
            ) => {
                let descriptor = Descriptor::new("", *digest, size.unwrap_or(0));
                let blob = RemoteBlob::open(handle, repository, &descriptor, stop.clone());
                Ok(Box::new(blob))
            }
        }
    }

    /// A small blob, whole, and as its digest says.
    fn document(&self, digest: &Digest, size: Option<u64>, bytes_max: u64) -> Result<Vec<u8>> {
        let wrong = |why: String| Error::Invalid(format!("{digest} {why}"));
        if size.is_some_and(|size| size > bytes_max) {
            return Err(wrong(format!("has more than {bytes_max} bytes")));
        }
        let mut bytes = Vec::new();
        let source = self.open(digest, size)?;
        let read = source.take(bytes_max + 1).read_to_end(&mut bytes);
        read.doing(|| format!("read {digest}"))?;
        if bytes.len() as u64 > bytes_max {
            return Err(wrong(format!("has more than {bytes_max} bytes")));
        }
        match Digest::sha256(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(wrong(format!("is damaged: its digest is {found}"))),
        }
    }
}

impl<'r> Imported<'r> {
    /// Reads what the caches of a request have. One that cannot be used is told of by `warn`.
    ///
    /// # Errors
    /// The client is gone.
    pub(crate) fn read(
        engine: &Engine,
        handle: &Handle,
        request: &'r Request,
        tell: &dyn Fn(&Event<'_>),
    ) -> Result<Self> {
        let mut sources = Vec::new();
        for source in &request.cache_from {
            let name = source.name();
            let task = format!("importing cache manifest from {name}");
            tell(&Event::Task(&task));
            match Source::read(engine, handle, request, source) {
                Ok(read) => {
                    tell(&Event::TaskEnded(&task, None));
                    sources.push(read);
                }
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) => {
                    let why = error.chain();
                    tell(&Event::TaskEnded(&task, Some(&why)));
                    let text = format!("the cache {name} is of no use: {why}");
                    tell(&Event::Warning(&text));
                }
            }
        }
        Ok(Self { sources })
    }

    /// The result with a key, its layers fetched. What cannot be fetched is told of, and is no result.
    pub(crate) fn result<'a>(
        &self,
        build: &Build<'a>,
        key: &Digest,
    ) -> Result<Option<(Kept, Hold<'a>)>> {
        for source in &self.sources {
            let Some(kept) = source.result(key) else {
                continue;
            };
            match source.fetch(build, &kept.layers) {
                Ok(hold) => return Ok(Some((kept.clone(), hold))),
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) => source.give_up(build, &error),
            }
        }
        Ok(None)
    }

    /// Fills a cache mount that is not here, where a cache has it: `fill` gets its tar.
    pub(crate) fn mount(
        &self,
        build: &Build<'_>,
        id: &str,
        fill: &dyn Fn(ImportedMount<'_>) -> Result<()>,
    ) -> Result<()> {
        for source in &self.sources {
            let Some(descriptor) = source.mounts.get(id) else {
                continue;
            };
            let opened = source.blobs.open(&descriptor.digest, Some(descriptor.size));
            match opened.and_then(fill) {
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) => source.give_up(build, &error),
                Ok(()) => return Ok(()),
            }
        }
        Ok(())
    }
}

impl<'r> Source<'r> {
    fn read(
        engine: &Engine,
        handle: &Handle,
        request: &'r Request,
        source: &'r CacheSource,
    ) -> Result<Self> {
        let (blobs, manifest) = match source {
            CacheSource::Image(name) => return Self::of_image(engine, name),
            CacheSource::Client {
                blobs, manifest, ..
            } => {
                let blobs = Blobs::Client(&**blobs);
                let bytes = blobs.document(manifest, None, MANIFEST_BYTES_MAX)?;
                (blobs, bytes)
            }
            CacheSource::Registry(reference) => of_registry(engine, handle, request, reference)?,
        };
        // A cache may have more layers than an image.
        let manifest: Manifest = from_json("manifest", &manifest)
            .map_err(|error| unusable("manifest")(sys::chain(&error)))?;
        let config = &manifest.config;
        let bytes = blobs.document(&config.digest, Some(config.size), CONFIG_BYTES_MAX)?;
        let (document, diff_ids) = match config.media_type.as_str() {
            CONFIG_TYPE => {
                let document = Document::read(&bytes).map_err(unusable("list of results"))?;
                let diff_ids = document.layers.clone();
                (document, diff_ids)
            }
            kind if media_type::is_config(kind) => {
                let config = ConfigFile::parse(&bytes);
                let config =
                    config.map_err(|error| unusable("configuration")(error.to_string()))?;
                (in_image(config.build_cache)?, config.rootfs.diff_ids)
            }
            other => {
                return Err(Error::Invalid(format!(
                    "it is no cache of this engine: its configuration is of type {other:?}"
                )));
            }
        };
        let blobs_of = |kind: fn(&str) -> bool| {
            let all = manifest.layers.iter();
            all.filter(move |layer| kind(&layer.media_type)).cloned()
        };
        let layers: Vec<Descriptor> = blobs_of(media_type::is_layer).collect();
        let mounts: Vec<Descriptor> = blobs_of(|kind| kind == MOUNT_TYPE).collect();
        let is_whole = layers.len() == diff_ids.len() && mounts.len() == document.mounts.len();
        let layers: HashMap<Digest, Descriptor> = diff_ids.into_iter().zip(layers).collect();
        if !is_whole
            || !document
                .layers
                .iter()
                .all(|layer| layers.contains_key(layer))
        {
            let why = "it is of other layers than its manifest";
            return Err(unusable("list of results")(why.to_owned()));
        }
        Ok(Self {
            name: source.name(),
            blobs,
            results: document.results().map(|kept| (kept.key, kept)).collect(),
            layers,
            mounts: document.mounts.iter().cloned().zip(mounts).collect(),
            is_broken: AtomicBool::new(false),
        })
    }

    /// The cache in an image of the engine, whose layers are in the store.
    fn of_image(engine: &Engine, name: &str) -> Result<Self> {
        let doing = || format!("look for the image {name}");
        let image = engine.images().get(name).doing(doing)?;
        let document = in_image(image.config.build_cache.clone())?;
        Ok(Self {
            name: name.to_owned(),
            blobs: Blobs::Here,
            results: document.results().map(|kept| (kept.key, kept)).collect(),
            layers: HashMap::new(),
            mounts: BTreeMap::new(),
            is_broken: AtomicBool::new(false),
        })
    }

    fn result(&self, key: &Digest) -> Option<&Kept> {
        match self.is_broken.load(Ordering::Relaxed) {
            true => None,
            false => self.results.get(key),
        }
    }

    /// Fetches the layers that are not here.
    fn fetch<'a>(&self, build: &Build<'a>, layers: &[Digest]) -> Result<Hold<'a>> {
        let mut held = Vec::new();
        for layer in layers {
            build.check_stop()?;
            if let Ok(hold) = build.images.hold(&[*layer]) {
                held.push(hold);
                continue;
            }
            let missing = || Error::NotFound(format!("the layer {layer} is not here"));
            let blob = self.layers.get(layer).ok_or_else(missing)?;
            let doing = || format!("fetch the layer {}", blob.digest);
            let source = self.blobs.open(&blob.digest, Some(blob.size))?;
            let taken = build.images.take_layer(layer, &blob.digest, source);
            // Reading ends early when the build does.
            build.check_stop()?;
            held.push(taken.doing(doing)?);
        }
        build
            .images
            .hold(layers)
            .doing(|| "hold the layers of a cache".to_owned())
    }

    fn give_up(&self, build: &Build<'_>, error: &Error) {
        if !self.is_broken.swap(true, Ordering::Relaxed) {
            let text = format!(
                "the cache {} is of no further use: {}",
                self.name,
                error.chain()
            );
            build.tell(&Event::Warning(&text));
        }
    }
}

/// Why something of a cache is of no use.
fn unusable(what: &str) -> impl Fn(String) -> Error {
    let what = what.to_owned();
    move |why| Error::Invalid(format!("its {what} cannot be used: {why}"))
}

/// The list of results in an image.
fn in_image(cache: Option<serde_json::Value>) -> Result<Document> {
    let none = || Error::Invalid("the image has no cache of this engine in it".to_owned());
    let document = Document::of_value(cache.ok_or_else(none)?);
    document.map_err(unusable("list of results"))
}

/// The blobs of a registry, and the manifest of a cache, or of the image for this machine.
fn of_registry<'r>(
    engine: &Engine,
    handle: &Handle,
    request: &Request,
    reference: &Reference,
) -> Result<(Blobs<'r>, Vec<u8>)> {
    let credentials = request.client.credentials(reference.domain())?;
    let mut stop = request.stop.clone();
    let doing = || format!("ask for {}", reference.familiar());
    let found = handle.block_on(async {
        tokio::select! {
            found = engine.remote_manifest(reference, credentials) => Ok(found),
            Ok(_) = stop.wait_for(|stopped| *stopped) => Err(Error::Cancelled),
        }
    })?;
    let (repository, manifest) = found.doing(doing)?;
    let bytes = match manifest.media_type.as_str() {
        media_type::OCI_INDEX | media_type::DOCKER_INDEX => {
            let parsed = manifest.parse().map_err(images::Error::from).doing(doing)?;
            let Top::Index(index) = parsed else {
                return Err(Error::Invalid("it is no index, as it says".to_owned()));
            };
            let wanted = request
                .platforms
                .first()
                .cloned()
                .unwrap_or_else(images::host_platform);
            let chosen = images::choose_platform(&index.manifests, &wanted);
            let none = || Error::Invalid(format!("it has no image for {wanted}"));
            let name = reference
                .clone()
                .with_digest(chosen.ok_or_else(none)?.digest);
            let found = handle.block_on(repository.manifest(&name));
            found.map_err(images::Error::from).doing(doing)?.bytes
        }
        _ => manifest.bytes,
    };
    let blobs = Blobs::Registry {
        handle: handle.clone(),
        repository,
        stop: request.stop.clone(),
    };
    Ok((blobs, bytes.to_vec()))
}
