//! Volumes and mounts through the command line: options of the driver, subpaths, images, and mounts taken over.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::Engine;

fn mounts_below(engine: &Engine, name: &str) -> usize {
    let place = engine.path(name).display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().filter(|line| line.contains(&place)).count()
}

#[test]
fn a_volume_can_be_a_filesystem_of_its_own() {
    let mut engine = Engine::new();
    engine.ok(&[
        "volume",
        "create",
        "--label",
        "a=b",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "-o",
        "o=size=1m,mode=750,noexec",
        "ram",
    ]);
    let options = "{{json .Options}} {{json .Labels}}";
    assert_eq!(
        engine.docker(&["volume", "inspect", "-f", options, "ram"]),
        r#"{"device":"tmpfs","o":"size=1m,mode=750,noexec","type":"tmpfs"} {"a":"b"}"#
    );
    assert_eq!(mounts_below(&engine, "data/volumes"), 0);
    engine.ok(&[
        "run", "-d", "--name", "one", "-v", "ram:/r", "busybox", "sleep", "1000",
    ]);
    engine.docker(&[
        "run",
        "-d",
        "--name",
        "two",
        "-v",
        "ram:/r:ro",
        "busybox",
        "sleep",
        "1000",
    ]);
    engine.ok(&["exec", "one", "sh", "-c", "echo kept >/r/file"]);
    assert_eq!(engine.ok(&["exec", "two", "cat", "/r/file"]), "kept");
    assert!(
        engine
            .ok(&["exec", "two", "grep", " /r ", "/proc/mounts"])
            .contains("size=1024k")
    );
    engine.ok(&["rm", "-f", "two"]);
    assert_eq!(mounts_below(&engine, "data/volumes"), 1);
    engine.kill();
    engine.start();
    assert_eq!(engine.ok(&["exec", "one", "cat", "/r/file"]), "kept");
    engine.ok(&["rm", "-f", "one"]);
    assert_eq!(mounts_below(&engine, "data/volumes"), 0);
    engine.ok(&["volume", "rm", "ram"]);
}

#[test]
fn attack_what_a_volume_binds_is_never_deleted_with_it() {
    let engine = Engine::new();
    let precious = engine.path("precious");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("file"), "original").unwrap();
    let device = format!("device={}", precious.display());
    engine.docker(&[
        "volume",
        "create",
        "-o",
        "type=none",
        "-o",
        "o=bind,ro",
        "-o",
        &device,
        "bound",
    ]);
    let said = engine.run(&[
        "run", "--rm", "-v", "bound:/b", "busybox", "touch", "/b/new",
    ]);
    assert!(said.stderr.contains("Read-only file system"), "{said:?}");
    // As a crash of the engine would leave it: still mounted, with nobody who knows.
    let data = engine.path("data/volumes/bound/_data");
    rustix::mount::mount_bind(&precious, &data).unwrap();
    engine.ok(&["volume", "rm", "bound"]);
    assert_eq!(
        std::fs::read_to_string(precious.join("file")).unwrap(),
        "original"
    );
    let nowhere = [
        "volume",
        "create",
        "-o",
        "type=none",
        "-o",
        "o=bind",
        "-o",
        "device=/no/such",
        "gone",
    ];
    engine.ok(&nowhere);
    let said = engine.run(&["run", "--rm", "-v", "gone:/b", "busybox", "true"]);
    assert!(
        said.stderr.contains("failed to mount local volume"),
        "{said:?}"
    );
    engine.assert_nothing_left();
}

#[test]
fn attack_a_subpath_does_not_leave_its_volume() {
    let engine = Engine::new();
    engine.ok(&["run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", "mkdir -p /d/a/b; echo inside >/d/a/b/file; ln -s /etc /d/out; ln -s a/b /d/in; echo f >/d/a/f"]);
    let mount = |subpath: &str, target: &str| {
        format!("type=volume,source=data,target={target},volume-subpath={subpath}")
    };
    for subpath in ["a/b", "in"] {
        let said = engine.docker(&[
            "run",
            "--rm",
            "--mount",
            &mount(subpath, "/s"),
            "busybox",
            "cat",
            "/s/file",
        ]);
        assert_eq!(said, "inside");
    }
    let said = engine.ok(&[
        "run",
        "--rm",
        "--mount",
        &mount("a/f", "/s/f"),
        "busybox",
        "cat",
        "/s/f",
    ]);
    assert_eq!(said, "f");
    // The absolute symlink means the volume's own /etc, which is not there.
    for (subpath, reason) in [
        ("out", "No such file"),
        ("none", "No such file"),
        ("../x", "relative path within"),
        ("/a", "relative path within"),
    ] {
        let said = engine.run(&[
            "run",
            "--rm",
            "--mount",
            &mount(subpath, "/s"),
            "busybox",
            "true",
        ]);
        assert!(
            said.code == 125 && said.stderr.contains(reason),
            "{subpath}: {said:?}"
        );
    }
    assert_eq!(mounts_below(&engine, "run"), 0);
    engine.assert_nothing_left();
}

#[test]
fn an_image_is_mounted_read_only() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "--name",
        "made",
        "busybox",
        "sh",
        "-c",
        "mkdir /data; echo content >/data/file",
    ]);
    engine.ok(&["commit", "made", "content:1"]);
    engine.ok(&["rm", "made"]);
    let said = engine.docker(&[
        "run",
        "--rm",
        "--mount",
        "type=image,source=content:1,target=/i",
        "busybox",
        "cat",
        "/i/data/file",
    ]);
    assert_eq!(said, "content");
    let part = "type=image,source=content:1,target=/i,image-subpath=data";
    engine.ok(&[
        "run", "-d", "--name", "uses", "--mount", part, "busybox", "sleep", "1000",
    ]);
    assert_eq!(engine.ok(&["exec", "uses", "cat", "/i/file"]), "content");
    let said = engine.run(&[
        "exec",
        "--privileged",
        "uses",
        "sh",
        "-c",
        "echo bad >/i/file",
    ]);
    assert!(said.stderr.contains("Read-only file system"), "{said:?}");
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{(index .Mounts 0).Type}}", "uses"]),
        "image"
    );
    assert_eq!(mounts_below(&engine, "run"), 0);
    // The image may go; the container keeps what it has, also over a restart.
    engine.ok(&["rmi", "content:1"]);
    engine.ok(&["restart", "-t", "0", "uses"]);
    assert_eq!(engine.ok(&["exec", "uses", "cat", "/i/file"]), "content");
    engine.ok(&["rm", "-f", "uses"]);
    let said = engine.run(&[
        "create",
        "--mount",
        "type=image,source=no/such,target=/i",
        "busybox",
    ]);
    assert!(said.stderr.contains("No such image"), "{said:?}");
    engine.assert_nothing_left();
}

#[test]
fn mounts_are_taken_over_from_other_containers() {
    let engine = Engine::new();
    let host = engine.path("host");
    std::fs::create_dir(&host).unwrap();
    let bind = format!("{}:/host", host.display());
    engine.ok(&[
        "create",
        "--name",
        "donor",
        "-v",
        "named:/named",
        "-v",
        "/anon",
        "-v",
        &bind,
        "busybox",
    ]);
    engine.docker(&[
        "run",
        "--rm",
        "--volumes-from",
        "donor",
        "busybox",
        "sh",
        "-c",
        "echo x | tee /named/f /anon/f /host/f",
    ]);
    assert_eq!(std::fs::read_to_string(host.join("f")).unwrap(), "x\n");
    let said = engine.run(&[
        "run",
        "--rm",
        "--volumes-from",
        "donor:ro",
        "-v",
        "other:/named",
        "busybox",
        "sh",
        "-c",
        "cat /anon/f; touch /named/own && touch /anon/new",
    ]);
    assert!(
        said.stdout == "x\n" && said.stderr.contains("Read-only"),
        "{said:?}"
    );
    let said = engine.run(&["create", "--volumes-from", "nobody", "busybox"]);
    assert!(said.stderr.contains("No such container"), "{said:?}");
    // The anonymous volume goes with the last that has it.
    engine.ok(&[
        "create",
        "--name",
        "heir",
        "--volumes-from",
        "donor",
        "busybox",
    ]);
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.HostConfig.VolumesFrom}}", "heir"]),
        "[donor]"
    );
    let anonymous = [
        "volume",
        "ls",
        "-q",
        "--filter",
        "label=com.docker.volume.anonymous",
    ];
    engine.ok(&["rm", "-v", "donor"]);
    assert_eq!(engine.ok(&anonymous).len(), 64);
    engine.ok(&["rm", "-v", "heir"]);
    assert_eq!(engine.ok(&anonymous), "");
}

#[test]
fn volumes_are_filtered_pruned_and_not_updated() {
    let engine = Engine::new();
    engine.ok(&["volume", "create", "--label", "keep=yes", "one"]);
    engine.ok(&["volume", "create", "two"]);
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "cc",
        "--mount",
        "type=volume,src=three,dst=/v,volume-label=of=cc",
        "busybox",
        "sleep",
        "1000",
    ]);
    for (filter, names) in [
        ("label=keep", "one"),
        ("label=of=cc", "three"),
        ("dangling=true", "one\ntwo"),
        ("dangling=false", "three"),
        ("name=t", "three\ntwo"),
        ("driver=nfs", ""),
    ] {
        assert_eq!(
            engine.docker(&["volume", "ls", "-q", "--filter", filter]),
            names,
            "{filter}"
        );
    }
    let pruned = engine.ok(&["volume", "prune", "-f", "-a", "--filter", "label!=keep"]);
    assert!(
        pruned.contains("two") && !pruned.contains("one"),
        "{pruned}"
    );
    assert_eq!(engine.ok(&["volume", "ls", "-q"]), "one\nthree");
    let said = engine.run(&["volume", "update", "--availability", "drain", "one"]);
    assert!(
        said.stderr.contains("can only update cluster volumes"),
        "{said:?}"
    );
    for (options, reason) in [
        (&["-o", "size=1g"][..], "project quotas"),
        (&["-o", "color=red"], "invalid option"),
        (&["-d", "nfs"], "plugin \"nfs\" not found"),
    ] {
        let said = engine.run(&[&["volume", "create"], options, &["bad"]].concat());
        assert!(said.code == 1 && said.stderr.contains(reason), "{said:?}");
    }
}

#[test]
fn attack_a_secret_is_in_memory_alone() {
    let engine = Engine::new();
    let host = engine.path("token");
    std::fs::write(&host, "very-secret-token\n").unwrap();
    let secret = format!("id=token,src={},uid=1000,mode=0400", host.display());
    engine.ok(&[
        "run", "-d", "--name", "cc", "--secret", &secret, "busybox", "sleep", "1000",
    ]);
    let read = ["exec", "-u", "user", "cc", "cat", "/run/secrets/token"];
    assert_eq!(engine.ok(&read), "very-secret-token");
    let shown = engine.ok(&["exec", "cc", "stat", "-c", "%a %u %g", "/run/secrets/token"]);
    assert_eq!(shown, "400 1000 0");
    let said = engine.run(&["exec", "cc", "sh", "-c", "echo x >/run/secrets/token"]);
    assert!(said.stderr.contains("Read-only file system"), "{said:?}");
    // Nothing that is kept has it: no record, no layer, no file of the run, no copy in an image.
    engine.ok(&["commit", "cc", "copy"]);
    for place in ["data", "run"] {
        let found = std::process::Command::new("grep")
            .args(["-rl", "very-secret-token"])
            .arg(engine.path(place))
            .output()
            .unwrap();
        assert!(
            found.stdout.is_empty(),
            "{}",
            String::from_utf8_lossy(&found.stdout)
        );
    }
    assert!(!engine.ok(&["inspect", "cc"]).contains("very-secret"));
    assert_eq!(mounts_below(&engine, "run"), 0);
    // The next start has what the file says then; Docker's client can ask for it as well.
    std::fs::write(&host, "newer\n").unwrap();
    engine.ok(&["restart", "-t", "0", "cc"]);
    assert_eq!(engine.ok(&read), "newer");
    let mount = format!("type=secret,source={},target=/s", host.display());
    assert_eq!(
        engine.docker(&["run", "--rm", "--mount", &mount, "busybox", "cat", "/s"]),
        "newer"
    );
    let huge = engine.path("huge");
    std::fs::write(&huge, vec![b'x'; 600 << 10]).unwrap();
    for (source, reason) in [
        ("/etc", "is no file"),
        ("/no/such", "open the secret"),
        (huge.to_str().unwrap(), "larger than"),
    ] {
        let said = engine.run(&[
            "run",
            "--rm",
            "--secret",
            &format!("id=s,src={source}"),
            "busybox",
            "true",
        ]);
        assert!(
            said.code == 125 && said.stderr.contains(reason),
            "{source}: {said:?}"
        );
    }
    engine.ok(&["rm", "-f", "cc"]);
    engine.assert_nothing_left();
}
