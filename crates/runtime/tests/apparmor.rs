//! AppArmor profiles, on a host that has AppArmor, as `cargo xtask vm-test` has one.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::Bundle;
use serde_json::json;
use std::io::Write;
use std::process::{Command, Stdio};

/// A loaded profile that allows everything but writing to `/tmp/refused`.
struct Profile {
    name: String,
}

impl Profile {
    fn load(name: &str) -> Self {
        let profile = Self {
            name: format!("hull-test-{name}-{}", std::process::id()),
        };
        profile.parser("--replace");
        profile
    }

    fn parser(&self, action: &str) {
        let mut parser = Command::new("apparmor_parser")
            .args(["--skip-cache", action])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = format!(
            "profile {} flags=(attach_disconnected,mediate_deleted) {{\n  network, capability, file, umount, signal, ptrace, unix,\n  deny /tmp/refused w,\n}}\n",
            self.name
        );
        let mut input = parser.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        drop(input);
        assert!(parser.wait().unwrap().success());
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.parser("--remove");
        }
    }
}

const SCRIPT: &str = "cat /proc/self/attr/current; echo > /tmp/refused || echo refused; echo > /tmp/taken && echo taken";

#[test]
#[ignore = "needs a host with AppArmor"]
fn the_program_is_confined() {
    let profile = Profile::load("run");
    let expected = format!("{} (enforce)\nrefused\ntaken\n", profile.name);
    for no_new_privileges in [false, true] {
        let mut bundle = Bundle::shell(SCRIPT);
        bundle.config["root"]["readonly"] = json!(false);
        bundle.config["process"]["apparmorProfile"] = json!(profile.name);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        assert_eq!(bundle.run().ok(), expected);
    }
}

#[test]
#[ignore = "needs a host with AppArmor"]
fn what_is_executed_beside_is_confined_as_asked() {
    let profile = Profile::load("exec");
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.config["root"]["readonly"] = json!(false);
    bundle.create().ok();
    bundle.start().ok();
    let current = ["cat", "/proc/self/attr/current"];
    assert_eq!(bundle.exec(&current).ok(), "unconfined\n");
    let arguments = ["exec", "--apparmor", &profile.name, &bundle.id, "sh", "-c"];
    let inside = bundle.invoke(&[&arguments[..], &[SCRIPT]].concat()).ok();
    let expected = format!("{} (enforce)\nrefused\ntaken\n", profile.name);
    assert_eq!(inside, expected);
    bundle.delete().ok();
}

#[test]
#[ignore = "needs a host with AppArmor"]
fn a_profile_that_is_not_loaded_is_an_error() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["process"]["apparmorProfile"] = json!("hull-test-not-there");
    let told = bundle.run().failed();
    assert!(told.contains("hull-test-not-there"), "{told}");
}
