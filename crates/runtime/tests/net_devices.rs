//! Network devices that a container takes over. Each test is in a network namespace of its own, which is the host's to it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{Bundle, Outcome};
use serde_json::json;
use std::process::Command;

const SHOW: &str = "ip -o link; ip -o addr";

/// Invokes the runtime in a new network namespace, behind commands that make its devices.
fn run_beside(bundle: &Bundle, prepare: &str) -> Outcome {
    let runtime = bundle.command(&["run", &bundle.id]);
    let script = format!("set -e; ip link set lo up; {prepare}\nexec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script, "sh"]);
    command.arg(runtime.get_program()).args(runtime.get_args());
    command.current_dir(bundle.path());
    command.output().unwrap().into()
}

#[test]
fn a_device_comes_with_its_addresses_under_its_new_name_and_up() {
    let mut bundle = Bundle::shell(SHOW);
    bundle.config["linux"]["netDevices"] = json!({"one": {"name": "new"}, "two": {}});
    let outcome = run_beside(
        &bundle,
        "ip link add one mtu 1400 type veth peer name other; ip link add two type veth peer name rest
         ip addr add 10.9.8.7/24 dev one; ip addr add 10.9.8.8/24 dev one; ip addr add fd00::7/64 dev one nodad
         ip addr add 10.1.1.1/24 scope link dev one; ip addr add 10.2.2.2/24 valid_lft 900 preferred_lft 900 dev one
         ip link set one up",
    );
    let inside = &outcome.stdout;
    for there in [
        " new@",
        " two@",
        "mtu 1400",
        "10.9.8.7/24",
        "10.9.8.8/24",
        "fd00::7/64",
    ] {
        assert!(inside.contains(there), "{there}: {outcome:?}");
    }
    let up = inside.lines().filter(|line| line.contains("UP"));
    assert!(up.count() >= 2, "{outcome:?}");
    for absent in ["10.1.1.1", "10.2.2.2", " one@"] {
        assert!(!inside.contains(absent), "{absent}: {outcome:?}");
    }
}

#[test]
fn templates_are_numbered_and_names_that_are_taken_refused() {
    let mut bundle = Bundle::shell(SHOW);
    bundle.config["linux"]["netDevices"] =
        json!({"one": {"name": "eth%d"}, "two": {"name": "eth%d"}});
    let prepare =
        "ip link add one type veth peer name other; ip link add two type veth peer name rest";
    let outcome = run_beside(&bundle, prepare);
    for there in [" eth0@", " eth1@"] {
        assert!(outcome.stdout.contains(there), "{there}: {outcome:?}");
    }
    bundle.config["linux"]["netDevices"] = json!({"one": {"name": "lo"}});
    // The device is where it was.
    let error = run_beside(&bundle, prepare).failed();
    assert!(
        error.contains("moving the network device one") && error.contains("exists"),
        "{error}"
    );
    bundle.config["linux"]["netDevices"] = json!({"nowhere": {}});
    let error = run_beside(&bundle, prepare).failed();
    assert!(
        error.contains("nowhere") && error.contains("No such device"),
        "{error}"
    );
    bundle.config["linux"]["netDevices"] = json!({"lo": {"name": "lo9"}});
    let error = run_beside(&bundle, prepare).failed();
    assert!(error.contains("move link lo as lo9"), "{error}");
}

#[test]
fn a_device_comes_into_the_namespace_of_a_user_namespace() {
    let mut bundle = Bundle::shell(SHOW);
    bundle.config["linux"]["netDevices"] = json!({"one": {}});
    bundle.add_namespace(json!({"type": "user"}));
    let mappings = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = mappings.clone();
    bundle.config["linux"]["gidMappings"] = mappings;
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bundle.path(), everybody).unwrap();
    let prepare = "ip link add one type veth peer name other; ip addr add 10.9.8.7/24 dev one";
    let inside = run_beside(&bundle, prepare).ok();
    assert!(
        inside.contains(" one@") && inside.contains("10.9.8.7/24"),
        "{inside}"
    );
}

#[test]
fn a_container_without_a_network_of_its_own_takes_over_nothing() {
    let mut bundle = Bundle::shell("true");
    bundle.remove_namespace("network");
    bundle.config["linux"]["netDevices"] = json!({"lo": {}});
    assert!(bundle.run().failed().contains("need a network namespace"));
}
