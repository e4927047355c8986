//! A container in full.

use super::connections::{bindings, mode_name, network_settings};
use super::limits::set_limits;
use super::long_mounts::long_forms;
use super::{mounts, port_name, summary, time};
use api_types as wire;
use engine::Engine;
use engine::health::{Check, Health};
use engine::model::{
    Ipc, Isolation, LogDriver, MountForm, Namespace, NetworkMode, Restart, Seccomp, Snapshot, Spec,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The answer of `GET /containers/{id}/json`.
pub(crate) fn inspect(
    engine: &Engine,
    container: &Snapshot,
    sizes: Option<(u64, u64)>,
) -> wire::InspectResponse {
    let spec = &container.spec;
    let words: Vec<String> = spec
        .process
        .entrypoint
        .iter()
        .chain(&spec.process.command)
        .cloned()
        .collect();
    let bundle = engine
        .config()
        .run_root
        .join("containers")
        .join(&spec.id)
        .join("etc");
    let file = |name: &str| {
        let running = container.state.phase.is_running();
        if running {
            bundle.join(name).display().to_string()
        } else {
            String::new()
        }
    };
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    wire::InspectResponse {
        id: spec.id.clone(),
        created: spec.created.to_string(),
        path: words.first().cloned().unwrap_or_default(),
        args: words.into_iter().skip(1).collect(),
        state: state(container),
        image: summary::image_id(&spec.image),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: match spec.log.driver {
            // Docker tells only of the files that it promises to keep as they are.
            LogDriver::JsonFile => engine.log_path(spec),
            _ => None,
        }
        .map(|path| path.display().to_string())
        .unwrap_or_default(),
        name: format!("/{}", container.name),
        restart_count: container.state.restart_count.into(),
        driver: "overlayfs".to_owned(),
        platform: "linux".to_owned(),
        apparmor_profile: engine.apparmor_profile(spec).unwrap_or_default().to_owned(),
        host_config: Box::new(wire::HostConfig {
            links: list(&links(engine, container)),
            ..host_config(container)
        }),
        graph_driver: wire::DriverData {
            name: "overlayfs".to_owned(),
            data: None,
        },
        size_rw: sizes.map(|(own, _)| signed(own)),
        size_root_fs: sizes.map(|(own, image)| signed(own.saturating_add(image))),
        mounts: mounts::points(engine, container),
        config: config(container),
        network_settings: network_settings(container),
        ..wire::InspectResponse::default()
    }
}

fn state(container: &Snapshot) -> wire::State {
    use engine::model::Phase;
    let state = &container.state;
    wire::State {
        status: state.phase.as_str().to_owned(),
        running: state.phase.is_running() || state.phase == Phase::Restarting,
        paused: state.phase == Phase::Paused,
        restarting: state.phase == Phase::Restarting,
        oom_killed: state.oom_killed,
        dead: state.phase == Phase::Dead,
        pid: state.pid.unwrap_or(0).into(),
        exit_code: state.exit_code.into(),
        error: state.error.clone(),
        started_at: time(state.started_at),
        finished_at: time(state.finished_at),
        health: state.health.as_ref().map(health),
    }
}

fn health(health: &Health) -> wire::Health {
    let result = |result: &engine::health::CheckResult| wire::HealthcheckResult {
        start: result.start.to_string(),
        end: result.end.to_string(),
        exit_code: result.exit_code.into(),
        output: result.output.clone(),
    };
    wire::Health {
        status: health.status.as_str().to_owned(),
        failing_streak: health.failing_streak,
        log: Some(health.results.iter().map(result).collect()),
    }
}

/// As the request and the image together have it.
fn health_config(check: &Check) -> wire::HealthConfig {
    wire::HealthConfig {
        test: check.test.clone(),
        interval: check.interval_ns,
        timeout: check.timeout_ns,
        start_period: check.start_period_ns,
        start_interval: check.start_interval_ns,
        retries: check.retries,
    }
}

fn set(keys: impl Iterator<Item = String>) -> Option<BTreeMap<String, wire::Empty>> {
    let set: BTreeMap<_, _> = keys.map(|key| (key, wire::Empty {})).collect();
    (!set.is_empty()).then_some(set)
}

pub(super) fn list(words: &[String]) -> Option<Vec<String>> {
    (!words.is_empty()).then(|| words.to_vec())
}

fn config(container: &Snapshot) -> wire::Config {
    let spec = &container.spec;
    let process = &spec.process;
    let hostname = match spec.isolation.uts {
        Namespace::Private if spec.isolation.hostname.is_empty() => spec.id[..12].to_owned(),
        _ => spec.isolation.hostname.clone(),
    };
    let volumes = spec.mounts.iter().filter_map(|mount| match &mount.source {
        engine::model::MountSource::Volume {
            anonymous: true, ..
        } if mount.form == MountForm::Inherited => Some(mount.target.clone()),
        _ => None,
    });
    wire::Config {
        hostname,
        domainname: spec.isolation.domainname.clone(),
        user: process.user.clone(),
        attach_stdin: process.attach.stdin,
        attach_stdout: process.attach.stdout,
        attach_stderr: process.attach.stderr,
        exposed_ports: set(spec.network.exposed.iter().map(|port| port_name(*port))),
        tty: process.terminal,
        open_stdin: process.open_stdin,
        stdin_once: process.stdin_once,
        env: Some(process.environment.clone()),
        cmd: list(&process.command).map(wire::StrSlice),
        healthcheck: spec.health.as_ref().map(health_config),
        image: spec.image_reference.clone(),
        volumes: set(volumes),
        working_dir: process.working_dir.clone(),
        mac_address: main_hardware_address(container),
        entrypoint: list(&process.entrypoint).map(wire::StrSlice),
        labels: Some(spec.labels.clone()),
        stop_signal: spec.lifecycle.stop_signal.clone().unwrap_or_default(),
        stop_timeout: spec.lifecycle.stop_timeout_s,
        ..wire::Config::default()
    }
}

/// The hardware address that is asked for on the network of the mode: that is the container's, to clients from before 1.44.
fn main_hardware_address(container: &Snapshot) -> String {
    let main = match &container.spec.network.mode {
        NetworkMode::Bridge => "bridge",
        NetworkMode::Network(name) => name,
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => "",
    };
    let mut attachments = container.state.attachments.iter();
    let found = attachments.find(|attachment| {
        attachment.name == main || !main.is_empty() && attachment.network.starts_with(main)
    });
    let address = found.and_then(|attachment| attachment.wish.mac_address.clone());
    address.unwrap_or_default()
}

fn host_config(container: &Snapshot) -> wire::HostConfig {
    let spec = &container.spec;
    let (isolation, network) = (&spec.isolation, &spec.network);
    let (rows, columns) = spec.process.console_size.unwrap_or_default();
    let mut host = wire::HostConfig {
        binds: list(&mounts::binds(container)),
        mounts: long_forms(container),
        log_config: wire::LogConfig {
            driver: spec.log.driver.as_str().to_owned(),
            config: Some(spec.log.options.clone()),
        },
        volumes_from: list(&spec.volumes_from),
        network_mode: mode_name(&network.mode),
        port_bindings: Some(bindings(container)),
        restart_policy: restart(container.restart()),
        auto_remove: spec.lifecycle.auto_remove,
        console_size: [rows.into(), columns.into()],
        annotations: Some(spec.annotations.clone()),
        cap_add: list(&isolation.cap_add).map(wire::StrSlice),
        cap_drop: list(&isolation.cap_drop).map(wire::StrSlice),
        cgroupns_mode: own_or_host(&isolation.cgroup, "private"),
        dns: Some(network.dns.iter().map(ToString::to_string).collect()),
        dns_options: Some(network.dns_options.clone()),
        dns_search: Some(network.dns_search.clone()),
        extra_hosts: list(&network.extra_hosts),
        group_add: list(&spec.process.groups),
        ipc_mode: ipc(&isolation.ipc),
        oom_score_adj: isolation.oom_score_adj.into(),
        pid_mode: own_or_host(&isolation.pid, ""),
        privileged: isolation.privileged,
        publish_all_ports: network.publish_all,
        readonly_rootfs: isolation.read_only,
        security_opt: list(&security_options(isolation)),
        storage_opt: Some(spec.storage.clone()).filter(|options| !options.is_empty()),
        tmpfs: tmpfs(spec),
        uts_mode: own_or_host(&isolation.uts, ""),
        userns_mode: if isolation.user_namespace {
            "private".to_owned()
        } else {
            String::new()
        },
        shm_size: i64::try_from(isolation.shm_bytes).unwrap_or(i64::MAX),
        sysctls: Some(isolation.sysctls.clone()),
        runtime: match spec.echo.runtime.as_str() {
            "" => "hull".to_owned(),
            name => name.to_owned(),
        },
        isolation: spec.echo.isolation.clone(),
        volume_driver: spec.echo.volume_driver.clone(),
        masked_paths: paths(isolation.unmasked_paths, &isolation.masked_paths),
        readonly_paths: paths(isolation.unmasked_paths, &isolation.read_only_paths),
        init: isolation.init.then_some(true),
        cgroup_parent: isolation.cgroup_parent.clone().unwrap_or_default(),
        devices: Some(isolation.devices.iter().map(device).collect()),
        device_requests: Some(
            isolation
                .device_requests
                .iter()
                .map(device_request)
                .collect::<Vec<_>>(),
        )
        .filter(|requests| !requests.is_empty()),
        device_cgroup_rules: list(&isolation.device_rules),
        ..wire::HostConfig::default()
    };
    set_limits(&mut host, container.limits());
    host
}

fn paths(none: bool, own: &Option<Vec<PathBuf>>) -> Option<Vec<String>> {
    let named = |paths: &Vec<PathBuf>| {
        paths
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    };
    if none {
        Some(Vec::new())
    } else {
        own.as_ref().map(named)
    }
}

fn device_request(request: &engine::cdi::DeviceRequest) -> wire::DeviceRequest {
    wire::DeviceRequest {
        driver: request.driver.clone(),
        count: request.count,
        device_ids: list(&request.names),
        capabilities: Some(request.capabilities.clone()).filter(|list| !list.is_empty()),
        options: Some(request.options.clone()),
    }
}

fn device(device: &engine::model::Device) -> wire::DeviceMapping {
    wire::DeviceMapping {
        path_on_host: device.host_path.display().to_string(),
        path_in_container: device.container_path.clone(),
        cgroup_permissions: device.access.clone(),
    }
}

fn restart(restart: Restart) -> wire::RestartPolicy {
    let (name, maximum_retry_count) = match restart {
        Restart::No => ("no", 0),
        Restart::OnFailure(max) => ("on-failure", max.into()),
        Restart::Always => ("always", 0),
        Restart::UnlessStopped => ("unless-stopped", 0),
    };
    wire::RestartPolicy {
        name: name.to_owned(),
        maximum_retry_count,
    }
}

fn own_or_host(namespace: &Namespace, own: &str) -> String {
    match namespace {
        Namespace::Private => own.to_owned(),
        Namespace::Host => "host".to_owned(),
        Namespace::Container(id) => format!("container:{id}"),
    }
}

fn ipc(ipc: &Ipc) -> String {
    match ipc {
        Ipc::Private => "private".to_owned(),
        Ipc::Shareable => "shareable".to_owned(),
        Ipc::None => "none".to_owned(),
        Ipc::Host => "host".to_owned(),
        Ipc::Container(id) => format!("container:{id}"),
    }
}

fn security_options(isolation: &Isolation) -> Vec<String> {
    let seccomp = match &isolation.seccomp {
        Seccomp::Default => None,
        Seccomp::Unconfined => Some("seccomp=unconfined".to_owned()),
        Seccomp::Profile(profile) => Some(format!("seccomp={profile}")),
    };
    let options = [
        isolation
            .no_new_privileges
            .then(|| "no-new-privileges".to_owned()),
        seccomp,
        isolation
            .apparmor
            .as_ref()
            .map(|profile| format!("apparmor={profile}")),
    ];
    options.into_iter().flatten().collect()
}

fn tmpfs(spec: &Spec) -> Option<BTreeMap<String, String>> {
    let mounts = spec.mounts.iter().filter_map(|mount| match &mount.source {
        engine::model::MountSource::Tmpfs { options } if mount.form == MountForm::Short => {
            Some((mount.target.clone(), options.join(",")))
        }
        _ => None,
    });
    let tmpfs: BTreeMap<_, _> = mounts.collect();
    (!tmpfs.is_empty()).then_some(tmpfs)
}

/// Links as Docker shows them: who is linked, and as what.
fn links(engine: &Engine, container: &Snapshot) -> Vec<String> {
    let links = container.links().iter();
    let shown = links.filter_map(|link| {
        let (id, name) = link.split_once(':')?;
        let target = engine
            .inspect(id)
            .map_or_else(|_| id.to_owned(), |target| target.name);
        Some(format!("/{target}:/{}/{name}", container.name))
    });
    shown.collect()
}
