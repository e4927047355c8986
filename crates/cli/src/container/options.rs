//! The flags of `run` and `create`: all of Docker's.

use crate::flags::{Flag, Kind};
use crate::parse::{address, device, keyvalue, mount, network, secret};

/// Flags that `run` and `create` share.
pub(crate) const CONTAINER_FLAGS: &[Flag] = &[
    Flag::list("add-host", "Add a line to /etc/hosts (name:address)")
        .check(|text| address::extra_host(text).map(drop)),
    Flag::of(
        "annotation",
        Kind::List("map"),
        "Add an annotation for the OCI runtime",
    ),
    Flag::list("attach", "Attach stdin, stdout or stderr")
        .short('a')
        .check(check_stream),
    Flag::of(
        "blkio-weight",
        Kind::Uint16,
        "Relative weight of block IO, 10 to 1000, or 0 for the default",
    ),
    Flag::list(
        "blkio-weight-device",
        "Relative weight of block IO on a device (path:weight)",
    )
    .check(|text| device::weight(text).map(drop)),
    Flag::list("cap-add", "Add a capability"),
    Flag::list("cap-drop", "Drop a capability"),
    Flag::text("cgroup-parent", "Cgroup to make the container's cgroup in"),
    Flag::text("cgroupns", "Cgroup namespace: host or private"),
    Flag::text("cidfile", "Write the container's ID to this file"),
    Flag::of("cpu-count", Kind::Int, "Number of CPUs (Windows only)"),
    Flag::of("cpu-percent", Kind::Int, "Percentage of CPU (Windows only)"),
    Flag::of(
        "cpu-period",
        Kind::Int,
        "Period of the CPU quota, in microseconds",
    ),
    Flag::of(
        "cpu-quota",
        Kind::Int,
        "CPU time in each period, in microseconds",
    ),
    Flag::of(
        "cpu-rt-period",
        Kind::Int,
        "Period of real-time CPU time, in microseconds",
    ),
    Flag::of(
        "cpu-rt-runtime",
        Kind::Int,
        "Real-time CPU time in each period, in microseconds",
    ),
    Flag::of("cpu-shares", Kind::Int, "Relative weight of CPU time").short('c'),
    Flag::of("cpus", Kind::Decimal, "Number of CPUs to use at most"),
    Flag::text("cpuset-cpus", "CPUs to run on (0-3, 0,1)"),
    Flag::text("cpuset-mems", "Memory nodes to use (0-3, 0,1)"),
    Flag::list("device", "Add a device of the host (path[:path][:rwm])"),
    Flag::list(
        "device-cgroup-rule",
        "Add a rule to the list of allowed devices",
    )
    .check(device::check_cgroup_rule),
    Flag::list(
        "device-read-bps",
        "Limit the rate of reads from a device (path:bytes per second)",
    )
    .check(|text| device::throttle_bytes(text).map(drop)),
    Flag::list(
        "device-read-iops",
        "Limit the rate of reads from a device (path:reads per second)",
    )
    .check(|text| device::throttle_operations(text).map(drop)),
    Flag::list(
        "device-write-bps",
        "Limit the rate of writes to a device (path:bytes per second)",
    )
    .check(|text| device::throttle_bytes(text).map(drop)),
    Flag::list(
        "device-write-iops",
        "Limit the rate of writes to a device (path:writes per second)",
    )
    .check(|text| device::throttle_operations(text).map(drop)),
    Flag::bool(
        "disable-content-trust",
        "Skip verification of signatures; only true is supported",
    )
    .default("true"),
    Flag::list("dns", "Use this DNS server").check(|text| address::ip(text).map(drop)),
    Flag::list("dns-opt", "").alias_of("dns-option"),
    Flag::list("dns-option", "Add an option to /etc/resolv.conf"),
    Flag::list("dns-search", "Add a search domain")
        .check(|text| address::dns_search(text).map(drop)),
    Flag::text("domainname", "NIS domain name"),
    Flag::text("entrypoint", "Replace the image's entrypoint"),
    Flag::list(
        "env",
        "Set a variable (NAME=value, or NAME for this process' own)",
    )
    .short('e')
    .check(keyvalue::check_env),
    Flag::list("env-file", "Read variables from a file"),
    Flag::list("expose", "Expose a port or a range of ports"),
    Flag::of(
        "gpus",
        Kind::List("gpu-request"),
        "Add GPUs (all, or a request)",
    )
    .check(|text| device::gpu(text).map(drop)),
    Flag::list("group-add", "Add a supplementary group"),
    Flag::text(
        "health-cmd",
        "Command that tells whether the container is well",
    ),
    Flag::of("health-interval", Kind::Duration, "Time between two checks"),
    Flag::text(
        "health-on-failure",
        "What to do with a container that becomes unhealthy: none, restart, stop, kill",
    ),
    Flag::of(
        "health-retries",
        Kind::Int,
        "Failures in a row that make the container unhealthy",
    ),
    Flag::of(
        "health-start-interval",
        Kind::Duration,
        "Time between two checks in the start period",
    ),
    Flag::of(
        "health-start-period",
        Kind::Duration,
        "Time after the start in which failures do not count",
    ),
    Flag::of("health-timeout", Kind::Duration, "Time a check may take"),
    Flag::text("hostname", "Host name").short('h'),
    Flag::bool(
        "init",
        "Run an init that forwards signals and reaps processes",
    ),
    Flag::bool("interactive", "Keep stdin open even if not attached").short('i'),
    Flag::of(
        "io-maxbandwidth",
        Kind::Bytes,
        "Bytes of IO a second on the system drive (Windows only)",
    ),
    Flag::of(
        "io-maxiops",
        Kind::Uint,
        "IO operations a second on the system drive (Windows only)",
    ),
    Flag::text("ip", "IPv4 address in the network"),
    Flag::text("ip6", "IPv6 address in the network"),
    Flag::text(
        "ipc",
        "IPC namespace: none, private, shareable, host, container:<name>",
    ),
    Flag::text(
        "isolation",
        "Isolation technology; only default exists on Linux",
    ),
    Flag::of("kernel-memory", Kind::Bytes, "Limit of kernel memory"),
    Flag::list("label", "Set a label")
        .short('l')
        .check(keyvalue::check_label),
    Flag::list("label-file", "Read labels from a file"),
    Flag::list("link", "Add a link to another container (name:alias)").check(address::check_link),
    Flag::list("link-local-ip", "Add a link-local address"),
    Flag::text("log-driver", "Where the output goes"),
    Flag::list("log-opt", "Option of the log driver"),
    Flag::text("mac-address", "Hardware address (92:d0:c6:0a:29:33)"),
    Flag::of("memory", Kind::Bytes, "Limit of memory").short('m'),
    Flag::of("memory-reservation", Kind::Bytes, "Soft limit of memory"),
    Flag::of(
        "memory-swap",
        Kind::SwapBytes,
        "Limit of memory and swap together; -1 for unlimited swap",
    ),
    Flag::of(
        "memory-swappiness",
        Kind::Int,
        "How eagerly to swap, 0 to 100",
    )
    .default("-1"),
    Flag::of(
        "mount",
        Kind::List("mount"),
        "Mount a filesystem (type=bind,source=…,target=…)",
    )
    .check(|text| mount::parse(text).map(drop)),
    Flag::of("net", Kind::List("network"), "")
        .alias_of("network")
        .check(network::check),
    Flag::list("net-alias", "").alias_of("network-alias"),
    Flag::of("network", Kind::List("network"), "Connect to a network").check(network::check),
    Flag::list("network-alias", "Add a name in the network's DNS"),
    Flag::of(
        "network-rate",
        Kind::Text("rate"),
        "Limit what each interface receives and sends per second (10m, receive=10m,send=1m)",
    )
    .check(network::check_rate),
    Flag::bool("no-healthcheck", "Switch off the image's health check"),
    Flag::bool("oom-kill-disable", "Do not kill on out of memory"),
    Flag::of(
        "oom-score-adj",
        Kind::Int,
        "Preference of the OOM killer, -1000 to 1000",
    ),
    Flag::text("pid", "PID namespace: host, container:<name>"),
    Flag::of(
        "pids-limit",
        Kind::Int,
        "Limit of processes; -1 for unlimited",
    ),
    Flag::bool("privileged", "Give all capabilities and devices"),
    Flag::list("publish", "Publish a port ([address:]port:port[/protocol])").short('p'),
    Flag::bool("publish-all", "Publish all exposed ports on ephemeral ones").short('P'),
    Flag::bool("read-only", "Mount the root filesystem read-only"),
    Flag::text(
        "restart",
        "When to start again: no, always, unless-stopped, on-failure[:retries]",
    )
    .default("no"),
    Flag::bool(
        "rm",
        "Remove the container and its anonymous volumes when it exits",
    ),
    Flag::text("runtime", "OCI runtime"),
    Flag::list(
        "secret",
        "Give a file of the host in memory of its own (id=…,src=…,target=…,uid=…,gid=…,mode=…)",
    )
    .check(|text| secret::parse(text).map(drop)),
    Flag::list("security-opt", "Security option"),
    Flag::of("shm-size", Kind::Bytes, "Size of /dev/shm"),
    Flag::text("stop-signal", "Signal that asks the container to stop"),
    Flag::of(
        "stop-timeout",
        Kind::Int,
        "Seconds until a container that was asked to stop is killed",
    ),
    Flag::list("storage-opt", "Option of the writable layer"),
    Flag::of("sysctl", Kind::List("map"), "Set a kernel parameter").check(keyvalue::check_sysctl),
    Flag::list("tmpfs", "Mount a tmpfs (path[:options])"),
    Flag::bool("tty", "Give the process a terminal").short('t'),
    Flag::of(
        "ulimit",
        Kind::List("ulimit"),
        "Set a resource limit (name=soft[:hard])",
    )
    .check(|text| device::ulimit(text).map(drop)),
    Flag::text("user", "User and group (name|uid[:group|gid])").short('u'),
    Flag::text("userns", "User namespace: host, or what the engine offers"),
    Flag::text("uts", "UTS namespace: host"),
    Flag::list(
        "volume",
        "Mount a directory or a volume ([source:]target[:options])",
    )
    .short('v'),
    Flag::text("volume-driver", "Driver of volumes that are made"),
    Flag::list("volumes-from", "Mount the volumes of another container"),
    Flag::text("workdir", "Working directory").short('w'),
];

/// Flags of making a container that say nothing of the container.
pub(crate) const CREATE_FLAGS: &[Flag] = &[
    Flag::text("name", "Name of the container"),
    Flag::text("platform", "Platform of the image (os[/arch[/variant]])"),
    Flag::text("pull", "When to pull the image: always, missing, never").default("missing"),
    Flag::bool("quiet", "Do not show the pull's progress").short('q'),
    Flag::bool(
        "use-api-socket",
        "Mount the engine's socket into the container",
    ),
];

fn check_stream(text: &str) -> Result<(), String> {
    match text.to_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}
