//! Images made by hand, and registries that are scripts of them.

use crate::server::{Answer, Server};
use oci::Digest;
use oci::image::{Document, media_type};
use std::sync::{Arc, OnceLock};

/// A tar with one small file.
pub(crate) fn tar_of(content: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), content).unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.arg("-C").arg(directory.path()).args(["-c", "."]);
    let output = tar.output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// What a manifest says of some content.
pub(crate) fn descriptor(kind: &str, bytes: &[u8]) -> String {
    let (digest, size) = (Digest::sha256(bytes), bytes.len());
    format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
}

pub(crate) fn manifest(config: &str, layers: &str) -> String {
    let kind = media_type::OCI_MANIFEST;
    format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{config},"layers":[{layers}]}}"#)
}

pub(crate) fn index(manifests: &str) -> String {
    let kind = media_type::OCI_INDEX;
    format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[{manifests}]}}"#)
}

/// The configuration of an image with one layer, and more fields.
pub(crate) fn config(layer: &[u8], more: &str) -> String {
    let id = Digest::sha256(layer);
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{{more}}},"rootfs":{{"type":"layers","diff_ids":["{id}"]}}}}"#
    )
}

/// Documents and blobs, by the end of their paths.
pub(crate) type Contents = Vec<(String, Vec<u8>)>;

/// A registry of contents.
pub(crate) fn registry_of(contents: Contents) -> Server {
    registry_with(|_| contents)
}

/// A registry whose contents name its address.
pub(crate) fn registry_with(contents: impl FnOnce(&str) -> Contents) -> Server {
    let known = Arc::new(OnceLock::new());
    let served = Arc::clone(&known);
    let server = Server::start(move |request| answer(served.wait(), &request.path));
    assert!(known.set(contents(&server.address)).is_ok());
    server
}

fn answer(contents: &Contents, path: &str) -> Answer {
    // What refers to something is not the thing.
    let listed = path.contains("/referrers/");
    let found = contents.iter().find(|(name, _)| {
        path.ends_with(name.as_str()) && listed == name.starts_with("/referrers/")
    });
    let Some((_, bytes)) = found else {
        return Answer::status(404);
    };
    let kind = match Document::parse(bytes, None) {
        Ok(Document::Index(_)) => media_type::OCI_INDEX,
        Ok(Document::Manifest(_)) => media_type::OCI_MANIFEST,
        Err(_) => "application/octet-stream",
    };
    Answer::ok(bytes).with("Content-Type", kind)
}

/// Content under its digest.
pub(crate) fn by_digest(content: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    let content = content.as_ref();
    (Digest::sha256(content).to_string(), content.to_vec())
}

/// The registry of an image `image:1` of one layer.
pub(crate) fn registry_of_image(layer: &[u8], config: &str) -> Server {
    let manifest = manifest(
        &descriptor(media_type::OCI_CONFIG, config.as_bytes()),
        &descriptor(media_type::OCI_LAYER, layer),
    );
    registry_of(vec![
        ("/manifests/1".to_owned(), manifest.into()),
        by_digest(config),
        by_digest(layer),
    ])
}
