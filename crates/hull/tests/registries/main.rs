//! Images from and to registries: hull's engine against Debian's docker-registry, with hull and docker as clients,
//! and against registries that are scripts of what no good one does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod content;
mod exchange;
mod hostile;
mod policy;
mod search;
#[allow(dead_code, reason = "it can do more than is needed here")]
#[path = "../../../registry/tests/hostile/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;
mod words;

use support::registry::Registry;
use support::{Engine, Said};

/// An engine with `busybox` under a name of the registry, pushed and gone again; the name and the manifest's digest.
fn pushed(registry: &Registry, image: &str) -> (Engine, String, String) {
    let engine = Engine::new();
    let name = registry.name(image);
    engine.ok(&["tag", "busybox", &name]);
    let said = engine.ok(&["push", &name]);
    let digest = said
        .split_whitespace()
        .find(|word| word.starts_with("sha256:"));
    let digest = digest.unwrap().to_owned();
    engine.ok(&["rmi", &name, "busybox"]);
    assert_eq!(engine.ok(&["images", "-q"]), "");
    (engine, name, digest)
}

/// A command with credentials of its own.
fn as_user(engine: &Engine, program: &str, line: &[&str]) -> Said {
    let mut command = engine.client(program, line);
    command.env("DOCKER_CONFIG", engine.path("config"));
    support::said(command.output().unwrap())
}

const HULL: &str = env!("CARGO_BIN_EXE_hull");
