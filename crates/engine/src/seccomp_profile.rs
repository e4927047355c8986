//! System call filters that users bring along, in Docker's JSON: an OCI filter whose rules may depend on the container's
//! capabilities, the architecture and the kernel.

use crate::error::{Error, Result};
use oci::runtime::{Seccomp, SyscallRule};
use serde::Deserialize;
use serde_json::Value;

/// How long a profile may be.
const PROFILE_BYTES_MAX: usize = 1 << 20;

/// A profile. What is not named here is as in the OCI specification.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(flatten)]
    filter: serde_json::Map<String, Value>,
}

/// When a rule counts.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// An entry of `archMap`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

/// Resolves a profile for a container with these capabilities (`CAP_…`).
///
/// # Errors
/// What is no profile.
pub(crate) fn resolve(json: &str, capabilities: &[String]) -> Result<Seccomp> {
    let bad = |error: &dyn std::fmt::Display| {
        Error::invalid(format!("decoding seccomp profile failed: {error}"))
    };
    if json.len() > PROFILE_BYTES_MAX {
        return Err(bad(&format_args!(
            "it is longer than {PROFILE_BYTES_MAX} bytes"
        )));
    }
    let Profile { mut filter } = serde_json::from_str(json).map_err(|error| bad(&error))?;
    let rules = match filter.remove("syscalls") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(rules)) => rules,
        Some(_) => return Err(bad(&"syscalls is no list")),
    };
    if let Some(map) = filter.remove("archMap").filter(|map| !map.is_null()) {
        if filter
            .get("architectures")
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty())
        {
            return Err(bad(
                &"both architectures and archMap are given: use one of them",
            ));
        }
        let map: Vec<Architecture> = serde_json::from_value(map).map_err(|error| bad(&error))?;
        filter.insert("architectures".to_owned(), architectures(map).into());
    }
    let mut seccomp: Seccomp =
        serde_json::from_value(Value::Object(filter)).map_err(|error| bad(&error))?;
    for mut rule in rules {
        let mut take = |name: &str| -> Result<Condition> {
            match rule.as_object_mut().and_then(|rule| rule.remove(name)) {
                None | Some(Value::Null) => Ok(Condition::default()),
                Some(value) => serde_json::from_value(value).map_err(|error| bad(&error)),
            }
        };
        let (includes, excludes) = (take("includes")?, take("excludes")?);
        if let Some(rule) = rule.as_object_mut()
            && let Some(name) = rule
                .remove("name")
                .filter(|name| name.as_str().is_some_and(|name| !name.is_empty()))
        {
            rule.entry("names")
                .or_insert_with(|| Value::Array(vec![name]));
        }
        let rule: SyscallRule = serde_json::from_value(rule).map_err(|error| bad(&error))?;
        if includes.is_met(capabilities) && !excludes.is_hit(capabilities) {
            seccomp.syscalls.push(rule);
        }
    }
    Ok(seccomp)
}

/// The architecture of this machine and those it can also run.
fn architectures(map: Vec<Architecture>) -> Vec<String> {
    let native = match std::env::consts::ARCH {
        "x86_64" => "SCMP_ARCH_X86_64",
        "aarch64" => "SCMP_ARCH_AARCH64",
        "riscv64" => "SCMP_ARCH_RISCV64",
        _ => "",
    };
    let entry = map.into_iter().find(|entry| entry.architecture == native);
    entry.map_or_else(Vec::new, |entry| {
        std::iter::once(entry.architecture)
            .chain(entry.sub_architectures.unwrap_or_default())
            .collect()
    })
}

impl Condition {
    /// Every part of it holds.
    fn is_met(&self, capabilities: &[String]) -> bool {
        self.caps.iter().all(|cap| capabilities.contains(cap))
            && (self.arches.is_empty()
                || self.arches.iter().any(|arch| arch == docker_architecture()))
            && self.min_kernel.as_deref().is_none_or(kernel_is_at_least)
    }

    /// Any part of it holds.
    fn is_hit(&self, capabilities: &[String]) -> bool {
        self.caps.iter().any(|cap| capabilities.contains(cap))
            || self.arches.iter().any(|arch| arch == docker_architecture())
            || self.min_kernel.as_deref().is_some_and(kernel_is_at_least)
    }
}

fn docker_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel_is_at_least(wanted: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(['.', '-'])
            .take(2)
            .filter_map(|number| number.parse().ok())
            .collect()
    };
    let release = rustix::system::uname();
    numbers(&release.release().to_string_lossy()) >= numbers(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                    {"architecture": "SCMP_ARCH_AARCH64"}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"name": "future", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
            {"name": "write", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}}
        ]}"#;

    fn names(capabilities: &[&str]) -> Vec<String> {
        let capabilities: Vec<String> =
            capabilities.iter().map(|name| (*name).to_owned()).collect();
        resolve(PROFILE, &capabilities)
            .unwrap()
            .syscalls
            .into_iter()
            .flat_map(|rule| rule.names)
            .collect()
    }

    #[test]
    fn rules_depend_on_capabilities_and_kernel() {
        assert_eq!(names(&[]), ["read", "clone", "write"]);
        assert_eq!(names(&["CAP_SYS_ADMIN"]), ["read", "mount", "write"]);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let both =
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[]}"#;
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"defaultAction":"NONSENSE"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":1}"#,
            both,
        ] {
            assert!(resolve(bad, &[]).is_err(), "{bad}");
        }
    }
}
