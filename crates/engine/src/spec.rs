//! The OCI configuration of a container: what `config.json` says.
//!
//! Source: runtime-spec config.md and config-linux.md; the defaults are Docker's (capabilities, masked paths, devices),
//! so that an image behaves as it does there. Everything here is a pure function of the container's [`Spec`] and of what
//! the start has prepared ([`Prepared`]); the host is asked only about device nodes.

mod devices;
pub(crate) mod limits;
mod security;

use crate::cdi::Injection;
use crate::error::{Error, Result};
use crate::model::{Ipc, Isolation, Limits, Namespace, NetworkMode, Spec};
use oci::runtime as rt;
use std::path::{Path, PathBuf};

/// What a start has found out or made before the configuration is written.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// Mounts of volumes, binds and tmpfs, in the order to be made.
    pub(crate) mounts: Vec<rt::Mount>,
    /// The init's process id of containers whose namespaces are joined, by container id.
    pub(crate) peers: Vec<(String, i32)>,
    /// Where the files for `/etc/hosts` and so on are; None: the image's are used.
    pub(crate) etc_dir: Option<PathBuf>,
    /// The `/dev/shm` that several containers have, mounted on the host.
    pub(crate) shared_memory: Option<PathBuf>,
    /// Paths of the engine itself that show through a directory used as the root filesystem.
    pub(crate) hidden: Vec<PathBuf>,
    /// The limits as they are now.
    pub(crate) limits: Limits,
    /// The AppArmor profile.
    pub(crate) apparmor: Option<String>,
    /// What devices of drivers take.
    pub(crate) devices: Injection,
    /// What linked containers add to the environment; what was asked for comes before it.
    pub(crate) environment: Vec<String>,
    /// The first host id of the container's own user namespace.
    pub(crate) user_namespace_base: Option<u32>,
}

/// How many ids a container's user namespace has.
pub(crate) const USER_NAMESPACE_IDS: u32 = 65536;

/// The parent of every container's cgroup unless one was asked for.
const CGROUP_PARENT: &str = "/hull";

/// Builds the configuration.
pub(crate) fn build(spec: &Spec, prepared: &Prepared) -> Result<rt::Spec> {
    let isolation = &spec.isolation;
    let mappings: Vec<rt::IdMapping> = prepared
        .user_namespace_base
        .map(|host_id| rt::IdMapping {
            container_id: 0,
            host_id,
            size: USER_NAMESPACE_IDS,
        })
        .into_iter()
        .collect();
    let hostname = match isolation.uts {
        Namespace::Private => Some(hostname(spec)),
        _ => None,
    };
    let (masked, read_only) = security::paths(isolation);
    let (mut devices, mut device_rules) = devices::resolve(isolation)?;
    devices.extend(prepared.devices.nodes.iter().cloned());
    if !isolation.privileged {
        device_rules.extend(prepared.devices.rules.iter().cloned());
    }
    let mut process = process(spec)?;
    process.apparmor_profile.clone_from(&prepared.apparmor);
    process.env = merge_environment(&process.env, &prepared.devices.env);
    process.env = merge_environment(&prepared.environment, &process.env);
    let parent = isolation.cgroup_parent.as_deref().unwrap_or(CGROUP_PARENT);
    Ok(rt::Spec {
        oci_version: rt::VERSION.to_owned(),
        process: Some(process),
        root: Some(rt::Root {
            path: PathBuf::from("rootfs"),
            readonly: isolation.read_only,
        }),
        domainname: hostname.as_ref().and(non_empty(&isolation.domainname)),
        hostname,
        mounts: mounts(spec, prepared),
        hooks: prepared.devices.hooks.clone(),
        annotations: spec.annotations.clone(),
        linux: Some(rt::Linux {
            gid_mappings: mappings.clone(),
            uid_mappings: mappings,
            sysctl: isolation.sysctls.clone(),
            resources: Some(limits::resources(&prepared.limits, device_rules)?),
            cgroups_path: Some(format!("{}/{}", parent.trim_end_matches('/'), spec.id)),
            namespaces: namespaces(spec, prepared)?,
            devices,
            seccomp: security::seccomp(isolation)?,
            rootfs_propagation: propagation(prepared),
            masked_paths: masked
                .into_iter()
                .chain(prepared.hidden.iter().cloned())
                .collect(),
            readonly_paths: read_only,
            ..rt::Linux::default()
        }),
    })
}

/// Checks what can be checked of a specification before anything is made of it.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    process(spec)?;
    limits::check(&spec.limits)?;
    security::seccomp(&spec.isolation)?;
    devices::check_rules(&spec.isolation)?;
    if let Some(signal) = &spec.lifecycle.stop_signal {
        crate::stop::parse_signal(signal)?;
    }
    if let Some(mac) = &spec.network.mac_address {
        crate::networks::parse_mac(mac)?;
    }
    Ok(())
}

/// The process of an exec: the container's own, with another command.
pub(crate) fn exec_process(
    spec: &Spec,
    exec: &crate::exec::ExecConfig,
    apparmor: Option<&str>,
) -> Result<rt::Process> {
    let mut process = process(spec)?;
    process.apparmor_profile = apparmor.filter(|_| !exec.privileged).map(str::to_owned);
    process.args.clone_from(&exec.command);
    process.terminal = exec.terminal;
    process.console_size = console_size(exec.console_size);
    process.env = merge_environment(&process.env, &exec.environment);
    if !exec.working_dir.is_empty() {
        process.cwd = PathBuf::from(&exec.working_dir);
    }
    if exec.privileged {
        process.capabilities = Some(security::all_capabilities());
    }
    if spec.process.terminal != exec.terminal {
        process.env.retain(|variable| variable != "TERM=xterm");
        if exec.terminal {
            process.env.push("TERM=xterm".to_owned());
        }
    }
    Ok(process)
}

fn process(spec: &Spec) -> Result<rt::Process> {
    let config = &spec.process;
    let args: Vec<String> = config
        .entrypoint
        .iter()
        .chain(&config.command)
        .cloned()
        .collect();
    if args.is_empty() {
        return Err(Error::invalid("no command specified"));
    }
    let defaults = [
        Some("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        (spec.isolation.uts == Namespace::Private).then(|| format!("HOSTNAME={}", hostname(spec))),
        config.terminal.then(|| "TERM=xterm".to_owned()),
    ];
    let defaults: Vec<String> = defaults.into_iter().flatten().collect();
    Ok(rt::Process {
        terminal: config.terminal,
        console_size: console_size(config.console_size),
        args,
        env: merge_environment(
            &merge_environment(&defaults, &config.environment),
            &config.unrecorded_environment,
        ),
        cwd: PathBuf::from(non_empty(&config.working_dir).unwrap_or_else(|| "/".to_owned())),
        capabilities: Some(security::capabilities(&spec.isolation)?),
        rlimits: limits::rlimits(&spec.limits)?,
        no_new_privileges: spec.isolation.no_new_privileges,
        oom_score_adj: Some(spec.isolation.oom_score_adj),
        ..rt::Process::default()
    })
}

fn console_size(size: Option<(u16, u16)>) -> Option<rt::ConsoleSize> {
    size.map(|(height, width)| rt::ConsoleSize { height, width })
}

/// Later values replace earlier ones of the same name, in place; a name without a value removes it.
pub(crate) fn merge_environment(base: &[String], over: &[String]) -> Vec<String> {
    let mut merged = base.to_vec();
    for variable in over {
        let name = variable.split('=').next().unwrap_or_default();
        let same = |other: &String| other.split('=').next() == Some(name);
        match merged.iter().position(same) {
            Some(at) if variable.contains('=') => merged[at].clone_from(variable),
            Some(at) => {
                merged.remove(at);
            }
            None if variable.contains('=') => merged.push(variable.clone()),
            None => {}
        }
    }
    merged
}

/// The container's host name.
pub(crate) fn hostname(spec: &Spec) -> String {
    non_empty(&spec.isolation.hostname).unwrap_or_else(|| spec.id[..12].to_owned())
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn namespaces(spec: &Spec, prepared: &Prepared) -> Result<Vec<rt::Namespace>> {
    use rt::NamespaceKind as Kind;
    let isolation = &spec.isolation;
    let network = match &spec.network.mode {
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Network(_) => Namespace::Private,
        NetworkMode::Host => Namespace::Host,
        NetworkMode::Container(id) => Namespace::Container(id.clone()),
    };
    let ipc = match &isolation.ipc {
        Ipc::Private | Ipc::Shareable | Ipc::None => Namespace::Private,
        Ipc::Host => Namespace::Host,
        Ipc::Container(id) => Namespace::Container(id.clone()),
    };
    let wanted = [
        (Kind::Mount, "mnt", &Namespace::Private),
        (Kind::Pid, "pid", &isolation.pid),
        (Kind::Network, "net", &network),
        (Kind::Ipc, "ipc", &ipc),
        (Kind::Uts, "uts", &isolation.uts),
        (Kind::Cgroup, "cgroup", &isolation.cgroup),
    ];
    let mut namespaces = Vec::new();
    for (kind, file, namespace) in wanted {
        let path = match namespace {
            Namespace::Host => continue,
            Namespace::Private => None,
            Namespace::Container(id) => {
                let peer = prepared.peers.iter().find(|(peer, _)| peer == id);
                let (_, pid) = peer.ok_or_else(|| {
                    Error::conflict(format!(
                        "cannot join the namespaces of container {id}: it is not running"
                    ))
                })?;
                Some(PathBuf::from(format!("/proc/{pid}/ns/{file}")))
            }
        };
        namespaces.push(rt::Namespace { kind, path });
    }
    if prepared.user_namespace_base.is_some() {
        namespaces.push(rt::Namespace {
            kind: Kind::User,
            path: None,
        });
    }
    Ok(namespaces)
}

/// A shared or slave bind mount needs a root that is not private.
fn propagation(prepared: &Prepared) -> Option<String> {
    let has = |names: [&str; 2]| {
        prepared
            .mounts
            .iter()
            .flat_map(|mount| &mount.options)
            .any(|option| names.contains(&option.as_str()))
    };
    if has(["shared", "rshared"]) {
        Some("shared".to_owned())
    } else if has(["slave", "rslave"]) {
        Some("slave".to_owned())
    } else {
        None
    }
}

fn mount(kind: &str, destination: &str, options: &[&str]) -> rt::Mount {
    rt::Mount {
        destination: PathBuf::from(destination),
        kind: Some(kind.to_owned()),
        source: Some(PathBuf::from(kind)),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..rt::Mount::default()
    }
}

/// A bind mount of the host's `source`.
pub(crate) fn bind(source: &Path, destination: &str, options: &[&str]) -> rt::Mount {
    rt::Mount {
        source: Some(source.to_owned()),
        ..mount("bind", destination, options)
    }
}

/// `/dev/mqueue` and `/dev/shm`, which belong to the IPC namespace.
fn ipc_mounts(isolation: &Isolation, prepared: &Prepared) -> Vec<rt::Mount> {
    const CLOSED: [&str; 3] = ["nosuid", "noexec", "nodev"];
    let bound = |source: &Path, target: &str| {
        let options = [&["rbind", "rprivate"][..], &CLOSED].concat();
        bind(source, target, &options)
    };
    if isolation.ipc == Ipc::Host {
        // A host without message queues mounted has none to share.
        let shared = ["/dev/mqueue", "/dev/shm"].map(Path::new);
        let present = shared.into_iter().filter(|path| path.exists());
        return present
            .map(|path| bound(path, &path.to_string_lossy()))
            .collect();
    }
    let mut mounts = vec![mount("mqueue", "/dev/mqueue", &CLOSED)];
    if let Some(path) = &prepared.shared_memory {
        mounts.push(bound(path, "/dev/shm"));
    } else if isolation.ipc == Ipc::Private {
        let size = format!("size={}", isolation.shm_bytes);
        let options = [&CLOSED[..], &["mode=1777", &size]].concat();
        mounts.push(mount("tmpfs", "/dev/shm", &options));
    }
    mounts
}

fn mounts(spec: &Spec, prepared: &Prepared) -> Vec<rt::Mount> {
    let isolation = &spec.isolation;
    let writable = if isolation.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "devpts",
            "/dev/pts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", writable]),
        mount(
            "cgroup",
            "/sys/fs/cgroup",
            &["nosuid", "noexec", "nodev", "relatime", writable],
        ),
    ];
    mounts.extend(ipc_mounts(isolation, prepared));
    if let Some(dir) = &prepared.etc_dir {
        for name in crate::etc::FILES {
            let target = format!("/etc/{name}");
            // A mount of the user's own takes its place.
            if spec.mounts.iter().all(|mount| mount.target != target) {
                mounts.push(bind(&dir.join(name), &target, &["rbind", "rprivate"]));
            }
        }
    }
    // What the user mounts over one of the defaults replaces it.
    mounts.retain(|default| {
        prepared
            .mounts
            .iter()
            .all(|mount| mount.destination != default.destination)
    });
    mounts.extend(prepared.devices.mounts.iter().cloned());
    mounts.extend(prepared.mounts.iter().cloned());
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_merged_by_name() {
        let base = ["A=1".to_owned(), "B=2".to_owned(), "C=3".to_owned()];
        let over = [
            "B=two".to_owned(),
            "C".to_owned(),
            "D=".to_owned(),
            "E".to_owned(),
        ];
        assert_eq!(merge_environment(&base, &over), ["A=1", "B=two", "D="]);
    }
}
