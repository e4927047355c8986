//! A create request. What is not supported is an error that names it, never ignored.

use super::mounts;
use crate::http::Error;
use api_types as wire;
use engine::Update;
use engine::cdi::DeviceRequest;
use engine::health::{Check, ON_FAILURE_LABEL, OnUnhealthy};
use engine::model::{
    AttachFlags, CreateRequest, Device, Echo, EndpointWish, Ipc, Isolation, Lifecycle, Limits,
    LogSpec, Namespace, NetworkMode, NetworkSpec, Port, ProcessSpec, Protocol, PublishedPort,
    Restart, Seccomp, Throttle, Ulimit, WeightDevice,
};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Size of `/dev/shm` unless asked otherwise.
pub(crate) const SHM_BYTES: u64 = 64 << 20;

type Result<T> = std::result::Result<T, Error>;

/// Reads a request.
pub(crate) fn request(
    name: Option<&str>,
    body: wire::CreateRequest,
    below_binds: mounts::BelowBinds,
) -> Result<CreateRequest> {
    let host = body.host_config.as_deref().cloned().unwrap_or_default();
    refuse(&body, &host)?;
    if body
        .volumes
        .as_ref()
        .is_some_and(|volumes| !volumes.is_empty())
    {
        mounts::check_driver(&host.volume_driver)?;
    }
    let keys = |set: &Option<BTreeMap<String, wire::Empty>>| -> Vec<String> {
        set.iter().flat_map(|set| set.keys().cloned()).collect()
    };
    let [rows, columns] = host.console_size;
    let size = (
        u16::try_from(rows).unwrap_or(0),
        u16::try_from(columns).unwrap_or(0),
    );
    Ok(CreateRequest {
        name: name.map(|name| name.trim_start_matches('/').to_owned()),
        image: body.image.clone(),
        platform: None,
        entrypoint: body.entrypoint.clone().map(|words| words.0),
        command: body.cmd.clone().map(|words| words.0),
        process: ProcessSpec {
            environment: body.env.clone().unwrap_or_default(),
            working_dir: body.working_dir.clone(),
            user: body.user.clone(),
            groups: host.group_add.clone().unwrap_or_default(),
            terminal: body.tty,
            open_stdin: body.open_stdin,
            stdin_once: body.stdin_once,
            attach: AttachFlags {
                stdin: body.attach_stdin,
                stdout: body.attach_stdout,
                stderr: body.attach_stderr,
            },
            console_size: Some(size).filter(|size| *size != (0, 0)),
            ..ProcessSpec::default()
        },
        isolation: isolation(&body, &host)?,
        limits: limits(&host.resources())?,
        mounts: mounts::read(&host, below_binds)?,
        volumes: keys(&body.volumes),
        network: network(&body, &host)?,
        wishes: wishes(&body)?,
        lifecycle: Lifecycle {
            restart: restart(&host.restart_policy, host.auto_remove)?,
            auto_remove: host.auto_remove,
            stop_signal: non_empty(&body.stop_signal),
            stop_timeout_s: body.stop_timeout,
        },
        log: LogSpec::read(
            &host.log_config.driver,
            &host.log_config.config.clone().unwrap_or_default(),
        )?,
        labels: body.labels.clone().unwrap_or_default(),
        annotations: host.annotations.clone().unwrap_or_default(),
        health: health(&body)?,
        volumes_from: host.volumes_from.clone().unwrap_or_default(),
        storage: host.storage_opt.clone().unwrap_or_default(),
        echo: Echo {
            runtime: runtime(&host.runtime)?,
            isolation: host.isolation.clone(),
            volume_driver: host.volume_driver.clone(),
        },
    })
}

fn health(body: &wire::CreateRequest) -> Result<Option<Check>> {
    let label = body
        .labels
        .as_ref()
        .and_then(|labels| labels.get(ON_FAILURE_LABEL));
    let on_unhealthy = label.map(|word| OnUnhealthy::parse(word)).transpose()?;
    if body.healthcheck.is_none() && on_unhealthy.is_none() {
        return Ok(None);
    }
    let config = body.healthcheck.clone().unwrap_or_default();
    Ok(Some(Check {
        test: config.test,
        shell: Vec::new(),
        interval_ns: config.interval,
        timeout_ns: config.timeout,
        start_period_ns: config.start_period,
        start_interval_ns: config.start_interval,
        retries: config.retries,
        on_unhealthy: on_unhealthy.unwrap_or_default(),
    }))
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn positive(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}

/// What a request calls the runtime: there is one, which answers to the names of those whose place it takes.
fn runtime(name: &str) -> Result<String> {
    match name {
        "" | "hull" | "runc" | "io.containerd.runc.v2" => Ok(name.to_owned()),
        other => Err(Error::bad_request(format!(
            "unknown or invalid runtime name: {other}: there is hull's own, which runc stands for, too"
        ))),
    }
}

/// Names the first thing that is asked for and not supported.
fn refuse(body: &wire::CreateRequest, host: &wire::HostConfig) -> Result<()> {
    let unsupported = [
        (
            body.network_disabled,
            "NetworkDisabled: use --network none, which",
        ),
        (host.kernel_memory_tcp != 0, "a limit of TCP memory"),
        (
            !matches!(host.isolation.as_str(), "" | "default"),
            "--isolation (Windows)",
        ),
        (!host.cgroup.is_empty(), "HostConfig.Cgroup"),
    ];
    match unsupported.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(Error::unsupported(what)),
        None => refuse_windows_limits(&host.resources()),
    }
}

fn isolation(body: &wire::CreateRequest, host: &wire::HostConfig) -> Result<Isolation> {
    let mut isolation = Isolation {
        privileged: host.privileged,
        read_only: host.readonly_rootfs,
        hostname: body.hostname.clone(),
        domainname: body.domainname.clone(),
        pid: namespace("PID", &host.pid_mode)?,
        ipc: ipc(&host.ipc_mode)?,
        uts: own_or_host("UTS", &host.uts_mode)?,
        cgroup: own_or_host("cgroup namespace", &host.cgroupns_mode)?,
        user_namespace: match host.userns_mode.as_str() {
            "" | "host" => false,
            "private" => true,
            other => {
                return Err(Error::bad_request(format!(
                    "invalid USER mode: {other}: it is host or private"
                )));
            }
        },
        cap_add: host.cap_add.clone().unwrap_or_default().0,
        cap_drop: host.cap_drop.clone().unwrap_or_default().0,
        masked_paths: paths(&host.masked_paths),
        read_only_paths: paths(&host.readonly_paths),
        devices: host
            .devices
            .iter()
            .flatten()
            .map(device)
            .collect::<Result<_>>()?,
        device_requests: host
            .device_requests
            .iter()
            .flatten()
            .map(device_request)
            .collect(),
        device_rules: host.device_cgroup_rules.clone().unwrap_or_default(),
        sysctls: host.sysctls.clone().unwrap_or_default(),
        init: host.init.unwrap_or(false),
        shm_bytes: match u64::try_from(host.shm_size) {
            Ok(0) => SHM_BYTES,
            Ok(bytes) => bytes,
            Err(_) => return Err(Error::bad_request("SHM size can not be less than 0")),
        },
        oom_score_adj: match i32::try_from(host.oom_score_adj) {
            Ok(value @ -1000..=1000) => value,
            _ => {
                return Err(Error::bad_request(format!(
                    "Invalid value {}, range for oom score adj is [-1000, 1000]",
                    host.oom_score_adj
                )));
            }
        },
        cgroup_parent: non_empty(&host.cgroup_parent),
        ..Isolation::default()
    };
    if isolation.user_namespace && isolation.privileged {
        return Err(Error::bad_request(
            "privileged mode is incompatible with user namespaces",
        ));
    }
    for option in host.security_opt.iter().flatten() {
        security_option(option, &mut isolation)?;
    }
    Ok(isolation)
}

fn paths(list: &Option<Vec<String>>) -> Option<Vec<PathBuf>> {
    let list = list.as_ref()?;
    Some(list.iter().map(PathBuf::from).collect())
}

fn security_option(option: &str, isolation: &mut Isolation) -> Result<()> {
    let (name, value) = option
        .split_once('=')
        .or_else(|| option.split_once(':'))
        .unwrap_or((option, ""));
    match (name, value) {
        ("no-new-privileges", "" | "true") => isolation.no_new_privileges = true,
        ("no-new-privileges", "false") => isolation.no_new_privileges = false,
        ("seccomp", "unconfined") => isolation.seccomp = Seccomp::Unconfined,
        ("seccomp", "builtin") => isolation.seccomp = Seccomp::Default,
        ("seccomp", profile) => isolation.seccomp = Seccomp::Profile(profile.to_owned()),
        ("systempaths", "unconfined") => isolation.unmasked_paths = true,
        ("apparmor", profile) => isolation.apparmor = non_empty(profile),
        ("label", "disable") => {}
        ("label", _) => {
            return Err(Error::unsupported(
                "an SELinux label (--security-opt label)",
            ));
        }
        _ => {
            return Err(Error::bad_request(format!(
                "invalid --security-opt: {option:?}"
            )));
        }
    }
    Ok(())
}

fn namespace(what: &str, mode: &str) -> Result<Namespace> {
    match mode.split_once(':') {
        None if mode.is_empty() || mode == "private" => Ok(Namespace::Private),
        None if mode == "host" => Ok(Namespace::Host),
        Some(("container", name)) if !name.is_empty() => Ok(Namespace::Container(name.to_owned())),
        _ => Err(Error::bad_request(format!("invalid {what} mode: {mode}"))),
    }
}

fn own_or_host(what: &str, mode: &str) -> Result<Namespace> {
    match namespace(what, mode)? {
        Namespace::Container(_) => Err(Error::bad_request(format!("invalid {what} mode: {mode}"))),
        namespace => Ok(namespace),
    }
}

fn ipc(mode: &str) -> Result<Ipc> {
    match (mode, mode.split_once(':')) {
        ("" | "private", _) => Ok(Ipc::Private),
        ("shareable", _) => Ok(Ipc::Shareable),
        ("none", _) => Ok(Ipc::None),
        ("host", _) => Ok(Ipc::Host),
        (_, Some(("container", name))) if !name.is_empty() => Ok(Ipc::Container(name.to_owned())),
        _ => Err(Error::bad_request(format!("invalid IPC mode: {mode}"))),
    }
}

fn device_request(request: &wire::DeviceRequest) -> DeviceRequest {
    DeviceRequest {
        driver: request.driver.clone(),
        count: request.count,
        names: request.device_ids.clone().unwrap_or_default(),
        capabilities: request.capabilities.clone().unwrap_or_default(),
        options: request.options.clone().unwrap_or_default(),
    }
}

fn device(device: &wire::DeviceMapping) -> Result<Device> {
    let access = if device.cgroup_permissions.is_empty() {
        "rwm"
    } else {
        &device.cgroup_permissions
    };
    if !access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(Error::bad_request(format!(
            "invalid device permissions: {access:?}: they are of r, w, m"
        )));
    }
    let target = if device.path_in_container.is_empty() {
        &device.path_on_host
    } else {
        &device.path_in_container
    };
    Ok(Device {
        host_path: PathBuf::from(&device.path_on_host),
        container_path: target.clone(),
        access: access.to_owned(),
    })
}

/// Reads limits, of a create request or an update.
pub(crate) fn limits(resources: &wire::Resources) -> Result<Limits> {
    let unsigned = |name: &str, value: i64| match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Error::bad_request(format!(
            "{name} cannot be negative: {value}"
        ))),
    };
    let throttles = |list: &Option<Vec<wire::ThrottleDevice>>| -> Vec<Throttle> {
        let list = list.iter().flatten();
        list.map(|throttle| Throttle {
            path: PathBuf::from(&throttle.path),
            rate: throttle.rate,
        })
        .collect()
    };
    let ulimits = resources.ulimits.iter().flatten();
    Ok(Limits {
        memory_bytes: positive(resources.memory),
        memory_swap_bytes: positive(resources.memory_swap),
        memory_reservation_bytes: positive(resources.memory_reservation),
        memory_swappiness: resources
            .memory_swappiness
            .and_then(|value| u64::try_from(value).ok()),
        oom_kill_disable: resources.oom_kill_disable.unwrap_or(false),
        nano_cpus: positive(resources.nano_cpus),
        cpu_shares: unsigned("CPU shares", resources.cpu_shares)?,
        cpu_period_us: unsigned("the CPU period", resources.cpu_period)?,
        cpu_quota_us: positive(resources.cpu_quota),
        cpuset_cpus: non_empty(&resources.cpuset_cpus),
        cpuset_mems: non_empty(&resources.cpuset_mems),
        pids: resources.pids_limit.filter(|limit| *limit > 0),
        cpu_rt_period_us: unsigned("the real-time CPU period", resources.cpu_realtime_period)?,
        cpu_rt_runtime_us: positive(resources.cpu_realtime_runtime),
        blkio_weight_devices: resources
            .blkio_weight_device
            .iter()
            .flatten()
            .map(|device| WeightDevice {
                path: PathBuf::from(&device.path),
                weight: device.weight,
            })
            .collect(),
        blkio_weight: Some(resources.blkio_weight).filter(|weight| *weight != 0),
        blkio_read_bps: throttles(&resources.blkio_device_read_bps),
        blkio_write_bps: throttles(&resources.blkio_device_write_bps),
        blkio_read_iops: throttles(&resources.blkio_device_read_iops),
        blkio_write_iops: throttles(&resources.blkio_device_write_iops),
        network_rate: resources
            .network_rate
            .as_ref()
            .map(|rate| engine::model::NetworkRate {
                receive_bytes: Some(rate.receive).filter(|bytes| *bytes > 0),
                send_bytes: Some(rate.send).filter(|bytes| *bytes > 0),
            }),
        ulimits: ulimits
            .map(|ulimit| Ulimit {
                name: ulimit.name.clone(),
                soft: ulimit.soft,
                hard: ulimit.hard,
            })
            .collect(),
    })
}

/// Reads an update.
pub(crate) fn update(body: &wire::UpdateRequest) -> Result<Update> {
    let given = |list: bool, what: &str| match list {
        true => Err(Error::unsupported(&format!(
            "changing {what} of a container"
        ))),
        false => Ok(()),
    };
    let some = |list: Option<usize>| list.is_some_and(|length| length > 0);
    given(some(body.ulimits.as_ref().map(Vec::len)), "resource limits")?;
    given(some(body.devices.as_ref().map(Vec::len)), "the devices")?;
    given(
        some(body.device_cgroup_rules.as_ref().map(Vec::len)),
        "the device rules",
    )?;
    given(
        some(body.device_requests.as_ref().map(Vec::len)),
        "the device requests",
    )?;
    given(!body.cgroup_parent.is_empty(), "the parent cgroup")?;
    given(
        body.oom_kill_disable == Some(true),
        "the OOM killer's setting",
    )?;
    refuse_windows_limits(&body.resources())?;
    Ok(Update {
        limits: limits(&body.resources())?,
        // 0 and -1 both lift the limit; nothing keeps it.
        unlimited_pids: body.pids_limit.is_some_and(|limit| limit <= 0),
        restart: match body.restart_policy.name.as_str() {
            "" => None,
            _ => Some(restart(&body.restart_policy, false)?),
        },
    })
}

/// Names the first limit that only Windows has.
fn refuse_windows_limits(resources: &wire::Resources) -> Result<()> {
    let asked = [
        (resources.cpu_count != 0, "--cpu-count"),
        (resources.cpu_percent != 0, "--cpu-percent"),
        (resources.io_maximum_iops != 0, "--io-maxiops"),
        (resources.io_maximum_bandwidth != 0, "--io-maxbandwidth"),
    ];
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, flag)) => Err(Error::bad_request(format!(
            "{flag} is for Windows containers"
        ))),
        None => Ok(()),
    }
}

fn restart(policy: &wire::RestartPolicy, auto_remove: bool) -> Result<Restart> {
    let restart = match policy.name.as_str() {
        "" | "no" => Restart::No,
        "always" => Restart::Always,
        "unless-stopped" => Restart::UnlessStopped,
        "on-failure" => {
            Restart::OnFailure(u32::try_from(policy.maximum_retry_count).map_err(|_| {
                Error::bad_request("invalid restart policy: maximum retry count cannot be negative")
            })?)
        }
        other => {
            return Err(Error::bad_request(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    };
    if policy.maximum_retry_count != 0 && !matches!(restart, Restart::OnFailure(_)) {
        return Err(Error::bad_request(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    if auto_remove && restart != Restart::No {
        return Err(Error::bad_request(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    Ok(restart)
}

/// `bridge`, `none`, `host`, `container:NAME`, or a network's name.
pub(crate) fn network_mode(text: &str) -> NetworkMode {
    match (text, text.split_once(':')) {
        ("" | "default" | "bridge", _) => NetworkMode::Bridge,
        ("none", _) => NetworkMode::None,
        ("host", _) => NetworkMode::Host,
        (_, Some(("container", name))) if !name.is_empty() => {
            NetworkMode::Container(name.to_owned())
        }
        (name, _) => NetworkMode::Network(name.to_owned()),
    }
}

fn network(body: &wire::CreateRequest, host: &wire::HostConfig) -> Result<NetworkSpec> {
    let mode = network_mode(&host.network_mode);
    let published = published_ports(host.port_bindings.iter().flatten())?;
    let exposed = body.exposed_ports.iter().flat_map(|ports| ports.keys());
    let mut exposed = exposed
        .map(|port| parse_port(port))
        .collect::<Result<Vec<_>>>()?;
    exposed.extend(published.iter().map(|published| published.port));
    check_modes(&mode, host, &published)?;
    let dns = host.dns.iter().flatten().map(|server| {
        server
            .parse::<IpAddr>()
            .map_err(|_| Error::bad_request(format!("invalid DNS server address: {server:?}")))
    });
    Ok(NetworkSpec {
        mode,
        exposed,
        published,
        publish_all: host.publish_all_ports,
        extra_hosts: host.extra_hosts.clone().unwrap_or_default(),
        dns: dns.collect::<Result<_>>()?,
        dns_search: host.dns_search.clone().unwrap_or_default(),
        dns_options: host.dns_options.clone().unwrap_or_default(),
        mac_address: non_empty(&body.mac_address),
        links: host.links.clone().unwrap_or_default(),
    })
}

/// Reads ports that are to be published.
pub(crate) fn published_ports<'a>(
    bindings: impl Iterator<Item = (&'a String, &'a Option<Vec<wire::PortBinding>>)>,
) -> Result<Vec<PublishedPort>> {
    let mut published = Vec::new();
    for (port, bindings) in bindings {
        let port = parse_port(port)?;
        for binding in bindings.iter().flatten() {
            published.push(publish(port, binding)?);
        }
    }
    Ok(published)
}

/// What is asked of networks, by their name or id. What is said of a mode that has no endpoint says nothing.
fn wishes(body: &wire::CreateRequest) -> Result<Vec<(String, EndpointWish)>> {
    let endpoints = body.networking_config.iter();
    let endpoints = endpoints.flat_map(|config| config.endpoints_config.iter().flatten());
    let mut wishes = Vec::new();
    for (name, settings) in endpoints {
        let wish = endpoint_wish(&settings.clone().unwrap_or_default())?;
        let is_mode = matches!(name.as_str(), "host" | "none") || name.starts_with("container:");
        if is_mode && wish == EndpointWish::default() {
            continue;
        }
        wishes.push((name.clone(), wish));
    }
    Ok(wishes)
}

/// Reads what is asked of one network.
pub(crate) fn endpoint_wish(settings: &wire::EndpointSettings) -> Result<EndpointWish> {
    fn address<T: std::str::FromStr>(text: &str) -> Result<Option<T>> {
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.parse().map(Some);
        parsed.map_err(|_| Error::bad_request(format!("invalid IP address: {text:?}")))
    }
    let addresses = settings.ipam_config.clone().unwrap_or_default();
    let link_local = addresses.link_local_ips.iter().map(|text| address(text));
    let link_local = link_local.collect::<Result<Vec<_>>>()?;
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    Ok(EndpointWish {
        ipv4: address(&addresses.ipv4_address)?,
        ipv6: address(&addresses.ipv6_address)?,
        link_local: link_local.into_iter().flatten().collect(),
        mac_address: non_empty(&settings.mac_address),
        aliases: list(&settings.aliases),
        links: list(&settings.links),
        driver_options: settings.driver_opts.clone().unwrap_or_default(),
        gateway_priority: settings.gw_priority,
    })
}

fn check_modes(
    mode: &NetworkMode,
    host: &wire::HostConfig,
    published: &[PublishedPort],
) -> Result<()> {
    let conflict = |what: &str| Err(Error::bad_request(format!("conflicting options: {what}")));
    match mode {
        NetworkMode::Container(_) if !published.is_empty() || host.publish_all_ports => {
            conflict("port publishing and the container type network mode")
        }
        NetworkMode::Container(_)
            if host
                .extra_hosts
                .as_ref()
                .is_some_and(|list| !list.is_empty()) =>
        {
            conflict("custom host-to-IP mapping and the network mode")
        }
        NetworkMode::Container(_) if host.dns.as_ref().is_some_and(|list| !list.is_empty()) => {
            conflict("dns and the network mode")
        }
        _ => Ok(()),
    }
}

/// Reads `80/tcp`.
pub(crate) fn parse_port(text: &str) -> Result<Port> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = Protocol::parse(protocol).ok_or_else(|| {
        Error::bad_request(format!("invalid protocol {protocol:?} of port {text:?}"))
    })?;
    let number = number.parse().ok().filter(|number| *number > 0);
    let number = number
        .ok_or_else(|| Error::bad_request(format!("invalid port specification: {text:?}")))?;
    Ok(Port { number, protocol })
}

fn publish(port: Port, binding: &wire::PortBinding) -> Result<PublishedPort> {
    let text = &binding.host_port;
    let bad = || Error::bad_request(format!("invalid port specification: {text:?}"));
    let number = |text: &str| text.parse::<u16>().map_err(|_| bad());
    let host_ports = match text.split_once('-') {
        None if text.is_empty() => (0, 0),
        None => (number(text)?, number(text)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    if host_ports.0 > host_ports.1 {
        return Err(bad());
    }
    let host_ip = match binding.host_ip.as_str() {
        "" => None,
        ip => Some(
            ip.parse()
                .map_err(|_| Error::bad_request(format!("invalid IP address: {ip:?}")))?,
        ),
    };
    Ok(PublishedPort {
        port,
        host_ip,
        host_ports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<CreateRequest> {
        let body = api_types::from_slice(json.as_bytes()).unwrap();
        request(None, body, mounts::BelowBinds::ReadOnly)
    }

    #[test]
    fn what_is_not_there_is_named() {
        use http::StatusCode;
        let asked = [
            (
                r#"{"HostConfig":{"Runtime":"kata"}}"#,
                StatusCode::BAD_REQUEST,
                "runtime name: kata",
            ),
            (
                r#"{"HostConfig":{"LogConfig":{"Type":"fluentd"}}}"#,
                StatusCode::BAD_REQUEST,
                "fluentd",
            ),
            (
                r#"{"HostConfig":{"VolumeDriver":"nfs"},"Volumes":{"/v":{}}}"#,
                StatusCode::NOT_FOUND,
                "plugin \"nfs\" not found",
            ),
        ];
        for (json, status, named) in asked {
            let error = read(json).unwrap_err();
            assert_eq!(error.status, status, "{json}");
            assert!(error.message.contains(named), "{json}: {}", error.message);
        }
    }

    #[test]
    fn ports_are_read_with_ranges_and_addresses() {
        let json = r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8000-8010"}],"53/udp":[{}]}}}"#;
        let published = read(json).unwrap().network.published;
        assert_eq!(published[0].host_ports, (0, 0));
        assert_eq!(
            (published[1].host_ports, published[1].port.number),
            ((8000, 8010), 80)
        );
        for bad in [
            r#"{"HostConfig":{"PortBindings":{"0/tcp":[{}]}}}"#,
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"9-8"}]}}}"#,
        ] {
            assert!(read(bad).is_err());
        }
    }

    #[test]
    fn wishes_are_read() {
        let json = r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{"IPAMConfig":{"IPv4Address":"10.0.0.7","LinkLocalIPs":["169.254.1.1"]},"Aliases":["db"],"GwPriority":3},"b":null,"host":{}}}}"#;
        let wishes = read(json).unwrap().wishes;
        assert_eq!(wishes.len(), 2);
        assert_eq!(wishes[0].1.ipv4, Some([10, 0, 0, 7].into()));
        assert_eq!(
            (wishes[0].1.aliases.len(), wishes[0].1.gateway_priority),
            (1, 3)
        );
        assert_eq!(wishes[1], ("b".to_owned(), EndpointWish::default()));
        let bad = r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{"IPAMConfig":{"IPv4Address":"fd00::1"}}}}}"#;
        assert!(read(bad).is_err());
    }
}
