//! The default system call filter: what containers may ask of the kernel unless told otherwise.
//!
//! A call not listed fails with EPERM. What is left out lets a process reach beyond its namespaces, or offers the kernel's
//! least tested parts to everybody: namespaces and mounts, keys, BPF, tracing of others, io_uring, userfaultfd, modules, swap,
//! clocks, raw devices (attacks 51 and 52). A capability brings back the calls it is needed for. The lists are Docker's, to
//! which programs in images are used; two rules are stricter, for the kernel looks at the low half of an `int` argument only,
//! and a filter that compares 64 bits lets the same socket through with something in the high half.

use oci::runtime::{Seccomp, SeccompAction, SeccompOperator, SyscallArgument, SyscallRule};

/// What of the host the filter depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host<'a> {
    /// The machine as uname(2) calls it: `x86_64`, `aarch64`, `riscv64` …
    pub(crate) architecture: &'a str,
    /// Whether a security module (AppArmor, SELinux) keeps containers from AF_ALG sockets. Without it 32-bit programs cannot
    /// make sockets by socketcall(2), whose arguments a filter cannot see.
    pub(crate) lsm_denies_alg: bool,
}

/// The filter of a container with these capabilities (`CAP_…`) in its bounding set.
pub(crate) fn default_profile(capabilities: &[String], host: Host<'_>) -> Seccomp {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let mut syscalls: Vec<_> = ALWAYS
        .iter()
        .map(|names| allow(names, Vec::new()))
        .collect();
    for (capability, names) in BY_CAPABILITY {
        if has(capability) {
            syscalls.push(allow(names, Vec::new()));
        }
    }
    for (architectures, names) in BY_ARCHITECTURE {
        if architectures.contains(&host.architecture) {
            syscalls.push(allow(names, Vec::new()));
        }
    }
    for personality in PERSONALITIES {
        let condition = condition(0, SeccompOperator::Equal, personality, 0);
        syscalls.push(allow(&["personality"], vec![condition]));
    }
    for (mask, value) in SOCKET_FAMILIES {
        let condition = condition(0, SeccompOperator::MaskedEqual, mask, value);
        syscalls.push(allow(&["socket"], vec![condition]));
    }
    syscalls.push(if host.lsm_denies_alg {
        allow(&["socketcall"], Vec::new())
    } else {
        allow(
            &["socketcall"],
            vec![condition(0, SeccompOperator::NotEqual, SYS_SOCKET, 0)],
        )
    });
    if !has("CAP_SYS_ADMIN") {
        // The flags are the second argument on s390.
        let index = u32::from(host.architecture.starts_with("s390"));
        let condition = condition(index, SeccompOperator::MaskedEqual, NEW_NAMESPACES, 0);
        syscalls.push(allow(&["clone"], vec![condition]));
        // Its flags are in memory. Programs fall back to clone when they seem not to have it.
        syscalls.push(SyscallRule {
            names: vec!["clone3".into()],
            action: SeccompAction::Errno,
            errno_ret: Some(ENOSYS),
            args: Vec::new(),
        });
    }
    Seccomp {
        default_action: SeccompAction::Errno,
        default_errno_ret: Some(EPERM),
        architectures: architectures(host.architecture)
            .iter()
            .map(|&name| name.into())
            .collect(),
        flags: Vec::new(),
        listener_path: None,
        listener_metadata: None,
        syscalls,
    }
}

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// The first argument of socketcall(2) that makes a socket (linux/net.h).
const SYS_SOCKET: u64 = 1;
/// `CLONE_NEW…` of all but the time namespace, whose bit means something else to clone(2).
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Linux, Linux on 32 bits, both with the old layout of statistics, and the question which one it is.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Address families that sockets may have, as patterns of the low half of the argument: all below 48, after which there are
/// none, without AF_ALG (38: the kernel's cryptography, attack 51) and AF_VSOCK (40: the hypervisor).
const SOCKET_FAMILIES: [(u64, u64); 7] = [
    (0xffff_ffe0, 0),
    (0xffff_fffc, 32),
    (0xffff_fffe, 36),
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42),
    (0xffff_fffc, 44),
];

/// A machine's own architecture and those whose programs it also runs.
fn architectures(machine: &str) -> &'static [&'static str] {
    match machine {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        "s390x" => &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
        "loongarch64" => &["SCMP_ARCH_LOONGARCH64"],
        // The runtime adds the machine's own.
        _ => &[],
    }
}

fn allow(names: &[&str], args: Vec<SyscallArgument>) -> SyscallRule {
    let names = names.iter().map(|&name| name.into()).collect();
    SyscallRule {
        names,
        action: SeccompAction::Allow,
        errno_ret: None,
        args,
    }
}

fn condition(index: u32, op: SeccompOperator, value: u64, value_two: u64) -> SyscallArgument {
    SyscallArgument {
        index,
        value,
        value_two,
        op,
    }
}

/// What every program may do.
const ALWAYS: [&[&str]; 13] = [
    MEMORY,
    DESCRIPTORS,
    PATHS,
    EVENTS,
    TIME,
    SOCKETS,
    IPC,
    SIGNALS,
    IDENTITY,
    SCHEDULING,
    PROCESSES,
    MACHINE,
    TRACING,
];

/// What a capability is needed for.
#[rustfmt::skip]
const BY_CAPABILITY: [(&str, &[&str]); 14] = [
    ("CAP_SYS_ADMIN", ADMINISTRATION),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_BPF", &["bpf"]),
    ("CAP_PERFMON", &["perf_event_open"]),
];

/// What only some machines have.
#[rustfmt::skip]
const BY_ARCHITECTURE: [(&[&str], &[&str]); 6] = [
    (&["x86_64"], &["arch_prctl", "modify_ldt"]),
    (&["aarch64", "arm"], ARM),
    (&["i686", "i386"], &["modify_ldt"]),
    (&["ppc64le"], &["swapcontext", "sync_file_range2"]),
    (&["riscv64"], &["riscv_flush_icache"]),
    (&["s390", "s390x"], &["s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"]),
];

#[rustfmt::skip]
const ARM: &[&str] = &[
    "arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls",
    "sync_file_range2",
];

/// What containers that administer their own namespaces need.
#[rustfmt::skip]
const ADMINISTRATION: &[&str] = &[
    "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick",
    "lookup_dcookie", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount",
    "mount_setattr", "move_mount", "open_tree", "perf_event_open", "quotactl", "quotactl_fd",
    "setdomainname", "sethostname", "setns", "syslog", "umount", "umount2", "unshare",
];

/// Tracing of the container's own processes: the kernels supported here keep a traced call under the filter.
const TRACING: &[&str] = &["process_vm_readv", "process_vm_writev", "ptrace"];

/// Memory of the process itself.
#[rustfmt::skip]
const MEMORY: &[&str] = &[
    "brk", "cachestat", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret",
    "mincore", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect", "mremap", "mseal",
    "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect",
    "process_mrelease", "remap_file_pages",
];

/// Waiting for descriptors, and asynchronous input and output without io_uring.
#[rustfmt::skip]
const EVENTS: &[&str] = &[
    "_newselect", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait",
    "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "fanotify_mark",
    "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel",
    "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit",
    "poll", "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select", "signalfd",
    "signalfd4", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64",
];

/// Clocks and timers.
#[rustfmt::skip]
const TIME: &[&str] = &[
    "adjtimex", "alarm", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64",
    "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "getitimer",
    "gettimeofday", "nanosleep", "setitimer", "time", "timer_create", "timer_delete",
    "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64",
    "times",
];

/// Sockets once made, and pairs; making them has rules of its own.
#[rustfmt::skip]
const SOCKETS: &[&str] = &[
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen",
    "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg",
    "sendto", "setsockopt", "shutdown", "socketpair",
];

/// System V and POSIX objects of the IPC namespace.
#[rustfmt::skip]
const IPC: &[&str] = &[
    "ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64",
    "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd",
    "semctl", "semget", "semop", "semtimedop", "semtimedop_time64", "shmat", "shmctl", "shmdt",
    "shmget",
];

/// Signals.
#[rustfmt::skip]
const SIGNALS: &[&str] = &[
    "kill", "pause", "pidfd_open", "pidfd_send_signal", "restart_syscall", "rt_sigaction",
    "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sigaltstack", "sigprocmask",
    "sigreturn", "tgkill", "tkill",
];

/// Who the process is, as far as its capabilities let it change that.
#[rustfmt::skip]
const IDENTITY: &[&str] = &[
    "capget", "capset", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32",
    "getgroups", "getgroups32", "getpgid", "getpgrp", "getpid", "getppid", "getresgid",
    "getresgid32", "getresuid", "getresuid32", "getsid", "gettid", "getuid", "getuid32", "setfsgid",
    "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32",
    "setpgid", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32",
    "setreuid", "setreuid32", "setsid", "setuid", "setuid32",
];

/// Scheduling, limits and accounting of its own.
#[rustfmt::skip]
const SCHEDULING: &[&str] = &[
    "getcpu", "getpriority", "getrlimit", "getrusage", "ioprio_get", "ioprio_set", "prlimit64",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
    "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64",
    "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield",
    "setpriority", "setrlimit", "ugetrlimit",
];

/// Threads, children and programs; clone has rules of its own.
#[rustfmt::skip]
const PROCESSES: &[&str] = &[
    "execve", "execveat", "exit", "exit_group", "fork", "futex", "futex_requeue", "futex_time64",
    "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "get_thread_area",
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "prctl",
    "riscv_hwprobe", "rseq", "seccomp", "set_robust_list", "set_thread_area", "set_tid_address",
    "uretprobe", "vfork", "wait4", "waitid", "waitpid",
];

/// What the machine is.
const MACHINE: &[&str] = &["getrandom", "sysinfo", "umask", "uname"];

/// Open files.
#[rustfmt::skip]
const DESCRIPTORS: &[&str] = &[
    "_llseek", "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "fadvise64",
    "fadvise64_64", "fallocate", "fcntl", "fcntl64", "fdatasync", "flock", "fsync", "ftruncate",
    "ftruncate64", "getdents", "getdents64", "ioctl", "lseek", "pipe", "pipe2", "pread64", "preadv",
    "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readv", "sendfile",
    "sendfile64", "splice", "sync", "sync_file_range", "syncfs", "tee", "vmsplice", "write",
    "writev",
];

/// Files by name.
#[rustfmt::skip]
const PATHS: &[&str] = &[
    "access", "chdir", "chmod", "chown", "chown32", "creat", "faccessat", "faccessat2", "fchdir",
    "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fgetxattr", "flistxattr",
    "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64",
    "futimesat", "getcwd", "getxattr", "getxattrat", "lchown", "lchown32", "lgetxattr", "link",
    "linkat", "listmount", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lsetxattr",
    "lstat", "lstat64", "mkdir", "mkdirat", "mknod", "mknodat", "name_to_handle_at", "newfstatat",
    "open", "openat", "openat2", "readlink", "readlinkat", "removexattr", "removexattrat", "rename",
    "renameat", "renameat2", "rmdir", "setxattr", "setxattrat", "stat", "stat64", "statfs",
    "statfs64", "statmount", "statx", "symlink", "symlinkat", "truncate", "truncate64", "unlink",
    "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const HOST: Host<'static> = Host {
        architecture: "x86_64",
        lsm_denies_alg: false,
    };

    fn profile(capabilities: &[&str]) -> Seccomp {
        let capabilities: Vec<_> = capabilities.iter().map(|&name| name.to_owned()).collect();
        default_profile(&capabilities, HOST)
    }

    fn holds(condition: &SyscallArgument, argument: u64) -> bool {
        match condition.op {
            SeccompOperator::Equal => argument == condition.value,
            SeccompOperator::NotEqual => argument != condition.value,
            SeccompOperator::MaskedEqual => argument & condition.value == condition.value_two,
            other => panic!("{other:?}"),
        }
    }

    /// Whether a call is allowed with this first argument.
    fn allowed(profile: &Seccomp, name: &str, argument: u64) -> bool {
        let rules = profile
            .syscalls
            .iter()
            .filter(|rule| rule.names.iter().any(|other| other == name));
        rules.into_iter().any(|rule| {
            let held = rule.args.iter().all(|condition| holds(condition, argument));
            rule.action == SeccompAction::Allow && held
        })
    }

    #[test]
    fn attack_51_no_socket_reaches_the_kernels_cryptography_or_the_hypervisor() {
        let profile = profile(&["CAP_SYS_ADMIN"]);
        for family in 0..48 {
            let expected = family != 38 && family != 40;
            assert_eq!(allowed(&profile, "socket", family), expected, "{family}");
            // The kernel ignores the high half.
            assert_eq!(
                allowed(&profile, "socket", family | 7 << 32),
                expected,
                "{family}"
            );
        }
        assert!(!allowed(&profile, "socket", 0x8000_0002));
        assert!(!allowed(&profile, "socketcall", 1));
        assert!(allowed(&profile, "socketcall", 2));
        let denied_elsewhere = default_profile(
            &[],
            Host {
                lsm_denies_alg: true,
                ..HOST
            },
        );
        assert!(allowed(&denied_elsewhere, "socketcall", 1));
    }

    #[test]
    fn attack_52_nothing_unprivileged_makes_namespaces_or_reaches_untested_parts() {
        let profile = profile(&["CAP_CHOWN", "CAP_NET_RAW"]);
        for name in [
            "unshare",
            "setns",
            "mount",
            "fsopen",
            "fsconfig",
            "open_tree",
            "move_mount",
            "mount_setattr",
            "keyctl",
            "add_key",
            "request_key",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "kexec_load",
            "init_module",
            "swapon",
            "open_by_handle_at",
            "clone3",
            "vm86",
            "uselib",
            "nfsservctl",
            "pidfd_getfd",
        ] {
            assert!(!allowed(&profile, name, 0), "{name}");
        }
        assert!(allowed(&profile, "clone", 0x11));
        for flag in [
            0x0002_0000,
            0x0200_0000,
            0x0400_0000,
            0x0800_0000,
            0x1000_0000,
            0x2000_0000,
            0x4000_0000,
        ] {
            assert!(!allowed(&profile, "clone", 0x11 | flag), "{flag:#x}");
        }
        let clone3 = profile
            .syscalls
            .iter()
            .find(|rule| rule.names == ["clone3"])
            .unwrap();
        assert_eq!(
            (clone3.action, clone3.errno_ret),
            (SeccompAction::Errno, Some(38))
        );
    }

    #[test]
    fn a_capability_brings_its_calls_back() {
        let profile = profile(&["CAP_SYS_ADMIN", "CAP_SYS_TIME"]);
        for name in ["unshare", "mount", "clone3", "clock_settime"] {
            assert!(allowed(&profile, name, 0x7e02_0000), "{name}");
        }
        assert!(!allowed(&profile, "reboot", 0));
    }

    #[test]
    fn every_name_is_listed_once() {
        let mut seen = BTreeSet::new();
        for name in ALWAYS.iter().copied().flatten() {
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn all_programs_the_machine_runs_are_covered() {
        assert_eq!(
            profile(&[]).architectures,
            ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
        );
    }
}
