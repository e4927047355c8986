//! One manifest of a list, as Docker's client shows and keeps it, and the list that several make.

use crate::error::{Error, Result};
use crate::json;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use oci::Reference;
use oci::image::{Descriptor, Document, Manifest, Platform, media_type};
use serde::{Deserialize, Serialize};

/// The indentation of a list, which its digest depends on.
const LIST_INDENT: &str = "   ";

/// A manifest, where it is from, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) reference: Reference,
    pub(super) descriptor: Descriptor,
    /// The document as the registry has it.
    pub(super) bytes: Vec<u8>,
}

/// What is read of a kept entry; the rest of the file is the document once more, for people.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    #[serde(rename = "Ref")]
    reference: Reference,
    descriptor: Descriptor,
    raw: String,
}

impl Entry {
    /// Reads an entry that was kept.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let kept: Kept = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let bytes = BASE64_STANDARD.decode(&kept.raw);
        let bytes = bytes.map_err(|error| format!("Raw: {error}"))?;
        if oci::Digest::sha256(&bytes) != kept.descriptor.digest {
            return Err(format!(
                "Raw has another digest than {}",
                kept.descriptor.digest
            ));
        }
        Ok(Self {
            reference: kept.reference,
            descriptor: kept.descriptor,
            bytes,
        })
    }

    /// The entry as JSON, with the document as it is.
    pub(super) fn to_json(&self) -> String {
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let descriptor = serde_json::to_string(&self.descriptor).expect("its keys are texts");
        let kind = match self.descriptor.media_type.as_str() {
            media_type::DOCKER_MANIFEST => "SchemaV2Manifest",
            _ => "OCIManifest",
        };
        format!(
            r#"{{"Ref":{},"Descriptor":{descriptor},"Raw":"{}","{kind}":{}}}"#,
            text(&self.reference.to_string()),
            BASE64_STANDARD.encode(&self.bytes),
            json::compact(&String::from_utf8_lossy(&self.bytes)),
        )
    }

    pub(super) fn manifest(&self) -> Result<Box<Manifest>> {
        match Document::parse(&self.bytes, Some(&self.descriptor.media_type)) {
            Ok(Document::Manifest(manifest)) => Ok(manifest),
            Ok(Document::Index(_)) => {
                Err(Error::msg(format!("{} is a manifest list", self.reference)))
            }
            Err(error) => Err(Error::msg(format!("{}: {error}", self.reference))),
        }
    }
}

/// A list of manifests: its members in the order that Docker's client writes them, so that both make lists of one digest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Listed<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    media_type: &'a str,
    size: u64,
    digest: String,
    platform: &'a Platform,
}

/// The list of some manifests: its media type and document.
pub(super) fn list(entries: &[Entry]) -> Result<(&'static str, String)> {
    let mut manifests = Vec::new();
    for Entry {
        reference,
        descriptor,
        ..
    } in entries
    {
        let platform = { descriptor.platform.as_ref() }
            .filter(|platform| !platform.os.is_empty() && !platform.architecture.is_empty());
        let platform = platform.ok_or_else(|| {
            Error::msg(format!(
                "manifest {reference} must have an OS and Architecture to be pushed to a registry"
            ))
        })?;
        manifests.push(Listed {
            media_type: &descriptor.media_type,
            size: descriptor.size,
            digest: descriptor.digest.to_string(),
            platform,
        });
    }
    let media_type = match manifests.first() {
        Some(first) if first.media_type == media_type::OCI_MANIFEST => media_type::OCI_INDEX,
        _ => media_type::DOCKER_INDEX,
    };
    let list = List {
        schema_version: 2,
        media_type,
        manifests,
    };
    let text = serde_json::to_string(&list).expect("its keys are texts");
    Ok((media_type, json::indent(&text, LIST_INDENT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let bytes = br#"{"schemaVersion":2,"config":{"digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":1}}"#;
        let mut descriptor = Descriptor::new(
            media_type::OCI_MANIFEST,
            oci::Digest::sha256(bytes),
            bytes.len() as u64,
        );
        descriptor.platform = Some("linux/arm64/v8".parse().unwrap());
        Entry {
            reference: "h:1/a:x".parse().unwrap(),
            descriptor,
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let entry = entry();
        assert_eq!(Entry::parse(entry.to_json().as_bytes()).unwrap(), entry);
        let other = entry.to_json().replace("\"Raw\":\"e", "\"Raw\":\"f");
        assert!(
            Entry::parse(other.as_bytes())
                .unwrap_err()
                .contains("digest")
        );
        assert!(entry.manifest().is_ok());
    }

    #[test]
    fn lists_name_platforms() {
        let mut entry = entry();
        let (kind, text) = list(std::slice::from_ref(&entry)).unwrap();
        assert_eq!(kind, media_type::OCI_INDEX);
        assert!(matches!(
            Document::parse(text.as_bytes(), Some(kind)),
            Ok(Document::Index(_))
        ));
        assert!(
            text.starts_with("{\n   \"schemaVersion\": 2,\n   \"mediaType\""),
            "{text}"
        );
        entry.descriptor.platform = None;
        let error = list(&[entry]).unwrap_err().to_string();
        assert!(
            error.contains("must have an OS and Architecture"),
            "{error}"
        );
    }
}
