//! Clients inside of containers, that have the engine's socket mounted: as editors and systems for continuous integration do it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use support::Engine;

/// The socket as a client in a container expects it.
fn socket(engine: &Engine) -> String {
    let path = engine.path("run/hull.sock");
    format!("{}:/var/run/docker.sock", path.display())
}

#[test]
fn dockers_client_in_a_container_runs_its_siblings() {
    let engine = Engine::new();
    let socket = socket(&engine);
    // The machine's own tree has docker's client, with whatever libraries that needs.
    let inside = |words: &str| {
        let run = ["run", "--rm", "-v", &socket, "--network", "none"];
        let env = ["-e", "DOCKER_HOST=unix:///var/run/docker.sock", "/"];
        let words: Vec<&str> = words.split(' ').collect();
        engine.ok(&[&run[..], &env, &words].concat())
    };
    let id = inside("docker run -d --name sibling --network none busybox sleep 600");
    assert_eq!(engine.ok(&["inspect", "-f", "{{.Id}}", "sibling"]), id);
    assert_eq!(
        inside("docker exec sibling echo from inside"),
        "from inside"
    );
    assert_eq!(
        inside("docker ps --filter name=sibling --format {{.Names}}"),
        "sibling"
    );
    assert_eq!(
        inside("docker run --rm --network none busybox echo nested"),
        "nested"
    );
    // A path that it mounts is the host's, not the container's.
    fs::write(engine.path("of-the-host"), "of the host").unwrap();
    let path = engine.path("of-the-host").display().to_string();
    let read = format!("docker run --rm --network none -v {path}:/file:ro busybox cat /file");
    assert_eq!(inside(&read), "of the host");
    inside("docker rm -f sibling");
    engine.assert_nothing_left();
}

#[test]
fn hulls_own_client_needs_nothing_else() {
    let engine = Engine::new();
    let program = format!("{}:/usr/bin/docker:ro", env!("CARGO_BIN_EXE_hull"));
    let socket = socket(&engine);
    let mut run = vec!["run", "--rm", "-v", &socket, "-v", &program];
    run.extend([
        "-e",
        "DOCKER_HOST=unix:///var/run/docker.sock",
        "--network",
        "none",
    ]);
    run.extend([
        "busybox",
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "echo",
        "in a row",
    ]);
    assert_eq!(engine.ok(&run), "in a row");
    engine.assert_nothing_left();
}
