//! What is attested of images: how they were built, and what is in them.
//!
//! Source: moby/buildkit `docs/attestations`, `frontend/attestations/parse.go`.

mod generator;
mod provenance;
mod sbom;

pub(crate) use provenance::{Account, Material, provenance};
pub(crate) use sbom::sbom;

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// What a client wants attested.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attestations {
    /// How the image was built.
    pub provenance: Option<Provenance>,
    /// What is in it.
    pub sbom: Option<Sbom>,
}

/// How a list of what is in an image is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sbom {
    /// The image whose command makes it; without, the packages of dpkg and apk are listed.
    pub generator: Option<String>,
    /// What else that command is told.
    pub parameters: BTreeMap<String, String>,
}

/// How an account of a build is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// With arguments, labels, the Dockerfile, and the IDs of secrets.
    pub max: bool,
    /// Of SLSA, 0.2 in the place of 1.
    pub old: bool,
    /// Only for images that are pushed.
    pub inline_only: bool,
    /// Who built it.
    pub builder_id: String,
    /// The user says that another build gives the same.
    pub reproducible: bool,
}

impl Attestations {
    /// Adds one, by its kind and what a client says of it: `mode=max,version=v0.2`.
    ///
    /// # Errors
    /// What is not known or not supported, by its name.
    pub fn add(&mut self, kind: &str, text: &str) -> Result<()> {
        let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
        for field in text.split(',').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            fields.insert(name, value);
        }
        let is_true =
            |value: &str| matches!(value, "" | "1" | "t" | "T" | "true" | "TRUE" | "True");
        if fields.remove("false").is_some() || fields.remove("disabled").is_some_and(is_true) {
            match kind {
                "provenance" => self.provenance = None,
                "sbom" => self.sbom = None,
                _ => return Err(unknown(kind)),
            }
            return Ok(());
        }
        fields.remove("true");
        fields.remove("type");
        match kind {
            "provenance" => self.provenance = Some(Provenance::read(&mut fields)?),
            "sbom" => {
                let generator = fields.remove("generator").filter(|name| !name.is_empty());
                let mut sbom = Sbom::default();
                if let Some(generator) = generator {
                    sbom.generator = Some(generator.to_owned());
                    let given = std::mem::take(&mut fields).into_iter();
                    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
                    sbom.parameters = given.collect();
                }
                self.sbom = Some(sbom);
            }
            _ => return Err(unknown(kind)),
        }
        match fields.iter().next() {
            Some((name, value)) => Err(Error::Unsupported(format!(
                "{name}={value} of the attestation {kind}"
            ))),
            None => Ok(()),
        }
    }

    /// Whether there are any for an output; `inline`: those that are only for images that are pushed, too.
    pub(crate) fn provenance_for(&self, inline: bool) -> Option<&Provenance> {
        self.provenance
            .as_ref()
            .filter(|it| inline || !it.inline_only)
    }
}

fn unknown(kind: &str) -> Error {
    Error::Invalid(format!("unknown attestation type {kind:?}"))
}

impl Provenance {
    fn read(fields: &mut BTreeMap<&str, &str>) -> Result<Self> {
        let mut flag = |name: &str| match fields.remove(name) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(Error::Invalid(format!(
                "invalid {name}={other} of a provenance"
            ))),
        };
        let (inline_only, reproducible) = (flag("inline-only")?, flag("reproducible")?);
        Ok(Self {
            max: match fields.remove("mode") {
                None | Some("min") => false,
                Some("max") => true,
                Some(other) => {
                    return Err(Error::Invalid(format!(
                        "invalid mode {other:?} of a provenance"
                    )));
                }
            },
            old: match fields.remove("version") {
                None | Some("v1") => false,
                Some("v0.2") => true,
                Some(other) => {
                    return Err(Error::Invalid(format!(
                        "invalid version {other:?} of a provenance"
                    )));
                }
            },
            inline_only,
            builder_id: fields.remove("builder-id").unwrap_or_default().to_owned(),
            reproducible,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(all: &[(&str, &str)]) -> Result<Attestations> {
        let mut attestations = Attestations::default();
        for (kind, text) in all {
            attestations.add(kind, text)?;
        }
        Ok(attestations)
    }

    #[test]
    fn attestations_are_read_as_buildx_asks_for_them() {
        let default = read(&[("provenance", "mode=min,inline-only=true")]).unwrap();
        assert!(default.provenance_for(true).is_some() && default.provenance_for(false).is_none());
        let all = read(&[
            (
                "provenance",
                "mode=max,version=v0.2,builder-id=me,reproducible=true",
            ),
            ("sbom", "type=sbom"),
        ]);
        let all = all.unwrap();
        let provenance = all.provenance.clone().unwrap();
        assert!(provenance.max && provenance.old && provenance.reproducible);
        assert_eq!(all.sbom, Some(Sbom::default()));
        assert_eq!(provenance.builder_id, "me");
        for off in ["disabled=true", "false"] {
            assert_eq!(
                read(&[("provenance", "mode=max"), ("provenance", off)]).unwrap(),
                Attestations::default()
            );
        }
    }

    #[test]
    fn a_generator_is_told_what_it_is_given() {
        let read = read(&[("sbom", "generator=a/b,select=c,empty=")]).unwrap();
        let sbom = read.sbom.unwrap();
        assert_eq!(sbom.generator.as_deref(), Some("a/b"));
        let given = [("empty", ""), ("select", "c")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(sbom.parameters, given.into());
    }

    #[test]
    fn what_is_not_supported_is_told() {
        for bad in [
            ("sbom", "new=1"),
            ("provenance", "mode=most"),
            ("provenance", "version=v9"),
            ("provenance", "new=1"),
            ("other", ""),
        ] {
            read(&[bad]).unwrap_err();
        }
    }
}
