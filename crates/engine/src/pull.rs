//! Images of registries.

use crate::Engine;
use images::registry::{Credentials, Purpose};
use images::{LayerState, PullRequest, Pulled, PushRequest, PushState, Pushed, Result};
use oci::image::Platform;
use oci::{Digest, Reference};
use std::collections::BTreeMap;
use tokio::runtime::Handle;
use tokio::sync::watch;

impl Engine {
    /// Pulls the image that a reference with tag or digest names. Blocks, so call it in a blocking task; ends early when `stop`
    /// becomes true.
    ///
    /// # Errors
    /// A registry that has no such image, does not give it to these credentials, or cannot be reached; an image that cannot be
    /// used.
    pub fn pull(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
        credentials: Credentials,
        stop: watch::Receiver<bool>,
        progress: &(dyn Fn(&Digest, LayerState) + Sync),
    ) -> Result<Pulled> {
        let repository = self
            .0
            .distribution
            .repository(reference, credentials, Purpose::Pull);
        let request = PullRequest {
            repository: repository?,
            reference: reference.clone(),
            platform,
            stop,
        };
        let pulled = self.images().pull(&Handle::current(), &request, progress)?;
        let name = BTreeMap::from([("name".to_owned(), reference.familiar_name())]);
        self.image_event("pull", &reference.familiar(), name);
        Ok(pulled)
    }

    /// Pushes an image under a name with a tag that it has. Blocks as [`Engine::pull`] does.
    ///
    /// # Errors
    /// No image of that name; a registry that does not take it from these credentials, or cannot be reached.
    pub fn push(
        &self,
        reference: &Reference,
        credentials: Credentials,
        stop: watch::Receiver<bool>,
        progress: &(dyn Fn(&Digest, PushState) + Sync),
    ) -> Result<Pushed> {
        let repository = self
            .0
            .distribution
            .repository(reference, credentials, Purpose::Push);
        let request = PushRequest {
            repository: repository?,
            reference: reference.clone(),
            stop,
        };
        let pushed = self.images().push(&Handle::current(), &request, progress)?;
        let name = BTreeMap::from([("name".to_owned(), reference.familiar_name())]);
        self.image_event("push", &reference.familiar(), name);
        Ok(pushed)
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
            .0
            .distribution
            .repository(name, credentials, Purpose::Pull);
        Ok(repository?.tags().await?)
    }

    /// Checks credentials with a registry; returns the identity token that it gives in their place, if it does.
    ///
    /// # Errors
    /// A registry that refuses them, or cannot be reached.
    pub async fn log_in(&self, domain: &str, credentials: &Credentials) -> Result<Option<String>> {
        Ok(self.0.distribution.log_in(domain, credentials).await?)
    }
}
