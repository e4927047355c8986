//! Containers, exec, volumes, events, restore: the single writer of all state.
//!
//! [`Engine`] is cheap to clone and every call takes `&self`. It makes no system call on a container: images, network and
//! shim do. Calls for different containers never wait for each other; what blocks the thread for moments (files, netlink,
//! the database) runs in `block_in_place`, so the engine needs tokio's multi-thread runtime.

pub mod cdi;
pub mod events;
pub mod exec;
pub mod health;
pub mod model;

mod apparmor;
mod attach;
mod checkpoint;
mod container;
mod create;
mod error;
mod etc;
mod files;
mod ids;
mod image_records;
mod link;
mod links;
mod log_options;
mod logs;
mod mounts;
mod names;
mod networks;
mod prune;
mod pull;
mod quota;
mod registry;
mod remove;
mod restore;
mod run;
mod seccomp;
mod seccomp_profile;
mod settings;
mod spec;
mod start;
mod stop;
mod top;
mod update;
mod volumes;
mod wait;

pub use attach::Attached;
pub use checkpoint::Checkpoint;
pub use error::{Error, Kind, Result};
pub use files::Archive;
pub use images;
pub use link::Stream;
pub use logs::LogStream;
pub use mounts::Secret;
pub use names::dns_names;
pub use network::{Origin, Reach};
pub use networks::{
    AddressRange, BRIDGE_ID, Driver, HOST_ID, NONE_ID, Network, NetworkRequest, PortExplanation,
};
pub use prune::{Prune, PruneFilter, Pruned};
pub use settings::{Defaults, Settings};
pub use shim::log::{Entry as LogEntry, ReadOptions as LogOptions, Stream as LogSource};
pub use shim::protocol::Streams;
pub use shim::user::{User, resolve as resolve_user};
pub use shim::{CgroupSupport, Pressure, Stall, Stats};
pub use stop::parse_signal;
pub use top::Table;
pub use update::Update;
pub use volumes::{NewVolume, Volume};
pub use wait::{Condition, Exit};

use crate::error::Context;
use crate::events::{Event, EventKind, Events};
use crate::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

/// Where the engine keeps things.
#[derive(Debug, Clone)]
pub struct Config {
    /// What lasts: images, volumes, records. Usually `/var/lib/hull`.
    pub data_root: PathBuf,
    /// What lasts until the machine is restarted, on tmpfs. Usually `/run/hull`.
    pub run_root: PathBuf,
    /// The default bridge. Its name is also that of the engine's firewall tables.
    pub bridge: network::BridgeConfig,
    /// The host's address that ports of containers on the default bridge are published on when none is asked for.
    pub host_binding: Ipv4Addr,
    /// What networks are chosen from; none of a family: the defaults.
    pub address_pools: Vec<network::AddressPool>,
    /// Where specifications of devices are, usually [`cdi::DIRECTORIES`]; a later directory wins.
    pub cdi_directories: Vec<PathBuf>,
    /// What changes while the engine runs, as it is at its start.
    pub settings: Settings,
    /// What containers have that do not ask for something else.
    pub defaults: Defaults,
    /// The file that says what may be pulled; it need not be there.
    pub policy: PathBuf,
}

/// The engine.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    store: Arc<store::Store>,
    images: images::Images,
    current: RwLock<Arc<settings::Current>>,
    network: network::Networks,
    /// Those that somebody made, by id.
    networks: RwLock<BTreeMap<String, Arc<Network>>>,
    /// Keeps calls that create or remove networks in a row.
    network_changes: Mutex<()>,
    /// Keeps those who write names in a row.
    names: Mutex<()>,
    events: Events,
    registry: Registry,
    /// First host ids of user namespaces in use.
    user_namespaces: Mutex<BTreeSet<u32>>,
    /// Keeps calls that give projects of the filesystem to trees in a row.
    projects: Mutex<()>,
    /// Keeps calls that create, fill, mount or remove volumes in a row.
    volumes: Mutex<volumes::Users>,
    /// The binary this engine was started from, sealed, even when another has taken its place on disk meanwhile: what
    /// shims are executed from.
    executable: OwnedFd,
    /// The AppArmor profile of containers that ask for none, where it is loaded.
    apparmor: Option<&'static str>,
    /// Held for the engine's life: two engines on one root would destroy each other's containers.
    _lock: std::fs::File,
}

impl Engine {
    /// Opens the engine's directories, finds the containers that run, cleans what a crash has left, and starts what the
    /// restart policies say.
    ///
    /// # Errors
    /// Directories that cannot be used, another engine on them, a database of a newer release.
    pub async fn open(config: Config) -> Result<Self> {
        let apparmor = apparmor::load().await;
        let engine = tokio::task::block_in_place(|| Self::open_stores(config, apparmor))?;
        engine.restore().await?;
        Ok(engine)
    }

    fn open_stores(config: Config, apparmor: Option<&'static str>) -> Result<Self> {
        for dir in [&config.data_root, &config.run_root] {
            private_dir(dir)?;
        }
        // The group of the engine's socket comes through the run root.
        for name in ["containers", "names"] {
            private_dir(&config.run_root.join(name))?;
        }
        for name in ["containers", "volumes"] {
            private_dir(&config.data_root.join(name))?;
        }
        let lock = lock(&config.run_root.join("lock"))?;
        Self::make_mountpoints(&config.data_root.join("mountpoints"))?;
        let store = Arc::new(store::Store::open(&config.data_root.join("hull.db"))?);
        let records = Arc::new(image_records::ImageRecords::new(Arc::clone(&store)));
        let images =
            images::Images::open(&config.data_root, records).context(|| "open the image store")?;
        let network = network::Networks::open(&config.bridge.interface);
        network.choose_from(config.address_pools.clone());
        let current = settings::Current::new(config.settings.clone());
        Ok(Self(Arc::new(Inner {
            config,
            current: RwLock::new(current),
            store,
            images,
            network,
            networks: RwLock::default(),
            network_changes: Mutex::default(),
            names: Mutex::default(),
            events: Events::new(),
            registry: Registry::default(),
            user_namespaces: Mutex::default(),
            projects: Mutex::default(),
            volumes: Mutex::default(),
            executable: shim::executable().context(|| "seal the engine's executable")?,
            apparmor,
            _lock: lock,
        })))
    }

    /// The engine's configuration.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The image store. Its calls block; make them in `block_in_place` or a blocking task.
    pub fn images(&self) -> &images::Images {
        &self.0.images
    }

    /// The AppArmor profile of containers that ask for none. None: the host has no AppArmor, or cannot load it.
    pub fn default_apparmor_profile(&self) -> Option<&'static str> {
        self.0.apparmor
    }

    /// The AppArmor profile of a container's processes.
    pub fn apparmor_profile<'a>(&self, spec: &'a model::Spec) -> Option<&'a str> {
        let isolation = &spec.isolation;
        apparmor::of(
            isolation.apparmor.as_deref(),
            isolation.privileged,
            self.0.apparmor,
        )
    }

    /// What the host's cgroups can limit.
    ///
    /// # Errors
    /// The host has no cgroups.
    pub fn support(&self) -> Result<CgroupSupport> {
        update::host_support()
    }

    /// The remembered events, oldest first, and a receiver of those that come.
    pub fn events(
        &self,
    ) -> (
        Vec<Arc<Event>>,
        tokio::sync::broadcast::Receiver<Arc<Event>>,
    ) {
        self.0.events.subscribe()
    }

    /// Tells about something that happened to an image.
    pub fn image_event(&self, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        self.0.events.emit(EventKind::Image, action, id, attributes);
    }

    /// Tells that an image was made, by a build or of a container.
    pub fn new_image_event(&self, id: &str) {
        let name = BTreeMap::from([("name".to_owned(), id.to_owned())]);
        self.image_event("create", id, name);
    }

    /// Tells that what nobody used was removed.
    pub fn prune_event(&self, kind: EventKind, bytes: u64) {
        let reclaimed = BTreeMap::from([("reclaimed".to_owned(), bytes.to_string())]);
        self.0.events.emit(kind, "prune", "", reclaimed);
    }

    /// Whether any container runs or is about to.
    pub fn is_busy(&self) -> bool {
        use model::Phase;
        self.0.registry.all().iter().any(|container| {
            let phase = container.phase();
            phase.is_running() || matches!(phase, Phase::Restarting | Phase::Removing)
        })
    }

    fn bundle(&self, id: &str) -> PathBuf {
        self.0.config.run_root.join("containers").join(id)
    }

    fn container_dir(&self, id: &str) -> PathBuf {
        self.0.config.data_root.join("containers").join(id)
    }
}

/// Makes a directory that only root enters (CVE-2021-41091), or checks that it is one.
fn private_dir(path: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.context(|| format!("make the directory {path:?}"))?;
    let metadata = std::fs::metadata(path).context(|| format!("stat {path:?}"))?;
    if metadata.permissions().mode() & 0o027 != 0 {
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(path, private).context(|| format!("close {path:?} to others"))?;
    }
    Ok(())
}

fn lock(path: &Path) -> Result<std::fs::File> {
    let file = std::fs::File::create(path).context(|| format!("create {path:?}"))?;
    file.try_lock().map_err(|_| {
        Error::conflict(format!(
            "another engine uses {}: stop it first, or give this one other directories",
            path.display()
        ))
    })?;
    Ok(file)
}

/// 64 random hexadecimal digits, for names that are made up.
///
/// # Errors
/// As getrandom(2).
pub fn random_id() -> Result<String> {
    ids::random_id()
}
