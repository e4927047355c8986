//! `POST /containers/create` as older versions mean it: what their clients cannot mean is dropped, what meant something else says
//! that, and what would be dropped at somebody's risk is refused.
//!
//! Source: moby's `postContainersCreate` and what it calls, at v28.5.

use crate::http::Error;
use crate::version::Version;
use crate::wire::mounts::BelowBinds;
use api_types as types;
use types::{CreateRequest, EndpointSettings, HostConfig, Mount};

type Result<T> = std::result::Result<T, Error>;

/// A request on its way to what the newest version means by it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The request.
    pub(crate) body: CreateRequest,
    /// What becomes of mounts below a bind mount that is read-only.
    pub(crate) below_binds: BelowBinds,
    /// What the client is told.
    pub(crate) warnings: Vec<String>,
}

/// Makes of a request what the versions before a change mean by it.
type Reread = fn(&mut Asked) -> Result<()>;

/// What came with each version. Where a version gave a field its meaning, those before it have none.
const CHANGES: &[(Version, Reread)] = &[
    // The client is who removes the container.
    (Version::of(25), |asked| {
        host(asked).auto_remove = false;
        Ok(())
    }),
    (Version::of(40), |asked| {
        let host = host(asked);
        for options in { host.mounts.iter_mut() }.filter_map(|mount| mount.bind_options.as_mut()) {
            options.non_recursive = false;
        }
        host.kernel_memory_tcp = 0;
        if host.ipc_mode.is_empty() {
            "shareable".clone_into(&mut host.ipc_mode);
        }
        Ok(())
    }),
    (Version::of(42), |asked| {
        let host = host(asked);
        host.mounts.iter_mut().for_each(drop_foreign_options);
        host.console_size = [0, 0];
        Ok(())
    }),
    (Version::of(43), |asked| {
        host(asked).annotations = None;
        Ok(())
    }),
    (Version::of(44), one_network_and_kept_mounts),
    (Version::of(45), |asked| {
        let subpath = |mount: &Mount| {
            { mount.volume_options.as_ref() }.is_some_and(|options| !options.subpath.is_empty())
        };
        refuse_mount(
            asked,
            subpath,
            "VolumeOptions.Subpath needs API v1.45 or newer",
        )
    }),
    (Version::of(48), |asked| {
        endpoints(asked).for_each(|endpoint| endpoint.gw_priority = 0);
        let image = |mount: &Mount| mount.kind == "image";
        refuse_mount(
            asked,
            image,
            "Mount type \"Image\" needs API v1.48 or newer",
        )
    }),
];

impl Asked {
    /// Reads a request of a version.
    pub(crate) fn of(version: Version, body: CreateRequest) -> Result<Self> {
        let mut asked = Self {
            body,
            below_binds: BelowBinds::ReadOnly,
            warnings: Vec::new(),
        };
        for change in version.lacks(CHANGES) {
            change(&mut asked)?;
        }
        if version >= Version::of(48) && has_undirected_volume(host(&mut asked)) {
            asked.warnings.push("WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead".to_owned());
        }
        asked.place_hardware_address(version)?;
        asked.move_parameters_of_interfaces(version)?;
        Ok(asked)
    }

    /// The hardware address is an endpoint's since 1.44, and was the container's before.
    fn place_hardware_address(&mut self, version: Version) -> Result<()> {
        let is_old = version < Version::of(44);
        let given = self.body.mac_address.clone();
        if given.is_empty() {
            if is_old {
                endpoints(self).for_each(|endpoint| endpoint.mac_address.clear());
            }
            return Ok(());
        }
        let mode = host(self).network_mode.clone();
        let has_endpoint =
            !(matches!(mode.as_str(), "host" | "none") || mode.starts_with("container:"));
        if is_old && !has_endpoint {
            return Err(Error::bad_request(
                "conflicting options: mac-address and the network mode",
            ));
        }
        if has_endpoint {
            let endpoint = self.main_endpoint(&mode, is_old).map_err(|why| {
                Error::bad_request(format!(
                    "unable to migrate container-wide MAC address to a specific network: {why}"
                ))
            })?;
            if is_old || endpoint.mac_address.is_empty() {
                endpoint.mac_address = given;
            } else if endpoint.mac_address != given {
                return Err(Error::bad_request(
                    "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
                ));
            }
        }
        self.body.mac_address.clear();
        if !is_old {
            self.warnings.push("The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.".to_owned());
        }
        Ok(())
    }

    /// Kernel parameters of an interface, which is not there yet when a container's parameters are set: they are an option of a
    /// connection since 1.46. Those of the first interface are moved there for clients that know no better.
    fn move_parameters_of_interfaces(&mut self, version: Version) -> Result<()> {
        const OPTION: &str = "com.docker.network.endpoint.sysctls";
        let mode = host(self).network_mode.clone();
        if mode == "host" || mode.starts_with("container:") {
            return Ok(());
        }
        let (mut moved, mut settings) = (Vec::new(), Vec::new());
        for (name, value) in host(self).sysctls.iter().flatten() {
            let parts: Vec<&str> = name.splitn(5, '.').collect();
            let ["net", family, kind, interface, parameter] = parts[..] else {
                continue;
            };
            if !interface.starts_with("eth") {
                continue;
            }
            if version >= Version::of(48) {
                return Err(Error::bad_request(format!(
                    "interface specific sysctl setting {name:?} must be supplied using driver option '{OPTION}'"
                )));
            }
            if interface != "eth0" {
                return Err(Error::bad_request(format!(
                    "unable to determine network endpoint for sysctl {name}, use driver option '{OPTION}' to set per-interface sysctls"
                )));
            }
            moved.push(name.clone());
            settings.push(format!("net.{family}.{kind}.IFNAME.{parameter}={value}"));
        }
        let Some(first) = moved.first() else {
            return Ok(());
        };
        let endpoint = self.main_endpoint(&mode, version < Version::of(44));
        let endpoint = endpoint.map_err(|why| {
            Error::bad_request(format!(
                "unable to find a network for sysctl {first}: {why}"
            ))
        })?;
        let options = endpoint.driver_opts.get_or_insert_default();
        settings.splice(0..0, options.remove(OPTION));
        let settings = settings.join(",");
        let warning = format!(
            "Migrated {} to DriverOpts{{{OPTION:?}:{settings:?}}}.",
            moved.join(",")
        );
        options.insert(OPTION.to_owned(), settings);
        self.warnings.push(warning);
        if let Some(parameters) = &mut host(self).sysctls {
            parameters.retain(|name, _| !moved.contains(name));
        }
        Ok(())
    }

    /// The settings of the network that the mode names. Before 1.44 there are none but those of one network, whatever its name.
    fn main_endpoint(
        &mut self,
        mode: &str,
        is_old: bool,
    ) -> std::result::Result<&mut EndpointSettings, &'static str> {
        let config = self.body.networking_config.get_or_insert_default();
        let settings = config.endpoints_config.get_or_insert_default();
        let name = match mode {
            "" | "default" => "bridge",
            name => name,
        };
        let key = match settings.keys().next() {
            Some(only) if is_old => only.clone(),
            None => name.to_owned(),
            Some(_) if settings.contains_key(name) => name.to_owned(),
            Some(_) if name == "bridge" && settings.contains_key("default") => "default".to_owned(),
            Some(_) => {
                return Err(
                    "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
                );
            }
        };
        Ok(settings.entry(key).or_default().get_or_insert_default())
    }
}

fn host(asked: &mut Asked) -> &mut HostConfig {
    asked.body.host_config.get_or_insert_default()
}

fn endpoints(asked: &mut Asked) -> impl Iterator<Item = &mut EndpointSettings> {
    let config = asked.body.networking_config.iter_mut();
    config
        .flat_map(|config| config.endpoints_config.iter_mut().flatten())
        .filter_map(|(_, settings)| settings.as_mut())
}

fn refuse_mount(asked: &mut Asked, is_refused: fn(&Mount) -> bool, why: &str) -> Result<()> {
    match host(asked).mounts.iter().any(is_refused) {
        true => Err(Error::bad_request(why)),
        false => Ok(()),
    }
}

/// Options of another type than the mount's were passed over, and a source was never made.
fn drop_foreign_options(mount: &mut Mount) {
    if let Some(options) = &mut mount.bind_options {
        options.create_mountpoint = false;
    }
    if mount.kind != "volume" {
        mount.volume_options = None;
    }
    if mount.kind != "tmpfs" {
        mount.tmpfs_options = None;
    }
}

fn one_network_and_kept_mounts(asked: &mut Asked) -> Result<()> {
    if let Some(check) = &mut asked.body.healthcheck {
        check.start_interval = 0;
    }
    let forced = |mount: &Mount| {
        { mount.bind_options.as_ref() }.is_some_and(|options| options.read_only_force_recursive)
    };
    // Whoever asks for this counts on it.
    refuse_mount(
        asked,
        forced,
        "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
    )?;
    asked.below_binds = BelowBinds::Kept;
    let config = asked.body.networking_config.iter();
    let names: Vec<&str> = config
        .flat_map(|config| config.endpoints_config.iter().flatten())
        .map(|(name, _)| name.as_str())
        .collect();
    if names.len() > 1 {
        return Err(Error::bad_request(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        )));
    }
    Ok(())
}

/// Whether a driver is named for the container, and a volume of the long form has none of its own.
fn has_undirected_volume(host: &HostConfig) -> bool {
    let undirected = |mount: &Mount| {
        let options = mount.volume_options.as_ref();
        let driver = options.and_then(|options| options.driver_config.as_ref());
        mount.kind == "volume" && driver.is_none_or(|driver| driver.name.is_empty())
    };
    !host.volume_driver.is_empty() && host.mounts.iter().any(undirected)
}
