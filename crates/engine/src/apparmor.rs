//! The AppArmor profile of containers that ask for none, on hosts that have AppArmor.
//!
//! The kernel takes profiles only as compiled policy, which apparmor_parser makes: a program of the host's, looked for when the engine
//! starts. Where it is missing the engine says so and goes on: the other layers of isolation do not rest on this one. What the profile
//! denies is denied by mounts and capabilities as well; it stands when one of those has a hole (CVE-2019-16884 and its kin).
//! Source: apparmor.d(5), apparmor_parser(8).

use crate::error::{Context, Error, Result};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// The profile's name.
pub(crate) const PROFILE: &str = "hull-default";

/// What a request says for no profile.
pub(crate) const UNCONFINED: &str = "unconfined";

/// How long compiling may take.
const PARSER_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the kernel lists the profiles that it has.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// The rules. Signals and tracing stay among containers, but for signals that the host sends; of procfs and sysfs only what belongs to a
/// process, or to its cgroups, can be written.
const RULES: &str = r"
profile hull-default flags=(attach_disconnected,mediate_deleted) {
  capability,
  file,
  network,
  umount,
  unix,

  signal (receive) peer=unconfined,
  signal (send,receive) peer=hull-default,
  ptrace (trace,read,tracedby,readby) peer=hull-default,

  deny mount,

  deny /proc/* w,
  deny /proc/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,

  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// Loads the profile. None: the host has no AppArmor, or cannot load it, which is logged.
pub(crate) async fn load() -> Option<&'static str> {
    let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|text| text.starts_with(b"Y")) {
        return None;
    }
    match compile_and_load().await {
        Ok(()) => Some(PROFILE),
        Err(error) if is_loaded() => {
            tracing::warn!(
                error = error.chain(),
                "the AppArmor profile {PROFILE} is as an earlier engine has loaded it"
            );
            Some(PROFILE)
        }
        Err(error) => {
            tracing::warn!(
                error = error.chain(),
                "AppArmor is on, but containers run without the profile {PROFILE}: apparmor_parser has to load it"
            );
            None
        }
    }
}

/// Whether an earlier engine has loaded it.
fn is_loaded() -> bool {
    let profiles = std::fs::read_to_string(PROFILES).unwrap_or_default();
    let mut names = profiles.lines().filter_map(|line| line.split(' ').next());
    names.any(|name| name == PROFILE)
}

async fn compile_and_load() -> Result<()> {
    let mut parser = tokio::process::Command::new("apparmor_parser")
        .args(["--skip-cache", "--replace"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context(|| "run apparmor_parser")?;
    let mut input = parser.stdin.take().expect("it was asked for");
    let loaded = async {
        input.write_all(RULES.as_bytes()).await?;
        drop(input);
        parser.wait_with_output().await
    };
    let output = tokio::time::timeout(PARSER_TIMEOUT, loaded).await;
    let output = output.map_err(|_| {
        Error::new(
            crate::Kind::System,
            "apparmor_parser does not come to an end",
        )
    })?;
    let output = output.context(|| "run apparmor_parser")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(
        crate::Kind::System,
        format!(
            "apparmor_parser failed ({}): {}",
            output.status,
            said.trim()
        ),
    ))
}

/// The profile that a container's processes have. `default`: the engine's, where it is loaded.
pub(crate) fn of<'a>(
    asked: Option<&'a str>,
    privileged: bool,
    default: Option<&'a str>,
) -> Option<&'a str> {
    match asked {
        Some(UNCONFINED) => None,
        Some(profile) => Some(profile),
        None if privileged => None,
        None => default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_the_default_unless_it_asks_otherwise() {
        let default = Some(PROFILE);
        assert_eq!(of(None, false, default), default);
        assert_eq!(of(None, true, default), None);
        assert_eq!(of(Some("unconfined"), false, default), None);
        assert_eq!(of(Some("own"), true, default), Some("own"));
        assert_eq!(of(None, false, None), None);
    }
}
