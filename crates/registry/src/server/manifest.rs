//! Manifests and indexes as a registry reads them: what they are, and what they count on.
//!
//! A registry keeps what it could not run itself: artifacts of any kind, with any number of layers. What it does not keep is a
//! document that two readers could take for two things: one with the fields of both a manifest and an index, with a field
//! twice, or of another media type than it is pushed as (CVE-2021-41190). Source: image-spec 1.1, manifest.md, image-index.md.

use oci::Digest;
use oci::image::{Descriptor, media_type};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// What a manifest says of the layers that a client may keep to itself: the words of OCI and of Docker in their media types.
const UNDISTRIBUTED: [&str; 2] = [".nondistributable.", ".foreign."];

/// What counts of a manifest or index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// What it says to be.
    pub(crate) media_type: Option<String>,
    /// Whether it has the fields of an index.
    is_index: bool,
    /// What it is made of.
    pub(crate) blobs: Vec<Digest>,
    /// Those of them that have to be in the repository.
    pub(crate) required: Vec<Digest>,
    /// The manifest it refers to.
    pub(crate) subject: Option<Digest>,
    /// What it is listed as among the referrers.
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<IgnoredAny>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Contents {
    /// Reads a document; the error is for the client.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| format!("it is malformed: {error}"))?;
        if document.schema_version != 2 || document.fs_layers.is_some() {
            return Err("its schema version is not 2".to_owned());
        }
        let is_image = document.config.is_some() || document.layers.is_some();
        let is_index = document.manifests.is_some();
        if is_image == is_index {
            let both = if is_image { "both" } else { "neither" };
            return Err(format!(
                "it has the fields of {both} a manifest and an index"
            ));
        }
        if is_image && document.config.is_none() {
            return Err("it has no config".to_owned());
        }
        let config_type = { document.config.as_ref() }
            .map(|config| config.media_type.clone())
            .filter(|kind| !kind.is_empty());
        let layers = document.layers.unwrap_or_default();
        let parts: Vec<Descriptor> = document.config.into_iter().chain(layers).collect();
        let required = { parts.iter() }.filter(|part| is_distributed(&part.media_type));
        Ok(Self {
            media_type: document.media_type,
            is_index,
            required: required.map(|part| part.digest).collect(),
            blobs: parts.iter().map(|part| part.digest).collect(),
            subject: document.subject.map(|subject| subject.digest),
            artifact_type: { document.artifact_type }
                .filter(|kind| !kind.is_empty())
                .or(config_type),
            annotations: document.annotations.unwrap_or_default(),
        })
    }

    /// The document's media type, as which it was pushed, or which it says; the error is for the client.
    pub(crate) fn agreed_type(&self, pushed_as: Option<&str>) -> Result<String, String> {
        let pushed_as = { pushed_as }
            .map(|kind| kind.split(';').next().unwrap_or_default().trim())
            .filter(|kind| !kind.is_empty());
        let kind = match (pushed_as, self.media_type.as_deref()) {
            (Some(pushed), Some(said)) if pushed != said => {
                return Err(format!(
                    "it says to be {said:?} and is pushed as {pushed:?}"
                ));
            }
            (Some(kind), _) | (None, Some(kind)) => kind,
            (None, None) => return Err("nothing says its media type".to_owned()),
        };
        let is_index = match kind {
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => false,
            media_type::OCI_INDEX | media_type::DOCKER_INDEX => true,
            _ => {
                return Err(format!(
                    "its media type {kind:?} is neither of a manifest nor of an index"
                ));
            }
        };
        if is_index != self.is_index {
            let fields = if self.is_index {
                "an index"
            } else {
                "a manifest"
            };
            return Err(format!(
                "it is called {kind} and has the fields of {fields}"
            ));
        }
        Ok(kind.to_owned())
    }

    /// The descriptor by which it is found among the referrers of its subject.
    pub(crate) fn referrer(&self, media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            artifact_type: self.artifact_type.clone(),
            annotations: self.annotations.clone(),
            ..Descriptor::new(media_type, digest, size)
        }
    }
}

fn is_distributed(media_type: &str) -> bool {
    !UNDISTRIBUTED.iter().any(|word| media_type.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(kind: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"{DIGEST}","size":0}}"#)
    }

    fn read(fields: &str) -> Result<Contents, String> {
        Contents::read(format!(r#"{{"schemaVersion":2,{fields}}}"#).as_bytes())
    }

    #[test]
    fn a_document_is_one_thing() {
        let one = descriptor("x");
        let image = read(&format!(r#""config":{one},"layers":[{one}]"#)).unwrap();
        let index = read(r#""manifests":[]"#).unwrap();
        for (contents, pushed_as, agrees) in [
            (&image, Some(media_type::OCI_MANIFEST), true),
            (
                &image,
                Some("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8"),
                true,
            ),
            (&image, Some(media_type::OCI_INDEX), false),
            (&image, Some("application/json"), false),
            (&image, None, false),
            (&index, Some(media_type::DOCKER_INDEX), true),
            (&index, Some(media_type::DOCKER_MANIFEST), false),
        ] {
            assert_eq!(
                contents.agreed_type(pushed_as).is_ok(),
                agrees,
                "{pushed_as:?}"
            );
        }
        let said = format!(
            r#""mediaType":"{}","config":{one}"#,
            media_type::OCI_MANIFEST
        );
        let said = read(&said).unwrap();
        assert!(said.agreed_type(None).is_ok());
        assert!(said.agreed_type(Some(media_type::DOCKER_MANIFEST)).is_err());
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        let one = descriptor("x");
        for fields in [
            format!(r#""config":{one},"layers":[],"manifests":[]"#),
            format!(r#""config":{one},"manifests":[{one}]"#),
            format!(r#""manifests":[],"layers":[{one}]"#),
            format!(r#""config":{one},"config":{one}"#),
            r#""manifests":[],"manifests":[]"#.to_owned(),
            r#""layers":[]"#.to_owned(),
            r#""fsLayers":[],"manifests":[]"#.to_owned(),
            r#""annotations":{}"#.to_owned(),
            r#""config":{"mediaType":"x","digest":"sha256:../../x","size":1}"#.to_owned(),
        ] {
            assert!(read(&fields).is_err(), "{fields}");
        }
        assert!(Contents::read(br#"{"schemaVersion":1,"manifests":[]}"#).is_err());
        assert!(Contents::read("[".repeat(1 << 20).as_bytes()).is_err());
    }

    #[test]
    fn layers_of_others_may_be_missing() {
        let foreign = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
        let docker = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        let own = descriptor(media_type::OCI_LAYER);
        let fields = format!(r#""config":{own},"layers":[{foreign},{docker},{own}]"#);
        let contents = read(&fields).unwrap();
        assert_eq!((contents.blobs.len(), contents.required.len()), (4, 2));
    }

    #[test]
    fn a_referrer_is_listed_with_its_type() {
        let config = descriptor("config/type");
        let digest: Digest = DIGEST.parse().unwrap();
        for (fields, expected) in [
            (format!(r#""config":{config}"#), Some("config/type")),
            (
                format!(r#""config":{config},"artifactType":"a/b""#),
                Some("a/b"),
            ),
            (
                format!(r#""config":{config},"artifactType":"""#),
                Some("config/type"),
            ),
            (r#""manifests":[]"#.to_owned(), None),
            (
                r#""manifests":[],"artifactType":"a/b""#.to_owned(),
                Some("a/b"),
            ),
        ] {
            let referrer = read(&fields).unwrap().referrer("m", digest, 7);
            assert_eq!(referrer.artifact_type.as_deref(), expected, "{fields}");
        }
    }
}
