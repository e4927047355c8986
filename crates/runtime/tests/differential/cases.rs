//! The bundles that every runtime runs.

use crate::common::Bundle;
use crate::peers::install_probe;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

/// A bundle by its name.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    shape: fn(&mut Bundle),
    /// The flags of the execution whose process is looked at, in place of the container's first.
    pub(crate) exec: Option<&'static [&'static str]>,
}

/// What the container runs where another process is looked at.
const WAITING: [&str; 2] = ["sleep", "1000"];
/// What is looked at.
pub(crate) const PROBE: [&str; 2] = ["/probe", "probe"];
/// A process for `exec --process`, in the bundle.
const PROCESS: &str = "process.json";

pub(crate) const CASES: [Case; 16] = [
    run("default", |_| {}),
    run("docker", docker),
    run("podman", |bundle| {
        captured(bundle, include_str!("podman.json"));
    }),
    run("read-only", read_only),
    run("user-namespace", user_namespace),
    run("mounts", mounts),
    run("terminal", terminal),
    run("hooks", hooks),
    run("process", process),
    run("host-namespaces", host_namespaces),
    run("cgroup-namespace", |bundle| {
        // With cgroup v2 every container has one.
        bundle.remove_namespace("cgroup");
        bundle.add_namespace(json!({"type": "cgroup"}));
    }),
    run("privileged", privileged),
    exec("exec-plain", &[], process),
    exec(
        "exec-flags",
        &[
            "--user=1000:100",
            "--cwd=/tmp",
            "--env=A=b",
            "--env=PATH=/bin",
            "--no-new-privs",
            "--cap=CAP_CHOWN",
        ],
        |_| {},
    ),
    exec("exec-process", &["--process", PROCESS], docker),
    exec("exec-user-namespace", &[], user_namespace),
];

const fn run(name: &'static str, shape: fn(&mut Bundle)) -> Case {
    Case {
        name,
        shape,
        exec: None,
    }
}

const fn exec(name: &'static str, flags: &'static [&'static str], shape: fn(&mut Bundle)) -> Case {
    Case {
        name,
        shape,
        exec: Some(flags),
    }
}

impl Case {
    /// A new bundle of that shape.
    pub(crate) fn bundle(&self) -> Bundle {
        let mut bundle = Bundle::new(&PROBE);
        install_probe(&bundle);
        // The oldest version that all runtimes take.
        bundle.config["ociVersion"] = json!("1.0.2");
        (self.shape)(&mut bundle);
        if self.exec.is_some() {
            let process = bundle.config["process"].to_string();
            std::fs::write(bundle.path().join(PROCESS), process).unwrap();
            bundle.config["process"]["args"] = json!(WAITING);
            bundle.config["process"]["env"] = json!(["PATH=/bin"]);
        }
        bundle
    }
}

fn docker(bundle: &mut Bundle) {
    captured(bundle, include_str!("docker.json"));
}

/// A configuration that an engine has written.
fn captured(bundle: &mut Bundle, text: &str) {
    let path = bundle.path().to_str().unwrap();
    let mut config: Value = serde_json::from_str(&text.replace("@BUNDLE@", path)).unwrap();
    config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id));
    for name in ["hosts", "hostname", "resolv.conf", "containerenv"] {
        std::fs::write(bundle.path().join(name), name).unwrap();
    }
    let shm = bundle.path().join("shm");
    std::fs::create_dir(&shm).unwrap();
    std::fs::set_permissions(shm, PermissionsExt::from_mode(0o1777)).unwrap();
    bundle.config = config;
}

fn read_only(bundle: &mut Bundle) {
    let config = &mut bundle.config;
    config["root"]["readonly"] = json!(true);
    config["process"]["capabilities"] = json!({});
    config["process"]["noNewPrivileges"] = json!(true);
    config["linux"]["maskedPaths"] = json!([
        "/proc/kcore",
        "/sys/firmware",
        "/etc/passwd",
        "/proc/acpi",
        "/not/there"
    ]);
    config["linux"]["readonlyPaths"] = json!(["/proc/sys", "/proc/bus", "/tmp", "/not/there"]);
    std::fs::write(
        bundle.rootfs().join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\n",
    )
    .unwrap();
}

fn user_namespace(bundle: &mut Bundle) {
    bundle.add_namespace(json!({"type": "user"}));
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = mapping.clone();
    bundle.config["linux"]["gidMappings"] = mapping;
    bundle.config["root"]["readonly"] = json!(false);
    std::fs::set_permissions(bundle.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["", "dev", "tmp"] {
        std::os::unix::fs::chown(bundle.rootfs().join(name), Some(100_000), Some(100_000)).unwrap();
    }
}

fn mounts(bundle: &mut Bundle) {
    let source = bundle.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "").unwrap();
    std::fs::create_dir(bundle.rootfs().join("there")).unwrap();
    std::fs::set_permissions(
        bundle.rootfs().join("there"),
        PermissionsExt::from_mode(0o710),
    )
    .unwrap();
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["linux"]["rootfsPropagation"] = json!("rslave");
    let bind = |place: &str, options: Value| json!({"destination": place, "type": "bind", "source": source, "options": options});
    let tmpfs = |place: &str, options: Value| json!({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options});
    for mount in [
        bind(
            "/bound",
            json!(["bind", "ro", "nosuid", "nodev", "noexec", "noatime"]),
        ),
        bind("/plain", json!(["bind"])),
        bind("/recursive", json!(["rbind", "rro", "rnosuid"])),
        bind("/private", json!(["rbind", "rprivate"])),
        bind("/slave", json!(["rbind", "rslave"])),
        bind("/shared", json!(["rbind", "rshared"])),
        bind("/unbindable", json!(["bind", "unbindable"])),
        bind("/strict", json!(["rbind", "strictatime", "nodiratime"])),
        bind("/both", json!(["rbind", "ro", "rw", "noexec", "exec"])),
        json!({"destination": "/one/file", "type": "bind", "source": source.join("file"), "options": ["bind", "ro"]}),
        json!({"destination": "/untyped", "source": source, "options": ["rbind"]}),
        tmpfs("/there", json!(["nosuid"])),
        tmpfs("/new", json!([])),
        tmpfs(
            "/sized",
            json!([
                "size=64k",
                "mode=700",
                "uid=5",
                "gid=6",
                "nr_inodes=10",
                "ro"
            ]),
        ),
        tmpfs("/deep/er", json!(["noexec", "rprivate"])),
    ] {
        bundle.add_mount(mount);
    }
}

fn terminal(bundle: &mut Bundle) {
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 40, "width": 100});
    bundle.config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7]});
}

fn hooks(bundle: &mut Bundle) {
    bundle.config["root"]["readonly"] = json!(false);
    let write = |kind: &str, path: &str| {
        json!([{"path": "/bin/sh", "args": ["sh", "-c",
        format!("printf '{kind} ' >> {path}; tr -d '\\n' >> {path}; echo >> {path}")], "env": ["PATH=/bin:/usr/bin"]}])
    };
    let path = bundle.path().join("hooks");
    let path = path.to_str().unwrap();
    bundle.config["annotations"] = json!({"org.example.key": "value"});
    bundle.config["hooks"] = json!({
        "prestart": write("prestart", path),
        "createRuntime": write("createRuntime", path),
        "createContainer": write("createContainer", path),
        "startContainer": write("startContainer", "/hooks"),
        "poststart": write("poststart", path),
        "poststop": write("poststop", path),
    });
}

/// What `--pid host --network host --ipc host --uts host` makes.
fn host_namespaces(bundle: &mut Bundle) {
    for kind in ["pid", "network", "ipc", "uts"] {
        bundle.remove_namespace(kind);
    }
    bundle.config.as_object_mut().unwrap().remove("hostname");
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    // A sysfs of the host's network namespace is bound, as engines do.
    mounts.retain(|mount| mount["destination"] != "/sys" && mount["destination"] != "/dev/mqueue");
    bundle.add_mount(
        json!({"destination": "/sys", "type": "bind", "source": "/sys",
        "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}),
    );
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
}

/// As much as `--privileged` gives, of the capabilities that the test itself has.
fn privileged(bundle: &mut Bundle) {
    let config = &mut bundle.config;
    let linux = config["linux"].as_object_mut().unwrap();
    for key in ["maskedPaths", "readonlyPaths", "seccomp"] {
        linux.remove(key);
    }
    config["linux"]["resources"] = json!({"devices": [{"allow": true, "access": "rwm"}]});
    let names = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "KILL",
        "MKNOD",
        "NET_ADMIN",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_ADMIN",
        "SYS_CHROOT",
        "SYS_PTRACE",
    ]
    .map(|name| format!("CAP_{name}"));
    config["process"]["capabilities"] =
        json!({"bounding": names, "permitted": names, "effective": names});
    config["process"]["noNewPrivileges"] = json!(false);
    config["root"]["readonly"] = json!(false);
    for mount in config["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "ro");
        }
    }
}

/// Everything about a process and its limits that a captured configuration does not have.
fn process(bundle: &mut Bundle) {
    let config = &mut bundle.config;
    let names = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]);
    let few = json!(["CAP_CHOWN"]);
    config["process"]["capabilities"] = json!({"bounding": names, "permitted": names, "effective": few, "inheritable": few, "ambient": few});
    config["process"]["user"] =
        json!({"uid": 1000, "gid": 100, "additionalGids": [8, 7, 100], "umask": 0o027});
    config["process"]["env"] = json!(["PATH=/bin", "EMPTY=", "TWICE=1", "TWICE=2", "HOME=/tmp"]);
    config["process"]["cwd"] = json!("/tmp");
    config["process"]["oomScoreAdj"] = json!(300);
    config["process"]["noNewPrivileges"] = json!(false);
    config["process"]["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 1024},
        {"type": "RLIMIT_STACK", "soft": 8_388_608, "hard": 16_777_216_u64},
    ]);
    config["domainname"] = json!("example");
    config["linux"]["sysctl"] = json!({"kernel.msgmax": "4096", "net.ipv4.conf.all.forwarding": "1", "fs.mqueue.msg_max": "7"});
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["mount", "umount2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 19},
            {"names": ["keyctl", "unknown_call"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97, "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_GE"}]},
        ],
    });
    config["linux"]["resources"] = json!({
        "memory": {"limit": 64 << 20, "reservation": 32 << 20, "swap": 128 << 20},
        "cpu": {"shares": 300, "quota": 30_000, "period": 60_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 30},
        "devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": true, "type": "b", "major": 7, "access": "r"},
        ],
    });
    config["linux"]["devices"] = json!([
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
        {"path": "/dev/deep/loop", "type": "b", "major": 7, "minor": 0},
        {"path": "/made/null", "type": "c", "major": 1, "minor": 3},
    ]);
    config["root"]["readonly"] = json!(false);
}
