//! What clients say of caches: a type, and attributes by name. What is not supported is an error that names it.
//!
//! Source: moby/buildkit `cache/remotecache`, README "Export cache".

use crate::error::{Error, Result};
use images::Form;
use oci::{Digest, Reference};
use std::collections::BTreeMap;

/// Which results go into a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Those whose layers the image has.
    #[default]
    Min,
    /// Those of all steps of all stages that were built.
    Max,
}

/// A cache that is to be read, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheImport {
    /// `type=registry`
    Registry(Reference),
    /// `type=local`: a directory of the client, and the manifest in it, which the client looks up.
    Local {
        /// The directory.
        directory: String,
        /// The manifest.
        manifest: Option<Digest>,
    },
}

/// How a cache is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheExport {
    /// Where to, as it is asked for.
    pub kind: CacheKind,
    /// Which results.
    pub mode: CacheMode,
    /// Cache mounts, too.
    pub mounts: bool,
    /// How its layers are compressed; as they are known without.
    pub form: Option<Form>,
    /// A cache that cannot be written is a warning.
    pub ignore_error: bool,
}

/// Where a cache is to be written, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheKind {
    /// `type=inline`
    Inline,
    /// `type=registry`
    Registry(Reference),
    /// `type=local`: a directory of the client.
    Local(String),
}

/// Attributes, which are taken one by one: what is left is not known.
struct Attributes<'a> {
    what: String,
    left: BTreeMap<&'a str, &'a str>,
}

impl<'a> Attributes<'a> {
    fn new(what: String, given: &'a BTreeMap<String, String>) -> Self {
        let left = given.iter();
        Self {
            what,
            left: left
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
        }
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        self.left.remove(name).filter(|value| !value.is_empty())
    }

    fn needed(&mut self, name: &str) -> Result<&'a str> {
        let missing = || Error::Invalid(format!("{} needs {name}", self.what));
        self.left
            .remove(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(missing)
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(Error::Invalid(format!(
                "{}: {name}={value} is neither true nor false",
                self.what
            ))),
        }
    }

    fn reference(&mut self) -> Result<Reference> {
        let text = self.needed("ref")?;
        let invalid = |error: oci::reference::ReferenceError| {
            Error::Invalid(format!("{}: invalid ref {text:?}: {error}", self.what))
        };
        Ok(text.parse::<Reference>().map_err(invalid)?.to_target())
    }

    fn finish(self) -> Result<()> {
        match self.left.iter().find(|(_, value)| !value.is_empty()) {
            Some((name, value)) => Err(Error::Unsupported(format!(
                "{name}={value} of {}",
                self.what
            ))),
            None => Ok(()),
        }
    }
}

/// How layers are to be compressed, of `compression`, `compression-level` and `force-compression`; the names that were used are
/// taken from `left`.
///
/// # Errors
/// A compression that is not known or not supported, a level that it does not have.
pub(crate) fn form<'a>(left: &mut BTreeMap<&'a str, &'a str>) -> Result<Option<Form>> {
    let level = left
        .remove("compression-level")
        .filter(|text| !text.is_empty());
    let bad = |level: &str| Error::Invalid(format!("invalid compression-level {level:?}"));
    let number = |max: i32| {
        let number = level
            .map(|text| text.parse::<i32>().map_err(|_| bad(text)))
            .transpose()?;
        match number {
            Some(number) if !(0..=max).contains(&number) => Err(bad(&number.to_string())),
            number => Ok(number),
        }
    };
    let kind = left.remove("compression").filter(|text| !text.is_empty());
    // Layers are compressed when they go, each in the form that is asked for.
    left.remove("force-compression");
    match kind {
        None if level.is_some() => Ok(Some(Form::Gzip(number(9)?.map(i32::cast_unsigned)))),
        None => Ok(None),
        Some("uncompressed") => Ok(Some(Form::Plain)),
        Some("gzip") => Ok(Some(Form::Gzip(number(9)?.map(i32::cast_unsigned)))),
        Some("zstd") => Ok(Some(Form::Zstd(number(22)?.filter(|level| *level > 0)))),
        Some(other @ "estargz") => Err(Error::Unsupported(format!("the compression {other}"))),
        Some(other) => Err(Error::Invalid(format!("unknown compression {other:?}"))),
    }
}

impl CacheImport {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// What is missing, malformed or not supported, by its name.
    pub fn read(kind: &str, given: &BTreeMap<String, String>) -> Result<Self> {
        let mut attributes = Attributes::new(format!("a cache of type {kind}"), given);
        let import = match kind {
            "registry" => Self::Registry(attributes.reference()?),
            "local" => {
                let manifest = attributes.take("digest").map(str::parse).transpose();
                // The client knows what a tag means.
                attributes.take("tag");
                Self::Local {
                    directory: attributes.needed("src")?.to_owned(),
                    manifest: manifest.map_err(|error: oci::digest::DigestError| {
                        Error::Invalid(format!("invalid digest of a cache: {error}"))
                    })?,
                }
            }
            other => return Err(Error::Unsupported(format!("the cache of type {other:?}"))),
        };
        attributes.finish()?;
        Ok(import)
    }
}

impl CacheExport {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// What is missing, malformed or not supported, by its name.
    pub fn read(kind: &str, given: &BTreeMap<String, String>) -> Result<Self> {
        let mut attributes = Attributes::new(format!("a cache of type {kind}"), given);
        let form = form(&mut attributes.left)?;
        let mode = match attributes.take("mode") {
            None | Some("min") => CacheMode::Min,
            Some("max") => CacheMode::Max,
            Some(other) => {
                return Err(Error::Invalid(format!("invalid mode {other:?} of a cache")));
            }
        };
        let mounts = attributes.flag("mounts")?.unwrap_or(false);
        for name in ["image-manifest", "oci-mediatypes"] {
            if attributes.flag(name)? == Some(false) {
                return Err(Error::Unsupported(format!("{name}=false of a cache")));
            }
        }
        let ignore_error = attributes.flag("ignore-error")?.unwrap_or(false);
        let kind = match kind {
            "inline" if mode == CacheMode::Max || mounts || form.is_some() => {
                let text = "an inline cache has the results of the image's own layers, and no other mode, mounts or compression";
                return Err(Error::Invalid(text.to_owned()));
            }
            "inline" => CacheKind::Inline,
            "registry" => CacheKind::Registry(attributes.reference()?),
            "local" => {
                // The client keeps the directory's index.
                attributes.take("tag");
                attributes.take("reset");
                CacheKind::Local(attributes.needed("dest")?.to_owned())
            }
            other => return Err(Error::Unsupported(format!("the cache of type {other:?}"))),
        };
        attributes.finish()?;
        Ok(Self {
            kind,
            mode,
            mounts,
            form,
            ignore_error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> (String, BTreeMap<String, String>) {
        let mut all: BTreeMap<String, String> = { text.split(',') }
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        (all.remove("type").unwrap(), all)
    }

    fn import(text: &str) -> Result<CacheImport> {
        let (kind, all) = given(text);
        CacheImport::read(&kind, &all)
    }

    fn export(text: &str) -> Result<CacheExport> {
        let (kind, all) = given(text);
        CacheExport::read(&kind, &all)
    }

    #[test]
    fn caches_are_read_as_buildx_asks_for_them() {
        let reference: Reference = "r.example/a:latest".parse().unwrap();
        assert_eq!(
            import("type=registry,ref=r.example/a").unwrap(),
            CacheImport::Registry(reference.clone())
        );
        let digest = Digest::sha256(b"x");
        let local = import(&format!("type=local,src=/c,digest={digest},tag=x"));
        assert_eq!(
            local.unwrap(),
            CacheImport::Local {
                directory: "/c".to_owned(),
                manifest: Some(digest)
            }
        );
        let asked = export(
            "type=registry,ref=r.example/a,mode=max,mounts=true,compression=zstd,compression-level=7,image-manifest=true",
        );
        assert_eq!(
            asked.unwrap(),
            CacheExport {
                kind: CacheKind::Registry(reference),
                mode: CacheMode::Max,
                mounts: true,
                form: Some(Form::Zstd(Some(7))),
                ignore_error: false,
            }
        );
        let local = export("type=local,dest=/c,tag=x,ignore-error=true").unwrap();
        assert_eq!(local.kind, CacheKind::Local("/c".to_owned()));
        assert!(local.ignore_error && local.mode == CacheMode::Min);
        assert_eq!(export("type=inline").unwrap().kind, CacheKind::Inline);
    }

    #[test]
    fn what_is_not_supported_is_told() {
        for bad in [
            "type=registry",
            "type=local",
            "type=gha,url=x",
            "type=registry,ref=A",
            "type=local,src=/c,digest=x",
            "type=registry,ref=a,new=1",
        ] {
            import(bad).unwrap_err();
        }
        for bad in [
            "type=inline,mode=max",
            "type=s3,bucket=x",
            "type=registry,ref=a,mode=most",
            "type=registry,ref=a,image-manifest=false",
            "type=registry,ref=a,oci-mediatypes=false",
            "type=registry,ref=a,compression=estargz",
            "type=registry,ref=a,compression=lz4",
            "type=registry,ref=a,compression=gzip,compression-level=10",
            "type=registry,ref=a,mounts=maybe",
            "type=local,dest=/c,new=1",
        ] {
            export(bad).unwrap_err();
        }
    }
}
