//! Sending the results of a build elsewhere.

use super::document::{ARTIFACT_TYPE, CONFIG_TYPE, Document, MOUNT_TYPE};
use super::{CacheMode, CachePlace, CacheTarget};
use crate::build::Build;
use crate::cache::Kept;
use crate::destination::{Destination, ToBlobs, ToRegistry};
use crate::error::{Doing, Error, Result};
use crate::progress::Event;
use images::{Form, Packed, archive};
use oci::Digest;
use oci::image::{Descriptor, Manifest, media_type};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use sys::root::Root;

/// Sends the results of a build to all caches that are to be written; what became of the last that went to the client.
/// `layers` are those of the result.
pub(crate) fn export(build: &Build<'_>, layers: &HashSet<Digest>) -> Result<Option<Descriptor>> {
    let mut told = None;
    for target in &build.request.cache_to {
        let task = match &target.place {
            // It is in the image by now.
            CachePlace::Inline => continue,
            CachePlace::Registry(reference) => {
                format!("exporting cache to registry {}", reference.familiar())
            }
            CachePlace::Client { .. } => "exporting cache to client directory".to_owned(),
        };
        build.tell(&Event::Task(&task));
        match write(build, target, layers) {
            Ok(manifest) => {
                build.tell(&Event::TaskEnded(&task, None));
                if let CachePlace::Client { .. } = target.place {
                    told = Some(manifest);
                }
            }
            Err(error) => {
                let why = error.chain();
                build.tell(&Event::TaskEnded(&task, Some(&why)));
                if !target.options.ignore_error || matches!(error, Error::Cancelled) {
                    return Err(error);
                }
                build.tell(&Event::Warning(&format!("{task} failed: {why}")));
            }
        }
    }
    Ok(told)
}

/// The results for a cache.
pub(crate) fn results(all: &[Kept], mode: CacheMode, layers: &HashSet<Digest>) -> Vec<Kept> {
    let wanted = |kept: &&Kept| match mode {
        CacheMode::Max => true,
        CacheMode::Min => kept.layers.iter().all(|layer| layers.contains(layer)),
    };
    all.iter().filter(wanted).cloned().collect()
}

fn write(build: &Build<'_>, target: &CacheTarget, layers: &HashSet<Digest>) -> Result<Descriptor> {
    let options = &target.options;
    let results = results(&build.kept(), options.mode, layers);
    let mut document = Document::new(&results);
    let scratch = build
        .images
        .scratch()
        .doing(|| "make room for a cache".to_owned())?;
    let place: Box<dyn Destination + '_> = match &target.place {
        CachePlace::Inline => unreachable!("an inline cache goes with the image"),
        CachePlace::Registry(reference) => Box::new(ToRegistry::new(build, reference, false)?),
        CachePlace::Client { blobs } => Box::new(ToBlobs::new(build, scratch.path(), &**blobs)),
    };
    let mut blobs = place.layers(&document.layers, options.form)?;
    if options.mounts {
        for (id, path) in build.mounts_used() {
            build.check_stop()?;
            let packed =
                mount(&path, scratch.path()).doing(|| format!("pack the cache mount {id:?}"))?;
            place.blob(&packed)?;
            blobs.push(packed.descriptor);
            document.mounts.push(id);
        }
    }
    let json = "documents have only strings as keys";
    let config = serde_json::to_vec(&document).expect(json);
    let config_blob = Descriptor::new(CONFIG_TYPE, Digest::sha256(&config), config.len() as u64);
    place.document(&config_blob, &config)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: Some(ARTIFACT_TYPE.to_owned()),
        config: config_blob,
        layers: blobs,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).expect(json);
    let size = bytes.len() as u64;
    let blob = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(&bytes), size);
    place.manifest(&blob, bytes, true)?;
    Ok(blob)
}

/// A cache mount as a blob.
fn mount(data: &Path, directory: &Path) -> images::Result<Packed> {
    let root = Root::open(data)?;
    Packed::write(directory, Form::Gzip(None), MOUNT_TYPE, |out| {
        archive::export(&root, out)
    })
}
