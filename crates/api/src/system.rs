//! `/_ping`, `/version`, `/info`, `/events`, `/system/df`.

use crate::body::Body;
use crate::build::CacheFilter;
use crate::host::Host;
use crate::http::{Error, Query, Reply, json, send_line, stream};
use crate::images::signed;
use crate::older;
use crate::server::Call;
use crate::version::Version;
use crate::wire::summary;
use api_types as types;
use engine::Engine;
use engine::events::{Event, EventKind};
use engine::images::ListFilter;
use engine::images::registry::config::{Known, Registries};
use engine::model::{LogDriver, Phase};
use http::{HeaderValue, Response, header};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::block_in_place;

/// What the one runtime answers to: its name, and those of what it takes the place of.
const RUNTIMES: [&str; 3] = ["hull", "io.containerd.runc.v2", "runc"];

/// This release.
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn ping() -> Reply {
    let mut response = Response::new(Body::Whole(Some("OK".into())));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert("Swarm", HeaderValue::from_static("inactive"));
    // Clients build by BuildKit's protocol where they can.
    headers.insert("Builder-Version", HeaderValue::from_static("2"));
    Ok(response)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel() -> (String, String) {
    let uname = rustix::system::uname();
    (
        uname.release().to_string_lossy().into_owned(),
        uname.machine().to_string_lossy().into_owned(),
    )
}

pub(crate) fn version() -> Reply {
    let (release, _) = kernel();
    let details = BTreeMap::from([
        ("ApiVersion".to_owned(), types::API_VERSION.to_owned()),
        ("Arch".to_owned(), architecture().to_owned()),
        ("Experimental".to_owned(), "true".to_owned()),
        ("KernelVersion".to_owned(), release.clone()),
        (
            "MinAPIVersion".to_owned(),
            types::API_VERSION_MIN.to_owned(),
        ),
        ("Os".to_owned(), "linux".to_owned()),
        (crate::prune::PRUNE_PLAN.to_owned(), "1".to_owned()),
        (types::BUILD_EVENTS.to_owned(), "1".to_owned()),
    ]);
    json(&types::Version {
        platform: types::PlatformName {
            name: "hull".to_owned(),
        },
        components: vec![types::ComponentVersion {
            name: "Engine".to_owned(),
            version: VERSION.to_owned(),
            details,
        }],
        version: VERSION.to_owned(),
        api_version: types::API_VERSION.to_owned(),
        min_api_version: types::API_VERSION_MIN.to_owned(),
        experimental: true,
        os: "linux".to_owned(),
        arch: architecture().to_owned(),
        kernel_version: release,
        ..types::Version::default()
    })
}

pub(crate) fn info(call: &Call<'_>) -> Reply {
    let containers = call.engine.list();
    let count = |wanted: &dyn Fn(Phase) -> bool| {
        i64::try_from(containers.iter().filter(|c| wanted(c.state.phase)).count())
            .unwrap_or(i64::MAX)
    };
    let images = block_in_place(|| call.engine.images().list(&ListFilter::default()))?;
    let (release, machine) = kernel();
    let support = call.engine.support()?;
    let host = Host::look(&support, call.engine.is_busy());
    let (config, settings) = (call.engine.config(), call.engine.settings());
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let mut info = types::Info {
        containers: count(&|_| true),
        containers_running: count(&|phase| phase == Phase::Running),
        containers_paused: count(&|phase| phase == Phase::Paused),
        containers_stopped: count(&|phase| !phase.is_running()),
        images: i64::try_from(images.len()).unwrap_or(i64::MAX),
        driver: "overlayfs".to_owned(),
        plugins: types::PluginsInfo {
            volume: names(&["local"]),
            network: names(&["bridge", "cni", "host", "ipvlan", "macvlan", "null"]),
            authorization: None,
            log: names(&LogDriver::ALL.map(LogDriver::as_str)),
        },
        memory_limit: support.memory,
        swap_limit: support.swap,
        cpu_cfs_period: support.cpu_quota,
        cpu_cfs_quota: support.cpu_quota,
        cpu_shares: support.cpu_shares,
        cpu_set: support.cpuset,
        pids_limit: support.pids,
        ipv4_forwarding: host.forwards_ipv4,
        oom_kill_disable: support.oom_kill_disable,
        system_time: jiff::Timestamp::now().to_string(),
        logging_driver: or(&config.defaults.log_driver, "json-file"),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: if support.unified { "2" } else { "1" }.to_owned(),
        kernel_version: release,
        operating_system: operating_system(),
        os_type: "linux".to_owned(),
        architecture: machine,
        n_cpu: std::thread::available_parallelism()
            .map_or(1, |cpus| i64::try_from(cpus.get()).unwrap_or(i64::MAX)),
        mem_total: memory_bytes(),
        index_server_address: INDEX.to_owned(),
        registry_config: Some(registries(&settings.registries)),
        docker_root_dir: config.data_root.display().to_string(),
        name: nodename(),
        server_version: VERSION.to_owned(),
        runtimes: RUNTIMES
            .map(|name| (name.to_owned(), types::Runtime::default()))
            .into(),
        default_runtime: or(&config.defaults.runtime, "hull"),
        labels: Some(settings.labels),
        experimental_build: true,
        swarm: types::SwarmInfo {
            local_node_state: "inactive".to_owned(),
            ..types::SwarmInfo::default()
        },
        cdi_spec_dirs: Some(directories(config)),
        discovered_devices: discovered_devices(config)?,
        // Containers always outlive the engine here.
        live_restore_enabled: true,
        init_binary: "hull".to_owned(),
        security_options: names(security_options(call.engine)),
        warnings: Some(host.warnings()),
        ..types::Info::default()
    };
    { call.version.lacks(older::INFO) }.for_each(|undo| undo(&mut info));
    json(&info)
}

/// Where Docker's own clients log in unless told otherwise.
const INDEX: &str = "https://index.docker.io/v1/";

/// Loopback's addresses, on which plain HTTP is taken from a registry.
const LOOPBACK: [&str; 2] = ["::1/128", "127.0.0.0/8"];

fn registries(registries: &Registries) -> types::RegistryConfig {
    let known = registries.known();
    let index = |known: &Known| types::RegistryIndex {
        name: known.name.clone(),
        mirrors: known.mirrors.clone(),
        secure: known.secure,
        official: known.name == oci::reference::DEFAULT_DOMAIN,
    };
    let indexes: BTreeMap<_, _> = { known.iter() }
        .map(|known| (known.name.clone(), index(known)))
        .collect();
    let official = indexes.values().find(|index| index.official);
    types::RegistryConfig {
        insecure_registry_cidrs: Some(LOOPBACK.map(str::to_owned).to_vec()),
        mirrors: official.map(|index| index.mirrors.clone()),
        index_configs: indexes,
        ..types::RegistryConfig::default()
    }
}

fn security_options(engine: &Engine) -> &'static [&'static str] {
    let all = &[
        "name=apparmor",
        "name=seccomp,profile=builtin",
        "name=cgroupns",
    ];
    match engine.default_apparmor_profile() {
        Some(_) => all,
        None => &all[1..],
    }
}

/// A text of the configuration, or what an empty one stands for.
fn or(text: &str, default: &str) -> String {
    if text.is_empty() { default } else { text }.to_owned()
}

fn nodename() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}

/// The host's memory.
fn memory_bytes() -> i64 {
    let sysinfo = rustix::system::sysinfo();
    let bytes = sysinfo.totalram.saturating_mul(sysinfo.mem_unit.into());
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn directories(config: &engine::Config) -> Vec<String> {
    let paths = config.cdi_directories.iter();
    paths.map(|path| path.display().to_string()).collect()
}

fn discovered_devices(config: &engine::Config) -> Result<Vec<types::DeviceInfo>, Error> {
    let names = block_in_place(|| engine::cdi::devices(&config.cdi_directories))?;
    let device = |id| types::DeviceInfo {
        source: "cdi".to_owned(),
        id,
    };
    Ok(names.into_iter().map(device).collect())
}

/// `PRETTY_NAME` of os-release(5).
fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(
        || "Linux".to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}

/// `POST /system/verify?mend=1`, this engine's own.
pub(crate) async fn verify(call: &Call<'_>) -> Reply {
    let (engine, mend) = (call.engine.clone(), call.query.flag("mend"));
    let work = tokio::task::spawn_blocking(move || engine.verify_images(mend));
    let found = work
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    let finding = |finding: engine::images::Finding| types::VerificationFinding {
        object: finding.object,
        problem: finding.problem,
        mended: finding.mended.unwrap_or_default(),
    };
    json(&types::Verification {
        checked: found.checked as u64,
        bytes: found.bytes,
        findings: found.findings.into_iter().map(finding).collect(),
    })
}

/// `GET /system/df`: what is on the disk, in whole blocks as du(1) counts them. Sizes in lists of images and containers are
/// those of the files' content, as Docker's are.
pub(crate) async fn disk_usage(call: &Call<'_>) -> Reply {
    let kinds = call.query.all("type").to_vec();
    let known = ["container", "image", "volume", "build-cache"];
    if let Some(unknown) = kinds.iter().find(|kind| !known.contains(&kind.as_str())) {
        return Err(Error::bad_request(format!(
            "unknown object type: {unknown}"
        )));
    }
    let engine = call.engine.clone();
    let caches = CacheFilter::read(&call.query)?;
    let measured = tokio::task::spawn_blocking(move || measure(&engine, &kinds, &caches));
    let mut usage = measured
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    { call.version.lacks(older::DISK_USAGE) }.for_each(|undo| undo(&mut usage));
    json(&usage)
}

/// Measures what is of the kinds, or everything.
fn measure(
    engine: &Engine,
    kinds: &[String],
    caches: &CacheFilter,
) -> Result<types::DiskUsage, Error> {
    let wants = |kind: &str| kinds.is_empty() || kinds.iter().any(|wanted| wanted == kind);
    let mut usage = types::DiskUsage {
        build_cache: { wants("build-cache") }
            .then(|| caches.records(engine))
            .transpose()?,
        ..Default::default()
    };
    if wants("image") {
        let measured = engine.images().disk_usage()?;
        let images = engine.images().list(&ListFilter::default())?;
        let with_share = |image: &engine::images::Image| {
            // One that came meanwhile is told of the next time.
            let own = measured.images.get(&image.id)?;
            let others = { image.others.iter() }.filter_map(|id| measured.images.get(id));
            let shares = || std::iter::once(own).chain(others.clone());
            Some(types::ImageSummary {
                size: signed(shares().map(|share| share.all).sum()),
                shared_size: signed(shares().map(|share| share.shared).sum()),
                ..crate::images::summary(engine, image)
            })
        };
        usage.layers_size = signed(measured.bytes);
        usage.images = Some(images.iter().filter_map(with_share).collect());
    }
    if wants("container") {
        let with_size = |container: &engine::model::Snapshot| {
            let (_, image) = engine.size(&container.spec.id)?;
            let own = engine.disk_usage(&container.spec.id)?;
            Ok::<_, Error>(summary::summary(engine, container, Some((own, image))))
        };
        let containers = engine.list();
        usage.containers = Some(containers.iter().map(with_size).collect::<Result<_, _>>()?);
    }
    if wants("volume") {
        let with_size = |volume: &engine::Volume| {
            let users = engine.volume_users(&volume.name).len();
            let usage_data = Some(types::VolumeUsage {
                ref_count: i64::try_from(users).unwrap_or(i64::MAX),
                size: signed(engine.volume_disk_usage(&volume.name)?),
            });
            Ok::<_, Error>(types::Volume {
                usage_data,
                ..crate::volumes::wire(engine, volume)
            })
        };
        let volumes = engine.volumes()?;
        usage.volumes = Some(volumes.iter().map(with_size).collect::<Result<_, _>>()?);
    }
    Ok(usage)
}

/// Which events a listener wants.
struct Wanted {
    filters: types::Filters,
    since: Option<jiff::Timestamp>,
    until: Option<jiff::Timestamp>,
    without_new_images: bool,
}

impl Wanted {
    fn read(query: &Query) -> Result<Self, Error> {
        let known = [
            "config",
            "container",
            "daemon",
            "event",
            "id",
            "image",
            "label",
            "network",
            "node",
            "plugin",
            "scope",
            "type",
            "volume",
        ];
        let (since, until) = (query.time("since")?, query.time("until")?);
        if since.is_some() && until.is_some_and(|until| since > Some(until)) {
            let text = |name| query.get(name).unwrap_or_default();
            return Err(Error::bad_request(format!(
                "`since` time ({}) cannot be after `until` time ({})",
                text("since"),
                text("until")
            )));
        }
        Ok(Self {
            filters: query.filters(&known)?,
            since,
            until,
            without_new_images: false,
        })
    }

    fn matches(&self, event: &Event) -> bool {
        let any = |name: &str, matches: &dyn Fn(&str) -> bool| {
            !self.filters.contains(name) || self.filters.get(name).any(matches)
        };
        let name = event.attributes.get("name").map_or("", String::as_str);
        let object = |kind: EventKind, wanted: &str| {
            event.kind == kind && (event.id.starts_with(wanted) || name == wanted)
        };
        let image = |wanted: &str| {
            object(EventKind::Image, wanted)
                || event
                    .attributes
                    .get("image")
                    .is_some_and(|image| image == wanted)
        };
        let is_new_image = event.kind == EventKind::Image && event.action == "create";
        !(is_new_image && self.without_new_images)
            && any("type", &|kind| kind == event.kind.as_str())
            // "exec_start: ls" is found as exec_start.
            && any("event", &|action| event.action == action || event.action.starts_with(&format!("{action}: ")))
            && any("container", &|wanted| object(EventKind::Container, wanted))
            && any("volume", &|wanted| object(EventKind::Volume, wanted))
            && any("daemon", &|wanted| object(EventKind::Daemon, wanted))
            && any("network", &|wanted| object(EventKind::Network, wanted))
            && any("image", &image)
            && any("id", &|wanted| event.id.starts_with(wanted))
            && self.filters.get("label").all(|label| match label.split_once('=') {
                Some((name, value)) => event.attributes.get(name).is_some_and(|label| label == value),
                None => event.attributes.contains_key(label),
            })
    }
}

fn message(event: &Event) -> types::EventMessage {
    types::EventMessage {
        status: if matches!(event.kind, EventKind::Container | EventKind::Image) {
            event.action.clone()
        } else {
            String::new()
        },
        id: if matches!(event.kind, EventKind::Container | EventKind::Image) {
            event.id.clone()
        } else {
            String::new()
        },
        from: event.attributes.get("image").cloned().unwrap_or_default(),
        kind: event.kind.as_str().to_owned(),
        action: event.action.clone(),
        actor: types::Actor {
            id: event.id.clone(),
            attributes: Some(event.attributes.clone()),
        },
        scope: "local".to_owned(),
        time: event.time.as_second(),
        time_nano: i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX),
    }
}

pub(crate) fn events(call: &Call<'_>) -> Reply {
    let mut wanted = Wanted::read(&call.query)?;
    // Older clients do not know that images are made.
    wanted.without_new_images = call.version < Version::of(46);
    let (past, mut receiver) = call.engine.events();
    let (pieces, response) = stream("application/json");
    let now = jiff::Timestamp::now();
    tokio::spawn(async move {
        let in_past = |event: &&Arc<Event>| {
            (wanted.since.is_some() || wanted.until.is_some())
                && wanted.since.is_none_or(|since| event.time >= since)
                && wanted.until.is_none_or(|until| event.time <= until)
        };
        for event in past.iter().filter(in_past) {
            if wanted.matches(event) && !send_line(&pieces, &message(event)).await {
                return;
            }
        }
        let left = wanted
            .until
            .map(|until| until.duration_since(now).unsigned_abs());
        let end = async {
            match left {
                Some(_) if wanted.until.is_some_and(|until| until <= now) => {}
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            let event = tokio::select! {
                event = receiver.recv() => event,
                () = &mut end => return,
                () = pieces.closed() => return,
            };
            match event {
                Ok(event) if wanted.matches(&event) => {
                    if !send_line(&pieces, &message(&event)).await {
                        return;
                    }
                }
                // A listener that is too slow misses some, and goes on.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
    Ok(response)
}
