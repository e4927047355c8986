//! Clauses of the specification that runtimes are known to miss, each by its words.
//!
//! Source: runtime.md "Lifecycle" and "Operations", config.md, config-linux.md of version 1.3.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{Bundle, eventually};
use serde_json::json;
use std::process::{Child, Command, Stdio};

/// "Any value which … cannot be granted otherwise MUST be logged as a warning. Runtimes SHOULD NOT fail."
#[test]
fn a_capability_that_cannot_be_ambient_is_a_warning() {
    let mut bundle = Bundle::new(&["grep", "Cap", "/proc/self/status"]);
    let names = json!(["CAP_KILL", "CAP_CHOWN"]);
    bundle.config["process"]["capabilities"] = json!({
        "bounding": names, "permitted": names, "effective": names, "ambient": names, "inheritable": ["CAP_CHOWN"],
    });
    let outcome = bundle.run();
    assert!(
        outcome
            .stderr
            .contains("capability CAP_KILL is not available"),
        "{outcome:?}"
    );
    let inside = outcome.ok();
    assert!(inside.contains("CapAmb:\t0000000000000001"), "{inside}");
    assert!(inside.contains("CapEff:\t0000000000000021"), "{inside}");
}

/// "Attempting to `delete` a container that is not `stopped` MUST have no effect on the container and MUST generate an error."
#[test]
fn what_has_not_stopped_is_not_deleted() {
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    for status in ["created", "running"] {
        let refused = bundle.invoke(&["delete", &bundle.id]).failed();
        assert!(refused.contains(status), "{refused}");
        assert_eq!(bundle.status(), status);
        if status == "created" {
            bundle.start().ok();
        }
    }
    bundle.invoke(&["kill", &bundle.id, "KILL"]).ok();
    bundle.await_status("stopped");
    bundle.invoke(&["delete", &bundle.id]).ok();
}

/// "If any `poststart` hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step
/// 12": it is destroyed, and its `poststop` hooks run.
#[test]
fn a_failing_poststart_hook_ends_the_container() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    let ended = bundle.path().join("ended");
    bundle.config["hooks"] = json!({
        "poststart": [{"path": "/bin/false"}],
        "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", format!(": > {}", ended.display())]}],
    });
    bundle.create().ok();
    assert!(bundle.start().failed().contains("the poststart hook"));
    bundle.assert_gone();
    assert!(ended.exists());
}

/// "If any `poststop` hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle continue as if the hook
/// had succeeded."
#[test]
fn a_failing_poststop_hook_is_a_warning() {
    let mut bundle = Bundle::new(&["true"]);
    let ended = bundle.path().join("ended");
    bundle.config["hooks"] = json!({"poststop": [
        {"path": "/bin/false"},
        {"path": "/nonexistent"},
        {"path": "/bin/sh", "args": ["sh", "-c", format!(": > {}", ended.display())]},
    ]});
    let outcome = bundle.run();
    assert!(
        outcome.stderr.contains("/bin/false exited with 1"),
        "{outcome:?}"
    );
    assert!(ended.exists());
    outcome.ok();
}

/// "The runtime MUST place the container process in the namespace associated with that path", the mount namespace too.
#[test]
fn a_mount_namespace_is_joined_by_path() {
    let holder = Holder::new();
    let path = format!("/proc/{}/ns/mnt", holder.child.id());
    let mut bundle =
        Bundle::shell("readlink /proc/self/ns/mnt; ls /; cut -d' ' -f5 /proc/self/mountinfo");
    bundle.remove_namespace("mount");
    bundle.add_namespace(json!({"type": "mount", "path": path}));
    let namespace = std::fs::read_link(&path).unwrap();
    let inside = bundle.run().ok();
    assert!(inside.starts_with(namespace.to_str().unwrap()), "{inside}");
    // The host's root is out of reach, as in a namespace made for it.
    let root = "\nbin\ndev\netc\nproc\nsys\ntmp\n/\n";
    assert!(inside.contains(root), "{inside}");
}

/// "If a namespace type is not specified in the namespaces array, the container MUST inherit the runtime namespace of that
/// type." Its root and mounts are its own all the same, and nobody else's.
#[test]
fn a_mount_namespace_that_is_not_listed_is_the_hosts() {
    let mut bundle = Bundle::shell(
        "readlink /proc/self/ns/mnt; ls -d /bin /var /volume/*; stat -f -c %T /dev /proc; touch /volume/x; sleep 60",
    );
    bundle.remove_namespace("mount");
    let volume = bundle.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "").unwrap();
    bundle.add_mount(json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind", "ro"]}));
    bundle.config["root"]["readonly"] = json!(false);
    let log = bundle.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let mut create = bundle.command(&["create", &bundle.id]);
    let created = create
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .status()
        .unwrap();
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    if !created.success() {
        // Mounts cannot be put below a detached one there.
        let told = std::fs::read_to_string(&log).unwrap();
        assert!(told.contains("Linux 6.15"), "{told}");
        return;
    }
    assert!(
        !before.contains(bundle.path().to_str().unwrap()),
        "{before}"
    );
    bundle.start().ok();
    let inside = || std::fs::read_to_string(&log).unwrap();
    assert!(eventually(|| inside().contains("touch")), "{}", inside());
    let host = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let expected = format!(
        "{}\n/bin\n/volume/file\ntmpfs\nproc\n",
        host.to_str().unwrap()
    );
    let text = inside();
    for line in expected.lines() {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(
        text.contains("/var: No such file") && text.contains("Read-only file system"),
        "{text}"
    );
    let executed = bundle.exec(&["ls", "/", "/volume"]).ok();
    assert!(
        executed.contains("file") && !executed.contains("var"),
        "{executed}"
    );
    bundle.delete().ok();
}

/// "Sets the rootfs's mount propagation" (config-linux.md): each word of them.
#[test]
fn the_roots_propagation_is_as_configured() {
    for (word, field) in [
        ("shared", "shared:"),
        ("slave", "master:"),
        ("private", ""),
        ("unbindable", "unbindable"),
        ("rshared", "shared:"),
    ] {
        let shared = SharedDirectory::new();
        let mut bundle = Bundle::new(&["cat", "/proc/self/mountinfo"]);
        bundle.config["linux"]["rootfsPropagation"] = json!(word);
        let root = shared.tree.path().join("rootfs");
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(bundle.rootfs()).arg(&root);
        assert!(copy.status().unwrap().success());
        bundle.config["root"]["path"] = json!(root);
        let inside = bundle.run().ok();
        let root = inside
            .lines()
            .find(|line| line.split(' ').nth(4) == Some("/"));
        let fields: Vec<_> = root.unwrap().split(' ').skip(6).collect();
        let options = fields.split(|field| *field == "-").next().unwrap();
        assert!(
            options.iter().any(|option| option.starts_with(field)) != field.is_empty(),
            "{word}: {options:?}"
        );
        assert!(word != "private" || options.is_empty(), "{options:?}");
    }
}

/// Programs that read the list of mounts expect the root to be its first.
#[test]
fn the_root_is_the_first_of_the_mounts() {
    let mut bundle = Bundle::shell("cut -d' ' -f5 /proc/self/mountinfo");
    bundle.config["root"]["readonly"] = json!(false);
    let source = bundle.path().to_owned();
    bundle.add_mount(
        json!({"destination": "/a", "type": "bind", "source": source, "options": ["rbind"]}),
    );
    let inside = bundle.run().ok();
    assert_eq!(inside.lines().next(), Some("/"), "{inside}");
}

/// A process with a mount namespace of its own.
struct Holder {
    child: Child,
}

impl Holder {
    fn new() -> Self {
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", "echo ready; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self { child }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A directory on a shared mount.
struct SharedDirectory {
    tree: tempfile::TempDir,
}

impl SharedDirectory {
    fn new() -> Self {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        let tree = tempfile::tempdir().unwrap();
        mount("tmpfs", tree.path(), "tmpfs", MountFlags::empty(), None).unwrap();
        mount_change(tree.path(), MountPropagationFlags::SHARED).unwrap();
        Self { tree }
    }
}

impl Drop for SharedDirectory {
    fn drop(&mut self) {
        rustix::mount::unmount(self.tree.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}
