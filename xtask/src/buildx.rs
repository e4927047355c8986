//! Docker's client for BuildKit's protocol, as the next Debian has it: downloaded once, and not installed.

use crate::{Result, shell};
use std::path::Path;
use std::process::Command;

/// The release that has it.
const SUITE: &str = "trixie";
const PACKAGE: &str = "docker-buildx";
/// Where it is in the package.
const PROGRAM: &str = "usr/libexec/docker/cli-plugins/docker-buildx";

/// Puts the program where the tests look for it: `target/tools/docker-buildx`.
pub(crate) fn install(root: &Path) -> Result<()> {
    let place = root.join("target/tools");
    if place.join(PACKAGE).exists() {
        return Ok(());
    }
    shell::say(&format!("downloading {PACKAGE}"));
    // A package manager's state of its own, so that the machine's packages stay as they are.
    let script = r#"set -e
        rm -rf "$1/apt" && mkdir -p "$1/apt/lists/partial" "$1/apt/archives/partial" "$1/apt/tree"
        cd "$1/apt" && : > status
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $2 $3 main" > sources.list
        apt() {
            apt-get -qq -o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=/dev/null \
                -o Dir::State::Lists="$PWD/lists" -o Dir::State::Status="$PWD/status" -o Dir::Cache="$PWD" \
                -o APT::Sandbox::User=root -o Acquire::Retries=3 "$@"
        }
        apt update
        apt download "$4"
        dpkg-deb --extract "$4"_*.deb tree
        mv "tree/$5" "$1/$4"
        rm -rf "$1/apt""#;
    let mirror = crate::compose::mirror()?;
    let mirror =
        mirror.ok_or("apt-get names no mirror of Debian to download docker-buildx from")?;
    std::fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    let status = Command::new("sh")
        .args(["-c", script, "buildx"])
        .arg(&place)
        .args([mirror.as_str(), SUITE, PACKAGE, PROGRAM])
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cannot download {PACKAGE}: {status}")),
        Err(error) => Err(format!("cannot run sh: {error}")),
    }
}
