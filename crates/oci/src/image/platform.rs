//! What an image runs on, as documents have it and as people call it.

use super::values::or_default;
use serde::{Deserialize, Serialize};

/// What an image runs on, in Go's terms (GOARCH, GOOS).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// `linux`, …
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// The version of the system, for Windows.
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    /// Features of the system that are needed.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Variant of the CPU, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: it reads like linux/arm64 or linux/arm/v7")]
pub struct PlatformError(String);

impl std::fmt::Display for Platform {
    /// `os/arch` or `os/arch/variant`, which reads as the same platform again.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

/// The architectures that a platform can be called by alone: those of Go (go.dev/doc/install/source#environment) that are Linux's.
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "wasm",
];

impl std::str::FromStr for Platform {
    type Err = PlatformError;

    /// Reads `os` (on this machine's architecture), `arch` (of Linux), `os/arch` or `os/arch/variant`; names that the kernel or
    /// others have for architectures are taken, too.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let error = || PlatformError(text.chars().take(80).collect());
        let lower = text.to_lowercase();
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        let parts: Vec<&str> = lower.split('/').collect();
        if !parts.iter().all(|part| plain(part)) {
            return Err(error());
        }
        let (os, architecture, variant) = match parts[..] {
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => {
                (os, std::env::consts::ARCH, None)
            }
            [word] => ("linux", word, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(error()),
        };
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "i386" | "i686" | "x86" => ("386", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            other => (other, None),
        };
        // By itself it could be the name of anything.
        if parts.len() == 1 && !ARCHITECTURES.contains(&architecture) {
            return Err(error());
        }
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.or(implied).map(str::to_owned),
            ..Self::default()
        })
    }
}
