//! Which images an archive holds: `manifest.json` as Docker writes it, or `index.json` of an OCI layout.
//!
//! Everything here is pure: it chooses among the documents and layers that were found, and checks that they agree: a layer
//! has the diff ID that the configuration names, a document the digest by which it was found.

use crate::load::{Contents, FoundLayer};
use crate::platform::{self, host_platform, is_attestation};
use crate::{Error, Result, place};
use oci::image::{
    ArchiveImage, ConfigFile, Descriptor, Document, DocumentError, INDEX_DEPTH_MAX, Index, Layout,
    Manifest, Platform, annotation, from_json, media_type,
};
use oci::{Digest, Reference};
use std::collections::HashMap;
use std::path::Path;

/// Images of one archive.
const IMAGES_MAX: usize = 1024;

/// An image as an archive held it.
#[derive(Debug)]
pub(crate) struct ArchivedImage {
    /// Its configuration.
    pub(crate) config: (Digest, Vec<u8>),
    /// Its manifest.
    pub(crate) manifest: (Digest, Vec<u8>),
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<FoundLayer>,
    /// Its names.
    pub(crate) references: Vec<Reference>,
}

/// The images in what an archive held: with a platform, those that run there.
pub(crate) fn images(
    contents: &Contents,
    platform: Option<&Platform>,
) -> Result<Vec<ArchivedImage>> {
    let images = every_image(contents, platform.unwrap_or(&host_platform()))?;
    let Some(wanted) = platform else {
        return Ok(images);
    };
    for image in &images {
        let (digest, config) = &image.config;
        let config = ConfigFile::parse(config).map_err(unusable(digest.to_string()))?;
        if !platform::fits(&config.platform, wanted) {
            let name = image.references.first().map(Reference::familiar);
            return Err(Error::OtherPlatform {
                name: name.unwrap_or_else(|| digest.to_string()),
                found: platform::shown(&config.platform),
                wanted: platform::shown(wanted),
            });
        }
    }
    Ok(images)
}

/// One image of each thing that is named: where that is for several platforms, the one that fits best.
fn every_image(contents: &Contents, platform: &Platform) -> Result<Vec<ArchivedImage>> {
    let index = match contents.document_at(Path::new("index.json"))? {
        Some((_, bytes)) => Some(layout_index(contents, bytes)?),
        None => None,
    };
    if let Some((_, bytes)) = contents.document_at(Path::new("manifest.json"))? {
        let known = match &index {
            Some(index) => manifests_by_config(contents, index),
            None => HashMap::new(),
        };
        return docker_images(contents, bytes, &known);
    }
    if let Some(index) = index {
        return layout_images(contents, &index, platform);
    }
    let reason = match contents.document_at(Path::new("repositories"))? {
        Some(_) => "it is of the format of Docker before 1.10, which is not supported",
        None => "it has neither manifest.json nor index.json",
    };
    Err(Error::Archive(reason.to_owned()))
}

fn unusable(what: impl Into<String>) -> impl FnOnce(DocumentError) -> Error {
    let what = what.into();
    move |source| Error::Document { what, source }
}

/// The images of `manifest.json`. `known` has the manifests of the same archive, by the digest of their configuration.
fn docker_images(
    contents: &Contents,
    bytes: &[u8],
    known: &HashMap<Digest, Digest>,
) -> Result<Vec<ArchivedImage>> {
    let listed: Vec<ArchiveImage> =
        from_json("manifest.json", bytes).map_err(unusable("manifest.json"))?;
    if listed.len() > IMAGES_MAX {
        return Err(Error::Archive(format!(
            "it has more than {IMAGES_MAX} images"
        )));
    }
    let mut images = Vec::new();
    for image in listed {
        let path = place::clean(image.config.as_bytes())?;
        let config = contents.document_at(&path)?;
        let (digest, bytes) =
            config.ok_or_else(|| Error::Archive(format!("{} is missing", path.display())))?;
        let layers = image
            .layers
            .iter()
            .map(|path| contents.layer_at(&place::clean(path.as_bytes())?).cloned());
        let layers = layers.collect::<Result<Vec<_>>>()?;
        check(&image.config, bytes, &layers)?;
        let found = known.get(digest).and_then(|digest| {
            contents
                .document_by(digest)
                .map(|bytes| (*digest, bytes.to_vec()))
        });
        images.push(ArchivedImage {
            config: (*digest, bytes.clone()),
            manifest: found.unwrap_or_else(|| manifest(*digest, bytes.len(), &layers)),
            layers,
            references: tags(&image.repo_tags)?,
        });
    }
    Ok(images)
}

/// The names in `RepoTags`, which all have a tag.
fn tags(names: &[String]) -> Result<Vec<Reference>> {
    names
        .iter()
        .map(|name| {
            let reference = parse(name)?;
            if reference.tag().is_none() || reference.digest().is_some() {
                return Err(Error::Archive(format!(
                    "its name {name:?} is not of the form name:tag"
                )));
            }
            Ok(reference)
        })
        .collect()
}

fn parse(name: &str) -> Result<Reference> {
    name.parse().map_err(|source| Error::Reference {
        text: name.to_owned(),
        source,
    })
}

/// Whether configuration and layers belong together.
fn check(name: &str, config: &[u8], layers: &[FoundLayer]) -> Result<()> {
    let config = ConfigFile::parse(config).map_err(unusable(name))?;
    let (said, found) = (config.rootfs.diff_ids.len(), layers.len());
    if said != found {
        let reason = format!("{name} has {said} layers and its manifest {found}");
        return Err(Error::Archive(reason));
    }
    if !matches!(config.platform.os.as_str(), "" | "linux") {
        let reason = format!("{name} is for {}, not for linux", config.platform.os);
        return Err(Error::Archive(reason));
    }
    for (number, (expected, layer)) in config.rootfs.diff_ids.iter().zip(layers).enumerate() {
        if *expected != layer.unpacked.diff_id {
            return Err(Error::Digest {
                what: format!("layer {} of {name}", number + 1),
                expected: Box::new(*expected),
                found: Box::new(layer.unpacked.diff_id),
            });
        }
    }
    Ok(())
}

/// A manifest of an image whose layers are plain tars: what `save` writes, the same each time.
fn manifest(config: Digest, config_size: usize, layers: &[FoundLayer]) -> (Digest, Vec<u8>) {
    let layers = layers
        .iter()
        .map(|layer| (layer.unpacked.diff_id, layer.unpacked.tar_size));
    plain_manifest(config, config_size, layers)
}

/// The manifest of a configuration and of layers as plain tars, given by diff ID and size.
pub(crate) fn plain_manifest(
    config: Digest,
    config_size: usize,
    layers: impl Iterator<Item = (Digest, u64)>,
) -> (Digest, Vec<u8>) {
    let layer = |(digest, size)| Descriptor::new(media_type::OCI_LAYER, digest, size);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::new(media_type::OCI_CONFIG, config, config_size as u64),
        layers: layers.map(layer).collect(),
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).expect("a manifest has only strings as keys");
    (Digest::sha256(&bytes), bytes)
}

/// The index of an OCI layout.
fn layout_index(contents: &Contents, bytes: &[u8]) -> Result<Index> {
    let Some((_, layout)) = contents.document_at(Path::new("oci-layout"))? else {
        return Err(Error::Archive(
            "it has index.json and no oci-layout".to_owned(),
        ));
    };
    let layout: Layout = from_json("oci-layout", layout).map_err(unusable("oci-layout"))?;
    if layout.image_layout_version != "1.0.0" {
        let version = layout.image_layout_version;
        return Err(Error::Archive(format!(
            "its layout version {version:?} is not 1.0.0"
        )));
    }
    match Document::parse(bytes, Some(media_type::OCI_INDEX)).map_err(unusable("index.json"))? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(Error::Archive("index.json is no index".to_owned())),
    }
}

/// The manifests that an index refers to, by the digest of their configuration. What cannot be read does not count.
fn manifests_by_config(contents: &Contents, index: &Index) -> HashMap<Digest, Digest> {
    let manifests = index.manifests.iter().filter_map(|descriptor| {
        let bytes = contents.document_by(&descriptor.digest)?;
        match Document::parse(bytes, Some(&descriptor.media_type)) {
            Ok(Document::Manifest(manifest)) => Some((manifest.config.digest, descriptor.digest)),
            _ => None,
        }
    });
    manifests.collect()
}

/// The images of a layout: one of each thing that its index names.
fn layout_images(
    contents: &Contents,
    index: &Index,
    platform: &Platform,
) -> Result<Vec<ArchivedImage>> {
    let mut images = Vec::new();
    for descriptor in index
        .manifests
        .iter()
        .filter(|descriptor| !is_attestation(descriptor))
    {
        images.push(layout_image(contents, descriptor, platform)?);
    }
    if images.is_empty() {
        return Err(Error::Archive("its index names no image".to_owned()));
    }
    Ok(images)
}

fn layout_image(
    contents: &Contents,
    descriptor: &Descriptor,
    platform: &Platform,
) -> Result<ArchivedImage> {
    let (digest, manifest) = choose(contents, descriptor, platform, 0)?;
    let what = digest.to_string();
    if !media_type::is_config(&manifest.config.media_type) {
        let kind = &manifest.config.media_type;
        return Err(Error::Archive(format!(
            "{what} is no image: its config is of type {kind:?}"
        )));
    }
    let config = document(contents, &manifest.config)?;
    let layers = manifest.layers.iter().map(|layer| {
        if !media_type::is_layer(&layer.media_type) {
            let kind = &layer.media_type;
            return Err(Error::Archive(format!(
                "{what} has a layer of the unknown type {kind:?}"
            )));
        }
        contents.layer_by(&sha256(&layer.digest)?).cloned()
    });
    let layers = layers.collect::<Result<Vec<_>>>()?;
    check(&manifest.config.digest.to_string(), config, &layers)?;
    Ok(ArchivedImage {
        config: (manifest.config.digest, config.to_vec()),
        manifest: (
            digest,
            contents.document_by(&digest).unwrap_or_default().to_vec(),
        ),
        layers,
        references: name(descriptor)?.into_iter().collect(),
    })
}

/// The manifest that a descriptor means: itself, or that of an index which fits the platform.
fn choose(
    contents: &Contents,
    descriptor: &Descriptor,
    wanted: &Platform,
    depth: usize,
) -> Result<(Digest, Box<Manifest>)> {
    let bytes = document(contents, descriptor)?;
    let what = descriptor.digest.to_string();
    let parsed = Document::parse(bytes, Some(&descriptor.media_type)).map_err(unusable(&what))?;
    let index = match parsed {
        Document::Manifest(manifest) => return Ok((descriptor.digest, manifest)),
        Document::Index(index) => index,
    };
    if depth == INDEX_DEPTH_MAX {
        return Err(Error::Archive(format!(
            "its indexes are nested more than {depth} deep"
        )));
    }
    let candidates: Vec<&Descriptor> = index
        .manifests
        .iter()
        .filter(|d| !is_attestation(d))
        .collect();
    // An archive of one platform may keep the index of all of them.
    let present = |descriptor: &&Descriptor| contents.document_by(&descriptor.digest).is_some();
    let mut there = candidates.iter().copied().filter(present);
    let chosen = match (
        platform::choose(candidates.iter().copied(), wanted),
        there.next(),
        there.next(),
    ) {
        (Some(chosen), _, _) | (None, Some(chosen), None) => chosen,
        _ => {
            let reason = format!("{what} has no image for {}", platform::shown(wanted));
            return Err(Error::Archive(reason));
        }
    };
    choose(contents, chosen, wanted, depth + 1)
}

fn document<'a>(contents: &'a Contents, descriptor: &Descriptor) -> Result<&'a [u8]> {
    let digest = sha256(&descriptor.digest)?;
    let bytes = contents
        .document_by(&digest)
        .ok_or_else(|| contents.missing(&digest))?;
    if bytes.len() as u64 != descriptor.size {
        let (found, said) = (bytes.len(), descriptor.size);
        return Err(Error::Archive(format!(
            "{digest} has {found} bytes, not {said}"
        )));
    }
    Ok(bytes)
}

/// Content is found by SHA-256 only: no archive is written with another.
fn sha256(digest: &Digest) -> Result<Digest> {
    match digest {
        Digest::Sha256(_) => Ok(*digest),
        Digest::Sha512(_) => Err(Error::Archive(format!(
            "{digest}: only content under sha256 can be loaded"
        ))),
    }
}

/// The name in a descriptor's annotations. A tag alone names nothing here.
fn name(descriptor: &Descriptor) -> Result<Option<Reference>> {
    if let Some(name) = descriptor.annotations.get(annotation::CONTAINERD_NAME) {
        return parse(name).map(|reference| Some(reference.to_target()));
    }
    match descriptor.annotations.get(annotation::REF_NAME) {
        Some(name) if name.contains(['/', ':']) => parse(name).map(|r| Some(r.to_target())),
        _ => Ok(None),
    }
}
