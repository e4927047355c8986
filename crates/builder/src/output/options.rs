//! What clients say of outputs: a type, and attributes by name. What is not supported is an error that names it.
//!
//! Source: moby/buildkit `exporter/containerimage/exptypes/keys.go`, `exporter/oci`, `exporter/local`.

use super::{FilesForm, ImageOutput};
use crate::bundle::{Annotation, Manifests};
use crate::error::{Error, Result};
use crate::remote::form;
use oci::Reference;
use std::collections::BTreeMap;

/// Names of one image.
const NAMES_MAX: usize = 256;

/// One thing that is to be made of a result, as it is asked for.
#[derive(Debug)]
pub enum OutputWish {
    /// An image.
    Image(ImageOutput),
    /// Files in a directory of the client.
    Directory(FilesForm),
    /// A tar for the client.
    Tar(FilesForm),
    /// An OCI layout for the client.
    Layout {
        /// Its names.
        names: Vec<Reference>,
        /// How its manifests are.
        manifests: Manifests,
        /// `docker load` is to read it, too.
        docker: bool,
        /// It is one archive, and no directory.
        tar: bool,
    },
}

impl OutputWish {
    /// Reads what a client asks for.
    ///
    /// # Errors
    /// What is not supported, by its name.
    pub fn read(kind: &str, attributes: &BTreeMap<String, String>) -> Result<Self> {
        let attributes = attributes.iter();
        let mut left: BTreeMap<&str, &str> = attributes
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let target = match kind {
            "moby" | "image" => Self::Image(image(&mut left)?),
            "oci" | "docker" => Self::Layout {
                names: references(left.remove("name").unwrap_or_default())?,
                tar: left
                    .remove("tar")
                    .is_none_or(|value| value.is_empty() || is_true(value)),
                docker: kind == "docker",
                manifests: manifests(&mut left)?,
            },
            "local" => {
                if left.get("mode").is_some_and(|mode| *mode == "copy") {
                    left.remove("mode");
                }
                Self::Directory(files(&mut left)?)
            }
            "tar" => Self::Tar(files(&mut left)?),
            other => return Err(Error::Unsupported(format!("the output {other}"))),
        };
        let given = |(_, value): &(&&str, &&str)| !value.is_empty() && **value != "false";
        match left.iter().find(given) {
            Some((name, value)) => Err(Error::Unsupported(format!(
                "{name}={value} of the output {kind}"
            ))),
            None => Ok(target),
        }
    }

    /// The names of the image.
    pub fn names(&self) -> &[Reference] {
        match self {
            Self::Image(ImageOutput { names, .. }) | Self::Layout { names, .. } => names,
            Self::Directory(_) | Self::Tar(_) => &[],
        }
    }
}

/// How files are to lie, of the attributes that are known of them, which are taken.
fn files(left: &mut BTreeMap<&str, &str>) -> Result<FilesForm> {
    // Files have no name.
    left.remove("name");
    let prefix = left.remove("attestation-prefix").unwrap_or_default();
    let split = match left.remove("platform-split") {
        None | Some("") => None,
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Some(false),
        Some(value) if is_true(value) => Some(true),
        Some(other) => {
            let text = format!("non-bool value for platform-split: {other}");
            return Err(Error::Invalid(text));
        }
    };
    Ok(FilesForm {
        split,
        attestation_prefix: prefix.to_owned(),
    })
}

/// An image, of the attributes that are known of it, which are taken.
fn image<'a>(left: &mut BTreeMap<&'a str, &'a str>) -> Result<ImageOutput> {
    let is_on = |value: Option<&str>| value.is_some_and(is_true);
    let push = is_on(left.remove("push"));
    let by_digest = is_on(left.remove("push-by-digest"));
    // Every image that is pushed is also known by its digest; others have none that a registry knows.
    if push {
        left.remove("name-canonical");
    }
    // An image is loaded and unpacked as soon as it is built here, and found by what it is said to be.
    for name in ["load", "unpack", "prefer-image-digest"] {
        left.remove(name);
    }
    Ok(ImageOutput {
        names: references(left.remove("name").unwrap_or_default())?,
        store: { left.remove("store") }
            .filter(|value| !value.is_empty())
            .map(is_true),
        push: push || by_digest,
        by_digest,
        manifests: manifests(left)?,
    })
}

/// How manifests are to be, of the attributes that are known of them, which are taken.
fn manifests<'a>(left: &mut BTreeMap<&'a str, &'a str>) -> Result<Manifests> {
    let form = form(left)?;
    let types = left.remove("oci-mediatypes");
    // What a build makes has no times after SOURCE_DATE_EPOCH here, whether that is asked for or not.
    left.remove("rewrite-timestamp");
    let mut annotations = Vec::new();
    for (name, value) in std::mem::take(left) {
        match Annotation::read(name, value)? {
            Some(annotation) => annotations.push(annotation),
            None => drop(left.insert(name, value)),
        }
    }
    Ok(Manifests {
        form,
        docker_types: types.is_some_and(|value| !value.is_empty() && !is_true(value)),
        annotations,
        index: false,
        attestations: left.remove("attestation-inline").is_some_and(is_true),
    })
}

fn references(value: &str) -> Result<Vec<Reference>> {
    let names = value.split(',').filter(|name| !name.is_empty());
    let names: Vec<Reference> = names
        .map(|name| {
            let reference = name.parse::<Reference>();
            let reference = reference
                .map_err(|error| Error::Invalid(format!("invalid tag {name:?}: {error}")))?;
            match reference.digest() {
                None => Ok(reference.to_target()),
                Some(_) => Err(Error::Invalid(format!(
                    "invalid tag {name:?}: it has a digest"
                ))),
            }
        })
        .collect::<Result<_>>()?;
    match names.len() <= NAMES_MAX {
        true => Ok(names),
        false => Err(Error::Invalid(format!(
            "an image gets at most {NAMES_MAX} names at once"
        ))),
    }
}

/// As Go reads booleans.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use images::Form;

    fn read(kind: &str, attributes: &[(&str, &str)]) -> Result<OutputWish> {
        let attributes = attributes.iter();
        let attributes = attributes.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        OutputWish::read(kind, &attributes.collect())
    }

    #[test]
    fn outputs_are_read() {
        let OutputWish::Image(image) = read(
            "moby",
            &[
                ("name", "a,b:1"),
                ("push", "true"),
                ("load", "true"),
                ("compression", "zstd"),
                ("annotation-manifest[linux/amd64].a.b", "c"),
            ],
        )
        .unwrap() else {
            panic!("it is an image");
        };
        let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["a:latest", "b:1"]);
        assert!(image.push && image.store.is_none());
        assert_eq!(image.manifests.form, Some(Form::Zstd(None)));
        assert_eq!(image.manifests.annotations[0].key, "a.b");
        for (value, expected) in [("", None), ("1", Some(true)), ("false", Some(false))] {
            for kind in ["local", "tar"] {
                let found = match read(kind, &[("platform-split", value)]).unwrap() {
                    OutputWish::Directory(form) | OutputWish::Tar(form) => form.split,
                    other => panic!("{other:?}"),
                };
                assert_eq!(found, expected);
            }
        }
        let layout = read("oci", &[("tar", "false"), ("oci-mediatypes", "false")]);
        let OutputWish::Layout { tar, manifests, .. } = layout.unwrap() else {
            panic!("it is a layout");
        };
        assert!(!tar && manifests.docker_types);
    }

    #[test]
    fn what_is_not_supported_is_told() {
        for (kind, name, value) in [
            ("containerd", "", ""),
            ("moby", "name-canonical", "true"),
            ("moby", "compression", "estargz"),
            ("oci", "oci-artifact", "true"),
            ("local", "mode", "delete"),
        ] {
            let error = read(kind, &[(name, value)]).unwrap_err();
            assert!(
                matches!(error, Error::Unsupported(_)),
                "{kind} {name}: {error}"
            );
        }
        read("moby", &[("name", "A B")]).unwrap_err();
        read("tar", &[("platform-split", "perhaps")]).unwrap_err();
        read("moby", &[("annotation-other.a", "b")]).unwrap_err();
    }
}
