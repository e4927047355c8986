//! What is to be built.

use crate::context::Context;
use crate::error::Result;
use engine::model::{Limits, NetworkMode};
use images::registry::Credentials;
use oci::Reference;
use oci::image::Platform;
use patterns::Ignore;
use std::collections::BTreeMap;
use std::fmt;
use sys::root::Root;
use tokio::sync::watch;

/// Stages that are built at the same time.
pub const STAGES_AT_ONCE_MAX: usize = 4;

/// A request for an image.
#[derive(Debug)]
pub struct Request {
    /// The Dockerfile's name, for messages.
    pub dockerfile_name: String,
    /// Its text.
    pub dockerfile: Vec<u8>,
    /// The files that COPY and ADD take.
    pub context: Context,
    /// What was left out of them.
    pub ignore: Ignore,
    /// Further ones by name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// The stage to build; the last without.
    pub target: Option<String>,
    /// Names for the image; each has a tag.
    pub tags: Vec<Reference>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// Labels in addition to those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// The platform to build for; this machine's without.
    pub platform: Option<Platform>,
    /// The network of commands.
    pub network: NetworkMode,
    /// `name:address` for `/etc/hosts` of commands.
    pub extra_hosts: Vec<String>,
    /// Bytes of `/dev/shm` of commands.
    pub shm_bytes: u64,
    /// What commands may use.
    pub limits: Limits,
    /// The cgroup above those of commands.
    pub cgroup_parent: Option<String>,
    /// Take nothing from the cache.
    pub no_cache: bool,
    /// Take nothing from the cache in these stages.
    pub no_cache_stages: Vec<String>,
    /// Ask registries for newer base images.
    pub pull: bool,
    /// Say of each step why it was not taken from the cache.
    pub explain: bool,
    /// Whom to ask for what the request does not say.
    pub client: Box<dyn Client>,
    /// Takes the files that the target has; without it they become an image.
    pub output: Option<Box<dyn Output>>,
    /// Stages that are built at the same time; at most [`STAGES_AT_ONCE_MAX`].
    pub stages_at_once: usize,
    /// Becomes true when the build is to end.
    pub stop: watch::Receiver<bool>,
}

/// What a client is asked for while its build goes on.
pub trait Client: fmt::Debug + Send + Sync {
    /// The content of a secret by its ID; `None` where the client has none of that ID.
    ///
    /// # Errors
    /// The client is gone.
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>>;

    /// Who the client is to a registry, by its domain.
    ///
    /// # Errors
    /// The client is gone.
    fn credentials(&self, domain: &str) -> Result<Credentials>;
}

/// A client that has told everything with its request.
#[derive(Debug, Default)]
pub struct Told {
    /// Secrets by ID.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Credentials by domain.
    pub credentials: BTreeMap<String, Credentials>,
}

impl Client for Told {
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.secrets.get(id).cloned())
    }

    fn credentials(&self, domain: &str) -> Result<Credentials> {
        let known = self.credentials.get(domain).cloned();
        Ok(known.unwrap_or(Credentials::Anonymous))
    }
}

/// Where files go that do not become an image.
pub trait Output: fmt::Debug + Send + Sync {
    /// Takes all files of a tree.
    ///
    /// # Errors
    /// Whoever gets them takes no more.
    fn take(&self, files: &Root) -> Result<()>;
}

/// What `--build-context name=…` names.
#[derive(Debug)]
pub enum NamedContext {
    /// Files.
    Files(Context),
    /// An image.
    Image(String),
}
