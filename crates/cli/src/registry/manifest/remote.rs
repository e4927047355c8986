//! Manifests of registries.

use super::entry::Entry;
use crate::error::{Error, Result, chain};
use crate::registry::credentials::{Store, key};
use crate::session::Session;
use oci::Reference;
use oci::image::{ConfigFile, Descriptor, Document, Index, Manifest, Platform, media_type};
use registry::config::{self, Registries};
use registry::{Client, Credentials, Purpose, Repository};
use std::path::Path;
use std::sync::Arc;

/// What a name means at a registry.
#[derive(Debug)]
pub(super) enum Found {
    /// One image.
    Manifest(Box<Entry>),
    /// Several.
    List(Index),
}

/// Opens an image's repository with the user's credentials. `insecure` takes plain HTTP and any certificate.
pub(super) fn repository(
    session: &Session,
    name: &Reference,
    insecure: bool,
    purpose: Purpose,
) -> Result<Arc<Repository>> {
    let certificates = config::CERTIFICATES.map(Into::into).to_vec();
    let mut registries = Registries::read(Path::new(config::FILE), certificates).map_err(said)?;
    if insecure {
        registries.trust(name.domain());
    }
    let store = Store::open(&session.config_directory())?;
    let auth = store.get(key(name.domain()))?.unwrap_or_default();
    let credentials = Credentials::known(
        auth.username,
        auth.password,
        auth.identity_token,
        auth.registry_token,
    );
    { Client::new(registries).repository(name, credentials, purpose) }.map_err(said)
}

/// An error of a registry, as one of this program.
pub(super) fn said(error: registry::Error) -> Error {
    Error::msg(chain(&error))
}

/// Asks a registry what a name means.
pub(super) async fn find(repository: &Arc<Repository>, name: &Reference) -> Result<Found> {
    let found = match repository.manifest(name).await {
        Err(registry::Error::NoManifest { .. }) => {
            return Err(Error::msg(format!("no such manifest: {name}")));
        }
        found => found.map_err(said)?,
    };
    match found.parse().map_err(said)? {
        Document::Index(index) => Ok(Found::List(index)),
        Document::Manifest(manifest) => {
            let kind = match (&manifest.media_type, found.media_type.as_str()) {
                (Some(kind), _) => kind.as_str(),
                (None, kind @ media_type::DOCKER_MANIFEST) => kind,
                (None, _) => media_type::OCI_MANIFEST,
            };
            let mut descriptor = Descriptor::new(kind, found.digest, found.bytes.len() as u64);
            descriptor.platform = Some(platform(repository, &manifest).await?);
            Ok(Found::Manifest(Box::new(Entry {
                reference: name.clone(),
                descriptor,
                bytes: found.bytes.to_vec(),
            })))
        }
    }
}

/// All images of a list, with the platforms that it gives them.
pub(super) async fn members(
    repository: &Arc<Repository>,
    name: &Reference,
    index: &Index,
) -> Result<Vec<Entry>> {
    let mut members = Vec::new();
    for listed in &index.manifests {
        let member = name.clone().beside_digest(listed.digest);
        match find(repository, &member).await? {
            Found::Manifest(mut entry) => {
                if listed.platform.is_some() {
                    entry.descriptor.platform.clone_from(&listed.platform);
                }
                members.push(*entry);
            }
            Found::List(_) => return Err(Error::msg(format!("{member} is a manifest list"))),
        }
    }
    Ok(members)
}

/// The platform that an image's configuration is for; an artifact has none.
async fn platform(repository: &Arc<Repository>, manifest: &Manifest) -> Result<Platform> {
    if !media_type::is_config(&manifest.config.media_type) {
        return Ok(Platform::default());
    }
    let bytes = repository.document(&manifest.config).await.map_err(said)?;
    let config = ConfigFile::parse(&bytes)
        .map_err(|error| Error::msg(format!("{}: {}", manifest.config.digest, chain(&error))))?;
    Ok(config.platform)
}
