//! What is to be built.

use crate::attest::Attestations;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::LayoutImage;
use crate::output::Output;
use crate::remote::{CacheSource, CacheTarget};
use engine::model::{Limits, NetworkMode};
use images::registry::Credentials;
use oci::image::Platform;
use patterns::Ignore;
use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::net::UnixListener;
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
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// Labels in addition to those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// The platforms to build for; this machine's without.
    pub platforms: Vec<Platform>,
    /// The result is an index, even of one platform.
    pub index: bool,
    /// The network of commands.
    pub network: NetworkMode,
    /// What more commands may have where the Dockerfile asks for it.
    pub allowances: Allowances,
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
    /// Caches elsewhere that steps may be taken from, in this order.
    pub cache_from: Vec<CacheSource>,
    /// Caches elsewhere that are written when all is built.
    pub cache_to: Vec<CacheTarget>,
    /// Say of each step why it was not taken from the cache.
    pub explain: bool,
    /// Offer the client a shell in what a command that has failed leaves ([`Event::Shell`](crate::Event::Shell)).
    pub shell_on_failure: bool,
    /// Tell so many of the largest files of the image.
    pub largest: usize,
    /// Whom to ask for what the request does not say.
    pub client: Box<dyn Client>,
    /// What is attested of images that go elsewhere.
    pub attestations: Attestations,
    /// What is made of the target; nothing but what the cache keeps where there is none.
    pub outputs: Vec<Output>,
    /// Stages that are built at the same time; at most [`STAGES_AT_ONCE_MAX`].
    pub stages_at_once: usize,
    /// Becomes true when the build is to end.
    pub stop: watch::Receiver<bool>,
}

/// What a Dockerfile may give a command that makes it more than a container, because the user says so (`--allow`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowances {
    /// The host's network (`RUN --network=host`).
    pub host_network: bool,
    /// Everything the host has (`RUN --security=insecure`).
    pub insecure: bool,
}

impl Allowances {
    /// Reads BuildKit's names of them: `network.host`, `security.insecure`.
    ///
    /// # Errors
    /// Another name.
    pub fn read<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self> {
        let mut this = Self::default();
        for name in names {
            match name {
                "network.host" => this.host_network = true,
                "security.insecure" => this.insecure = true,
                other => return Err(Error::Unsupported(format!("to allow {other:?}"))),
            }
        }
        Ok(this)
    }
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

    /// Passes what comes to a socket on to an SSH agent of the client, until what is returned goes; `None` where it has none of
    /// that ID.
    ///
    /// # Errors
    /// The client is gone.
    fn agent(&self, id: &str, listener: UnixListener) -> Result<Option<Box<dyn Forwarding>>>;
}

/// Something that forwards as long as it is there.
pub trait Forwarding: fmt::Debug + Send {}

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

    /// A request cannot bring one.
    fn agent(&self, _id: &str, _listener: UnixListener) -> Result<Option<Box<dyn Forwarding>>> {
        Ok(None)
    }
}

/// What `--build-context name=…` names.
#[derive(Debug)]
pub enum NamedContext {
    /// Files.
    Files(Context),
    /// An image.
    Image(String),
    /// An image that the client has.
    Layout(LayoutImage),
}
