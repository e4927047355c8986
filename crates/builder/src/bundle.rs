//! Manifests of what was built: of one image, or an index of several and of what is attested of them.
//!
//! Source: image-spec 1.1 manifest.md, image-index.md; moby/buildkit `docs/attestations/attestation-storage.md`,
//! `exporter/containerimage/exptypes/annotations.go`.

use crate::destination::Destination;
use crate::error::{Error, Result};
use images::Form;
use oci::Digest;
use oci::image::{Descriptor, Index, Manifest, Platform, media_type};
use serde_json::Value;
use std::collections::BTreeMap;

/// What an image is known by where it came from a build: the digest of its configuration.
const CONFIG_DIGEST: &str = "config.digest";
/// What an attestation in an index is, and of which manifest.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION: &str = "attestation-manifest";
/// A statement, and what it says.
const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

const JSON: &str = "documents have only strings as keys";

/// How the manifests of an output are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifests {
    /// How layers are compressed; as they are known without.
    pub form: Option<Form>,
    /// Docker's media types in the place of OCI's.
    pub docker_types: bool,
    /// What is said of manifests and of the index.
    pub annotations: Vec<Annotation>,
    /// An index even of one image.
    pub index: bool,
    /// Attestations that are only wanted where they can lie beside the image are taken, too.
    pub attestations: bool,
}

/// Something that is said of a manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Where it stands.
    pub place: AnnotationPlace,
    /// Of the image for this platform alone.
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Where an annotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationPlace {
    /// In the manifest.
    Manifest,
    /// Where an index refers to the manifest.
    ManifestDescriptor,
    /// In the index.
    Index,
    /// Where a layout refers to the index.
    IndexDescriptor,
}

impl AnnotationPlace {
    fn is_of_index(self) -> bool {
        matches!(self, Self::Index | Self::IndexDescriptor)
    }
}

impl Annotation {
    /// Reads the name of an attribute of an output, such as `annotation-manifest[linux/amd64].key`; `None` where it is another's.
    ///
    /// # Errors
    /// A place or a platform that is none.
    pub fn read(name: &str, value: &str) -> Result<Option<Self>> {
        let Some(rest) = name.strip_prefix("annotation") else {
            return Ok(None);
        };
        let Some((before, key)) = rest.split_once('.').filter(|(_, key)| !key.is_empty()) else {
            return Ok(None);
        };
        let (place, platform) = match before.split_once('[') {
            None => (before, None),
            Some((place, platform)) => (place, platform.strip_suffix(']')),
        };
        let platform = platform.map(str::parse).transpose();
        let place = match place {
            "" | "-manifest" => AnnotationPlace::Manifest,
            "-manifest-descriptor" => AnnotationPlace::ManifestDescriptor,
            "-index" => AnnotationPlace::Index,
            "-index-descriptor" => AnnotationPlace::IndexDescriptor,
            other => {
                let other = other.trim_start_matches('-');
                return Err(Error::Invalid(format!(
                    "unrecognized annotation type {other}"
                )));
            }
        };
        Ok(Some(Self {
            place,
            platform: platform
                .map_err(|error: oci::image::PlatformError| Error::Invalid(error.to_string()))?,
            key: key.to_owned(),
            value: value.to_owned(),
        }))
    }
}

/// One image of a result.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) platform: Platform,
    /// The configuration, as JSON.
    pub(crate) config: Vec<u8>,
    /// The diff IDs of its layers, which are held.
    pub(crate) layers: Vec<Digest>,
}

/// Something that is attested.
#[derive(Debug, Clone)]
pub(crate) struct Predicate {
    /// The file that it is in beside other files.
    pub(crate) name: String,
    /// What kind of document it is.
    pub(crate) kind: &'static str,
    /// What it is of, where that is not what it is put beside.
    pub(crate) subjects: Vec<Value>,
    pub(crate) value: Value,
}

impl Predicate {
    /// The statement; `beside` is what it is of where it does not say so itself.
    pub(crate) fn statement(&self, beside: &[Value]) -> Value {
        let subjects = match self.subjects.as_slice() {
            [] => beside,
            own => own,
        };
        serde_json::json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": self.kind,
            "subject": subjects,
            "predicate": self.value,
        })
    }
}

/// What was put together.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// The manifest or index that refers to all.
    pub(crate) top: Descriptor,
    /// What the manifest of each image refers to: configuration, layers.
    pub(crate) images: Vec<(Descriptor, Vec<Descriptor>)>,
    /// The manifests themselves, in the same order.
    pub(crate) manifests: Vec<Vec<u8>>,
}

/// Puts the manifests of images together, and gives everything to a destination. `attested` has what is attested of each, `subjects` the names that attestations
/// are of.
pub(crate) fn bundle(
    parts: &[Part],
    attested: &[Vec<Predicate>],
    manifests: &Manifests,
    subjects: &dyn Fn(&Platform) -> Vec<String>,
    to: &dyn Destination,
) -> Result<Bundle> {
    let has_index =
        manifests.index || parts.len() > 1 || attested.iter().any(|all| !all.is_empty());
    check(parts, attested, manifests, has_index)?;
    let mut entries = Vec::new();
    let mut attestations = Vec::new();
    let (mut images, mut documents) = (Vec::new(), Vec::new());
    for (part, predicates) in parts.iter().zip(attested) {
        let (config, layers) = content(part, manifests, to)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(kind(manifests, media_type::OCI_MANIFEST)),
            artifact_type: None,
            config: config.clone(),
            layers: layers.clone(),
            subject: None,
            annotations: annotations(manifests, AnnotationPlace::Manifest, Some(&part.platform)),
        };
        let bytes = serde_json::to_vec(&manifest).expect(JSON);
        let mut entry = described(&kind(manifests, media_type::OCI_MANIFEST), &bytes);
        to.manifest(&entry, bytes.clone(), !has_index)?;
        documents.push(bytes);
        entry.annotations = annotations(
            manifests,
            AnnotationPlace::ManifestDescriptor,
            Some(&part.platform),
        );
        entry.platform = Some(part.platform.clone());
        if !predicates.is_empty() {
            attestations.push(attest(predicates, &entry, &subjects(&part.platform), to)?);
        }
        entries.push(entry);
        images.push((config, layers));
    }
    if !has_index {
        let top = entries.pop().expect("there is an image");
        return Ok(Bundle {
            top,
            images,
            manifests: documents,
        });
    }
    entries.append(&mut attestations);
    let index = Index {
        schema_version: 2,
        media_type: Some(kind(manifests, media_type::OCI_INDEX)),
        artifact_type: None,
        manifests: entries,
        subject: None,
        annotations: annotations(manifests, AnnotationPlace::Index, None),
    };
    let bytes = serde_json::to_vec(&index).expect(JSON);
    let mut top = described(&kind(manifests, media_type::OCI_INDEX), &bytes);
    to.manifest(&top, bytes, true)?;
    top.annotations = annotations(manifests, AnnotationPlace::IndexDescriptor, None);
    Ok(Bundle {
        top,
        images,
        manifests: documents,
    })
}

fn check(
    parts: &[Part],
    attested: &[Vec<Predicate>],
    manifests: &Manifests,
    has_index: bool,
) -> Result<()> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    let all = &manifests.annotations;
    if !has_index && all.iter().any(|one| one.place.is_of_index()) {
        return invalid("index annotations not supported for single platform export");
    }
    let of_none = |one: &&Annotation| {
        let is_wanted = |wanted: &Platform| parts.iter().any(|part| part.platform == *wanted);
        one.platform
            .as_ref()
            .is_some_and(|wanted| !is_wanted(wanted))
    };
    if let Some(one) = all.iter().find(of_none) {
        let platform = one
            .platform
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        return Err(Error::Invalid(format!(
            "invalid annotation {}: nothing is built for {platform}",
            one.key
        )));
    }
    if manifests.docker_types {
        if !all.is_empty() {
            return invalid("cannot export annotations with \"oci-mediatypes=false\"");
        }
        if attested.iter().any(|all| !all.is_empty()) {
            return invalid("cannot export attestations with \"oci-mediatypes=false\"");
        }
        if matches!(manifests.form, Some(Form::Zstd(_))) {
            return invalid(
                "exporter option \"compression=zstd\" conflicts with \"oci-mediatypes=false\"",
            );
        }
    }
    Ok(())
}

/// The configuration and the layers of an image.
fn content(
    part: &Part,
    manifests: &Manifests,
    to: &dyn Destination,
) -> Result<(Descriptor, Vec<Descriptor>)> {
    let mut layers = to.layers(&part.layers, manifests.form)?;
    for layer in &mut layers {
        layer.media_type = kind(manifests, &layer.media_type);
    }
    let config = described(&kind(manifests, media_type::OCI_CONFIG), &part.config);
    to.document(&config, &part.config)?;
    Ok((config, layers))
}

/// The manifest of what is attested of an image, as an index refers to it.
fn attest(
    predicates: &[Predicate],
    of: &Descriptor,
    names: &[String],
    to: &dyn Destination,
) -> Result<Descriptor> {
    let mut layers = Vec::new();
    for predicate in predicates {
        let digest = serde_json::json!({ "sha256": of.digest.hex() });
        let subject = |name: &String| serde_json::json!({ "name": name, "digest": digest });
        let subjects: Vec<Value> = match names {
            [] => vec![serde_json::json!({ "name": "_", "digest": digest })],
            names => names.iter().map(subject).collect(),
        };
        let bytes = serde_json::to_vec(&predicate.statement(&subjects)).expect(JSON);
        let mut blob = described(STATEMENT_TYPE, &bytes);
        to.document(&blob, &bytes)?;
        blob.annotations = BTreeMap::from([(PREDICATE_TYPE.to_owned(), predicate.kind.to_owned())]);
        layers.push(blob);
    }
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| layer.digest.to_string())
        .collect();
    let config = serde_json::json!({
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let bytes = serde_json::to_vec(&config).expect(JSON);
    let config = described(media_type::OCI_CONFIG, &bytes);
    to.document(&config, &bytes)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config,
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).expect(JSON);
    let mut entry = described(media_type::OCI_MANIFEST, &bytes);
    to.manifest(&entry, bytes, false)?;
    entry.annotations = BTreeMap::from([
        (REFERENCE_TYPE.to_owned(), ATTESTATION.to_owned()),
        (REFERENCE_DIGEST.to_owned(), of.digest.to_string()),
    ]);
    entry.platform = Some(Platform {
        architecture: "unknown".to_owned(),
        os: "unknown".to_owned(),
        ..Platform::default()
    });
    Ok(entry)
}

fn described(kind: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(kind, Digest::sha256(bytes), bytes.len() as u64)
}

/// A media type, or Docker's in its place.
fn kind(manifests: &Manifests, kind: &str) -> String {
    let docker = match kind {
        media_type::OCI_MANIFEST => media_type::DOCKER_MANIFEST,
        media_type::OCI_INDEX => media_type::DOCKER_INDEX,
        media_type::OCI_CONFIG => media_type::DOCKER_CONFIG,
        media_type::OCI_LAYER => media_type::DOCKER_LAYER,
        media_type::OCI_LAYER_GZIP => media_type::DOCKER_LAYER_GZIP,
        media_type::OCI_LAYER_ZSTD => media_type::DOCKER_LAYER_ZSTD,
        other => other,
    };
    if manifests.docker_types { docker } else { kind }.to_owned()
}

fn annotations(
    manifests: &Manifests,
    place: AnnotationPlace,
    platform: Option<&Platform>,
) -> BTreeMap<String, String> {
    let all = manifests.annotations.iter();
    let wanted = all.filter(|one| {
        one.place == place && (one.platform.is_none() || one.platform.as_ref() == platform)
    });
    wanted
        .map(|one| (one.key.clone(), one.value.clone()))
        .collect()
}

/// The descriptor that clients are told of what was put together.
pub(crate) fn told(top: &Descriptor, config: &Digest, created: String) -> Descriptor {
    let mut told = top.clone();
    told.annotations
        .entry(CONFIG_DIGEST.to_owned())
        .or_insert_with(|| config.to_string());
    let created_key = "org.opencontainers.image.created".to_owned();
    told.annotations.entry(created_key).or_insert(created);
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use images::Packed;
    use std::cell::RefCell;

    /// Keeps what it gets.
    #[derive(Default)]
    struct Kept(RefCell<Vec<(Descriptor, Vec<u8>)>>, RefCell<Vec<Digest>>);

    impl Destination for Kept {
        fn layers(&self, diff_ids: &[Digest], _form: Option<Form>) -> Result<Vec<Descriptor>> {
            let layer = |digest: &Digest| Descriptor::new(media_type::OCI_LAYER_GZIP, *digest, 1);
            Ok(diff_ids.iter().map(layer).collect())
        }

        fn blob(&self, _packed: &Packed) -> Result<()> {
            Ok(())
        }

        fn document(&self, blob: &Descriptor, bytes: &[u8]) -> Result<()> {
            self.0.borrow_mut().push((blob.clone(), bytes.to_vec()));
            Ok(())
        }

        fn manifest(&self, blob: &Descriptor, bytes: Vec<u8>, is_last: bool) -> Result<()> {
            if is_last {
                self.1.borrow_mut().push(blob.digest);
            }
            self.document(blob, &bytes)
        }
    }

    fn part(platform: &str) -> Part {
        Part {
            platform: platform.parse().unwrap(),
            config: b"{}".to_vec(),
            layers: vec![Digest::sha256(b"layer")],
        }
    }

    fn annotation(name: &str) -> Annotation {
        Annotation::read(name, "value").unwrap().unwrap()
    }

    fn put(parts: &[Part], predicates: bool, manifests: &Manifests) -> Result<(Bundle, Value)> {
        let to = Kept::default();
        let predicate = Predicate {
            name: "sbom.spdx.json".to_owned(),
            kind: "https://spdx.dev/Document",
            subjects: Vec::new(),
            value: serde_json::json!({}),
        };
        let attested = vec![Vec::from_iter(predicates.then_some(predicate)); parts.len()];
        let bundle = bundle(
            parts,
            &attested,
            manifests,
            &|_| vec!["name".to_owned()],
            &to,
        )?;
        assert_eq!(*to.1.borrow(), [bundle.top.digest], "one has the name");
        let kept = to.0.borrow();
        let (last, bytes) = kept.last().unwrap();
        assert_eq!(last.digest, bundle.top.digest, "what refers comes last");
        assert!(
            kept.iter()
                .all(|(blob, bytes)| Digest::sha256(bytes) == blob.digest)
        );
        Ok((bundle, serde_json::from_slice(bytes).unwrap()))
    }

    #[test]
    fn one_image_is_a_manifest_and_several_are_an_index() {
        let plain = Manifests {
            annotations: vec![
                annotation("annotation.a"),
                annotation("annotation-manifest[linux/arm64].b"),
            ],
            ..Manifests::default()
        };
        let (bundle, manifest) = put(&[part("linux/arm64")], false, &plain).unwrap();
        assert_eq!(bundle.top.media_type, media_type::OCI_MANIFEST);
        assert_eq!(
            manifest["annotations"],
            serde_json::json!({ "a": "value", "b": "value" })
        );
        let (bundle, index) =
            put(&[part("linux/amd64"), part("linux/arm64")], false, &plain).unwrap();
        assert_eq!(bundle.top.media_type, media_type::OCI_INDEX);
        assert_eq!(index["manifests"][1]["platform"]["architecture"], "arm64");
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        let docker = Manifests {
            docker_types: true,
            ..Manifests::default()
        };
        let (bundle, manifest) = put(&[part("linux/amd64")], false, &docker).unwrap();
        assert_eq!(bundle.top.media_type, media_type::DOCKER_MANIFEST);
        assert_eq!(
            manifest["layers"][0]["mediaType"],
            media_type::DOCKER_LAYER_GZIP
        );
    }

    #[test]
    fn attestations_stand_beside_their_image() {
        let said = Manifests {
            annotations: vec![
                annotation("annotation-index.i"),
                annotation("annotation-index-descriptor.d"),
                annotation("annotation-manifest-descriptor.m"),
            ],
            ..Manifests::default()
        };
        let (bundle, index) = put(&[part("linux/amd64")], true, &said).unwrap();
        assert_eq!(bundle.top.annotations["d"], "value");
        assert_eq!(index["annotations"]["i"], "value");
        let (image, attested) = (&index["manifests"][0], &index["manifests"][1]);
        assert_eq!(image["annotations"]["m"], "value");
        assert_eq!(attested["platform"]["os"], "unknown");
        assert_eq!(attested["annotations"][REFERENCE_TYPE], ATTESTATION);
        assert_eq!(attested["annotations"][REFERENCE_DIGEST], image["digest"]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let with = |name: &str| Manifests {
            annotations: vec![annotation(name)],
            ..Manifests::default()
        };
        let one = || [part("linux/amd64")];
        put(&one(), false, &with("annotation-index.a")).unwrap_err();
        put(&one(), false, &with("annotation[linux/s390x].a")).unwrap_err();
        let docker = Manifests {
            docker_types: true,
            ..with("annotation.a")
        };
        put(&one(), false, &docker).unwrap_err();
        let docker = Manifests {
            docker_types: true,
            ..Manifests::default()
        };
        put(&[part("linux/amd64")], true, &docker).unwrap_err();
        Annotation::read("annotation-other.a", "").unwrap_err();
        Annotation::read("annotation[!].a", "").unwrap_err();
        assert_eq!(Annotation::read("annotations", "").unwrap(), None);
        assert_eq!(Annotation::read("name", "").unwrap(), None);
    }
}
