//! Credentials for registries.

use crate::is_default;
use serde::{Deserialize, Serialize};

/// Who somebody is to a registry: the body of `POST /auth`, and the document in the header `X-Registry-Auth`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    /// The name.
    #[serde(skip_serializing_if = "is_default")]
    pub username: String,
    /// The password, or an access token in its place.
    #[serde(skip_serializing_if = "is_default")]
    pub password: String,
    /// Name and password with a colon between, in base64; only in files.
    #[serde(skip_serializing_if = "is_default")]
    pub auth: String,
    /// The registry.
    #[serde(rename = "serveraddress", skip_serializing_if = "is_default")]
    pub server_address: String,
    /// A long-lived token in place of name and password.
    #[serde(rename = "identitytoken", skip_serializing_if = "is_default")]
    pub identity_token: String,
    /// A token to send to the registry as it is.
    #[serde(rename = "registrytoken", skip_serializing_if = "is_default")]
    pub registry_token: String,
}

/// The answer to `POST /auth`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AuthResponse {
    /// `Login Succeeded`.
    pub status: String,
    /// A long-lived token to keep in place of the password.
    #[serde(skip_serializing_if = "is_default")]
    pub identity_token: String,
}
