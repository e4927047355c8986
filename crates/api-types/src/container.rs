//! Containers: create, inspect, list, wait, top, changes, archive.

use crate::config::with_config_fields;
use crate::{
    Address, Descriptor, Empty, EndpointSettings, HealthConfig, HostConfig, NetworkingConfig,
    PortMap, StrSlice, is_default,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

with_config_fields! {
    /// The body of `POST /containers/create`: a [`crate::Config`] with two more fields on the same level.
    pub struct CreateRequest {
        /// What it asks of the host.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub host_config: Option<Box<HostConfig>>,
        /// Its networks.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub networking_config: Option<NetworkingConfig>,
    }
}

/// The answer of `POST /containers/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateResponse {
    /// The new container's full id.
    pub id: String,
    /// What was made differently than asked.
    pub warnings: Vec<String>,
}

/// The answer of `GET /containers/{id}/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InspectResponse {
    /// The full id.
    pub id: String,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    /// The executable.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it does now.
    pub state: State,
    /// The image's id.
    pub image: String,
    /// The host's path of the container's /etc/resolv.conf.
    pub resolv_conf_path: String,
    /// The host's path of the container's /etc/hostname.
    pub hostname_path: String,
    /// The host's path of the container's /etc/hosts.
    pub hosts_path: String,
    /// The host's path of the log.
    pub log_path: String,
    /// The name, with a leading slash.
    pub name: String,
    /// How often the restart policy started it again.
    pub restart_count: i64,
    /// The storage driver.
    pub driver: String,
    /// `linux`.
    pub platform: String,
    /// SELinux's label of the mounts.
    pub mount_label: String,
    /// SELinux's label of the process.
    pub process_label: String,
    /// The AppArmor profile.
    #[serde(rename = "AppArmorProfile")]
    pub apparmor_profile: String,
    /// Running execs.
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    /// What it asked of the host.
    pub host_config: Box<HostConfig>,
    /// Where its layers are.
    pub graph_driver: DriverData,
    /// Bytes of the writable layer, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    /// Bytes of all layers, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    /// Its mounts.
    pub mounts: Vec<MountPoint>,
    /// Its configuration.
    pub config: crate::Config,
    /// Its networks.
    pub network_settings: NetworkSettings,
    /// The image's manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_manifest_descriptor: Option<Descriptor>,
}

/// What a container does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`.
    pub status: String,
    /// Also while paused or restarting.
    pub running: bool,
    /// Frozen.
    pub paused: bool,
    /// Waits for its next start.
    pub restarting: bool,
    /// The kernel killed a process of it for want of memory.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Could not be removed.
    pub dead: bool,
    /// In the engine's PID namespace; 0 while not running.
    pub pid: i64,
    /// Of the last run.
    pub exit_code: i64,
    /// Why it did not start.
    pub error: String,
    /// RFC 3339 with nanoseconds; `0001-01-01T00:00:00Z` never.
    pub started_at: String,
    /// RFC 3339 with nanoseconds; `0001-01-01T00:00:00Z` never.
    pub finished_at: String,
    /// Where there is a health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// How the container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// `starting`, `healthy`, `unhealthy`, `none`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last checks, oldest first.
    pub log: Option<Vec<HealthcheckResult>>,
}

/// One health check that was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthcheckResult {
    /// RFC 3339 with nanoseconds.
    pub start: String,
    /// RFC 3339 with nanoseconds.
    pub end: String,
    /// 0 well, 1 unwell, else the check itself failed.
    pub exit_code: i64,
    /// What it printed.
    pub output: String,
}

/// Where layers are on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverData {
    /// The driver's own words.
    pub data: Option<BTreeMap<String, String>>,
    /// The driver.
    pub name: String,
}

/// A mount that is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs`, `image`.
    #[serde(rename = "Type", skip_serializing_if = "is_default")]
    pub kind: String,
    /// The volume's name.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// The path on the host.
    pub source: String,
    /// The path in the container.
    pub destination: String,
    /// The volume's driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    /// Options, as given.
    pub mode: String,
    /// Writable.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// `rprivate`, ….
    pub propagation: String,
}

/// A container's networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// Empty.
    pub bridge: String,
    /// The network namespace's id.
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    /// The network namespace's path.
    pub sandbox_key: String,
    /// Published ports with their real host ports; exposed ones with null.
    pub ports: Option<PortMap>,
    /// False.
    pub hairpin_mode: bool,
    /// Empty.
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: String,
    /// 0.
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: u8,
    /// Null.
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Vec<Address>>,
    /// Null.
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Vec<Address>>,
    /// The default bridge's endpoint, here and in the fields below.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// The IPv4 gateway.
    pub gateway: String,
    /// The IPv6 address.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// The IPv6 prefix length.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    /// The IPv4 address.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// The IPv4 prefix length.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    /// The IPv6 gateway.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// The hardware address.
    pub mac_address: String,
    /// Network name to endpoint.
    pub networks: Option<BTreeMap<String, EndpointSettings>>,
}

/// An element of `GET /containers/json`. `E` is what is to be known of its endpoints, which are the greater part of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[serde(bound(deserialize = "E: Deserialize<'de> + Default"))]
pub struct ContainerSummary<E = EndpointSettings> {
    /// The full id.
    pub id: String,
    /// Names, each with a leading slash.
    pub names: Vec<String>,
    /// The image as named at creation; its id when the name now means another.
    pub image: String,
    /// The image's id.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// The image's manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_manifest_descriptor: Option<Descriptor>,
    /// The command line.
    pub command: String,
    /// Seconds since the epoch.
    pub created: i64,
    /// Ports, exposed and published.
    pub ports: Vec<PortSummary>,
    /// Bytes of the writable layer, when asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub size_rw: i64,
    /// Bytes of all layers, when asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub size_root_fs: i64,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// As [`State::status`].
    pub state: String,
    /// In words: `Up 2 hours`.
    pub status: String,
    /// A part of the host configuration.
    pub host_config: ContainerSummaryHostConfig,
    /// Its networks.
    pub network_settings: Option<SummaryNetworkSettings<E>>,
    /// Its mounts.
    pub mounts: Vec<MountPoint>,
}

/// The host configuration of a [`ContainerSummary`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSummaryHostConfig {
    /// As [`HostConfig::network_mode`].
    #[serde(skip_serializing_if = "is_default")]
    pub network_mode: String,
    /// As [`HostConfig::annotations`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The networks of a [`ContainerSummary`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[serde(bound(deserialize = "E: Deserialize<'de> + Default"))]
pub struct SummaryNetworkSettings<E = EndpointSettings> {
    /// Network name to endpoint.
    pub networks: Option<BTreeMap<String, E>>,
}

/// A port of a [`ContainerSummary`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortSummary {
    /// The host's address, where published.
    #[serde(rename = "IP", skip_serializing_if = "is_default")]
    pub ip: String,
    /// The port in the container.
    pub private_port: u16,
    /// The port on the host, where published.
    #[serde(skip_serializing_if = "is_default")]
    pub public_port: u16,
    /// `tcp`, `udp`, `sctp`.
    #[serde(rename = "Type")]
    pub protocol: String,
}

/// The answer of `POST /containers/{id}/wait`, sent when the wait is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WaitResponse {
    /// Why waiting failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WaitExitError>,
    /// The exit code.
    pub status_code: i64,
}

/// Why waiting failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WaitExitError {
    /// In words.
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
}

/// The answer of `GET /containers/{id}/top`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TopResponse {
    /// One row per process, one text per title.
    pub processes: Option<Vec<Vec<String>>>,
    /// The columns.
    pub titles: Option<Vec<String>>,
}

/// The body of `POST /containers/{id}/ports`, which Docker has not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortsRequest {
    /// To be published.
    pub add: PortMap,
    /// To be taken back; without a port of the host whichever it is.
    pub remove: PortMap,
}

/// The answer of `POST /containers/{id}/update`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateResponse {
    /// What was made differently than asked.
    pub warnings: Option<Vec<String>>,
}

/// An element of `GET /containers/{id}/changes` (which is null when there is none).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FilesystemChange {
    /// Absolute, in the container.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a path: 0, 1, 2 on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Changed, or something below it changed.
    Modified,
    /// Not in the image.
    Added,
    /// Only in the image.
    Deleted,
}

impl ChangeKind {
    /// The letter of `docker diff`.
    pub fn letter(self) -> char {
        match self {
            Self::Modified => 'C',
            Self::Added => 'A',
            Self::Deleted => 'D',
        }
    }
}

impl Serialize for ChangeKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::Modified => 0,
            Self::Added => 1,
            Self::Deleted => 2,
        })
    }
}

impl<'de> Deserialize<'de> for ChangeKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::Modified),
            1 => Ok(Self::Added),
            2 => Ok(Self::Deleted),
            other => Err(serde::de::Error::custom(format_args!(
                "unknown kind of change {other}"
            ))),
        }
    }
}

/// The answer of `POST /containers/prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerPruneResponse {
    /// Ids of removed containers.
    pub containers_deleted: Option<Vec<String>>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// A file in a container, in the header [`crate::HEADER_PATH_STAT`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathStat {
    /// The last component.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Go's `os.FileMode`: see [`go_mode`].
    pub mode: u32,
    /// RFC 3339 with nanoseconds.
    pub mtime: String,
    /// Where a symlink points to, resolved inside the container; else empty.
    pub link_target: String,
}

impl PathStat {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & go_mode::DIR != 0
    }

    /// Whether it is a symlink.
    pub fn is_symlink(&self) -> bool {
        self.mode & go_mode::SYMLINK != 0
    }
}

/// Go's `os.FileMode`: permissions as in Unix, everything else in bits of its own.
pub mod go_mode {
    /// A directory.
    pub const DIR: u32 = 1 << 31;
    /// A symlink.
    pub const SYMLINK: u32 = 1 << 27;
    /// A device; a character device also has [`CHAR_DEVICE`].
    pub const DEVICE: u32 = 1 << 26;
    /// A fifo.
    pub const NAMED_PIPE: u32 = 1 << 25;
    /// A socket.
    pub const SOCKET: u32 = 1 << 24;
    /// set-user-ID.
    pub const SETUID: u32 = 1 << 23;
    /// set-group-ID.
    pub const SETGID: u32 = 1 << 22;
    /// A character device, with [`DEVICE`].
    pub const CHAR_DEVICE: u32 = 1 << 21;
    /// Sticky.
    pub const STICKY: u32 = 1 << 20;

    /// From `st_mode` of stat(2).
    pub fn from_unix(st_mode: u32) -> u32 {
        let kind = match st_mode & 0o170_000 {
            0o040_000 => DIR,
            0o120_000 => SYMLINK,
            0o060_000 => DEVICE,
            0o020_000 => DEVICE | CHAR_DEVICE,
            0o010_000 => NAMED_PIPE,
            0o140_000 => SOCKET,
            _ => 0,
        };
        let special = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];
        let special = special
            .iter()
            .filter(|(unix, _)| st_mode & unix != 0)
            .map(|(_, go)| go)
            .sum::<u32>();
        kind | special | (st_mode & 0o777)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        for (unix, go) in [
            (0o100_644, 0o644),
            (0o040_755, 0x8000_01ed),
            (0o120_777, 0x0800_01ff),
            (0o041_777, 0x8010_01ff),
            (0o104_755, 0x0080_01ed),
            (0o020_666, 0x0420_01b6),
            (0o060_660, 0x0400_01b0),
        ] {
            assert_eq!(go_mode::from_unix(unix), go, "{unix:o}");
        }
    }

    #[test]
    fn an_empty_create_request_is_as_docker_sends_it() {
        let expected = serde_json::json!({
            "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
            "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null,
            "Cmd": null, "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null,
            "OnBuild": null, "Labels": null,
        });
        assert_eq!(
            serde_json::to_value(CreateRequest::default()).unwrap(),
            expected
        );
    }

    #[test]
    fn an_unknown_kind_of_change_is_an_error() {
        let change = |json: &str| crate::from_slice::<FilesystemChange>(json.as_bytes());
        assert_eq!(
            change(r#"{"Path":"/a","Kind":2}"#).unwrap().kind.letter(),
            'D'
        );
        assert!(change(r#"{"Path":"/a","Kind":3}"#).is_err());
    }
}
