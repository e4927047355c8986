//! What is to be built.

use crate::context::Context;
use engine::model::{Limits, NetworkMode};
use images::registry::Credentials;
use oci::Reference;
use oci::image::Platform;
use patterns::Ignore;
use std::collections::BTreeMap;
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
    /// The files of `--secret` by ID.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Who the client is, by registry.
    pub credentials: BTreeMap<String, Credentials>,
    /// Stages that are built at the same time; at most [`STAGES_AT_ONCE_MAX`].
    pub stages_at_once: usize,
    /// Becomes true when the build is to end.
    pub stop: watch::Receiver<bool>,
}

/// What `--build-context name=…` names.
#[derive(Debug)]
pub enum NamedContext {
    /// Files.
    Files(Context),
    /// An image.
    Image(String),
}
