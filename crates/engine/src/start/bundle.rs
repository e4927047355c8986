//! What the shim finds in a bundle: `config.json`, the `/etc` files, memory that other containers may join.

use crate::container::Container;
use crate::error::{Context, Error, Result};
use crate::model::{ImageSource, Ipc, Namespace, NetworkMode, Spec};
use crate::spec::Prepared;
use crate::{Engine, etc};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The mount point in the bundle of the `/dev/shm` that other containers may join.
const SHARED_MEMORY: &str = "shm";

impl Engine {
    /// Writes the bundle. Returns the groups that devices need.
    pub(super) fn prepare_bundle(
        &self,
        container: &Container,
        mounts: Vec<oci::runtime::Mount>,
        user_namespace_base: Option<u32>,
    ) -> Result<Vec<u32>> {
        let spec = &container.spec;
        let devices = crate::cdi::resolve(
            &spec.isolation.device_requests,
            &self.0.config.cdi_directories,
        )?;
        let gids = devices.gids.clone();
        let prepared = Prepared {
            mounts,
            peers: self.peers(spec)?,
            etc_dir: None,
            shared_memory: None,
            hidden: self.hidden_paths(spec),
            limits: container.snapshot().limits().clone(),
            apparmor: self.apparmor_profile(spec).map(str::to_owned),
            devices,
            environment: Vec::new(),
            user_namespace_base,
        };
        self.write_bundle(container, prepared)?;
        Ok(gids)
    }

    /// The processes whose namespaces are joined.
    fn peers(&self, spec: &Spec) -> Result<Vec<(String, i32)>> {
        let isolation = &spec.isolation;
        let namespaces = [&isolation.pid, &isolation.uts, &isolation.cgroup];
        let mut ids: Vec<&String> = namespaces
            .into_iter()
            .filter_map(|namespace| match namespace {
                Namespace::Container(id) => Some(id),
                _ => None,
            })
            .collect();
        if let Ipc::Container(id) = &isolation.ipc {
            ids.push(id);
        }
        if let NetworkMode::Container(id) = &spec.network.mode {
            ids.push(id);
        }
        let pid_of = |id: &String| {
            let peer = self.0.registry.find(id)?;
            let pid = peer.state().pid.filter(|_| peer.phase().is_running());
            let pid = pid.ok_or_else(|| {
                Error::conflict(format!(
                    "cannot join the namespaces of container {id}: it is not running"
                ))
            })?;
            Ok((id.clone(), pid))
        };
        ids.into_iter().map(pid_of).collect()
    }

    /// The engine's own directories, where a directory of the host that holds them is the root filesystem.
    fn hidden_paths(&self, spec: &Spec) -> Vec<PathBuf> {
        let ImageSource::Directory(root) = &spec.image else {
            return Vec::new();
        };
        let own = [&self.0.config.data_root, &self.0.config.run_root];
        let inside = own
            .into_iter()
            .filter_map(|path| path.strip_prefix(root).ok());
        inside.map(|path| Path::new("/").join(path)).collect()
    }

    /// Writes `config.json` and the `/etc` files.
    fn write_bundle(&self, container: &Container, mut prepared: Prepared) -> Result<()> {
        let bundle = self.bundle(container.id());
        let spec = &container.spec;
        let state = container.state();
        let etc_dir = bundle.join("etc");
        std::fs::create_dir_all(&etc_dir).context(|| format!("make {etc_dir:?}"))?;
        std::fs::create_dir_all(self.container_dir(container.id()))
            .context(|| "make the log directory")?;
        prepared.shared_memory = match &spec.isolation.ipc {
            Ipc::Shareable => Some(make_shared_memory(&bundle, spec.isolation.shm_bytes)?),
            Ipc::Container(peer) => {
                Some(self.bundle(peer).join(SHARED_MEMORY)).filter(|path| path.exists())
            }
            _ => None,
        };
        let places = state.endpoints().flat_map(|(_, endpoint)| &endpoint.places);
        let addresses: Vec<IpAddr> = places.map(|place| place.address).collect();
        let gateway = [false, true].into_iter().find_map(|is_ipv6| {
            let (_, endpoint) = state.way_out(is_ipv6)?;
            let gateway = endpoint.place(is_ipv6)?.gateway?;
            // Who leaves by an interface itself has nobody at the other end.
            (!gateway.is_unspecified()).then_some(gateway)
        });
        if let NetworkMode::Container(peer) = &spec.network.mode {
            // Whoever shares a network shares its names.
            let peer_dir = self.bundle(peer).join("etc");
            for name in etc::FILES {
                std::fs::copy(peer_dir.join(name), etc_dir.join(name))
                    .context(|| format!("copy /etc/{name}"))?;
            }
        } else {
            let linked = self.follow_links(container)?;
            prepared.environment = linked.environment;
            let surroundings = etc::Surroundings {
                addresses: &addresses,
                gateway,
                resolver: crate::names::has_resolver(&state),
                hosts: &linked.hosts,
            };
            etc::write(&etc_dir, spec, &surroundings)?;
        }
        prepared.etc_dir = Some(etc_dir);
        let config = crate::spec::build(spec, &prepared)?;
        let text = serde_json::to_vec(&config).context(|| "encode config.json")?;
        std::fs::write(bundle.join("config.json"), text).context(|| "write config.json")
    }
}

/// Mounts the memory that several containers have as `/dev/shm`. It is the one mount of a container in the host's table:
/// a mount cannot be taken from another container's mount namespace. The bundle's removal unmounts it.
fn make_shared_memory(bundle: &Path, bytes: u64) -> Result<PathBuf> {
    use rustix::mount::MountFlags;
    let path = bundle.join(SHARED_MEMORY);
    std::fs::create_dir_all(&path).context(|| format!("make {path:?}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options =
        std::ffi::CString::new(format!("mode=1777,size={bytes}")).context(|| "mount /dev/shm")?;
    let mounted = rustix::mount::mount("shm", &path, "tmpfs", flags, options.as_c_str());
    mounted
        .map_err(std::io::Error::from)
        .context(|| format!("mount a tmpfs on {path:?}"))?;
    Ok(path)
}

/// Removes a bundle and what is mounted in it. That it is gone is no error.
pub(crate) fn remove_bundle(bundle: &Path) -> std::io::Result<()> {
    use rustix::io::Errno;
    match rustix::mount::unmount(
        bundle.join(SHARED_MEMORY),
        rustix::mount::UnmountFlags::DETACH,
    ) {
        Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    crate::mounts::unmount_staged(bundle)?;
    match std::fs::remove_dir_all(bundle) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
