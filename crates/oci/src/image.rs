//! Images as the OCI image specification and Docker's image format write them: descriptor, manifest, index, config, layout.
//!
//! Invariant: what Go's encoder writes for nothing (`null`) reads as empty here, and nothing is written for empty. The
//! documents come from strangers: [`Document::parse`] tells a manifest from an index by its media type and refuses one that
//! could be read as both. Sources: image-spec 1.1 (descriptor.md, manifest.md, image-index.md, config.md, image-layout.md),
//! Docker's "Image Manifest Version 2, Schema 2" and "Docker Image Specification v1.3".

mod config;
mod platform;
mod values;

pub use config::{Config, ConfigFile, Healthcheck, History, RootFs};
pub use platform::{Platform, PlatformError};

use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use values::or_default;

/// Media types, of OCI and of Docker's schema 2.
pub mod media_type {
    /// An OCI manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// A layer as plain tar.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// A layer as tar, compressed with gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A layer as tar, compressed with zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer as plain tar.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker's layer as tar, compressed with gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker's layer as tar, compressed with zstd.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

    /// Whether the type is of an image configuration.
    pub fn is_config(media_type: &str) -> bool {
        matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
    }

    /// Whether the type is of a layer, compressed or not. Layers that may not be distributed count: their content does not
    /// differ.
    pub fn is_layer(media_type: &str) -> bool {
        const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
        const NONDISTRIBUTABLE: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
        [OCI_LAYER, DOCKER_LAYER, FOREIGN, NONDISTRIBUTABLE]
            .iter()
            .any(|base| {
                media_type.strip_prefix(base).is_some_and(|suffix| {
                    matches!(suffix, "" | "+gzip" | "+zstd" | ".gzip" | ".zstd")
                })
            })
    }
}

/// Annotation keys.
pub mod annotation {
    /// The tag, or the whole name, of a manifest in an index.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// The whole name of a manifest in an index, as containerd and Docker write it.
    pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
}

/// Bytes of a manifest or index that are read at most, as registries do.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Bytes of an image configuration that are read at most.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Layers of one image, as in Docker (its overlay driver mounts no more).
pub const LAYERS_MAX: usize = 127;
/// Manifests in one index.
pub const INDEX_MANIFESTS_MAX: usize = 1024;
/// Indexes inside of indexes, counted from the outermost.
pub const INDEX_DEPTH_MAX: usize = 4;

/// Names some content by digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default, deserialize_with = "or_default")]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where else it may be found.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    /// Free key-value pairs.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// The platform that an image in an index is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor with nothing but the necessary.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
        }
    }
}

/// The list of one image's parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image's configuration, whose digest is the image's ID.
    pub config: Descriptor,
    /// The layers, the lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
    /// What this manifest refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<Descriptor>>,
    /// Free key-value pairs.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// The list of an image's manifests by platform, or of the images in a layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The index's own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Manifests and nested indexes.
    #[serde(default, deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
    /// What this index refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<Descriptor>>,
    /// Free key-value pairs.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Of one image.
    Manifest(Box<Manifest>),
    /// Of several.
    Index(Index),
}

/// Why bytes are no acceptable document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is larger than what is read of its kind.
    #[error("{what} of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// The kind of document.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// It is no JSON, or not of the right shape.
    #[error("{what} is malformed")]
    Json {
        /// The kind of document.
        what: &'static str,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// It has fields of both a manifest and an index, or says to be what it is not (CVE-2021-41190).
    #[error("document is ambiguous: {0}")]
    Ambiguous(String),
    /// It is of an old or unknown schema.
    #[error("manifest schema version {0} is not supported: only 2 is")]
    Schema(u32),
    /// It is neither manifest nor index.
    #[error("media type {0:?} is neither of a manifest nor of an index")]
    MediaType(String),
    /// It lists more than it may.
    #[error("{what} lists {count}, more than the limit of {limit}")]
    TooMany {
        /// What is listed.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Its root file system is none of layers.
    #[error("root file system of type {0:?} is not supported: only \"layers\" is")]
    Rootfs(String),
}

/// The fields by which manifest and index are told apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    #[serde(default, deserialize_with = "or_default")]
    schema_version: u32,
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a manifest or index. `expected` is the media type by which it was referred to, where there was one; a document
    /// that contradicts it, or itself, is refused.
    pub fn parse(bytes: &[u8], expected: Option<&str>) -> Result<Self, DocumentError> {
        within("manifest", bytes, MANIFEST_BYTES_MAX)?;
        let outline: Outline = from_json("manifest", bytes)?;
        if outline.schema_version != 2 {
            return Err(DocumentError::Schema(outline.schema_version));
        }
        let is_manifest =
            outline.config.is_some() || outline.layers.is_some() || outline.fs_layers.is_some();
        let is_index = outline.manifests.is_some();
        if is_manifest && is_index {
            let fields = "it has the fields of a manifest and of an index";
            return Err(DocumentError::Ambiguous(fields.to_owned()));
        }
        for said in [outline.media_type.as_str(), expected.unwrap_or_default()] {
            let agrees = match said {
                "" => true,
                media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => !is_index,
                media_type::OCI_INDEX | media_type::DOCKER_INDEX => !is_manifest,
                other => return Err(DocumentError::MediaType(other.to_owned())),
            };
            if !agrees {
                let fields = if is_index { "an index" } else { "a manifest" };
                let said = format!("it is called {said} and has the fields of {fields}");
                return Err(DocumentError::Ambiguous(said));
            }
        }
        if is_index {
            let index: Index = from_json("index", bytes)?;
            at_most("index", index.manifests.len(), INDEX_MANIFESTS_MAX)?;
            return Ok(Self::Index(index));
        }
        let manifest: Box<Manifest> = from_json("manifest", bytes)?;
        at_most("manifest's layers", manifest.layers.len(), LAYERS_MAX)?;
        Ok(Self::Manifest(manifest))
    }
}

/// The file `oci-layout` of an OCI layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// Always `1.0.0`.
    pub image_layout_version: String,
}

/// One image of the file `manifest.json` that `docker save` writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ArchiveImage {
    /// The path of the configuration in the archive.
    pub config: String,
    /// The image's names.
    #[serde(default, deserialize_with = "or_default")]
    pub repo_tags: Vec<String>,
    /// The paths of the layers in the archive, the lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<String>,
}

/// Reads a JSON document that [`Document`] and [`ConfigFile`] do not cover, naming it in the error.
pub fn from_json<'a, T: Deserialize<'a>>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<T, DocumentError> {
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what, source })
}

fn within(what: &'static str, bytes: &[u8], limit: u64) -> Result<(), DocumentError> {
    let size = bytes.len() as u64;
    if size > limit {
        Err(DocumentError::TooLarge { what, size, limit })
    } else {
        Ok(())
    }
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), DocumentError> {
    if count > limit {
        Err(DocumentError::TooMany { what, count, limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(fields: &str) -> String {
        let config = format!(
            r#"{{"mediaType":"{}","digest":"{DIGEST}","size":0}}"#,
            media_type::OCI_CONFIG
        );
        format!(r#"{{"schemaVersion":2,"config":{config}{fields}}}"#)
    }

    #[test]
    fn a_manifest_is_told_from_an_index() {
        let plain = manifest("");
        assert!(matches!(
            Document::parse(plain.as_bytes(), None),
            Ok(Document::Manifest(_))
        ));
        let index = r#"{"schemaVersion":2,"manifests":null}"#;
        assert!(matches!(
            Document::parse(index.as_bytes(), None),
            Err(DocumentError::Json { .. })
        ));
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(
            Document::parse(index.as_bytes(), None),
            Ok(Document::Index(_))
        ));
    }

    #[test]
    fn attack_30_a_document_that_reads_as_both_is_refused() {
        for (text, expected) in [
            (manifest(r#","manifests":[]"#), None),
            (
                manifest(&format!(r#","mediaType":"{}""#, media_type::OCI_INDEX)),
                None,
            ),
            (manifest(""), Some(media_type::DOCKER_INDEX)),
            (
                r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(),
                Some(media_type::OCI_MANIFEST),
            ),
        ] {
            let error = Document::parse(text.as_bytes(), expected).unwrap_err();
            assert!(
                matches!(error, DocumentError::Ambiguous(_)),
                "{text}: {error}"
            );
        }
        let error = Document::parse(manifest("").as_bytes(), Some("text/html")).unwrap_err();
        assert!(matches!(error, DocumentError::MediaType(_)));
    }

    #[test]
    fn old_schemas_and_huge_documents_are_refused() {
        let old = r#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(matches!(
            Document::parse(old.as_bytes(), None),
            Err(DocumentError::Schema(1))
        ));
        let huge = vec![b' '; usize::try_from(MANIFEST_BYTES_MAX).unwrap() + 1];
        assert!(matches!(
            Document::parse(&huge, None),
            Err(DocumentError::TooLarge { .. })
        ));
        let layer = format!(r#"{{"digest":"{DIGEST}","size":1}}"#);
        let layers = vec![layer; LAYERS_MAX + 1].join(",");
        let many = manifest(&format!(r#","layers":[{layers}]"#));
        assert!(matches!(
            Document::parse(many.as_bytes(), None),
            Err(DocumentError::TooMany { .. })
        ));
    }

    #[test]
    fn nesting_ends_in_an_error() {
        let deep = format!(r#"{{"schemaVersion":2,"manifests":{}"#, "[".repeat(1 << 20));
        assert!(matches!(
            Document::parse(deep.as_bytes(), None),
            Err(DocumentError::Json { .. })
        ));
    }

    #[test]
    fn a_digest_in_a_descriptor_is_parsed_strictly() {
        let bad = manifest("").replace(DIGEST, "sha256:../../etc/passwd");
        assert!(matches!(
            Document::parse(bad.as_bytes(), None),
            Err(DocumentError::Json { .. })
        ));
    }

    #[test]
    fn nulls_of_go_are_nothing_and_nothing_is_written_for_them() {
        let text = r#"{"architecture":"amd64","os":"linux","created":null,"history":null,
            "config":{"Env":null,"Cmd":null,"ExposedPorts":null,"Volumes":{"/v":{}},"Labels":null,"OnBuild":null,
            "User":null,"ArgsEscaped":null,"Hostname":"ignored"},
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ConfigFile::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.volumes, BTreeSet::from(["/v".to_owned()]));
        assert_eq!(
            serde_json::to_string(&config).unwrap(),
            r#"{"architecture":"amd64","os":"linux","config":{"Volumes":{"/v":{}}},"rootfs":{"type":"layers","diff_ids":[]}}"#
        );
        assert!(ConfigFile::parse(br#"{"rootfs":{"type":"magic"}}"#).is_err());
    }

    #[test]
    fn layers_are_known_by_their_media_type() {
        for layer in [
            media_type::OCI_LAYER_ZSTD,
            media_type::DOCKER_LAYER_GZIP,
            media_type::OCI_LAYER,
        ] {
            assert!(media_type::is_layer(layer));
        }
        for other in [
            media_type::OCI_CONFIG,
            "application/vnd.oci.image.layer.v1.tar+encrypted",
            "",
        ] {
            assert!(!media_type::is_layer(other));
        }
    }

    proptest! {
        #[test]
        fn parsing_documents_never_panics(bytes: Vec<u8>, expected in proptest::option::of("\\PC{0,20}")) {
            let _ = Document::parse(&bytes, expected.as_deref());
            let _ = ConfigFile::parse(&bytes);
        }
    }
}
