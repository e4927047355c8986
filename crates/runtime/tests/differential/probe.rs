//! What a process finds in its container, field by field.
//!
//! Invariant: a value says nothing that differs from run to run (numbers of processes, addresses, times), so that two reports
//! are equal when the containers are.

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Values by the names of their fields.
pub(crate) type Report = BTreeMap<String, String>;

/// Fields of `/proc/self/status` that say how a process was started.
const STATUS: [&str; 25] = [
    "CapAmb",
    "CapBnd",
    "CapEff",
    "CapInh",
    "CapPrm",
    "CoreDumping",
    "Cpus_allowed_list",
    "Gid",
    "Groups",
    "Mems_allowed_list",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "ShdPnd",
    "SigBlk",
    "SigCgt",
    "SigIgn",
    "SigPnd",
    "SpeculationIndirectBranch",
    "Speculation_Store_Bypass",
    "THP_enabled",
    "Threads",
    "TracerPid",
    "Uid",
    "Umask",
];

/// Small files of procfs and sysfs.
const FILES: [&str; 22] = [
    "/proc/self/cgroup",
    "/proc/self/comm",
    "/proc/self/coredump_filter",
    "/proc/self/gid_map",
    "/proc/self/loginuid",
    "/proc/self/oom_score_adj",
    "/proc/self/personality",
    "/proc/self/setgroups",
    "/proc/self/timens_offsets",
    "/proc/self/timerslack_ns",
    "/proc/self/uid_map",
    "/proc/sys/fs/mqueue/msg_max",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/msgmax",
    "/proc/sys/kernel/shmmni",
    "/proc/sys/net/ipv4/conf/all/forwarding",
    "/proc/sys/net/ipv4/ip_unprivileged_port_start",
    "/proc/sys/net/ipv4/ping_group_range",
    "/proc/sys/net/ipv6/conf/all/disable_ipv6",
    "/sys/class/net/lo/flags",
    "/etc/hostname",
];

/// Paths that configurations mask, make read-only or mount.
const PATHS: [&str; 32] = [
    "/",
    "/bound",
    "/bound/file",
    "/dev",
    "/dev/shm",
    "/deep/er",
    "/etc/hosts",
    "/new",
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sys",
    "/proc/sys/kernel/domainname",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys",
    "/sys/dev/block",
    "/sys/firmware",
    "/sys/fs/cgroup",
    "/sys/fs/selinux",
    "/sized",
    "/there",
    "/tmp",
    "/work",
];

/// Fields of `/proc/self/stat` from the process group on, by their place after the name (proc(5)): those that say how the
/// process was started.
const STAT: [(usize, &str); 4] = [
    (15, "priority"),
    (16, "nice"),
    (37, "real-time priority"),
    (38, "policy"),
];

/// Looks at everything.
pub(crate) fn report() -> Report {
    let mut report = Report::new();
    identity(&mut report);
    session(&mut report);
    limits(&mut report);
    mounts(&mut report);
    descriptors(&mut report);
    devices(Path::new("/dev"), &mut report);
    for path in FILES {
        put(&mut report, "file", path, read(path));
    }
    for path in PATHS {
        put(&mut report, "path", path, access(path));
    }
    // Last: some change the process.
    calls(&mut report);
    report
}

fn put(report: &mut Report, kind: &str, name: impl Display, value: String) {
    report.insert(format!("{kind} {name}"), value);
}

fn read(path: impl AsRef<Path>) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => outcome::<()>(Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
    }
}

fn outcome<T>(result: rustix::io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(errno) => errno.to_string(),
    }
}

fn identity(report: &mut Report) {
    let text = read("/proc/self/status");
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        if STATUS.contains(&name) {
            put(report, "status", name, value.trim().to_owned());
        }
    }
    for entry in fs::read_dir("/proc/self/ns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let link = fs::read_link(entry.path()).unwrap_or_default();
        put(report, "ns", name.display(), link.display().to_string());
    }
    let variables: Vec<_> = std::env::vars()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    put(report, "process", "environment", variables.join("\n"));
    let arguments: Vec<_> = std::env::args().collect();
    put(report, "process", "arguments", arguments.join(" "));
    let directory = std::env::current_dir()
        .map_or_else(|error| error.to_string(), |path| path.display().to_string());
    put(report, "process", "directory", directory);
}

/// From proc(5): a session or a group that is led from outside of the pid namespace has no number in it.
fn session(report: &mut Report) {
    let stat = read("/proc/self/stat");
    let (pid, rest) = stat.rsplit_once(')').unwrap_or_default();
    let pid = pid.split(' ').next().unwrap_or_default();
    let fields: Vec<_> = rest.split_whitespace().collect();
    let field = |place: usize| fields.get(place).copied().unwrap_or_default();
    for (name, holds) in [
        ("is number 1", pid == "1"),
        ("parent is outside", field(1) == "0"),
        ("leads its group", field(2) == pid),
        ("leads its session", field(3) == pid),
        ("has a terminal", field(4) != "0"),
    ] {
        put(report, "process", name, holds.to_string());
    }
    for (place, name) in STAT {
        put(report, "process", name, field(place).to_owned());
    }
}

fn limits(report: &mut Report) {
    for line in read("/proc/self/limits").lines().skip(1) {
        // Names have single spaces, columns several.
        let mut columns = line
            .split("  ")
            .map(str::trim)
            .filter(|column| !column.is_empty());
        let name = columns.next().unwrap_or_default();
        put(
            report,
            "limit",
            name,
            columns.take(2).collect::<Vec<_>>().join(" "),
        );
    }
}

/// Mounts by their place: root, options, propagation, type, source, options of the filesystem.
fn mounts(report: &mut Report) {
    for line in read("/proc/self/mountinfo").lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let Some(dash) = fields.iter().position(|field| *field == "-") else {
            continue;
        };
        let propagation: Vec<_> = fields[6..dash]
            .iter()
            .map(|field| field.split(':').next().unwrap_or_default())
            .collect();
        let value = format!(
            "{} {} [{}] {}",
            fields[3],
            fields[5],
            propagation.join(" "),
            fields[dash + 1..].join(" ")
        );
        // Of several at one place each counts.
        let stacked = report.entry(format!("mount {}", fields[4])).or_default();
        if !stacked.is_empty() {
            stacked.push_str(" + ");
        }
        stacked.push_str(&value);
    }
}

fn descriptors(report: &mut Report) {
    for number in 0..256 {
        let path = format!("/proc/self/fd/{number}");
        let Ok(link) = fs::read_link(&path) else {
            continue;
        };
        let kind = link.display().to_string();
        let kind = kind.split(":[").next().unwrap_or_default();
        let flags = read(format!("/proc/self/fdinfo/{number}"));
        let flags = flags
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .unwrap_or_default();
        put(
            report,
            "descriptor",
            number,
            format!("{kind} {}", flags.trim()),
        );
    }
}

fn devices(directory: &Path, report: &mut Report) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = found.file_type();
        let value = if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap_or_default().display())
        } else {
            let number = if kind.is_char_device() || kind.is_block_device() {
                format!(
                    " {}:{}",
                    rustix::fs::major(found.rdev()),
                    rustix::fs::minor(found.rdev())
                )
            } else {
                String::new()
            };
            format!("{:o} {}:{}{number}", found.mode(), found.uid(), found.gid())
        };
        put(report, "device", path.display(), value);
        if kind.is_dir() && path != Path::new("/dev/pts") {
            devices(&path, report);
        }
    }
}

/// What a path is, and whether it can be read and written.
fn access(path: &str) -> String {
    let found = match rustix::fs::stat(path) {
        Ok(found) => found,
        Err(errno) => return format!("{errno:?}"),
    };
    let kind = FileType::from_raw_mode(found.st_mode);
    let mut text = format!(
        "{kind:?} {:o} {}:{}",
        found.st_mode & 0o7777,
        found.st_uid,
        found.st_gid
    );
    if kind == FileType::Directory {
        let empty = fs::read_dir(path).map(|mut entries| entries.next().is_none());
        let file = Path::new(path).join("probe-made-this");
        let made = rustix::fs::open(
            &file,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY,
            Mode::RUSR,
        );
        if made.is_ok() {
            drop(fs::remove_file(&file));
        }
        text.push_str(&format!(" empty {:?} make {}", empty.ok(), outcome(made)));
    } else {
        for (name, flags) in [("read", OFlags::RDONLY), ("write", OFlags::WRONLY)] {
            let opened = rustix::fs::open(path, flags | OFlags::NONBLOCK, Mode::empty());
            text.push_str(&format!(" {name} {}", outcome(opened)));
        }
    }
    text
}

/// System calls with arguments that do no harm where they are allowed.
fn calls(report: &mut Report) {
    let results = mount_calls()
        .into_iter()
        .chain(socket_calls())
        .chain(process_calls());
    for (name, value) in results {
        put(report, "call", name, value);
    }
}

const NOWHERE: &str = "/nonexistent";

fn mount_calls() -> Vec<(&'static str, String)> {
    use rustix::fs::{ResolveFlags, mknodat, openat2};
    use rustix::mount::{
        FsOpenFlags, MountFlags, OpenTreeFlags, UnmountFlags, fsopen, mount, open_tree, unmount,
    };
    use rustix::process::{chroot, pivot_root};
    let mounted = mount("none", NOWHERE, "tmpfs", MountFlags::empty(), None);
    let cloned = open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLONE);
    let node = Path::new(NOWHERE).join("x");
    let made = mknodat(CWD, node, FileType::CharacterDevice, Mode::RUSR, 0);
    let opened = openat2(
        CWD,
        "/",
        OFlags::RDONLY,
        Mode::empty(),
        ResolveFlags::empty(),
    );
    vec![
        ("mount", outcome(mounted)),
        ("umount2", outcome(unmount(NOWHERE, UnmountFlags::DETACH))),
        (
            "fsopen",
            outcome(fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)),
        ),
        ("open_tree", outcome(cloned)),
        ("chroot", outcome(chroot(NOWHERE))),
        ("pivot_root", outcome(pivot_root(NOWHERE, NOWHERE))),
        ("mknod", outcome(made)),
        ("openat2", outcome(opened)),
    ]
}

fn socket_calls() -> Vec<(&'static str, String)> {
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};
    /// linux/socket.h
    const AF_ALG: u16 = 38;
    let inet = AddressFamily::INET;
    let plain = |family, kind| outcome(socket(family, kind, None));
    let ping = |kind| outcome(socket(inet, kind, Some(ipproto::ICMP)));
    vec![
        (
            "socket AF_UNIX",
            plain(AddressFamily::UNIX, SocketType::STREAM),
        ),
        ("socket AF_INET", plain(inet, SocketType::STREAM)),
        ("socket AF_INET raw", ping(SocketType::RAW)),
        ("socket AF_INET ping", ping(SocketType::DGRAM)),
        (
            "socket AF_PACKET",
            plain(AddressFamily::PACKET, SocketType::RAW),
        ),
        (
            "socket AF_NETLINK",
            plain(AddressFamily::NETLINK, SocketType::RAW),
        ),
        (
            "socket AF_VSOCK",
            plain(AddressFamily::VSOCK, SocketType::STREAM),
        ),
        (
            "socket AF_ALG",
            plain(AddressFamily::from_raw(AF_ALG), SocketType::SEQPACKET),
        ),
    ]
}

/// Those that change the process come last.
fn process_calls() -> Vec<(&'static str, String)> {
    use rustix::system::{finit_module, sethostname};
    use std::os::fd::AsFd;
    use sys::process::{
        Namespaces, new_session_keyring, personality, set_io_priority, set_memory_policy, setns,
        unshare,
    };
    let null = fs::File::open("/dev/null").expect("every container has a null device");
    let own = |result: sys::Result<()>| outcome(result.map_err(|error| error.errno));
    let join = |name: &str, kind| {
        let path = format!("/proc/self/ns/{name}");
        let namespace = fs::File::open(path).expect("a process has its namespaces");
        own(setns(namespace.as_fd(), kind))
    };
    let uid = rustix::process::getuid();
    vec![
        ("sethostname", outcome(sethostname(b"box"))),
        ("finit_module", outcome(finit_module(&null, c"", 0))),
        ("setns ipc", join("ipc", Namespaces::IPC)),
        ("setns uts", join("uts", Namespaces::UTS)),
        ("ioprio_set", own(set_io_priority(2, 4))),
        ("set_mempolicy", own(set_memory_policy(0, &[]))),
        ("keyctl", own(new_session_keyring())),
        ("personality", own(personality(8))),
        (
            "setresuid",
            outcome(rustix::thread::set_thread_res_uid(uid, uid, uid)),
        ),
        ("unshare time", own(unshare(Namespaces::TIME))),
        ("unshare mount", own(unshare(Namespaces::MOUNT))),
        ("unshare user", own(unshare(Namespaces::USER))),
    ]
}
