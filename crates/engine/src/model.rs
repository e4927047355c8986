//! What a container is and how it is: the engine's own shapes.
//!
//! A [`Spec`] never changes after `create`, so its record on disk is its own serialisation, with [`SPEC_VERSION`] and a
//! default for every field that came later. A [`State`] does change; what of it survives the engine is in
//! [`crate::container::record`].

use crate::cdi::DeviceRequest;
use crate::health::{Check, Health};
use crate::mounts::Secret;
use crate::networks::PluginRecord;
use jiff::Timestamp;
use oci::image::Platform;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// The version of [`Spec`]'s serialisation.
pub const SPEC_VERSION: u32 = 1;

/// A container's identity and configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// [`SPEC_VERSION`] when it was written.
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// When it was created.
    pub created: Timestamp,
    /// What the image is called in the request.
    pub image_reference: String,
    /// Where the root filesystem comes from.
    pub image: ImageSource,
    /// What runs.
    pub process: ProcessSpec,
    /// How it is isolated.
    pub isolation: Isolation,
    /// Its limits.
    pub limits: Limits,
    /// What is mounted, in addition to what every container has.
    pub mounts: Vec<Mount>,
    /// Its network.
    pub network: NetworkSpec,
    /// What happens when it ends.
    pub lifecycle: Lifecycle,
    /// Where output goes.
    pub log: LogSpec,
    /// Labels, the image's included.
    pub labels: BTreeMap<String, String>,
    /// Free annotations for the OCI configuration.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// How to find out whether it is well.
    #[serde(default)]
    pub health: Option<Check>,
    /// The containers whose mounts it has taken over, as `name[:mode]`, for inspection.
    #[serde(default)]
    pub volumes_from: Vec<String>,
    /// Options of the writable layer: `size`.
    #[serde(default)]
    pub storage: BTreeMap<String, String>,
    /// What inspection repeats.
    #[serde(default)]
    pub echo: Echo,
}

/// Words of the request that change nothing here, and that inspection repeats.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// What the runtime was called; empty: by no name.
    pub runtime: String,
    /// `default`, or empty.
    pub isolation: String,
    /// The driver for volumes that the request did not name.
    pub volume_driver: String,
}

/// Where a root filesystem comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// An image, by its id (`sha256:…`).
    Image(String),
    /// A directory of the host, as the read-only layer.
    Directory(PathBuf),
    /// Layers that are no image (yet), by diff ID, the lowest first: a step of a build.
    Layers(Vec<oci::Digest>),
}

/// What runs. The image's configuration is already merged in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`: arguments of the entrypoint, or the command.
    pub command: Vec<String>,
    /// `NAME=value`, the image's first.
    pub environment: Vec<String>,
    /// `NAME=value` that no record and no answer has: secrets of one run, which another engine does not know any more.
    #[serde(skip)]
    pub unrecorded_environment: Vec<String>,
    /// Absolute; empty means `/`.
    pub working_dir: String,
    /// As `USER`: empty means root.
    pub user: String,
    /// Further groups, by name or number.
    pub groups: Vec<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Whether standard input stays open.
    pub open_stdin: bool,
    /// Whether standard input ends with the first client's.
    pub stdin_once: bool,
    /// What the creating client said it would attach, for inspection only.
    pub attach: AttachFlags,
    /// Height and width of the terminal to begin with.
    pub console_size: Option<(u16, u16)>,
}

/// Which streams a client attaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachFlags {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// A namespace: one of its own, the host's, or another container's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// One of its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container, by id.
    Container(String),
}

/// The IPC namespace and `/dev/shm`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipc {
    /// Its own, with a `/dev/shm` of its own.
    #[default]
    Private,
    /// Its own, which other containers may join.
    Shareable,
    /// Its own, without `/dev/shm`.
    None,
    /// The host's.
    Host,
    /// That of another, shareable container, by id.
    Container(String),
}

/// How a container is isolated.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Isolation {
    /// Everything the host has, devices included.
    pub privileged: bool,
    /// The root filesystem is read-only.
    pub read_only: bool,
    /// Host name; empty: the first twelve digits of the id.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// PID namespace.
    pub pid: Namespace,
    /// IPC namespace.
    pub ipc: Ipc,
    /// UTS namespace: private or the host's.
    pub uts: Namespace,
    /// Cgroup namespace: private or the host's.
    pub cgroup: Namespace,
    /// A user namespace of its own, over a subordinate range.
    pub user_namespace: bool,
    /// Capabilities beyond the default, without `CAP_`; `ALL` for all.
    pub cap_add: Vec<String>,
    /// Capabilities taken from the default.
    pub cap_drop: Vec<String>,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Whether set-uid programs gain nothing.
    pub no_new_privileges: bool,
    /// An AppArmor profile, or `unconfined`; None: the engine's, where the host has AppArmor.
    pub apparmor: Option<String>,
    /// Whether no path of `/proc` and `/sys` is masked or read-only.
    pub unmasked_paths: bool,
    /// Paths to mask, instead of the default.
    #[serde(default)]
    pub masked_paths: Option<Vec<PathBuf>>,
    /// Paths to make read-only, instead of the default.
    #[serde(default)]
    pub read_only_paths: Option<Vec<PathBuf>>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Devices of drivers.
    #[serde(default)]
    pub device_requests: Vec<DeviceRequest>,
    /// Further cgroup device rules, as `c 1:3 rwm`.
    pub device_rules: Vec<String>,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// A reaping init as PID 1.
    pub init: bool,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
    /// Adjustment of the OOM killer's choice.
    pub oom_score_adj: i32,
    /// The parent cgroup, instead of the engine's.
    pub cgroup_parent: Option<String>,
}

/// A system call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// The engine's own.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in Docker's JSON.
    Profile(String),
}

/// A device of the host in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host: a node, or a directory of nodes.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: String,
    /// Of `r`, `w`, `m`.
    pub access: String,
}

/// Limits; None is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: Option<i64>,
    /// Memory and swap together in bytes; −1 unlimited.
    pub memory_swap_bytes: Option<i64>,
    /// Memory in bytes to shrink to under pressure.
    pub memory_reservation_bytes: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// The OOM killer leaves it alone.
    pub oom_kill_disable: bool,
    /// Billionths of a CPU.
    pub nano_cpus: Option<i64>,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds.
    pub cpu_period_us: Option<u64>,
    /// Microseconds in each period.
    pub cpu_quota_us: Option<i64>,
    /// CPUs as `0-2,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes likewise.
    pub cpuset_mems: Option<String>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// Microseconds of a real-time period.
    #[serde(default)]
    pub cpu_rt_period_us: Option<u64>,
    /// Microseconds of real-time CPU time in each period.
    #[serde(default)]
    pub cpu_rt_runtime_us: Option<i64>,
    /// Relative weight, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Relative weights of devices.
    #[serde(default)]
    pub blkio_weight_devices: Vec<WeightDevice>,
    /// Bytes per second read from a device.
    pub blkio_read_bps: Vec<Throttle>,
    /// Bytes per second written to a device.
    pub blkio_write_bps: Vec<Throttle>,
    /// Operations per second read from a device.
    pub blkio_read_iops: Vec<Throttle>,
    /// Operations per second written to a device.
    pub blkio_write_iops: Vec<Throttle>,
    /// What each of its interfaces receives and sends.
    #[serde(default)]
    pub network_rate: Option<NetworkRate>,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
}

/// Bytes per second of a container's interface; None: any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRate {
    /// To the container.
    pub receive_bytes: Option<u64>,
    /// From it.
    pub send_bytes: Option<u64>,
}

/// A rate for a block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// The device's path on the host.
    pub path: PathBuf,
    /// Bytes or operations per second.
    pub rate: u64,
}

/// A weight for a block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightDevice {
    /// The device's path on the host.
    pub path: PathBuf,
    /// 10 to 1000.
    pub weight: u16,
}

/// A resource limit, as setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Lower case, without `RLIMIT_`.
    pub name: String,
    /// What counts; −1 unlimited.
    pub soft: i64,
    /// As far as the process may raise it.
    pub hard: i64,
}

/// Something mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: String,
    /// What.
    pub source: MountSource,
    /// Not writable.
    pub read_only: bool,
    /// How it was asked for.
    #[serde(default)]
    pub form: MountForm,
}

/// How a mount was asked for, which inspection shows again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountForm {
    /// In one word (`-v`, `--tmpfs`).
    #[default]
    Short,
    /// In fields (`--mount`).
    Long,
    /// Not at all: another container, or the image, has it.
    Inherited,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// Absolute.
        path: PathBuf,
        /// `private`, `rprivate`, `shared`, `rshared`, `slave`, `rslave`; None: `rprivate`.
        propagation: Option<String>,
        /// Without the mounts below it.
        non_recursive: bool,
        /// Read-only counts for the mounts below it, too.
        recursive_read_only: bool,
        /// Made as a directory when it is not there (`-v`), else an error (`--mount`).
        create: bool,
        /// How the request said it, for inspection.
        mode: String,
    },
    /// A volume.
    Volume {
        /// Its name.
        name: String,
        /// Whether the name was made up for this container.
        anonymous: bool,
        /// Do not fill an empty volume with what the image has there.
        no_copy: bool,
        /// Only this path of it; empty: all.
        #[serde(default)]
        subpath: String,
        /// Labels that it gets if it is made for this container.
        #[serde(default)]
        labels: BTreeMap<String, String>,
        /// Options of its driver, likewise.
        #[serde(default)]
        options: BTreeMap<String, String>,
        /// How the request said it, for inspection.
        mode: String,
    },
    /// The files of an image, read-only.
    Image {
        /// How the request named it.
        reference: String,
        /// Its id; empty in a request.
        id: String,
        /// Only this path of it; empty: all.
        subpath: String,
    },
    /// A file of the host in memory of its own, read-only.
    Secret(Secret),
    /// Memory.
    Tmpfs {
        /// Options as mount(8), `size=64m`.
        options: Vec<String>,
    },
}

/// Which network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// The default bridge.
    #[default]
    Bridge,
    /// A loopback interface and nothing else.
    None,
    /// The host's.
    Host,
    /// That of another container, by id.
    Container(String),
    /// One that somebody made, as the request calls it.
    Network(String),
}

/// A container's network.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Which.
    pub mode: NetworkMode,
    /// Ports of the container that the image or the request names, as `80/tcp`.
    pub exposed: Vec<Port>,
    /// Published ports.
    pub published: Vec<PublishedPort>,
    /// Publish every exposed port on a port of the host's choice.
    pub publish_all: bool,
    /// `name:address` lines for `/etc/hosts`.
    pub extra_hosts: Vec<String>,
    /// Name servers instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// The interface's hardware address instead of a derived one.
    pub mac_address: Option<String>,
    /// Other containers of the default bridge under names of its own, as `container:name`; the ids of containers once it exists.
    #[serde(default)]
    pub links: Vec<String>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The protocol of this name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::Tcp, Self::Udp, Self::Sctp];
        all.into_iter()
            .find(|protocol| protocol.as_str().eq_ignore_ascii_case(name))
    }
}

/// A port of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A request to publish a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The container's port.
    pub port: Port,
    /// The host's address; None: all.
    pub host_ip: Option<IpAddr>,
    /// The host's ports to choose from, first and last; 0 to 0: any.
    pub host_ports: (u16, u16),
}

/// What happens when a container ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// When to start it again.
    pub restart: Restart,
    /// Remove it when it has ended.
    pub auto_remove: bool,
    /// What `stop` sends; None: SIGTERM.
    pub stop_signal: Option<String>,
    /// Seconds until `stop` kills; None: 10. Negative: never.
    pub stop_timeout_s: Option<i64>,
}

/// When to start a container again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it failed, so many times; 0: any number.
    OnFailure(u32),
    /// Whenever it has ended, and when the engine starts.
    Always,
    /// As always, unless it was stopped by hand.
    UnlessStopped,
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// The driver.
    pub driver: LogDriver,
    /// The options as requested, for inspection.
    pub options: BTreeMap<String, String>,
    /// When a file is rotated; None: never.
    pub max_bytes: Option<u64>,
    /// How many files are kept.
    pub files_max: u32,
}

/// A log driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// Files of JSON lines.
    JsonFile,
    /// The same, compressed, in a place of the engine's own.
    Local,
    /// systemd's journal.
    Journald,
    /// A syslog server.
    Syslog,
    /// Nowhere.
    None,
}

/// How far a container is.
///
/// ```text
/// Created ──start──▶ Running ◀─unpause/pause─▶ Paused        Running ──ends──▶ Exited ──start──▶ Running
///    └──────remove──▶ Removing ◀──remove── Exited            Running ──ends, restart policy──▶ Restarting ──▶ Running
///                        └──failed──▶ Dead ──remove──▶ Removing
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Never started, or the first start failed.
    Created,
    /// Its init runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It has ended and waits to be started again.
    Restarting,
    /// It has ended.
    Exited,
    /// It is being removed.
    Removing,
    /// Its removal has failed.
    Dead,
}

impl Phase {
    /// The word Docker's clients know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// Whether its init exists.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// Whether `to` may follow: the table of the drawing above.
    pub fn may_become(self, to: Self) -> bool {
        use Phase::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
        matches!(
            (self, to),
            (Created | Exited | Restarting, Running)
                | (Running, Paused)
                | (Paused, Running)
                | (Running | Paused, Exited | Restarting)
                | (Restarting, Exited)
                | (Created | Exited | Restarting | Dead, Removing)
                | (Removing, Dead)
        )
    }
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// How far it is.
    pub phase: Phase,
    /// The init's process id on the host, while it runs.
    pub pid: Option<i32>,
    /// The last exit code.
    pub exit_code: i32,
    /// Why the last start failed, or what went wrong at the end.
    pub error: String,
    /// Whether the kernel killed a process for want of memory in the last run.
    pub oom_killed: bool,
    /// When it last began to run.
    pub started_at: Option<Timestamp>,
    /// When it last ended.
    pub finished_at: Option<Timestamp>,
    /// How many times the policy has restarted it.
    pub restart_count: u32,
    /// Whether it was stopped by hand.
    pub stopped_by_hand: bool,
    /// Whether everybody was told of the end of its last run.
    pub told: bool,
    /// How many times it has ended: lets a waiter recognise the next end.
    pub exits: u64,
    /// The networks it is connected with, or will be when it runs: the one of its network mode first.
    pub attachments: Vec<Attachment>,
    /// The first host id of its user namespace, while it has one.
    pub user_namespace_base: Option<u32>,
    /// Its limits, where they were changed since it was created.
    pub limits: Option<Limits>,
    /// Its published ports, where they were changed since it was created.
    pub published: Option<Vec<PublishedPort>>,
    /// Its restart policy, where it was changed since it was created.
    pub restart: Option<Restart>,
    /// Its links on the default bridge, where some were removed since it was created.
    pub links: Option<Vec<String>>,
    /// What its health checks have said, if it has any and was started.
    pub health: Option<Health>,
    /// Whether it is gone, with its record.
    pub removed: bool,
}

impl State {
    /// The links of a container in this state, as `id:name`.
    pub(crate) fn links<'a>(&'a self, spec: &'a Spec) -> &'a [String] {
        self.links.as_ref().unwrap_or(&spec.network.links)
    }

    /// The state of a container that was just created.
    pub fn created() -> Self {
        Self {
            phase: Phase::Created,
            pid: None,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            stopped_by_hand: false,
            told: true,
            exits: 0,
            attachments: Vec::new(),
            user_namespace_base: None,
            limits: None,
            published: None,
            restart: None,
            links: None,
            health: None,
            removed: false,
        }
    }

    /// Its places in networks, as far as they exist.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Attachment, &Endpoint)> {
        let attachments = self.attachments.iter();
        attachments.filter_map(|attachment| Some((attachment, attachment.endpoint.as_ref()?)))
    }

    /// The network by which everything else of a family is reached: of those that lead anywhere the one with the highest
    /// priority, and of these the first by name.
    pub fn way_out(&self, is_ipv6: bool) -> Option<(&Attachment, &Endpoint)> {
        let leading = self.endpoints().filter(|(_, endpoint)| {
            endpoint
                .place(is_ipv6)
                .is_some_and(|place| place.gateway.is_some())
        });
        leading.min_by(|(a, _), (b, _)| {
            let priority = b.wish.gateway_priority.cmp(&a.wish.gateway_priority);
            priority.then_with(|| a.name.cmp(&b.name))
        })
    }
}

/// A container's connection with a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's id.
    pub network: String,
    /// The network's name.
    pub name: String,
    /// What was asked for.
    #[serde(default)]
    pub wish: EndpointWish,
    /// Its place there, while it runs or is being started.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
}

/// What a container asks of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointWish {
    /// This IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// This IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Further addresses, for the link alone.
    pub link_local: Vec<IpAddr>,
    /// This hardware address, as text.
    pub mac_address: Option<String>,
    /// Further names.
    pub aliases: Vec<String>,
    /// Names of its own for other containers, as `container:name`.
    pub links: Vec<String>,
    /// Options of the driver.
    pub driver_options: BTreeMap<String, String>,
    /// The network with the highest is the way out.
    pub gateway_priority: i64,
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The host's end of the veth pair.
    pub host_interface: String,
    /// The container's end.
    pub interface: String,
    /// Its addresses, one of each family at most.
    pub places: Vec<Place>,
    /// The hardware address.
    pub mac: [u8; 6],
    /// What is published.
    pub ports: Vec<PortMapping>,
    /// The port of ::1 at which the shim hands on what comes from there for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<u16>,
    /// On a network of plugins what these have been asked, and have answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugins: Option<Box<PluginRecord>>,
}

impl Endpoint {
    /// Its address of a family.
    pub fn place(&self, is_ipv6: bool) -> Option<&Place> {
        self.places
            .iter()
            .find(|place| place.address.is_ipv6() == is_ipv6)
    }
}

/// An address of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The address.
    pub address: IpAddr,
    /// The network's prefix length.
    pub prefix: u8,
    /// The way out, where the network has one.
    pub gateway: Option<IpAddr>,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// The container's port.
    pub port: Port,
    /// The host's address; unspecified: all.
    pub host_ip: IpAddr,
    /// The host's port; 0 in a network that is routed, where the container's own is reached.
    pub host_port: u16,
}

/// A request for a container; what the image says is not merged in yet.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// Its name; None: one is made up.
    pub name: Option<String>,
    /// The image: a reference, an id, or a directory of the host (absolute, or beginning with `.`).
    pub image: String,
    /// Which of the images that the reference means; a directory is for whatever platform.
    pub platform: Option<Platform>,
    /// Instead of the image's entrypoint. An empty list, or a single empty word, means none.
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's command.
    pub command: Option<Vec<String>>,
    /// The rest of what runs; its empty fields are the image's.
    pub process: ProcessSpec,
    /// Isolation.
    pub isolation: Isolation,
    /// Limits.
    pub limits: Limits,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Paths that get an anonymous volume, in addition to the image's.
    pub volumes: Vec<String>,
    /// Network.
    pub network: NetworkSpec,
    /// What it asks of networks, by their name or id.
    pub wishes: Vec<(String, EndpointWish)>,
    /// What happens when it ends.
    pub lifecycle: Lifecycle,
    /// Where output goes.
    pub log: LogSpec,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// How to find out whether it is well; what it leaves out is the image's.
    pub health: Option<Check>,
    /// Containers whose mounts it takes over, as `name[:mode]`.
    pub volumes_from: Vec<String>,
    /// Options of the writable layer.
    pub storage: BTreeMap<String, String>,
    /// What inspection repeats.
    pub echo: Echo,
}

/// A container as it is at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its name, without a slash.
    pub name: String,
    /// What it is.
    pub spec: std::sync::Arc<Spec>,
    /// How it is.
    pub state: std::sync::Arc<State>,
}

impl Snapshot {
    /// Its published ports as they are asked for now.
    pub fn published(&self) -> &[PublishedPort] {
        let changed = self.state.published.as_ref();
        changed.unwrap_or(&self.spec.network.published)
    }

    /// Its links as they are now, as `id:name`.
    pub fn links(&self) -> &[String] {
        self.state.links(&self.spec)
    }

    /// Its limits as they are now.
    pub fn limits(&self) -> &Limits {
        self.state.limits.as_ref().unwrap_or(&self.spec.limits)
    }

    /// Its restart policy as it is now.
    pub fn restart(&self) -> Restart {
        self.state.restart.unwrap_or(self.spec.lifecycle.restart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_removing_but_a_failure() {
        let all = [
            Phase::Created,
            Phase::Running,
            Phase::Paused,
            Phase::Restarting,
            Phase::Exited,
            Phase::Removing,
            Phase::Dead,
        ];
        for to in all {
            assert_eq!(Phase::Removing.may_become(to), to == Phase::Dead, "{to:?}");
            assert!(!Phase::Dead.may_become(to) || to == Phase::Removing);
            assert!(!to.may_become(Phase::Created), "{to:?}");
        }
        assert!(!Phase::Running.may_become(Phase::Removing));
    }
}
