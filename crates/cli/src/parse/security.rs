//! `--security-opt`, `--restart`, and the modes of namespaces.

use crate::error::{Error, Result};
use crate::parse::keyvalue;
use api_types::RestartPolicy;

/// All `--security-opt`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    /// What goes on the wire; a seccomp profile is its content.
    pub(crate) options: Vec<String>,
    /// `systempaths=unconfined`: nothing is masked or read-only.
    pub(crate) unmasked: bool,
}

impl Security {
    /// Reads all values. A seccomp profile is a file of this machine, not of the engine's.
    pub(crate) fn parse(values: &[String]) -> Result<Self> {
        let mut security = Self::default();
        for text in values {
            let pair = text.split_once('=');
            let pair = if text == "no-new-privileges" {
                Some(("no-new-privileges", ""))
            } else {
                pair
            };
            let (name, value) = pair
                .or_else(|| text.split_once(':'))
                .filter(|(name, value)| !value.is_empty() || *name == "no-new-privileges")
                .ok_or_else(|| Error::msg(format!("Invalid --security-opt: {text:?}")))?;
            match (name, value) {
                ("systempaths", "unconfined") if text.contains('=') => security.unmasked = true,
                ("seccomp", "builtin" | "unconfined") => security.options.push(text.clone()),
                ("seccomp", path) => security.options.push(format!("seccomp={}", profile(path)?)),
                _ => security.options.push(text.clone()),
            }
        }
        Ok(security)
    }
}

/// A seccomp profile without its white space, its keys in their order.
fn profile(path: &str) -> Result<String> {
    let failed = |what: &str, error: &dyn std::error::Error| {
        Error::msg(format!(
            "{what} seccomp profile ({path}) failed: {}",
            crate::error::chain(error)
        ))
    };
    let bytes = keyvalue::read_limited(path).map_err(|error| failed("opening", &error))?;
    let text = String::from_utf8(bytes).map_err(|error| failed("reading", &error))?;
    serde_json::from_str::<serde::de::IgnoredAny>(&text)
        .map_err(|error| failed("reading", &error))?;
    Ok(crate::json::compact(&text))
}

/// `no`, `always`, `unless-stopped`, `on-failure[:retries]`.
pub(crate) fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    let (name, retries) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() && text.contains(':') {
        return Err("invalid restart policy format: no policy provided before colon".to_owned());
    }
    let retries = if retries.is_empty() { "0" } else { retries };
    let maximum_retry_count = retries.parse().map_err(|_| {
        "invalid restart policy format: maximum retry count must be an integer".to_owned()
    })?;
    Ok(RestartPolicy {
        name: name.to_owned(),
        maximum_retry_count,
    })
}

/// Whether a PID mode is empty, `host`, or `container:<name>`.
pub(crate) fn pid_mode_ok(mode: &str) -> bool {
    matches!(mode, "" | "host")
        || mode
            .strip_prefix("container:")
            .is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn parse(values: &[&str]) -> Result<Security> {
        Security::parse(
            &values
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn options_and_profiles() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{{ \"z\" : 1,\n \"a b\":[ 2 ] }}\n").unwrap();
        let path = format!("seccomp={}", file.path().display());
        let security = parse(&[
            "no-new-privileges",
            "no-new-privileges=false",
            "label:disable",
            "systempaths=unconfined",
            "seccomp=unconfined",
            &path,
        ])
        .unwrap();
        assert!(security.unmasked);
        assert_eq!(
            security.options,
            [
                "no-new-privileges",
                "no-new-privileges=false",
                "label:disable",
                "seccomp=unconfined",
                r#"seccomp={"z":1,"a b":[2]}"#
            ]
        );
    }

    #[test]
    fn broken_options_are_errors() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{{ nonsense").unwrap();
        let broken = format!("seccomp={}", file.path().display());
        for text in ["", "foo", "label=", "seccomp=/nonexistent", &broken] {
            assert!(parse(&[text]).is_err(), "{text}");
        }
    }

    #[test]
    fn restart_policies() {
        let policy = restart_policy("on-failure:3").unwrap();
        assert_eq!(
            (policy.name.as_str(), policy.maximum_retry_count),
            ("on-failure", 3)
        );
        assert_eq!(restart_policy("").unwrap(), RestartPolicy::default());
        assert!(restart_policy(":3").is_err() && restart_policy("on-failure:x").is_err());
        assert!(pid_mode_ok("container:a") && !pid_mode_ok("container:") && !pid_mode_ok("x"));
    }
}
