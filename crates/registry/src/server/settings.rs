//! What a registry is configured with.

use super::access::Access;
use super::quota::Quota;
use super::store::sweep::Sweep;
use crate::auth::Credentials;
use crate::config::{Address, Registries};
use connections::Identity;
use std::path::PathBuf;
use std::time::Duration;

/// How a registry is served.
#[derive(Debug)]
pub struct Settings {
    /// Where it keeps everything; made when it is not there.
    pub storage: PathBuf,
    /// Whether nothing can be pushed or deleted.
    pub read_only: bool,
    /// Whether manifests, tags and blobs can be deleted.
    pub deletion: bool,
    /// Who may do what.
    pub access: Access,
    /// The certificate to show; without it HTTP is plain.
    pub tls: Option<Identity>,
    /// Connections that one address may have at once.
    pub connections_per_address_max: usize,
    /// How much repositories may have.
    pub quotas: Vec<Quota>,
    /// How often to sweep, and how.
    pub sweep: Option<(Duration, Sweep)>,
    /// The registry that this is a cache of.
    pub upstream: Option<UpstreamSettings>,
}

/// Another registry.
#[derive(Debug)]
pub struct UpstreamSettings {
    /// Where it is.
    pub address: Address,
    /// Who this is to it.
    pub credentials: Credentials,
    /// Certificates for it.
    pub registries: Registries,
}
