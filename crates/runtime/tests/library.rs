//! The library as the shim uses it. Not in the test harness, whose threads a child made by clone3 would lack: one check after
//! another in a process with one thread.

#![allow(clippy::unwrap_used, reason = "these functions are tests")]

mod common;

use common::Bundle;
use oci::runtime::{Process, Spec};
use runtime::{
    Cgroup, Container, Create, ErrorKind, ExecRequest, Rootfs, Stdio, Target, create, exec,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

fn main() {
    let checks: &[(&str, fn())] = &[
        (
            "an_overlay_is_mounted_nowhere_else",
            an_overlay_is_mounted_nowhere_else,
        ),
        ("ids_of_an_overlay_are_mapped", ids_of_an_overlay_are_mapped),
        (
            "many_layers_are_stacked_in_order",
            many_layers_are_stacked_in_order,
        ),
        ("names_are_resolved_inside", names_are_resolved_inside),
        ("a_terminal_comes_back", a_terminal_comes_back),
        (
            "the_reaper_stays_and_ends_as_the_program",
            the_reaper_stays_and_ends_as_the_program,
        ),
        ("a_process_is_executed_beside", a_process_is_executed_beside),
        ("errors_have_kinds", errors_have_kinds),
        (
            "what_was_not_started_can_be_destroyed",
            what_was_not_started_can_be_destroyed,
        ),
        ("too_little_memory_is_told", too_little_memory_is_told),
        (
            "the_own_pid_namespace_is_put_back",
            the_own_pid_namespace_is_put_back,
        ),
    ];
    // The harness's own filter, as far as one is used.
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    for (name, check) in checks {
        if filter
            .as_ref()
            .is_none_or(|filter| name.contains(filter.as_str()))
        {
            check();
            say(&format!("{name} ... ok\n"));
        }
    }
}

fn say(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

/// A bundle's configuration as the library takes it.
fn spec(bundle: &Bundle) -> Spec {
    serde_json::from_value(bundle.config.clone()).unwrap()
}

/// The child's ends of the streams, and the other end of its output.
fn pipes() -> (Stdio, File) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let stdin = File::open("/dev/null").unwrap().into();
    let stderr = write.try_clone().unwrap();
    (
        Stdio::Fds {
            stdin,
            stdout: write,
            stderr,
        },
        read.into(),
    )
}

fn text(mut output: File) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    text
}

fn reap(pid: Pid) -> (Option<i32>, Option<i32>) {
    let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
    (status.exit_status(), status.terminating_signal())
}

/// Starts, waits, and gives back the exit code and the output.
fn finish(mut container: Container, output: File) -> (Option<i32>, String) {
    container.start().unwrap();
    let output = text(output);
    let (code, _) = reap(container.pid());
    container.cgroup().destroy().unwrap();
    (code, output)
}

/// Layers and the writable directories of an overlay over the bundle's root.
struct Layers {
    lowers: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
}

impl Layers {
    fn over(bundle: &Bundle) -> Self {
        let snapshot = bundle.path().join("snapshot");
        let (upper, work) = (snapshot.join("upper"), snapshot.join("work"));
        for directory in [&upper, &work] {
            std::fs::create_dir_all(directory).unwrap();
        }
        Self {
            lowers: vec![bundle.rootfs()],
            upper,
            work,
        }
    }

    fn rootfs(&self) -> Rootfs<'_> {
        Rootfs::Overlay {
            lowers: &self.lowers,
            upper: &self.upper,
            work: &self.work,
        }
    }
}

fn an_overlay_is_mounted_nowhere_else() {
    let mut bundle = Bundle::shell(
        "echo new > /etc/new; cat /etc/old; rm /etc/old; grep -c overlay /proc/self/mountinfo",
    );
    bundle.config["root"]["readonly"] = false.into();
    std::fs::write(bundle.rootfs().join("etc/old"), "old\n").unwrap();
    let layers = Layers::over(&bundle);
    let spec = spec(&bundle);
    let (stdio, output) = pipes();
    let request = Create {
        rootfs: layers.rootfs(),
        stdio,
        ..Create::new(&bundle.id, bundle.path(), &spec)
    };
    let container = create(request).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("snapshot"), "{mounts}");
    assert_eq!(finish(container, output), (Some(0), "old\n1\n".into()));
    assert_eq!(
        std::fs::read_to_string(layers.upper.join("etc/new")).unwrap(),
        "new\n"
    );
    assert_eq!(
        std::fs::metadata(layers.upper.join("etc/old"))
            .unwrap()
            .rdev(),
        0
    );
    assert!(bundle.rootfs().join("etc/old").exists());
}

fn ids_of_an_overlay_are_mapped() {
    let mut bundle = Bundle::shell(
        "id -u; stat -c %u /etc/old; echo new > /etc/new; stat -c %u /etc/new; cat /proc/self/uid_map",
    );
    bundle.config["root"]["readonly"] = false.into();
    bundle.add_namespace(serde_json::json!({"type": "user"}));
    let mapping = serde_json::json!([{"containerID": 0, "hostID": 400_000, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = mapping.clone();
    bundle.config["linux"]["gidMappings"] = mapping;
    std::fs::write(bundle.rootfs().join("etc/old"), "old\n").unwrap();
    let layers = Layers::over(&bundle);
    let spec = spec(&bundle);
    let (stdio, output) = pipes();
    let request = Create {
        rootfs: layers.rootfs(),
        stdio,
        ..Create::new(&bundle.id, bundle.path(), &spec)
    };
    let (code, output) = finish(create(request).unwrap(), output);
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(
        output.split_whitespace().collect::<Vec<_>>(),
        ["0", "0", "0", "0", "400000", "65536"]
    );
    // What the container's root wrote is root's on disk: the layer can be committed as it is.
    assert_eq!(
        std::fs::metadata(layers.upper.join("etc/new"))
            .unwrap()
            .uid(),
        0
    );
}

fn many_layers_are_stacked_in_order() {
    let mut bundle = Bundle::shell("cat /etc/which /etc/layer-0 /etc/layer-99 | tr '\\n' ' '");
    bundle.config["root"]["readonly"] = false.into();
    let mut layers = Layers::over(&bundle);
    for number in (0..100).rev() {
        let layer = bundle
            .path()
            .join(format!("a:layer\\with,odd characters/{number}"));
        std::fs::create_dir_all(layer.join("etc")).unwrap();
        for name in ["which".to_owned(), format!("layer-{number}")] {
            std::fs::write(layer.join("etc").join(name), format!("{number}\n")).unwrap();
        }
        layers.lowers.insert(0, layer);
    }
    let spec = spec(&bundle);
    let (stdio, output) = pipes();
    let request = Create {
        rootfs: layers.rootfs(),
        stdio,
        ..Create::new(&bundle.id, bundle.path(), &spec)
    };
    assert_eq!(
        finish(create(request).unwrap(), output),
        (Some(0), "0 0 99 ".into())
    );
}

fn names_are_resolved_inside() {
    let bundle = Bundle::shell("id -u; id -g; id -G; echo $HOME");
    std::fs::write(
        bundle.rootfs().join("etc/passwd"),
        "web:x:33:34::/var/www:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(
        bundle.rootfs().join("etc/group"),
        "logs:x:5:web\nmore:x:6:\n",
    )
    .unwrap();
    let spec = spec(&bundle);
    let (stdio, output) = pipes();
    let groups = ["more".to_owned()];
    let request = Create {
        user: Some("web"),
        group_add: &groups,
        stdio,
        ..Create::new(&bundle.id, bundle.path(), &spec)
    };
    assert_eq!(
        finish(create(request).unwrap(), output),
        (Some(0), "33\n34\n34 5 6\n/var/www\n".into())
    );
    let request = Create {
        user: Some("nobody"),
        ..Create::new(&bundle.id, bundle.path(), &spec)
    };
    let error = create(request).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to find user nobody: no matching entries in passwd file"
    );
    bundle.assert_gone();
}

fn a_terminal_comes_back() {
    let mut bundle = Bundle::shell("stty size; tty; ls -l /dev/console; exit 5");
    bundle.config["process"]["consoleSize"] = serde_json::json!({"height": 12, "width": 34});
    bundle.config["process"]["terminal"] = true.into();
    let spec = spec(&bundle);
    let request = Create {
        stdio: Stdio::Terminal,
        ..Create::new(&bundle.id, bundle.path(), &spec)
    };
    let mut container = create(request).unwrap();
    let mut master = File::from(container.take_terminal().unwrap());
    assert!(container.take_terminal().is_none());
    container.start().unwrap();
    let mut bytes = Vec::new();
    // The terminal reports an error once the last process is gone.
    drop(master.read_to_end(&mut bytes));
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.starts_with("12 34\r\n/dev/pts/0\r\n") && text.contains("/dev/console"),
        "{text}"
    );
    assert_eq!(reap(container.pid()).0, Some(5));
    container.cgroup().destroy().unwrap();
}

fn the_reaper_stays_and_ends_as_the_program() {
    let script = "echo $$; (sleep 0.05 &) ; cat /proc/1/comm; tr '\\0' ' ' < /proc/1/cmdline; echo; ls /proc/1/fd; cat /proc/1/exe 2>&1 >/dev/null; trap 'exit 23' TERM; echo ready; while :; do sleep 0.01; done";
    let mut bundle = Bundle::shell(script);
    bundle.config["root"]["readonly"] = false.into();
    let spec = spec(&bundle);
    let (stdio, output) = pipes();
    let request = Create {
        reaper: true,
        stdio,
        ..Create::new(&bundle.id, bundle.path(), &spec)
    };
    let mut container = create(request).unwrap();
    container.start().unwrap();
    let mut output = output;
    let mut text = String::new();
    while !text.contains("ready\n") {
        let mut bytes = [0; 4096];
        let count = output.read(&mut bytes).unwrap();
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    assert!(text.starts_with("2\nhull-init\n"), "{text}");
    // Nothing of the caller's arguments, no descriptor, and no way to its executable.
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    assert_eq!(lines[1..3], ["hull-init", "hull-init"], "{text}");
    assert!(lines[3].contains("/proc/1/exe"), "{text}");
    assert!(text.contains("Permission denied"), "{text}");
    pidfd_send_signal(container.pidfd(), Signal::TERM).unwrap();
    assert_eq!(reap(container.pid()), (Some(23), None));
    container.cgroup().destroy().unwrap();

    bundle.config["process"]["args"] = serde_json::json!(["sh", "-c", "kill -9 $$"]);
    let killed = self::spec(&bundle);
    let request = Create {
        reaper: true,
        ..Create::new(&bundle.id, bundle.path(), &killed)
    };
    let mut container = create(request).unwrap();
    container.start().unwrap();
    assert_eq!(reap(container.pid()).0, Some(137));
    container.cgroup().destroy().unwrap();

    bundle.config["process"]["args"] = serde_json::json!(["/etc"]);
    let broken = self::spec(&bundle);
    let request = Create {
        reaper: true,
        ..Create::new(&bundle.id, bundle.path(), &broken)
    };
    assert_eq!(
        create(request).unwrap_err().kind(),
        ErrorKind::NotExecutable
    );
}

fn process(arguments: &[&str]) -> Process {
    Process {
        args: arguments.iter().map(|word| (*word).to_owned()).collect(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        ..Process::default()
    }
}

fn a_process_is_executed_beside() {
    let bundle = Bundle::new(&["sleep", "60"]);
    std::fs::write(
        bundle.rootfs().join("etc/passwd"),
        "web:x:33:34::/var/www:/bin/sh\n",
    )
    .unwrap();
    let spec = spec(&bundle);
    let mut container = create(Create::new(&bundle.id, bundle.path(), &spec)).unwrap();
    container.start().unwrap();
    // As another process would, from what it remembers.
    let cgroup = Cgroup::open(container.cgroup().path().to_str().unwrap()).unwrap();
    let target = Target {
        id: &bundle.id,
        bundle: bundle.path(),
        init: container.pid(),
        pidfd: container.pidfd(),
        cgroup: &cgroup,
        spec: &spec,
    };
    let run = |process: &Process, user| {
        let (stdio, output) = pipes();
        let executed = exec(
            &target,
            ExecRequest {
                user,
                ..ExecRequest::new(process, stdio)
            },
        )
        .unwrap();
        assert!(executed.terminal.is_none());
        let output = text(output);
        (reap(executed.pid).0, output)
    };
    let script = process(&["sh", "-c", "id -u; echo $HOME; echo $PPID; exit 4"]);
    assert_eq!(
        run(&script, Some("web")),
        (Some(4), "33\n/var/www\n0\n".into())
    );
    let terminal = process(&["sh", "-c", "tty"]);
    let executed = exec(&target, ExecRequest::new(&terminal, Stdio::Terminal)).unwrap();
    let mut bytes = Vec::new();
    drop(File::from(executed.terminal.unwrap()).read_to_end(&mut bytes));
    assert_eq!(String::from_utf8_lossy(&bytes), "/dev/pts/0\r\n");
    assert_eq!(reap(executed.pid).0, Some(0));
    for (program, kind) in [
        ("nope", ErrorKind::NotFound),
        ("/etc", ErrorKind::NotExecutable),
    ] {
        let error = exec(
            &target,
            ExecRequest::new(&process(&[program]), Stdio::Inherit),
        )
        .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert_eq!(cgroup.processes().unwrap(), [container.pid()]);
    cgroup.freeze().unwrap();
    let error = exec(&target, ExecRequest::new(&script, Stdio::Inherit)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::State, "{error}");
    cgroup.thaw().unwrap();
    assert!(cgroup.stats().unwrap().cpu.total_ns > 0);
    container.destroy().unwrap();
}

fn errors_have_kinds() {
    let mut bundle = Bundle::new(&["nope"]);
    let kind = |bundle: &Bundle| {
        let spec = spec(bundle);
        let (stdio, output) = pipes();
        let error = create(Create {
            stdio,
            ..Create::new(&bundle.id, bundle.path(), &spec)
        })
        .unwrap_err();
        // Nobody holds the other end: the child is gone.
        assert_eq!(text(output), "");
        bundle.assert_gone();
        error.kind()
    };
    assert_eq!(kind(&bundle), ErrorKind::NotFound);
    bundle.config["process"]["args"] = serde_json::json!([]);
    assert_eq!(kind(&bundle), ErrorKind::InvalidSpec);
    bundle.config["process"]["args"] = serde_json::json!(["true"]);
    bundle.config["linux"]["resources"]["hugepageLimits"] =
        serde_json::json!([{"pageSize": "3MB", "limit": 1}]);
    assert_eq!(kind(&bundle), ErrorKind::Unsupported);
    bundle.config["linux"]["resources"] = serde_json::json!({});
    bundle.add_mount(serde_json::json!({"destination": "/x", "type": "nosuchfs", "source": "x"}));
    assert_eq!(kind(&bundle), ErrorKind::System);
    bundle.config["mounts"].as_array_mut().unwrap().pop();
    bundle.add_mount(
        serde_json::json!({"destination": "/x", "type": "bind", "source": "/no/such/source"}),
    );
    assert_eq!(kind(&bundle), ErrorKind::System);
}

fn what_was_not_started_can_be_destroyed() {
    let bundle = Bundle::new(&["true"]);
    let spec = spec(&bundle);
    let container = create(Create::new(&bundle.id, bundle.path(), &spec)).unwrap();
    assert!(!bundle.cgroups().is_empty());
    container.destroy().unwrap();
    bundle.assert_gone();
}

fn too_little_memory_is_told() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["resources"]["memory"] =
        serde_json::json!({"limit": 4096, "swap": 4096});
    let spec = spec(&bundle);
    let error = create(Create::new(&bundle.id, bundle.path(), &spec)).unwrap_err();
    assert!(error.to_string().contains("want of memory"), "{error}");
    bundle.assert_gone();
}

fn the_own_pid_namespace_is_put_back() {
    let link = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    assert_eq!(link("pid"), link("pid_for_children"));
    let open: Vec<OwnedFd> = (0..3)
        .map(|_| File::open("/dev/null").unwrap().into())
        .collect();
    let highest = open
        .iter()
        .map(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd()))
        .max();
    // Whatever the checks before opened is closed again.
    assert!(highest < Some(12), "{highest:?}");
}
