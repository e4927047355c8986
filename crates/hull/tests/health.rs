//! Health checks through the command line: what is asked, what it makes of the container, what follows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{Engine, busybox_tar};

fn status(engine: &Engine, name: &str) -> String {
    engine.ok(&["inspect", "-f", "{{.State.Health.Status}}", name])
}

fn until_status(engine: &Engine, name: &str, wanted: &str) {
    engine.until(&format!("{name} is {wanted}"), || {
        status(engine, name) == wanted
    });
}

#[test]
fn a_container_becomes_healthy_and_unhealthy_as_its_check_says() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--health-cmd",
        "echo looking; test -e /well",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
        "busybox",
        "sleep",
        "1000",
    ]);
    until_status(&engine, "web", "unhealthy");
    assert!(engine.ok(&["ps"]).contains("(unhealthy)"));
    assert!(
        engine
            .docker(&["ps", "--filter", "health=unhealthy"])
            .contains("web")
    );
    let last = "{{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}";
    assert_eq!(engine.docker(&["inspect", "-f", last, "web"]), "1 looking");
    engine.ok(&["exec", "web", "touch", "/well"]);
    until_status(&engine, "web", "healthy");
    assert!(engine.ok(&["ps"]).contains("(healthy)"));
    assert!(
        !engine
            .docker(&["ps", "--filter", "health=unhealthy"])
            .contains("web")
    );
    // The client sends whole seconds: what is younger comes a moment later.
    let past = [
        "events",
        "--since",
        "1",
        "--until",
        "0s",
        "--format",
        "{{.Action}}",
    ];
    engine.until("both changes were told", || {
        let events = engine.docker(&[&past[..], &["--filter", "event=health_status"]].concat());
        events == "health_status: unhealthy\nhealth_status: healthy"
    });
    engine.until("five results are kept", || {
        engine.ok(&["inspect", "-f", "{{len .State.Health.Log}}", "web"]) == "5"
    });
    engine.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(status(&engine, "web"), "unhealthy");
}

#[test]
fn an_images_check_is_inherited_and_can_be_switched_off() {
    let engine = Engine::new();
    let change = "HEALTHCHECK --interval=100ms --retries=1 CMD test -e /well";
    engine.ok_with_input(
        &[
            "import",
            "--change",
            change,
            "--change",
            "CMD [\"sleep\",\"1000\"]",
            "-",
            "checked",
        ],
        &busybox_tar(),
    );
    engine.docker(&["run", "-d", "--name", "inherits", "checked"]);
    until_status(&engine, "inherits", "unhealthy");
    engine.docker(&[
        "run",
        "-d",
        "--name",
        "own",
        "--health-cmd",
        "true",
        "checked",
    ]);
    until_status(&engine, "own", "healthy");
    let config = "{{json .Config.Healthcheck}}";
    assert_eq!(
        engine.docker(&["inspect", "-f", config, "own"]),
        r#"{"Test":["CMD-SHELL","true"],"Interval":100000000,"Retries":1}"#
    );
    engine.docker(&["run", "-d", "--name", "off", "--no-healthcheck", "checked"]);
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{json .State.Health}}", "off"]),
        "null"
    );
    assert!(
        engine
            .ok(&["ps", "--filter", "health=none"])
            .contains("off")
    );
}

#[test]
fn a_check_that_hangs_is_ended_and_counts_as_failed() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "hung",
        "--health-cmd",
        "echo waiting; exec sleep 1000",
        "--health-interval",
        "50ms",
        "--health-timeout",
        "300ms",
        "--health-retries",
        "1",
        "busybox",
        "sleep",
        "500",
    ]);
    until_status(&engine, "hung", "unhealthy");
    let first = "{{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}";
    assert_eq!(
        engine.ok(&["inspect", "-f", first, "hung"]),
        "-1 Health check exceeded timeout (300ms): waiting"
    );
    engine.ok(&["pause", "hung"]);
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.State.Status}}", "hung"]),
        "paused"
    );
}

#[test]
fn checks_go_on_under_the_next_engine() {
    let mut engine = Engine::new();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "cc",
        "--health-cmd",
        "test -e /well",
        "--health-interval",
        "100ms",
        "--health-retries",
        "1",
        "busybox",
        "sleep",
        "1000",
    ]);
    until_status(&engine, "cc", "unhealthy");
    engine.kill();
    engine.start();
    assert_eq!(status(&engine, "cc"), "unhealthy");
    engine.ok(&["exec", "cc", "touch", "/well"]);
    until_status(&engine, "cc", "healthy");
}

#[test]
fn an_unhealthy_container_can_be_restarted_stopped_or_killed() {
    let engine = Engine::new();
    let run = |name: &str, more: &[&str]| {
        let check = [
            "--health-cmd",
            "test ! -e /tmp/broken",
            "--health-interval",
            "100ms",
        ];
        let start = [
            "run",
            "-d",
            "--name",
            name,
            "--tmpfs",
            "/tmp",
            "--health-retries",
            "1",
        ];
        engine.ok(&[&start, &check[..], more, &["busybox", "sleep", "1000"]].concat());
        engine.ok(&["exec", name, "touch", "/tmp/broken"]);
    };
    let inspect = |name: &str, what: &str| engine.ok(&["inspect", "-f", what, name]);
    run(
        "again",
        &["--health-on-failure", "restart", "--stop-timeout", "0"],
    );
    engine.until("it was restarted and is well", || {
        status(&engine, "again") == "healthy"
    });
    run(
        "stopped",
        &[
            "--health-on-failure",
            "stop",
            "--restart",
            "always",
            "--stop-timeout",
            "0",
        ],
    );
    engine.until("it was stopped", || {
        inspect("stopped", "{{.State.Status}}") == "exited"
    });
    run(
        "killed",
        &[
            "--label",
            "hull.health-on-failure=kill",
            "--restart",
            "on-failure:1",
        ],
    );
    engine.until("its policy restarted it", || {
        inspect("killed", "{{.RestartCount}}") == "1"
    });
    let said = engine.run(&["create", "--health-on-failure", "explode", "busybox"]);
    assert!(
        said.stderr.contains("it is none, restart, stop or kill"),
        "{said:?}"
    );
}
