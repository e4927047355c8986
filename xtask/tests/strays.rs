//! `cargo xtask test` ends what tests leave behind, and says so.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn an_orphan_is_found_ended_and_told() {
    let directory = tempfile::tempdir().unwrap();
    // The test run: its tests pass, and one of them leaves a process.
    let cargo = directory.path().join("cargo");
    std::fs::write(&cargo, "#!/bin/sh\nsleep 1000 >/dev/null 2>&1 &\n").unwrap();
    std::fs::set_permissions(&cargo, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        directory.path().display(),
        std::env::var("PATH").unwrap()
    );
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("test")
        .env("PATH", path)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(told.contains("tests left 1 processes"), "{told}");
}
