//! What there is and what can be done.

use super::{Invocation, print};
use crate::cgroup::{self, unified};
use crate::error::{Doing, Error, Result};
use crate::state::{Known, write};
use crate::{capabilities, criu, lsm, mounts, seccomp};
use oci::runtime::{
    Capabilities, CgroupFeatures, DeviceRule, Enabled, Features, IntelRdtFeatures, Linux,
    LinuxFeatures, MemoryPolicyFeatures, Mount, MountExtensions, Namespace, NamespaceKind, Process,
    Resources, Rlimit, Root, SeccompFeatures, Spec, VERSION,
};
use oci::runtime::{IdMapping, State};
use rustix::process::{getegid, geteuid};
use serde::Serialize;
use std::path::{Path, PathBuf};
use sys::Context;

/// A state with what runc's callers find beside the specification's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    state: State,
    rootfs: PathBuf,
    created: String,
    owner: String,
}

impl Shown {
    fn of(known: &Known) -> Result<Self> {
        let record = &known.record;
        Ok(Self {
            state: known.state()?,
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            // Names are the host's, and not looked up.
            owner: if record.owner == 0 {
                "root".into()
            } else {
                record.owner.to_string()
            },
        })
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|source| Error::Json {
        doing: "printing".into(),
        source,
    })?;
    Ok(text + "\n")
}

pub(super) fn state(invocation: &Invocation) -> Result<u8> {
    let known = invocation.store.find(invocation.id()?)?;
    print(&json(&Shown::of(&known)?)?)?;
    Ok(0)
}

pub(super) fn list(invocation: &Invocation) -> Result<u8> {
    let found = invocation.store.list()?;
    if invocation.arguments.has("quiet") {
        let ids: String = found
            .iter()
            .map(|known| format!("{}\n", known.record.id))
            .collect();
        print(&ids)?;
        return Ok(0);
    }
    let shown = found.iter().map(Shown::of).collect::<Result<Vec<_>>>()?;
    match invocation.arguments.value("format") {
        Some("json") => print(&json(&shown)?)?,
        None | Some("table" | "") => {
            let rows = shown.iter().map(
                |Shown {
                     state,
                     created,
                     owner,
                     ..
                 }| {
                    let bundle = state.bundle.display().to_string();
                    let (pid, status) = (state.pid.to_string(), state.status.as_str().to_owned());
                    [
                        state.id.clone(),
                        pid,
                        status,
                        bundle,
                        created.clone(),
                        owner.clone(),
                    ]
                },
            );
            let titles = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
            print(&table(titles.map(str::to_owned), rows))?;
        }
        Some(other) => return Err(Error::invalid(format!("invalid format {other:?}"))),
    }
    Ok(0)
}

pub(super) fn ps(invocation: &Invocation) -> Result<u8> {
    let known = invocation.store.find(invocation.id()?)?;
    let mut pids: Vec<_> = known.cgroup()?.processes()?;
    pids.sort_by_key(|pid| pid.as_raw_nonzero());
    match invocation.arguments.value("format") {
        Some("json") => {
            let numbers: Vec<_> = pids.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
            print(&json(&numbers)?)?;
        }
        None | Some("table" | "") => {
            let rows = pids
                .iter()
                .filter_map(|pid| process_row(pid.as_raw_nonzero().get()));
            print(&table(
                ["UID", "PID", "PPID", "CMD"].map(str::to_owned),
                rows,
            ))?;
        }
        Some(other) => return Err(Error::invalid(format!("invalid format {other:?}"))),
    }
    Ok(0)
}

/// User, ids and command line of a process, unless it has ended.
fn process_row(pid: i32) -> Option<[String; 4]> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(
            line.split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = line
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    let command = match words.join(" ").trim_end() {
        "" => format!("[{}]", field("Name")?),
        // What a container's process calls itself is not for a terminal to interpret.
        words => words
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect(),
    };
    Some([field("Uid")?, pid.to_string(), field("PPid")?, command])
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(titles: [String; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = std::iter::once(titles).chain(rows).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    });
    let mut text = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}   "));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

pub(super) fn features(_: &Invocation) -> Result<u8> {
    let features = Features {
        oci_version_min: "1.0.0".into(),
        oci_version_max: VERSION.into(),
        hooks: words(&[
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ]),
        mount_options: mounts::options::names().map(str::to_owned).collect(),
        linux: Some(LinuxFeatures {
            namespaces: words(&[
                "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
            ]),
            capabilities: words(&capabilities::NAMES),
            cgroup: CgroupFeatures {
                v1: true,
                v2: true,
                systemd: true,
                systemd_user: true,
                rdma: true,
            },
            seccomp: seccomp_features(),
            apparmor: Enabled {
                enabled: lsm::Module::AppArmor.enabled(),
            },
            selinux: Enabled {
                enabled: lsm::Module::Selinux.enabled(),
            },
            intel_rdt: IntelRdtFeatures {
                enabled: true,
                schemata: true,
                monitoring: true,
            },
            memory_policy: MemoryPolicyFeatures {
                modes: words(&[
                    "MPOL_DEFAULT",
                    "MPOL_BIND",
                    "MPOL_INTERLEAVE",
                    "MPOL_LOCAL",
                    "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY",
                    "MPOL_WEIGHTED_INTERLEAVE",
                ]),
                flags: words(&[
                    "MPOL_F_NUMA_BALANCING",
                    "MPOL_F_RELATIVE_NODES",
                    "MPOL_F_STATIC_NODES",
                ]),
            },
            mount_extensions: MountExtensions {
                idmap: Enabled { enabled: true },
            },
            net_devices: Enabled { enabled: true },
        }),
        potentially_unsafe_config_annotations: words(&[cgroup::ANNOTATION, criu::ANNOTATION]),
        ..Features::default()
    };
    print(&json(&features)?)?;
    Ok(0)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn seccomp_features() -> SeccompFeatures {
    let flags: Vec<_> = seccomp::FLAGS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let supported = seccomp::FLAGS
        .iter()
        .filter(|(_, flag)| sys::seccomp::flags_known(*flag));
    SeccompFeatures {
        enabled: true,
        actions: words(&[
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_KILL",
            "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG",
            "SCMP_ACT_NOTIFY",
            "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP",
        ]),
        operators: words(&[
            "SCMP_CMP_EQ",
            "SCMP_CMP_GE",
            "SCMP_CMP_GT",
            "SCMP_CMP_LE",
            "SCMP_CMP_LT",
            "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE",
        ]),
        archs: words(&seccomp::ARCHITECTURES),
        known_flags: flags,
        supported_flags: supported.map(|(name, _)| (*name).to_owned()).collect(),
    }
}

pub(super) fn spec(invocation: &Invocation) -> Result<u8> {
    let directory = Path::new(invocation.arguments.value("bundle").unwrap_or("."));
    let path = directory.join("config.json");
    if std::fs::exists(&path)
        .call(|| format!("stat({path:?})"))
        .doing("writing config.json")?
    {
        return Err(Error::State(
            format!("{} exists already", path.display()).into(),
        ));
    }
    let spec = default_spec(invocation.arguments.has("rootless"))?;
    write(&path, json(&spec)?.as_bytes())?;
    Ok(0)
}

fn default_spec(rootless: bool) -> Result<Spec> {
    Ok(Spec {
        oci_version: VERSION.into(),
        process: Some(default_process()),
        root: Some(Root {
            path: "rootfs".into(),
            readonly: true,
        }),
        hostname: Some("hull".into()),
        mounts: default_mounts(),
        linux: Some(default_linux(rootless)?),
        ..Spec::default()
    })
}

fn default_process() -> Process {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"].map(str::to_owned);
    Process {
        terminal: true,
        args: vec!["sh".into()],
        env: vec![
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            "TERM=xterm".into(),
        ],
        cwd: "/".into(),
        capabilities: Some(Capabilities {
            bounding: capabilities.to_vec(),
            effective: capabilities.to_vec(),
            permitted: capabilities.to_vec(),
            ..Capabilities::default()
        }),
        rlimits: vec![Rlimit {
            kind: "RLIMIT_NOFILE".into(),
            hard: 1024,
            soft: 1024,
        }],
        no_new_privileges: true,
        ..Process::default()
    }
}

fn default_linux(rootless: bool) -> Result<Linux> {
    let mut kinds = vec![
        NamespaceKind::Pid,
        NamespaceKind::Network,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Mount,
    ];
    if unified()? {
        kinds.push(NamespaceKind::Cgroup);
    }
    if rootless {
        kinds.push(NamespaceKind::User);
    }
    let own = |host_id| {
        vec![IdMapping {
            container_id: 0,
            host_id,
            size: 1,
        }]
    };
    let deny = DeviceRule {
        access: Some("rwm".into()),
        ..DeviceRule::default()
    };
    let resources = Resources {
        devices: vec![deny],
        ..Resources::default()
    };
    Ok(Linux {
        uid_mappings: if rootless {
            own(geteuid().as_raw())
        } else {
            Vec::new()
        },
        gid_mappings: if rootless {
            own(getegid().as_raw())
        } else {
            Vec::new()
        },
        resources: if rootless { None } else { Some(resources) },
        namespaces: kinds
            .into_iter()
            .map(|kind| Namespace { kind, path: None })
            .collect(),
        masked_paths: paths(&[
            "/proc/acpi",
            "/proc/asound",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/sys/firmware",
            "/proc/scsi",
        ]),
        readonly_paths: paths(&[
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        ]),
        ..Linux::default()
    })
}

fn paths(words: &[&str]) -> Vec<PathBuf> {
    words.iter().map(PathBuf::from).collect()
}

fn default_mounts() -> Vec<Mount> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| Mount {
        destination: destination.into(),
        kind: Some(kind.into()),
        source: Some(source.into()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    };
    let strict = ["nosuid", "noexec", "nodev"];
    vec![
        mount("/proc", "proc", "proc", &strict),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
            ],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &[&strict[..], &["mode=1777", "size=65536k"]].concat(),
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &strict),
        mount("/sys", "sysfs", "sysfs", &[&strict[..], &["ro"]].concat()),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &[&strict[..], &["relatime", "ro"]].concat(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let titles = ["A".to_owned(), "BB".to_owned()];
        let rows = [["long".to_owned(), "x".to_owned()]];
        assert_eq!(table(titles, rows.into_iter()), "A      BB\nlong   x\n");
    }
}
