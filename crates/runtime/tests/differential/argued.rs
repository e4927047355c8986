//! Where runtimes differ, and why ours is right.

/// A difference that is known.
#[derive(Debug)]
pub(crate) struct Difference {
    /// Whom ours differs from; empty for all.
    pub(crate) peer: &'static str,
    /// In cases whose names begin so.
    pub(crate) case: &'static str,
    /// In fields whose names begin so.
    pub(crate) field: &'static str,
    /// Why, by the specification's section or the kernel's documentation.
    pub(crate) why: &'static str,
}

const fn everywhere(peer: &'static str, field: &'static str, why: &'static str) -> Difference {
    Difference {
        peer,
        case: "",
        field,
        why,
    }
}

const MASKED: &str = "config-linux.md \"Masked Paths\" asks for what cannot be read. An empty directory of ours is read-only, as its mode says, \
    and nothing is executed from it; a file is the host's null device, verified, on a read-only mount: what root in the \
    container did to its mode or owner, the host's would have (attack 14).";
const READ_ONLY: &str = "config-linux.md \"Readonly Paths\": only that is added. crun drops nosuid, nodev and noexec, which the configuration has \
    asked for above the path.";
const HYBRID: &str = "crun 1.8 refuses the hybrid layout and is run without its v2 hierarchy, runc 1.1 leaves it out of the container; config-linux.md \
    \"Control groups\" knows no such exception: the mount shows what the host has.";
const CGROUP_MOUNT: &str = "config.md \"Mounts\": the options hold for the mount that they are given for. runc and crun make the hierarchies read-only, \
    and leave the tmpfs above them writable. Its size and mode are nobody's to rely on.";
const SUPERBLOCK: &str = "mount_setattr(2): read-only is the mount's matter. A sysfs is one filesystem for a network namespace, and stays as it is for \
    whoever else mounts it; a tmpfs is the container's alone, and is read-only itself.";

const DEVICES: &str = "config-linux.md \"Default Devices\" lists the console, which a process can be given later by exec: it is allowed whether \
    there is a terminal or not, as crun does and runc does not. Tun is no default device of the specification, but those \
    who make the node for themselves rely on runc's allowing it; crun does not.";
const CORE: &str =
    "runtime-linux.md \"Dev symbolic links\" has no such link, and what it leads to is masked.";
const SIGNALS: &str = "A program expects to start with what execve(2) of a login would give it: every signal at its default. runc and crun \
    pass on what their caller ignores of the signals that the C library keeps to itself.";
const HOME: &str = "The user's directory in /etc/passwd, or / where that has none, as runc does: programs expect HOME (POSIX, XBD 8.3).";

const SHOWN: &str = "The same mode in other words: runc and crun change it after mounting, where ours is mounted with it (the fields of the \
    path say the same of all).";
const LAST: &str = "mount(8): of options that contradict each other the last counts; crun 1.8 keeps ro and noexec.";
const OWN_PROPAGATION: &str = "config.md \"Mounts\": a mount's own propagation counts; rootfsPropagation is of the root and of what its directory has \
    mounted below it, but crun lets it undo what was asked for a mount.";
const HIDDEN_MODE: &str = "A tmpfs that says no mode has that of the directory it hides, which programs know, as runc does; crun makes it everybody's.";
const DOMAIN: &str = "config.md \"Domainname\" of version 1.1, which runc 1.1 does not know.";
const NODES: &str = "config.md \"Mounts\" and config-linux.md \"Devices\" ask for no options of a node that is bound where none can be made; \
    crun adds nosuid and noexec to what cannot be executed.";
const QUEUES: &str = "The root of the container's user namespace owns its message queues, as its user and its group; runc changes the group too late.";
const LARGE: &str = "O_LARGEFILE says nothing on machines of 64 bits (open(2)); a terminal opened by TIOCGPTPEER lacks it.";
const CONSOLE: &str = "The console has the options of the devpts that it is of; crun clears them.";
const OWN_NULL: &str = "crun gives standard streams to the user even where they are the null device, which is everybody's.";
const CREATING: &str = "runtime.md \"State\" and \"Lifecycle\": a container is created when the create operation is finished; these hooks are a part \
    of it (config.md \"Prestart\", \"CreateRuntime Hooks\", \"CreateContainer Hooks\").";
const RUNNING: &str =
    "runtime.md \"Lifecycle\", steps 8 and 9: the program was executed before the poststart hooks.";
const WHOLE_STATE: &str = "runtime.md \"State\": the bundle is the absolute path on the host, the process id is required once the container is created, \
    and `starting` is none of its states.";

const COPIED: &str = "runc exec stays between the caller and the process and copies; ours hands the caller's own descriptors over, as for a \
    container's first process.";
const INHERITED: &str = "exec without --process starts as the configuration's process (runc-exec(8)), user, umask, limits, score and \
    no_new_privs with it: a container that was restricted stays so. runc forgets the umask, crun all of them.";
const RAISED: &str = "runc exec sets the limits from outside while Go, starting in the process, raises the soft limit of open files to the hard \
    one: whichever is later counts.";
const GIVEN: &str = "config.md \"process\": a process by file has all that its document says; crun leaves the score out.";
const SESSION: &str = "A process without a terminal leads a session too, out of reach of its caller's terminal (setsid(2)).";
const ADDED: &str = "runc-exec(8): --cap adds to the configuration's capabilities, in the bounding set as elsewhere.";
const ORDER: &str = "The order of variables says nothing (environ(7)); ours is the configuration's, then what flags add.";

const WEIGHT: &str = "config-linux.md \"CPU\" leaves the conversion of shares to weights open. Ours is the one that runc since 1.3.2 and crun since 1.23 \
    have: 1024 shares become the default weight of 100, where the older, linear one makes 39 of them.";

const fn in_case(
    peer: &'static str,
    case: &'static str,
    field: &'static str,
    why: &'static str,
) -> Difference {
    Difference {
        peer,
        case,
        field,
        why,
    }
}

pub(crate) const ARGUED: [Difference; 61] = [
    everywhere("", "cgroup file cpu.weight", WEIGHT),
    everywhere("", "mount /proc/acpi", MASKED),
    everywhere("", "path /proc/acpi", MASKED),
    everywhere("", "mount /proc/keys", MASKED),
    everywhere("", "mount /proc/timer_list", MASKED),
    everywhere("", "mount /sys/firmware", MASKED),
    everywhere("", "path /sys/firmware", MASKED),
    everywhere("", "mount /sys/dev/block", MASKED),
    everywhere("", "path /sys/dev/block", MASKED),
    everywhere("", "mount /proc/asound", MASKED),
    everywhere("", "mount /proc/kcore", MASKED),
    everywhere("", "mount /proc/latency_stats", MASKED),
    everywhere("", "mount /proc/sched_debug", MASKED),
    everywhere("", "mount /proc/scsi", MASKED),
    everywhere("", "mount /proc/timer_stats", MASKED),
    everywhere("", "mount /sys/fs/selinux", MASKED),
    everywhere("", "path /proc/asound", MASKED),
    everywhere("", "path /proc/scsi", MASKED),
    everywhere("", "path /sys/fs/selinux", MASKED),
    everywhere("", "mount /etc/passwd", MASKED),
    everywhere("crun", "mount /proc/", READ_ONLY),
    everywhere("", "mount /sys/fs/cgroup/unified", HYBRID),
    everywhere("crun", "cgroup of \"\"", HYBRID),
    everywhere("crun", "cgroup file hugetlb", HYBRID),
    everywhere("crun", "file /proc/self/cgroup", HYBRID),
    everywhere("", "mount /sys/fs/cgroup", CGROUP_MOUNT),
    everywhere("", "path /sys/fs/cgroup", CGROUP_MOUNT),
    everywhere("runc", "mount /sys", SUPERBLOCK),
    everywhere("", "cgroup file devices.list", DEVICES),
    everywhere("", "device /dev/core", CORE),
    everywhere("", "status SigIgn", SIGNALS),
    in_case("crun", "read-only", "process environment", HOME),
    in_case("runc", "user-namespace", "device /dev/mqueue", QUEUES),
    in_case("crun", "user-namespace", "mount /dev/", NODES),
    in_case("runc", "exec-user-namespace", "device /dev/mqueue", QUEUES),
    in_case("crun", "exec-user-namespace", "mount /dev/", NODES),
    in_case(
        "crun",
        "exec-user-namespace",
        "status NoNewPrivs",
        INHERITED,
    ),
    in_case("runc", "exec-", "descriptor 0", COPIED),
    in_case("crun", "exec-", "process leads its", SESSION),
    in_case("crun", "exec-", "limit ", INHERITED),
    in_case("runc", "exec-plain", "status Umask", INHERITED),
    in_case("runc", "exec-", "limit Max open files", RAISED),
    in_case(
        "runc",
        "exec-plain",
        "file /proc/sys/kernel/domainname",
        DOMAIN,
    ),
    in_case("crun", "exec-plain", "", INHERITED),
    in_case("crun", "exec-flags", "status CapBnd", ADDED),
    in_case("crun", "exec-flags", "process environment", ORDER),
    in_case(
        "crun",
        "exec-process",
        "file /proc/self/oom_score_adj",
        GIVEN,
    ),
    in_case("", "mounts", "mount /sized", SUPERBLOCK),
    in_case("", "mounts", "mount /there", SHOWN),
    in_case("crun", "mounts", "mount /both", LAST),
    in_case("crun", "mounts", "mount /shared", OWN_PROPAGATION),
    in_case("crun", "mounts", "path /there", HIDDEN_MODE),
    in_case(
        "runc",
        "process",
        "file /proc/sys/kernel/domainname",
        DOMAIN,
    ),
    in_case("", "terminal", "descriptor ", LARGE),
    in_case("crun", "terminal", "device /dev/null", OWN_NULL),
    in_case("crun", "terminal", "mount /dev/console", CONSOLE),
    in_case(
        "runc",
        "hooks",
        "hook of the host 3 poststart status",
        RUNNING,
    ),
    in_case(
        "crun",
        "hooks",
        "hook of the host 0 prestart status",
        CREATING,
    ),
    in_case(
        "crun",
        "hooks",
        "hook of the host 1 createRuntime status",
        CREATING,
    ),
    in_case(
        "crun",
        "hooks",
        "hook of the host 2 createContainer",
        CREATING,
    ),
    in_case(
        "crun",
        "hooks",
        "hook of the container 0 startContainer",
        WHOLE_STATE,
    ),
];

/// The difference that a field's is known as.
pub(crate) fn find(peer: &str, case: &str, field: &str) -> Option<&'static Difference> {
    ARGUED.iter().find(|known| {
        (known.peer.is_empty() || known.peer == peer)
            && case.starts_with(known.case)
            && field.starts_with(known.field)
    })
}
