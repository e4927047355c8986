//! OCI layouts in directories: caches, and images that are named contexts. Source: image-spec 1.1, image-layout.md.

use crate::error::{Error, IoContext, Result};
use oci::Digest;
use oci::image::{Descriptor, Document, Index, annotation};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes of an index or manifest.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Indexes in each other.
const DEPTH_MAX: usize = 4;

fn read_document(path: &Path) -> Result<Vec<u8>> {
    let call = || format!("read {}", path.display());
    let size = std::fs::metadata(path).during(call)?.len();
    if size > DOCUMENT_BYTES_MAX {
        return Err(Error::msg(format!("{} has {size} bytes", path.display())));
    }
    std::fs::read(path).during(call)
}

/// The index of a layout.
pub(crate) fn index(directory: &Path) -> Result<Index> {
    let path = directory.join("index.json");
    let bytes = read_document(&path)?;
    let wrong = |error| Error::msg(format!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).map_err(wrong)
}

/// The name that an index gives something.
pub(crate) fn tag_of(descriptor: &Descriptor) -> Option<&str> {
    descriptor
        .annotations
        .get(annotation::REF_NAME)
        .map(String::as_str)
}

/// What a layout has by a tag, or by a digest: the manifest or index, and all files that belong to it, by their names in a
/// layout. Of an index, images that are not there are left out.
pub(crate) fn blobs(
    directory: &Path,
    tag: &str,
    digest: Option<&str>,
) -> Result<(Digest, Vec<(String, PathBuf)>)> {
    let top = match digest {
        Some(text) => text
            .parse()
            .map_err(|error| Error::msg(format!("digest {text:?}: {error}")))?,
        None => {
            let index = index(directory)?;
            let found = index.manifests.iter().find(|it| tag_of(it) == Some(tag));
            let none = || Error::msg(format!("there is no tag {tag} in its index"));
            found.ok_or_else(none)?.digest
        }
    };
    let mut files = BTreeMap::new();
    collect(directory, &top, 0, &mut files)?;
    Ok((top, files.into_iter().collect()))
}

fn collect(
    directory: &Path,
    digest: &Digest,
    depth: usize,
    files: &mut BTreeMap<String, PathBuf>,
) -> Result<()> {
    let file = |digest: &Digest| {
        let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let path = directory.join(&name);
        (name, path)
    };
    let (name, path) = file(digest);
    let bytes = read_document(&path)?;
    files.insert(name, path);
    let wrong = |error| Error::msg(format!("{digest}: {error}"));
    match Document::parse(&bytes, None).map_err(wrong)? {
        Document::Manifest(manifest) => {
            let all = std::iter::once(&manifest.config).chain(&manifest.layers);
            files.extend(all.map(|blob| file(&blob.digest)));
        }
        Document::Index(_) if depth == DEPTH_MAX => {
            return Err(Error::msg(format!(
                "{digest}: too many indexes in each other"
            )));
        }
        Document::Index(index) => {
            for entry in &index.manifests {
                if file(&entry.digest).1.exists() {
                    collect(directory, &entry.digest, depth + 1, files)?;
                }
            }
        }
    }
    Ok(())
}
