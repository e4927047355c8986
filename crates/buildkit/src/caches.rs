//! Caches that a client asks for, in registries and in its own directories.

use crate::messages::{CacheEntry, CacheOptions};
use crate::solve::Job;
use builder::{
    CacheExport, CacheImport, CacheKind, CachePlace, CacheSource, CacheTarget, Error, Result,
};
use std::collections::BTreeMap;

/// Caches of one build.
const CACHES_MAX: usize = 64;
/// Before the name of a store that is a directory of the client.
const LOCAL: &str = "local:";

/// What is read and written, as it is asked for.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    imports: Vec<CacheImport>,
    exports: Vec<CacheExport>,
}

impl Caches {
    /// Reads what a client asks for.
    ///
    /// # Errors
    /// What is not supported, by its name.
    pub(crate) fn read(options: Option<&CacheOptions>) -> Result<Self> {
        let (imports, exports): (&[CacheEntry], &[CacheEntry]) =
            options.map_or((&[], &[]), |it| (&it.imports, &it.exports));
        if imports.len() + exports.len() > CACHES_MAX {
            return Err(Error::Invalid(format!(
                "a build has at most {CACHES_MAX} caches"
            )));
        }
        let imports = imports.iter();
        let imports = imports.map(|entry| CacheImport::read(&entry.kind, &entry.attributes));
        let exports = exports.iter();
        let exports = exports.map(|entry| CacheExport::read(&entry.kind, &entry.attributes));
        Ok(Self {
            imports: imports.collect::<Result<_>>()?,
            exports: exports.collect::<Result<_>>()?,
        })
    }

    /// Adds what the attributes of the frontend say, which repeat what clients of today say here.
    pub(crate) fn add(&mut self, imports: Vec<CacheImport>, inline: bool) -> Result<()> {
        for import in imports {
            if !self.imports.contains(&import) {
                self.imports.push(import);
            }
        }
        if inline && !self.exports.iter().any(|it| it.kind == CacheKind::Inline) {
            self.exports
                .push(CacheExport::read("inline", &BTreeMap::new())?);
        }
        Ok(())
    }

    /// Where they are.
    pub(crate) fn open(self, job: &Job) -> Result<(Vec<CacheSource>, Vec<CacheTarget>)> {
        let source = |import| match import {
            CacheImport::Registry(reference) => Ok(CacheSource::Registry(reference)),
            CacheImport::Local {
                directory,
                manifest,
            } => {
                let none = || Error::Invalid("a cache of type local needs a digest".to_owned());
                Ok(CacheSource::Client {
                    blobs: Box::new(job.store(format!("{LOCAL}{directory}"))),
                    name: directory,
                    manifest: manifest.ok_or_else(none)?,
                })
            }
        };
        let target = |options: CacheExport| {
            let place = match &options.kind {
                CacheKind::Inline => CachePlace::Inline,
                CacheKind::Registry(reference) => CachePlace::Registry(reference.clone()),
                CacheKind::Local(directory) => CachePlace::Client {
                    blobs: Box::new(job.store(format!("{LOCAL}{directory}"))),
                },
            };
            CacheTarget { place, options }
        };
        let sources = self
            .imports
            .into_iter()
            .map(source)
            .collect::<Result<_>>()?;
        Ok((sources, self.exports.into_iter().map(target).collect()))
    }
}
