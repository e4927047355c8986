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
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Images of one archive.
const IMAGES_MAX: usize = 1024;

/// An image as an archive held it.
#[derive(Debug)]
pub(crate) struct ArchivedImage {
    /// Its configuration.
    pub(crate) config: (Digest, Vec<u8>),
    /// What it runs on, as the configuration says.
    pub(crate) platform: Platform,
    /// Its manifest.
    pub(crate) manifest: (Digest, Vec<u8>),
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<FoundLayer>,
}

/// An image, or one for each of several platforms, with their names.
#[derive(Debug)]
pub(crate) struct Archived {
    /// One at least.
    pub(crate) images: Vec<ArchivedImage>,
    /// All of them have these.
    pub(crate) references: Vec<Reference>,
}

/// The images in what an archive held: with a platform, of each name the one that runs there.
pub(crate) fn images(contents: &Contents, platform: Option<&Platform>) -> Result<Vec<Archived>> {
    let all = every_image(contents, platform)?;
    let Some(wanted) = platform else {
        return Ok(all);
    };
    for Archived { images, references } in &all {
        for image in images {
            if !platform::fits(&image.platform, wanted) {
                let name = references.first().map(Reference::familiar);
                return Err(Error::OtherPlatform {
                    name: name.unwrap_or_else(|| image.config.0.to_string()),
                    found: platform::shown(&image.platform),
                    wanted: platform::shown(wanted),
                });
            }
        }
    }
    Ok(all)
}

/// The images of each thing that is named: where that is for several platforms, all that are there, or the one that fits the
/// wanted platform best.
fn every_image(contents: &Contents, platform: Option<&Platform>) -> Result<Vec<Archived>> {
    let index = match contents.document_at(Path::new("index.json"))? {
        Some((_, bytes)) => Some(layout_index(contents, bytes)?),
        None => None,
    };
    if let Some((_, bytes)) = contents.document_at(Path::new("manifest.json"))? {
        let Some(index) = index else {
            return docker_images(contents, bytes, &HashMap::new());
        };
        let known = manifests_by_config(contents, &index);
        let listed = docker_images(contents, bytes, &known)?;
        return with_indexes(contents, &index, platform, listed);
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

/// Adds what only the index of an archive tells of: `manifest.json` has one image of a name, for one platform.
fn with_indexes(
    contents: &Contents,
    index: &Index,
    platform: Option<&Platform>,
    mut listed: Vec<Archived>,
) -> Result<Vec<Archived>> {
    let is_index = |kind: &str| matches!(kind, media_type::OCI_INDEX | media_type::DOCKER_INDEX);
    let several = { index.manifests.iter() }.filter(|one| is_index(&one.media_type));
    for descriptor in several {
        let found = layout_images_of(contents, descriptor, platform)?;
        let mut all = Vec::new();
        every(contents, descriptor, 0, &mut all)?;
        let is_of_it = |image: &ArchivedImage| {
            all.iter()
                .any(|(_, manifest)| manifest.config.digest == image.config.0)
        };
        let mut references = found.references.clone();
        // Other names of the same thing stand beside it in the list.
        for one in listed.extract_if(.., |one| one.images.iter().all(is_of_it)) {
            references.extend(one.references);
        }
        references.sort();
        references.dedup();
        listed.push(Archived {
            references,
            ..found
        });
    }
    Ok(listed)
}

/// The images of `manifest.json`. `known` has the manifests of the same archive, by the digest of their configuration.
fn docker_images(
    contents: &Contents,
    bytes: &[u8],
    known: &HashMap<Digest, Digest>,
) -> Result<Vec<Archived>> {
    let listed: Vec<ArchiveImage> =
        from_json("manifest.json", bytes).map_err(unusable("manifest.json"))?;
    if listed.len() > IMAGES_MAX {
        return Err(too_many());
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
        let platform = check(&image.config, bytes, &layers)?;
        let found = known.get(digest).and_then(|digest| {
            contents
                .document_by(digest)
                .map(|bytes| (*digest, bytes.to_vec()))
        });
        let archived = ArchivedImage {
            config: (*digest, bytes.clone()),
            platform,
            manifest: found.unwrap_or_else(|| manifest(*digest, bytes.len(), &layers)),
            layers,
        };
        images.push(Archived {
            images: vec![archived],
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

/// Whether configuration and layers belong together; what the image runs on.
fn check(name: &str, config: &[u8], layers: &[FoundLayer]) -> Result<Platform> {
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
    Ok(config.platform)
}

/// A manifest of an image whose layers are plain tars: what `save` writes, the same each time.
fn manifest(config: Digest, config_size: usize, layers: &[FoundLayer]) -> (Digest, Vec<u8>) {
    let layers = layers
        .iter()
        .map(|layer| (layer.unpacked.diff_id, layer.unpacked.tar_size));
    plain_manifest(config, config_size, layers, BTreeMap::new())
}

/// The manifest of a configuration and of layers as plain tars, given by diff ID and size.
pub(crate) fn plain_manifest(
    config: Digest,
    config_size: usize,
    layers: impl Iterator<Item = (Digest, u64)>,
    annotations: BTreeMap<String, String>,
) -> (Digest, Vec<u8>) {
    let layer = |(digest, size)| Descriptor::new(media_type::OCI_LAYER, digest, size);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::new(media_type::OCI_CONFIG, config, config_size as u64),
        layers: layers.map(layer).collect(),
        subject: None,
        annotations,
    };
    let bytes = serde_json::to_vec(&manifest).expect("a manifest has only strings as keys");
    (Digest::sha256(&bytes), bytes)
}

/// An index of manifests and what each image runs on.
pub(crate) fn index(manifests: Vec<(Descriptor, Platform)>) -> (Digest, Vec<u8>) {
    let entry = |(mut descriptor, platform): (Descriptor, Platform)| {
        descriptor.platform = Some(platform);
        descriptor
    };
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests: manifests.into_iter().map(entry).collect(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&index).expect("an index has only strings as keys");
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

/// The images of a layout, by the things that its index names.
fn layout_images(
    contents: &Contents,
    index: &Index,
    platform: Option<&Platform>,
) -> Result<Vec<Archived>> {
    let named = { index.manifests.iter() }.filter(|descriptor| !is_attestation(descriptor));
    let images = named.map(|descriptor| layout_images_of(contents, descriptor, platform));
    let images = images.collect::<Result<Vec<_>>>()?;
    if images.is_empty() {
        return Err(Error::Archive("its index names no image".to_owned()));
    }
    Ok(images)
}

/// The images that a descriptor means.
fn layout_images_of(
    contents: &Contents,
    descriptor: &Descriptor,
    platform: Option<&Platform>,
) -> Result<Archived> {
    let found = match platform {
        Some(wanted) => vec![choose(contents, descriptor, wanted, 0)?],
        None => {
            let mut found = Vec::new();
            every(contents, descriptor, 0, &mut found)?;
            match found.is_empty() {
                // It says why.
                true => vec![choose(contents, descriptor, &host_platform(), 0)?],
                false => found,
            }
        }
    };
    let images = found
        .into_iter()
        .map(|(digest, manifest)| layout_image(contents, digest, &manifest));
    Ok(Archived {
        images: images.collect::<Result<_>>()?,
        references: name(descriptor)?.into_iter().collect(),
    })
}

/// The manifests that a descriptor means, of those that are there with their configuration, and for this system.
fn every(
    contents: &Contents,
    descriptor: &Descriptor,
    depth: usize,
    found: &mut Vec<(Digest, Box<Manifest>)>,
) -> Result<()> {
    let bytes = document(contents, descriptor)?;
    let what = descriptor.digest.to_string();
    let parsed = Document::parse(bytes, Some(&descriptor.media_type)).map_err(unusable(&what))?;
    let index = match parsed {
        Document::Manifest(manifest) => {
            let is_known = found.iter().any(|(known, _)| *known == descriptor.digest);
            let is_there = contents.document_by(&manifest.config.digest).is_some();
            if (is_there || depth == 0) && !is_known {
                found.push((descriptor.digest, manifest));
            }
            return Ok(());
        }
        Document::Index(index) => index,
    };
    if depth == INDEX_DEPTH_MAX {
        return Err(nested(depth));
    }
    let runs = |one: &&Descriptor| one.platform.as_ref().is_none_or(|it| it.os == "linux");
    let entries = index.manifests.iter().filter(|one| !is_attestation(one));
    for entry in entries.filter(runs) {
        if found.len() == IMAGES_MAX {
            return Err(too_many());
        }
        if contents.document_by(&entry.digest).is_some() {
            every(contents, entry, depth + 1, found)?;
        }
    }
    Ok(())
}

fn nested(depth: usize) -> Error {
    Error::Archive(format!("its indexes are nested more than {depth} deep"))
}

fn too_many() -> Error {
    Error::Archive(format!("it has more than {IMAGES_MAX} images"))
}

fn layout_image(contents: &Contents, digest: Digest, manifest: &Manifest) -> Result<ArchivedImage> {
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
    let platform = check(&manifest.config.digest.to_string(), config, &layers)?;
    Ok(ArchivedImage {
        config: (manifest.config.digest, config.to_vec()),
        platform,
        manifest: (
            digest,
            contents.document_by(&digest).unwrap_or_default().to_vec(),
        ),
        layers,
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
        return Err(nested(depth));
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
