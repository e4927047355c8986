//! Images of registries.

use crate::Engine;
use images::registry::policy::Policy;
use images::registry::{Credentials, Download, Found, Manifest, Purpose, Repository};
use images::{Error, LayerState, PullRequest, Pulled, PushRequest, PushState, Pushed, Result};
use oci::image::{ConfigFile, Descriptor, Document, Platform, media_type};
use oci::reference::DEFAULT_DOMAIN;
use oci::{Digest, Reference};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;

impl Engine {
    /// Pulls the image that a reference with tag or digest names. Blocks, so call it in a blocking task; ends early when `stop`
    /// becomes true.
    ///
    /// # Errors
    /// An image that the policy does not allow, or a policy that cannot be read; a registry that has no such image, does not
    /// give it to these credentials, or cannot be reached; an image that cannot be used.
    pub fn pull(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
        credentials: Credentials,
        stop: watch::Receiver<bool>,
        progress: &(dyn Fn(&Digest, LayerState) + Sync),
    ) -> Result<Pulled> {
        let request = self.pull_request(reference, platform, credentials, stop, true)?;
        let pulled = self.images().pull(&Handle::current(), &request, progress)?;
        let name = BTreeMap::from([("name".to_owned(), reference.familiar_name())]);
        self.image_event("pull", &reference.familiar(), name);
        Ok(pulled)
    }

    /// Pulls an image as [`Engine::pull`] does, which gets no name: what the reference means here stays what it is.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub fn pull_nameless(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
        credentials: Credentials,
        stop: watch::Receiver<bool>,
    ) -> Result<Pulled> {
        let request = self.pull_request(reference, platform, credentials, stop, false)?;
        self.images().pull(&Handle::current(), &request, &|_, _| {})
    }

    fn pull_request(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
        credentials: Credentials,
        stop: watch::Receiver<bool>,
        named: bool,
    ) -> Result<PullRequest> {
        let repository =
            self.current()
                .distribution
                .repository(reference, credentials, Purpose::Pull);
        // Read anew each time, so that what is forbidden now is not pulled by what was allowed at the start.
        let policy = Policy::read(&self.0.config.policy)?;
        Ok(PullRequest {
            repository: repository?,
            reference: reference.clone(),
            platform,
            named,
            policy,
            stop,
        })
    }

    /// Pushes an image under a name with a tag that it has, when it is for the platform where one is given. Blocks as
    /// [`Engine::pull`] does.
    ///
    /// # Errors
    /// No image of that name, or for another platform; a registry that does not take it from these credentials, or cannot be reached.
    pub fn push(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
        credentials: Credentials,
        stop: watch::Receiver<bool>,
        progress: &(dyn Fn(&Digest, PushState) + Sync),
    ) -> Result<Pushed> {
        let repository =
            self.current()
                .distribution
                .repository(reference, credentials, Purpose::Push);
        let request = PushRequest {
            repository: repository?,
            reference: reference.clone(),
            platform,
            stop,
        };
        let pushed = self.images().push(&Handle::current(), &request, progress)?;
        let name = BTreeMap::from([("name".to_owned(), reference.familiar_name())]);
        self.image_event("push", &reference.familiar(), name);
        Ok(pushed)
    }

    /// A manifest or index that the policy of pulls allows, and the repository that has it.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub async fn remote_manifest(
        &self,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<(Arc<Repository>, Manifest)> {
        let repository = self.repository(reference, credentials, Purpose::Pull)?;
        let policy = Policy::read(&self.0.config.policy)?;
        let demand = policy.demand(reference)?;
        let found = repository.manifest(reference).await?;
        demand.check(&repository, reference, &found.digest).await?;
        Ok((repository, found))
    }

    /// The repository of a reference.
    ///
    /// # Errors
    /// A registry that is not configured as it should be.
    pub fn repository(
        &self,
        reference: &Reference,
        credentials: Credentials,
        purpose: Purpose,
    ) -> Result<Arc<Repository>> {
        let current = self.current();
        let distribution = &current.distribution;
        Ok(distribution.repository(reference, credentials, purpose)?)
    }

    /// The tags of a repository.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub async fn remote_tags(
        &self,
        name: &Reference,
        credentials: Credentials,
    ) -> Result<Vec<String>> {
        let repository = self
            .current()
            .distribution
            .repository(name, credentials, Purpose::Pull);
        Ok(repository?.tags().await?)
    }

    /// What a reference means at its registry: the manifest's or index's descriptor, and the platforms that it has images for.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub async fn remote_image(
        &self,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<(Descriptor, Vec<Platform>)> {
        let repository =
            self.current()
                .distribution
                .repository(reference, credentials, Purpose::Pull)?;
        let found = repository.manifest(reference).await?;
        let (own, platforms) = match found.parse()? {
            Document::Index(index) => {
                let platforms = index.manifests.into_iter().filter_map(|one| one.platform);
                (index.media_type, platforms.collect())
            }
            // An artifact is for no platform.
            Document::Manifest(manifest) if !media_type::is_config(&manifest.config.media_type) => {
                (manifest.media_type, Vec::new())
            }
            Document::Manifest(manifest) => {
                let config = repository.document(&manifest.config).await?;
                let config = ConfigFile::parse(&config).map_err(|source| Error::Document {
                    what: manifest.config.digest.to_string(),
                    source,
                })?;
                (manifest.media_type, vec![config.platform])
            }
        };
        let kind = own.unwrap_or(found.media_type);
        let size = found.bytes.len() as u64;
        Ok((Descriptor::new(&kind, found.digest, size), platforms))
    }

    /// Checks credentials with a registry; returns the identity token that it gives in their place, if it does.
    ///
    /// # Errors
    /// A registry that refuses them, or cannot be reached.
    pub async fn log_in(&self, domain: &str, credentials: &Credentials) -> Result<Option<String>> {
        Ok(self
            .current()
            .distribution
            .log_in(domain, credentials)
            .await?)
    }

    /// Searches the registry that a term begins with, or else Docker Hub, for the rest of the term.
    ///
    /// # Errors
    /// A term that names no registry as it should; a registry that cannot be searched or reached.
    pub async fn search(
        &self,
        term: &str,
        limit: usize,
        credentials: &Credentials,
    ) -> Result<Vec<Found>> {
        if term.contains("://") {
            return Err(Error::Argument(format!(
                "invalid repository name: repository name ({term}) should not have a scheme"
            )));
        }
        let (domain, rest) = match term.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest)
            }
            // What Docker vouches for is found without its directory.
            _ => (
                DEFAULT_DOMAIN,
                term.strip_prefix("library/").unwrap_or(term),
            ),
        };
        let domain = match domain {
            "index.docker.io" => DEFAULT_DOMAIN,
            other => other,
        };
        let current = self.current();
        Ok(current
            .distribution
            .search(domain, rest, limit, credentials)
            .await?)
    }

    /// Begins to fetch what is at a URL. `authorization` is a header's value for its host alone.
    ///
    /// # Errors
    /// A URL that is none, or has nothing; a server that cannot be reached.
    pub async fn download(&self, url: &str, authorization: Option<&str>) -> Result<Download> {
        Ok(self
            .current()
            .distribution
            .download(url, authorization)
            .await?)
    }
}
