//! What runs in the guest, and how the guest tells of it.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Crates whose tests ask a kernel; the others' say the same on every machine.
pub(super) const PACKAGES: [&str; 6] = [
    "hull",
    "hull-images",
    "hull-network",
    "hull-runtime",
    "hull-shim",
    "hull-sys",
];

/// Suites that run as an ordinary user with a cgroup of its own.
pub(super) const ROOTLESS: [&str; 1] = ["hull-runtime::rootless"];

/// Tests that do not run in the guest: the suite, the test's name, the reason.
pub(super) const SKIPPED: [(&str, &str, &str); 3] = [
    (
        "hull-runtime::inside",
        "without_a_cgroup_namespace_v1_shows_the_own_group",
        "the machine has no cgroup v1",
    ),
    (
        "hull-runtime::drivers",
        "podman_and_conmon_drive_it",
        "podman's many short processes take a quarter of an hour under emulation",
    ),
    (
        "hull-runtime::drivers",
        "dockerd_and_containerd_drive_it",
        "containerd gives up on what takes as long as it does under emulation",
    ),
];

/// How long one suite may take, under emulation on a loaded host.
pub(super) const SUITE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The file of the payload that holds the plan.
pub(super) const PLAN_FILE: &str = "plan.json";

/// Everything the guest is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Where the tests expect the workspace: the paths compiled into them begin so.
    pub(super) workspace: PathBuf,
    /// Run tests whose name contains one of these words, which commas separate; all when unset.
    pub(super) filter: Option<String>,
    pub(super) suites: Vec<Suite>,
}

/// One test program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Suite {
    /// `hull-runtime::inside`; the crate's unit tests are named for the crate alone.
    pub(super) name: String,
    pub(super) program: PathBuf,
    /// The directory of its package, as under cargo.
    pub(super) directory: PathBuf,
}

/// What the guest says: one JSON object on a line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "snake_case")]
pub(super) enum Line {
    Begin {
        suite: String,
    },
    /// A line that the running suite has written.
    Output {
        text: String,
    },
    End {
        suite: String,
        failure: Option<String>,
    },
    /// Every suite has run.
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line() {
        let line = Line::Output {
            text: "a\nb".to_owned(),
        };
        let text = serde_json::to_string(&line).unwrap();
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
    }
}
