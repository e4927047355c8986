//! A container in full.

use super::long_mounts::long_forms;
use super::{mac_name, mounts, port_name, summary, time};
use api_types as wire;
use engine::Engine;
use engine::health::{Check, Health};
use engine::model::{
    Attachment, Ipc, Isolation, Limits, LogDriver, MountForm, Namespace, NetworkMode, PortMapping,
    Restart, Seccomp, Snapshot, Spec, Throttle,
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

fn list(words: &[String]) -> Option<Vec<String>> {
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
        network_mode: network_mode(&network.mode),
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

fn set_limits(host: &mut wire::HostConfig, limits: &Limits) {
    let signed = |value: Option<u64>| {
        value
            .and_then(|value| i64::try_from(value).ok())
            .unwrap_or(0)
    };
    let throttles = |list: &[Throttle]| {
        let wire = |throttle: &Throttle| wire::ThrottleDevice {
            path: throttle.path.display().to_string(),
            rate: throttle.rate,
        };
        Some(list.iter().map(wire).collect())
    };
    host.memory = limits.memory_bytes.unwrap_or(0);
    host.memory_swap = limits
        .memory_swap_bytes
        .or(limits.memory_bytes.map(|bytes| bytes.saturating_mul(2)))
        .unwrap_or(0);
    host.memory_reservation = limits.memory_reservation_bytes.unwrap_or(0);
    host.memory_swappiness = limits
        .memory_swappiness
        .and_then(|value| i64::try_from(value).ok());
    host.oom_kill_disable = Some(limits.oom_kill_disable);
    host.nano_cpus = limits.nano_cpus.unwrap_or(0);
    host.cpu_shares = signed(limits.cpu_shares);
    host.cpu_period = signed(limits.cpu_period_us);
    host.cpu_quota = limits.cpu_quota_us.unwrap_or(0);
    host.cpuset_cpus = limits.cpuset_cpus.clone().unwrap_or_default();
    host.cpuset_mems = limits.cpuset_mems.clone().unwrap_or_default();
    host.pids_limit = limits.pids;
    host.blkio_weight = limits.blkio_weight.unwrap_or(0);
    host.cpu_realtime_period = signed(limits.cpu_rt_period_us);
    host.cpu_realtime_runtime = limits.cpu_rt_runtime_us.unwrap_or(0);
    let weights = limits.blkio_weight_devices.iter();
    let weight = |device: &engine::model::WeightDevice| wire::WeightDevice {
        path: device.path.display().to_string(),
        weight: device.weight,
    };
    host.blkio_weight_device = Some(weights.map(weight).collect());
    host.blkio_device_read_bps = throttles(&limits.blkio_read_bps);
    host.blkio_device_write_bps = throttles(&limits.blkio_write_bps);
    host.blkio_device_read_iops = throttles(&limits.blkio_read_iops);
    host.blkio_device_write_iops = throttles(&limits.blkio_write_iops);
    host.network_rate = network_rate(limits);
    let ulimits = limits.ulimits.iter();
    host.ulimits = Some(
        ulimits
            .map(|u| wire::Ulimit {
                name: u.name.clone(),
                soft: u.soft,
                hard: u.hard,
            })
            .collect(),
    );
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

pub(crate) fn network_mode(mode: &NetworkMode) -> String {
    match mode {
        NetworkMode::Bridge => "bridge".to_owned(),
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Container(id) => format!("container:{id}"),
        NetworkMode::Network(name) => name.clone(),
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

/// Published ports as requested.
fn bindings(container: &Snapshot) -> wire::PortMap {
    let mut map = wire::PortMap::new();
    for published in container.published() {
        let host_port = match published.host_ports {
            (0, 0) => String::new(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let host_ip = published
            .host_ip
            .map(|ip| ip.to_string())
            .unwrap_or_default();
        let entry = map.entry(port_name(published.port)).or_default();
        entry
            .get_or_insert_default()
            .push(wire::PortBinding { host_ip, host_port });
    }
    map
}

/// The limit of what interfaces receive and send; None: there is none.
pub(crate) fn network_rate(limits: &Limits) -> Option<wire::NetworkRate> {
    let rate = limits.network_rate?;
    let bytes = |bytes: Option<u64>| bytes.unwrap_or(0);
    let shown = wire::NetworkRate {
        receive: bytes(rate.receive_bytes),
        send: bytes(rate.send_bytes),
    };
    (shown != wire::NetworkRate::default()).then_some(shown)
}

/// Who can reach a port.
pub(crate) fn port_explanation(explained: engine::PortExplanation) -> wire::PortExplanation {
    let mapping = explained.mapping;
    let reach = |reach: engine::Reach| wire::PortReach {
        from: match reach.from {
            engine::Origin::Host => "host",
            engine::Origin::World => "world",
            engine::Origin::Network => "network",
            engine::Origin::OtherNetworks => "other-networks",
        }
        .to_owned(),
        reached: reach.reached,
        why: reach.why,
        rule: reach.rule,
        others: reach.others,
    };
    wire::PortExplanation {
        port: port_name(explained.port),
        network: explained.network,
        address: explained.address.to_string(),
        host_ip: mapping.map(|m| m.host_ip.to_string()).unwrap_or_default(),
        host_port: mapping.map(host_port).unwrap_or_default(),
        reach: explained.reaches.into_iter().map(reach).collect(),
    }
}

/// The host's port; empty in a network that is routed, where there is none.
fn host_port(mapping: PortMapping) -> String {
    match mapping.host_port {
        0 => String::new(),
        port => port.to_string(),
    }
}

/// Ports as they are: published with the host's real ports, exposed with null.
fn ports(container: &Snapshot) -> wire::PortMap {
    let mut map = wire::PortMap::new();
    if container.state.endpoints().next().is_none() {
        return map;
    }
    for port in &container.spec.network.exposed {
        map.insert(port_name(*port), None);
    }
    let endpoints = container.state.endpoints();
    for mapping in endpoints.flat_map(|(_, endpoint)| &endpoint.ports) {
        let entry = map.entry(port_name(mapping.port)).or_default();
        entry.get_or_insert_default().push(wire::PortBinding {
            host_ip: mapping.host_ip.to_string(),
            host_port: host_port(*mapping),
        });
    }
    map
}

/// The networks of a container, by name.
pub(crate) fn endpoints(container: &Snapshot) -> BTreeMap<String, wire::EndpointSettings> {
    let mode_alone = |id: &str, mode: &NetworkMode| {
        let settings = wire::EndpointSettings {
            network_id: id.to_owned(),
            ..wire::EndpointSettings::default()
        };
        BTreeMap::from([(network_mode(mode), settings)])
    };
    match &container.spec.network.mode {
        NetworkMode::Host => return mode_alone(engine::HOST_ID, &NetworkMode::Host),
        NetworkMode::None => return mode_alone(engine::NONE_ID, &NetworkMode::None),
        _ => {}
    }
    let attachments = container.state.attachments.iter();
    attachments
        .map(|attachment| (attachment.name.clone(), endpoint(container, attachment)))
        .collect()
}

fn endpoint(container: &Snapshot, attachment: &Attachment) -> wire::EndpointSettings {
    let wish = &attachment.wish;
    let text = |address: Option<String>| address.unwrap_or_default();
    let addresses = wire::EndpointIpamConfig {
        ipv4_address: text(wish.ipv4.map(|ip| ip.to_string())),
        ipv6_address: text(wish.ipv6.map(|ip| ip.to_string())),
        link_local_ips: wish.link_local.iter().map(ToString::to_string).collect(),
    };
    let settings = wire::EndpointSettings {
        ipam_config: Some(addresses)
            .filter(|config| *config != wire::EndpointIpamConfig::default()),
        links: list(&wish.links),
        aliases: list(&wish.aliases),
        mac_address: wish.mac_address.clone().unwrap_or_default(),
        driver_opts: Some(wish.driver_options.clone()).filter(|options| !options.is_empty()),
        gw_priority: wish.gateway_priority,
        network_id: attachment.network.clone(),
        dns_names: list(&engine::dns_names(container, attachment)),
        ..wire::EndpointSettings::default()
    };
    let Some(endpoint) = &attachment.endpoint else {
        return settings;
    };
    let address = |is_ipv6| {
        endpoint
            .place(is_ipv6)
            .map(|place| place.address.to_string())
    };
    let gateway = |is_ipv6| {
        let gateway = endpoint.place(is_ipv6).and_then(|place| place.gateway);
        // Unspecified: there is a way out, and nobody's address on it.
        let gateway = gateway.filter(|gateway| !gateway.is_unspecified());
        gateway.map(|gateway| gateway.to_string())
    };
    let prefix = |is_ipv6| endpoint.place(is_ipv6).map_or(0, |place| place.prefix);
    wire::EndpointSettings {
        endpoint_id: endpoint.id.clone(),
        mac_address: mac_name(endpoint.mac),
        gateway: text(gateway(false)),
        ip_address: text(address(false)),
        ip_prefix_len: prefix(false),
        ipv6_gateway: text(gateway(true)),
        global_ipv6_address: text(address(true)),
        global_ipv6_prefix_len: prefix(true),
        ..settings
    }
}

fn network_settings(container: &Snapshot) -> wire::NetworkSettings {
    let networks = endpoints(container);
    let bridge = networks.get("bridge").cloned().unwrap_or_default();
    let sandbox_key = match container.state.pid {
        Some(pid) => format!("/proc/{pid}/ns/net"),
        None => String::new(),
    };
    wire::NetworkSettings {
        sandbox_id: if sandbox_key.is_empty() {
            String::new()
        } else {
            container.spec.id.clone()
        },
        sandbox_key,
        ports: Some(ports(container)),
        endpoint_id: bridge.endpoint_id,
        gateway: bridge.gateway,
        ip_address: bridge.ip_address,
        ip_prefix_len: bridge.ip_prefix_len,
        ipv6_gateway: bridge.ipv6_gateway,
        global_ipv6_address: bridge.global_ipv6_address,
        global_ipv6_prefix_len: bridge.global_ipv6_prefix_len,
        mac_address: bridge.mac_address,
        networks: Some(networks),
        ..wire::NetworkSettings::default()
    }
}
