//! Signatures of images, as cosign makes them with keys: which there are for a manifest, and whether one is good.
//!
//! A signature is a layer of a manifest of its own, which is found by the tag `sha256-<hex>.sig` or as a referrer: the layer
//! is the payload, which names the signed digest and its repository, and an annotation of the layer is the signature of the
//! payload's bytes. Nothing of a payload is believed, or even read, before a key has verified it. Source: cosign's
//! SIGNATURE_SPEC.md, and containers/image's description of the "simple signing" payload.

use crate::client::{Manifest, Repository};
use crate::error::{Error, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use oci::image::{Descriptor, Document};
use oci::{Digest, Reference};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;
use std::fmt;
use std::sync::Arc;
use tokio_rustls::rustls::pki_types::SubjectPublicKeyInfoDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const ARTIFACT_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const CRITICAL_TYPE: &str = "cosign container image signature";
/// Signatures of one image that are looked at.
const SIGNATURES_MAX: usize = 64;
/// Manifests of signatures that are looked at.
const MANIFESTS_MAX: usize = 16;
/// Bytes of a payload.
const PAYLOAD_BYTES_MAX: u64 = 64 << 10;

/// What the public part of a key begins with (RFC 5280 SubjectPublicKeyInfo) when it is of a kind that is known; the rest is
/// the key as it is verified with.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P256_BYTES: usize = 65;
const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const ED25519_BYTES: usize = 32;

/// A public key: ECDSA on P-256 with SHA-256, or Ed25519.
#[derive(Clone)]
pub(crate) struct PublicKey {
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: Vec<u8>,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?})", self.algorithm)
    }
}

impl PublicKey {
    /// Reads all keys of a PEM file; the reason when one of them cannot be used, or there is none.
    pub(crate) fn read_all(pem: &[u8]) -> Result<Vec<Self>, String> {
        let blocks = SubjectPublicKeyInfoDer::pem_slice_iter(pem);
        let keys = blocks.map(|block| Self::read(&block.map_err(|bad| bad.to_string())?));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        match keys.is_empty() {
            true => Err("it has no public key (\"BEGIN PUBLIC KEY\")".to_owned()),
            false => Ok(keys),
        }
    }

    fn read(der: &[u8]) -> Result<Self, String> {
        let kinds: [(&[u8], usize, &'static dyn VerificationAlgorithm); 2] = [
            (&P256_PREFIX, P256_BYTES, &ECDSA_P256_SHA256_ASN1),
            (&ED25519_PREFIX, ED25519_BYTES, &ED25519),
        ];
        kinds
            .into_iter()
            .find_map(|(prefix, length, algorithm)| {
                let bytes = der.strip_prefix(prefix)?;
                (bytes.len() == length).then(|| Self {
                    algorithm,
                    bytes: bytes.to_vec(),
                })
            })
            .ok_or_else(|| "a key of it is neither of ECDSA on P-256 nor of Ed25519".to_owned())
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(self.algorithm, &self.bytes);
        key.verify(message, signature).is_ok()
    }
}

/// What is signed. Fields of `critical` that are not known make it unusable: they may limit what it means.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Looks for a signature by one of the keys that says that a digest is the content of the image. Returns the reason when
/// there is none.
pub(crate) async fn find(
    repository: &Arc<Repository>,
    image: &Reference,
    digest: &Digest,
    keys: &[PublicKey],
) -> Result<Result<(), String>> {
    let mut search = Search {
        repository,
        image,
        digest,
        keys,
        seen: 0,
        reason: None,
    };
    let tag = format!("{}-{}.sig", digest.algorithm().name(), digest.hex());
    let tagged = image.clone().without_tag().with_tag(&tag);
    // A digest makes a tag of letters, digits and a dash.
    if let Ok(tagged) = tagged {
        match repository.manifest(&tagged).await {
            Ok(manifest) if search.look(&manifest).await? => return Ok(Ok(())),
            Ok(_) | Err(Error::NoManifest { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let referrers = repository.referrers(digest).await?.manifests.into_iter();
    let signatures =
        referrers.filter(|found| found.artifact_type.as_deref() == Some(ARTIFACT_TYPE));
    for found in signatures.take(MANIFESTS_MAX) {
        let name = image.clone().without_tag().with_digest(found.digest);
        if search.look(&repository.manifest(&name).await?).await? {
            return Ok(Ok(()));
        }
    }
    let none = || "it has no signature".to_owned();
    Ok(Err(search.reason.unwrap_or_else(none)))
}

struct Search<'a> {
    repository: &'a Arc<Repository>,
    image: &'a Reference,
    digest: &'a Digest,
    keys: &'a [PublicKey],
    seen: usize,
    /// Why the last one was not good.
    reason: Option<String>,
}

impl Search<'_> {
    /// Looks at the signatures of one manifest; whether one is good.
    async fn look(&mut self, manifest: &Manifest) -> Result<bool> {
        let Document::Manifest(manifest) = manifest.parse()? else {
            self.reason = Some("where its signatures should be is an index".to_owned());
            return Ok(false);
        };
        for layer in &manifest.layers {
            let signature = layer.annotations.get(SIGNATURE_ANNOTATION);
            let (PAYLOAD_TYPE, Some(signature)) = (layer.media_type.as_str(), signature) else {
                continue;
            };
            if self.seen == SIGNATURES_MAX {
                self.reason = Some(format!(
                    "none of the first {SIGNATURES_MAX} of its signatures is good"
                ));
                return Ok(false);
            }
            self.seen += 1;
            match self.check(layer, signature).await? {
                Ok(()) => return Ok(true),
                Err(reason) => self.reason = Some(reason),
            }
        }
        Ok(false)
    }

    async fn check(&self, layer: &Descriptor, signature: &str) -> Result<Result<(), String>> {
        if layer.size > PAYLOAD_BYTES_MAX {
            return Ok(Err(format!(
                "a signature has a payload of more than {PAYLOAD_BYTES_MAX} bytes"
            )));
        }
        let payload: Bytes = self.repository.document(layer).await?;
        let Ok(signature) = BASE64_STANDARD.decode(signature) else {
            return Ok(Err("a signature is not base64".to_owned()));
        };
        let verified = { self.keys.iter() }.any(|key| key.verifies(&payload, &signature));
        Ok(match verified {
            true => says(&payload, self.image, self.digest),
            false => Err("it is signed, but by none of the keys".to_owned()),
        })
    }
}

/// Whether a payload that was verified says that a digest is the content of an image.
fn says(payload: &[u8], image: &Reference, digest: &Digest) -> Result<(), String> {
    let Payload { critical } = serde_json::from_slice(payload)
        .map_err(|error| format!("the payload of its signature cannot be used: {error}"))?;
    if critical.kind != CRITICAL_TYPE {
        let kind = critical.kind;
        return Err(format!(
            "its signature is of the type {kind:?}, not of an image"
        ));
    }
    if critical.image.digest != digest.to_string() {
        let other = critical.image.digest;
        return Err(format!("its signature is of another digest, {other:?}"));
    }
    let text = critical.identity.reference;
    let named = text.parse::<Reference>().ok();
    let same = named.is_some_and(|named| {
        // Signed under a tag, it is good for what is asked for by that tag.
        let tagged = named.tag().is_none() || image.tag().is_none() || named.tag() == image.tag();
        named.same_repository(image) && tagged
    });
    match same {
        true => Ok(()),
        false => Err(format!("its signature is for another name, {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys and signatures of openssl(1), of the text "signed".
    const P256: (&str, &str) = (
        "-----BEGIN PUBLIC KEY-----\n\
         MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEvXaRv6TO53nOqc8Nd/KoG189ag2n\n\
         ucXVWBIvg+qHJWhtbXU4lPPTayz0B64JDs/3RzNSk8aZDfoSxWlHLIcAdg==\n\
         -----END PUBLIC KEY-----",
        "MEQCIGGaX2qRI+v4mN3XtGVkeGSAS/25oNpLn+gXArTNAhhfAiBlBpRUXxW1WYZOij3Bwk81+mmaISGRHnov3cXsTExtXw==",
    );
    const ED: (&str, &str) = (
        "-----BEGIN PUBLIC KEY-----\n\
         MCowBQYDK2VwAyEAf7P4d+f8y+BgDDS1fbNTWzMlV+jVJs586kkzkZQ9Pl0=\n\
         -----END PUBLIC KEY-----",
        "dfHKNvk2Bjjay0f7x8+F4LPwLp4E/AKEYVWHQ2UWXCTn20YG1P0+PWxMeMMGHpl0Uw3duKZCUCjQlC4x4vtcCg==",
    );

    #[test]
    fn what_openssl_signs_is_verified() {
        let read = |pem: &str| PublicKey::read_all(pem.as_bytes()).unwrap().remove(0);
        for (pem, signature) in [P256, ED] {
            let (key, signature) = (read(pem), BASE64_STANDARD.decode(signature).unwrap());
            assert!(key.verifies(b"signed", &signature));
            assert!(!key.verifies(b"signed.", &signature));
            let mut other = signature.clone();
            other[10] ^= 1;
            assert!(!key.verifies(b"signed", &other));
            assert!(!key.verifies(b"signed", b""));
        }
        let (p256, ed) = (read(P256.0), BASE64_STANDARD.decode(ED.1).unwrap());
        assert!(!p256.verifies(b"signed", &ed));
        assert_eq!(
            PublicKey::read_all(format!("{}\n{}", P256.0, ED.0).as_bytes())
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn keys_that_cannot_be_used_are_told() {
        for (pem, words) in [
            ("", "no public key"),
            (
                "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n",
                "neither of ECDSA",
            ),
            ("-----BEGIN PUBLIC KEY-----\n", ""),
        ] {
            let reason = PublicKey::read_all(pem.as_bytes()).unwrap_err();
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn a_payload_says_what_was_asked() {
        let digest = Digest::sha256(b"x");
        let image: Reference = "a.example/b:1".parse().unwrap();
        let payload = |name: &str, digest: &Digest, kind: &str, more: &str| {
            format!(
                r#"{{"critical":{{"identity":{{"docker-reference":"{name}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"{more}}},"optional":{{"creator":"x"}}}}"#
            )
        };
        let told = |payload: String| says(payload.as_bytes(), &image, &digest);
        for name in ["a.example/b", "a.example/b:1"] {
            told(payload(name, &digest, CRITICAL_TYPE, "")).unwrap();
        }
        // Docker Hub has two names, and a short one.
        let hub = payload(
            "index.docker.io/library/busybox",
            &digest,
            CRITICAL_TYPE,
            "",
        );
        says(hub.as_bytes(), &"busybox".parse().unwrap(), &digest).unwrap();
        let other = Digest::sha256(b"y");
        for (payload, words) in [
            (
                payload("a.example/c", &digest, CRITICAL_TYPE, ""),
                "another name",
            ),
            (
                payload("a.example/b:2", &digest, CRITICAL_TYPE, ""),
                "another name",
            ),
            (payload("b", &digest, CRITICAL_TYPE, ""), "another name"),
            (payload("", &digest, CRITICAL_TYPE, ""), "another name"),
            (
                payload("a.example/b", &other, CRITICAL_TYPE, ""),
                "another digest",
            ),
            (payload("a.example/b", &digest, "blob", ""), "of the type"),
            (
                payload("a.example/b", &digest, CRITICAL_TYPE, r#","until":1"#),
                "unknown field",
            ),
            ("{}".to_owned(), "missing field"),
        ] {
            let reason = told(payload).unwrap_err();
            assert!(reason.contains(words), "{reason}");
        }
    }
}
