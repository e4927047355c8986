//! From the flags of `run` and `create` to the request that Docker's client would send for them.

use crate::error::{Error, Result};
use crate::flags::Matches;
use crate::parse::{
    address, check, device, keyvalue, mount, network, ports::Ports, secret, security,
    volume::Volumes,
};
use crate::session::Session;
use api_types::{CreateRequest, HealthConfig, HostConfig, LogConfig, NetworkingConfig, StrSlice};
use client::{ApiVersion, Client};

/// The API version from which an endpoint has the hardware address, and the container has none.
const MAC_PER_ENDPOINT: ApiVersion = ApiVersion::new(1, 44);

/// The label by which an engine of this project acts on a container that becomes unhealthy. Docker's API has no field for it, and
/// a label is what every client can set.
const HEALTH_ON_FAILURE: &str = "hull.health-on-failure";

/// Builds the request.
pub(crate) fn build(
    session: &Session,
    client: &Client,
    matches: &Matches,
) -> Result<CreateRequest> {
    let (network_mode, networking) = network::resolve(matches).map_err(Error::Message)?;
    let mut request = container(session, client, matches)?;
    let mut host = host(matches, network_mode)?;
    let volumes = Volumes::parse(matches.list("volume"))?;
    host.binds = some(&volumes.binds);
    request.volumes = Some(volumes.anonymous);
    let ports =
        Ports::parse(matches.list("publish"), matches.list("expose")).map_err(Error::Message)?;
    request.exposed_ports = Some(ports.exposed);
    host.port_bindings = Some(ports.bindings);
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return Err(Error::msg(
            "conflicting options: cannot specify both --restart and --rm",
        ));
    }
    request.host_config = Some(Box::new(host));
    request.networking_config = Some(networking);
    Ok(request)
}

/// Checks and fills in what depends on the engine's age, asking the engine for its version only where something does.
pub(crate) async fn adapt(client: &Client, request: &mut CreateRequest) -> Result<()> {
    let mac = request.networking_config.as_ref().and_then(endpoint_mac);
    let host = request.host_config.get_or_insert_default();
    let start_interval = request
        .healthcheck
        .as_ref()
        .is_some_and(|health| health.start_interval != 0);
    let force_recursive = host
        .mounts
        .iter()
        .filter_map(|mount| mount.bind_options.as_ref())
        .any(|bind| bind.read_only_force_recursive);
    if mac.is_none() && !start_interval && !force_recursive && host.kernel_memory == 0 {
        return Ok(());
    }
    let version = client.settle_version().await?;
    if version >= ApiVersion::new(1, 42) || version < ApiVersion::new(1, 40) {
        host.kernel_memory = 0;
    }
    if version < MAC_PER_ENDPOINT {
        for (asked, what) in [
            (start_interval, "--health-start-interval"),
            (force_recursive, "--mount bind-recursive=readonly"),
        ] {
            if asked {
                return Err(Error::msg(format!(
                    "{what} needs API version {MAC_PER_ENDPOINT}, and the engine speaks {version}"
                )));
            }
        }
        request.mac_address = mac.unwrap_or_default();
    }
    Ok(())
}

fn endpoint_mac(networking: &NetworkingConfig) -> Option<String> {
    let endpoints = networking.endpoints_config.iter().flatten();
    let mut macs = endpoints.filter_map(|(_, endpoint)| Some(&endpoint.as_ref()?.mac_address));
    macs.find(|mac| !mac.is_empty()).cloned()
}

fn container(session: &Session, client: &Client, matches: &Matches) -> Result<CreateRequest> {
    let attached = |stream: &str| {
        matches
            .list("attach")
            .iter()
            .any(|one| one.eq_ignore_ascii_case(stream))
    };
    let unsaid = matches.list("attach").is_empty();
    let stdin = matches.on("interactive");
    let attach_stdin = attached("stdin") || stdin;
    let args = matches.args.get(1..).unwrap_or_default();
    let mut labels = keyvalue::labels(matches.list("label-file"), matches.list("label"))?;
    if let Some(action) = matches.get("health-on-failure") {
        labels.insert(HEALTH_ON_FAILURE.to_owned(), action.to_owned());
    }
    let given = matches.list("env");
    let mut environment = keyvalue::environment(matches.list("env-file"), given)?;
    environment.extend(
        session
            .config()
            .proxy_environment(&client.host().to_string(), given),
    );
    Ok(CreateRequest {
        hostname: matches.text("hostname").to_owned(),
        domainname: matches.text("domainname").to_owned(),
        user: matches.text("user").to_owned(),
        attach_stdin,
        attach_stdout: attached("stdout") || unsaid,
        attach_stderr: attached("stderr") || unsaid,
        tty: matches.on("tty"),
        open_stdin: stdin,
        stdin_once: stdin && attach_stdin,
        env: some(&environment),
        cmd: some(args).map(StrSlice),
        healthcheck: health(matches).map_err(Error::Message)?,
        image: image(matches.args.first().map(String::as_str).unwrap_or_default())?,
        working_dir: matches.text("workdir").to_owned(),
        // An empty entrypoint removes the image's.
        entrypoint: matches
            .get("entrypoint")
            .map(|entrypoint| StrSlice(vec![entrypoint.to_owned()])),
        labels: Some(labels),
        stop_signal: matches.text("stop-signal").to_owned(),
        stop_timeout: matches.int("stop-timeout"),
        ..CreateRequest::default()
    })
}

/// An image that is a directory, by its first character, is named by its absolute path.
fn image(name: &str) -> Result<String> {
    use crate::error::IoContext;
    if !name.starts_with(['/', '.']) {
        return Ok(name.to_owned());
    }
    let path = std::fs::canonicalize(name).during(|| format!("image directory {name}"))?;
    let path = path.into_os_string().into_string();
    path.map_err(|path| Error::msg(format!("image directory {}: not UTF-8", path.display())))
}

fn health(matches: &Matches) -> Result<Option<HealthConfig>, String> {
    let duration = |name| match matches.duration(name).unwrap_or(0) {
        0.. => Ok(matches.duration(name).unwrap_or(0)),
        _ => Err(format!("--{name} cannot be negative")),
    };
    let command = matches.text("health-cmd");
    let config = HealthConfig {
        test: match command {
            "" => Vec::new(),
            command => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        interval: duration("health-interval")?,
        timeout: duration("health-timeout")?,
        start_period: duration("health-start-period")?,
        start_interval: duration("health-start-interval")?,
        retries: matches.int("health-retries").unwrap_or(0),
    };
    let said = config != HealthConfig::default();
    match matches.on("no-healthcheck") {
        true if said => Err("--no-healthcheck conflicts with --health-* options".to_owned()),
        true => Ok(Some(HealthConfig {
            test: vec!["NONE".to_owned()],
            ..HealthConfig::default()
        })),
        false if config.retries < 0 => Err("--health-retries cannot be negative".to_owned()),
        false => Ok(said.then_some(config)),
    }
}

fn host(matches: &Matches, network_mode: String) -> Result<HostConfig> {
    let security = security::Security::parse(matches.list("security-opt"))?;
    let unmasked = security.unmasked.then(Vec::new);
    let text = |name| matches.text(name).to_owned();
    let list = |name| some(matches.list(name));
    let each = |name, read: fn(&str) -> Result<String, String>| {
        let values = matches.list(name).iter().map(|text| read(text));
        values
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::Message)
    };
    let mut host = HostConfig {
        container_id_file: text("cidfile"),
        log_config: log(matches)?,
        network_mode,
        restart_policy: security::restart_policy(matches.get("restart").unwrap_or("no"))
            .map_err(Error::Message)?,
        auto_remove: matches.on("rm"),
        volume_driver: text("volume-driver"),
        volumes_from: list("volumes-from"),
        annotations: Some(keyvalue::map(matches.list("annotation"))),
        cap_add: capabilities(matches.list("cap-add")),
        cap_drop: capabilities(matches.list("cap-drop")),
        cgroupns_mode: mode(matches, "cgroupns", "CGROUP", |mode| {
            matches!(mode, "" | "host" | "private")
        })?,
        dns: Some(each("dns", address::ip)?),
        dns_options: Some(matches.list("dns-option").to_vec()),
        dns_search: Some(each("dns-search", address::dns_search)?),
        extra_hosts: Some(each("add-host", address::extra_host)?).filter(|hosts| !hosts.is_empty()),
        group_add: list("group-add"),
        ipc_mode: text("ipc"),
        links: list("link"),
        oom_score_adj: matches.int("oom-score-adj").unwrap_or(0),
        pid_mode: mode(matches, "pid", "PID", security::pid_mode_ok)?,
        privileged: matches.on("privileged"),
        publish_all_ports: matches.on("publish-all"),
        readonly_rootfs: matches.on("read-only"),
        security_opt: some(&security.options),
        storage_opt: Some(storage(matches)?),
        tmpfs: Some(tmpfs(matches)),
        uts_mode: mode(matches, "uts", "UTS", |mode| matches!(mode, "" | "host"))?,
        userns_mode: text("userns"),
        shm_size: matches.bytes("shm-size").unwrap_or(0),
        sysctls: Some(keyvalue::map(matches.list("sysctl"))),
        runtime: text("runtime"),
        isolation: text("isolation"),
        mounts: matches
            .list("mount")
            .iter()
            .map(|text| mount::parse(text))
            .chain(
                matches
                    .list("secret")
                    .iter()
                    .map(|text| secret::parse(text)),
            )
            .collect::<Result<_, _>>()
            .map_err(Error::Message)?,
        masked_paths: unmasked.clone(),
        readonly_paths: unmasked,
        init: matches.given("init").then(|| matches.on("init")),
        ..HostConfig::default()
    };
    resources(matches, &mut host).map_err(Error::Message)?;
    Ok(host)
}

fn resources(matches: &Matches, host: &mut HostConfig) -> Result<(), String> {
    let int = |name| matches.int(name).unwrap_or(0);
    let bytes = |name| matches.bytes(name).unwrap_or(0);
    fn each<T>(
        values: &[String],
        read: fn(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, String> {
        values
            .iter()
            .map(|text| read(text))
            .collect::<Result<_, _>>()
            .map(Some)
    }
    let (devices, requests) = device::devices(matches.list("device"), matches.list("gpus"))?;
    host.cpu_shares = int("cpu-shares");
    host.memory = bytes("memory");
    host.nano_cpus = matches.get("cpus").map_or(Ok(0), check::nano_cpus)?;
    host.cgroup_parent = matches.text("cgroup-parent").to_owned();
    host.blkio_weight = matches.get("blkio-weight").map_or(Ok(0), check::uint16)?;
    host.blkio_weight_device = each(matches.list("blkio-weight-device"), device::weight)?;
    host.blkio_device_read_bps = each(matches.list("device-read-bps"), device::throttle_bytes)?;
    host.blkio_device_write_bps = each(matches.list("device-write-bps"), device::throttle_bytes)?;
    host.blkio_device_read_iops = each(
        matches.list("device-read-iops"),
        device::throttle_operations,
    )?;
    host.blkio_device_write_iops = each(
        matches.list("device-write-iops"),
        device::throttle_operations,
    )?;
    host.cpu_period = int("cpu-period");
    host.cpu_quota = int("cpu-quota");
    host.cpu_realtime_period = int("cpu-rt-period");
    host.cpu_realtime_runtime = int("cpu-rt-runtime");
    host.network_rate = matches.get("network-rate").map(network::rate).transpose()?;
    host.cpuset_cpus = matches.text("cpuset-cpus").to_owned();
    host.cpuset_mems = matches.text("cpuset-mems").to_owned();
    host.devices = Some(devices);
    host.device_cgroup_rules = some(matches.list("device-cgroup-rule"));
    host.device_requests = requests;
    host.kernel_memory = bytes("kernel-memory");
    host.memory_reservation = bytes("memory-reservation");
    host.memory_swap = bytes("memory-swap");
    host.memory_swappiness = match matches.int("memory-swappiness").unwrap_or(-1) {
        swappiness @ -1..=100 => Some(swappiness),
        other => {
            return Err(format!(
                "invalid value: {other}. Valid memory swappiness range is 0-100"
            ));
        }
    };
    host.oom_kill_disable = Some(matches.on("oom-kill-disable"));
    host.pids_limit = Some(int("pids-limit"));
    host.ulimits = Some(device::ulimits(matches.list("ulimit"))?);
    Ok(())
}

fn mode(matches: &Matches, name: &str, what: &str, valid: fn(&str) -> bool) -> Result<String> {
    let mode = matches.text(name);
    match valid(mode) {
        true => Ok(mode.to_owned()),
        false => Err(Error::msg(format!("--{name}: invalid {what} mode"))),
    }
}

fn log(matches: &Matches) -> Result<LogConfig> {
    let (driver, options) = (matches.text("log-driver"), matches.list("log-opt"));
    if driver == "none" && !options.is_empty() {
        return Err(Error::msg("invalid logging opts for driver none"));
    }
    Ok(LogConfig {
        driver: driver.to_owned(),
        config: Some(keyvalue::map(options)),
    })
}

fn storage(matches: &Matches) -> Result<std::collections::BTreeMap<String, String>> {
    let options = matches.list("storage-opt");
    match options.iter().all(|option| option.contains('=')) {
        true => Ok(keyvalue::map(options)),
        false => Err(Error::msg("invalid storage option")),
    }
}

fn tmpfs(matches: &Matches) -> std::collections::BTreeMap<String, String> {
    let pair = |text: &String| {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        (path.to_owned(), options.to_owned())
    };
    matches.list("tmpfs").iter().map(pair).collect()
}

/// Capabilities in their canonical form, sorted, each once.
fn capabilities(names: &[String]) -> Option<StrSlice> {
    let canonical = |name: &String| match name.to_uppercase() {
        name if name == "ALL" || name.starts_with("CAP_") => name,
        name => format!("CAP_{name}"),
    };
    let mut names: Vec<String> = names.iter().map(canonical).collect();
    names.sort();
    names.dedup();
    some(&names).map(StrSlice)
}

/// Go's nil for an empty list.
fn some(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// What `--use-api-socket` adds.
pub(crate) fn mount_api_socket(client: &Client, request: &mut CreateRequest) -> Result<()> {
    let client::Host::Unix(path) = client.host() else {
        return Err(Error::msg(format!(
            "flag --use-api-socket can only be used with unix sockets: {} is none",
            client.host()
        )));
    };
    let host = request.host_config.get_or_insert_default();
    host.mounts.push(api_types::Mount {
        kind: "bind".to_owned(),
        source: path.to_string_lossy().into_owned(),
        target: "/var/run/docker.sock".to_owned(),
        bind_options: Some(api_types::BindOptions::default()),
        ..api_types::Mount::default()
    });
    Ok(())
}

/// A DNS server that a container on its own network cannot reach.
pub(crate) fn loopback_dns(host: &HostConfig) -> Option<&str> {
    let loopback = |text: &&String| {
        text.parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
    };
    host.dns.iter().flatten().find(loopback).map(String::as_str)
}
