//! The drivers' options, in Docker's words: docs.docker.com/engine/network/drivers.

use super::Driver;
use crate::error::{Error, Result};
use network::{
    BridgeConfig, GatewayMode, IpvlanFlag, IpvlanMode, MacvlanMode, Parent, Tunnel, Uplink,
    UplinkMode, VXLAN_PORT,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const PREFIX: &str = "com.docker.network.";

/// Of interfaces in containers: `eth` before their number.
const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";

/// The host's address that ports are published on when none was asked for.
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";

/// This engine's own: whether containers can send in their own name only.
const CHECK_SENDERS: &str = "hull.network.bridge.check_senders";

/// This engine's own, of networks that other hosts have, too: VXLAN's number, the other hosts, this host's address, the UDP port.
const VXLAN: &str = "hull.network.vxlan.";

/// The longest prefix of an interface's name, which leaves room for a number.
const INTERFACE_PREFIX_BYTES_MAX: usize = 11;

/// Reads options into a configuration. An option that is not known is an error.
pub(super) fn apply(options: &BTreeMap<String, String>, config: &mut BridgeConfig) -> Result<()> {
    for (name, value) in options {
        let invalid = || Error::invalid(format!("invalid value for option {name}: {value:?}"));
        let flag = || match value.to_ascii_lowercase().as_str() {
            "" | "1" | "t" | "true" => Ok(true),
            "0" | "f" | "false" => Ok(false),
            _ => Err(invalid()),
        };
        match name.as_str() {
            HOST_BINDING => {
                value.parse::<Ipv4Addr>().map_err(|_| invalid())?;
                continue;
            }
            INTERFACE_PREFIX => {
                let is_name = (1..=INTERFACE_PREFIX_BYTES_MAX).contains(&value.len())
                    && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
                if !is_name {
                    return Err(invalid());
                }
                continue;
            }
            CHECK_SENDERS => {
                config.checks_senders = flag()?;
                continue;
            }
            name if name.starts_with(VXLAN) => continue,
            _ => {}
        }
        match name.strip_prefix(PREFIX).unwrap_or_default() {
            "bridge.name" => config.interface.clone_from(value),
            "bridge.enable_icc" => config.icc = flag()?,
            "bridge.enable_ip_masquerade" => config.masquerade = flag()?,
            "bridge.inhibit_ipv4" => config.inhibit_ipv4 = flag()?,
            "bridge.gateway_mode_ipv4" => {
                config.gateway_mode4 = gateway_mode(value, config.internal).ok_or_else(invalid)?;
            }
            "bridge.gateway_mode_ipv6" => {
                config.gateway_mode6 = gateway_mode(value, config.internal).ok_or_else(invalid)?;
            }
            "driver.mtu" => {
                let mtu = value.parse().ok().filter(|mtu| (68..=65535).contains(mtu));
                config.mtu = Some(mtu.ok_or_else(invalid)?);
            }
            _ => {
                return Err(Error::unsupported(format!(
                    "the option {name:?} of the bridge driver is not supported"
                )));
            }
        }
    }
    config.tunnel = tunnel(options)?;
    if let Some(tunnel) = &config.tunnel {
        config.mtu = config.mtu.or(Some(tunnel.mtu()));
    }
    Ok(())
}

/// Reads the options of a network that other hosts have, too. None: there are none.
fn tunnel(options: &BTreeMap<String, String>) -> Result<Option<Tunnel>> {
    let mut tunnel = Tunnel {
        id: 0,
        peers: Vec::new(),
        local: None,
        port: VXLAN_PORT,
    };
    let mut is_asked_for = false;
    for (name, value) in options {
        let Some(option) = name.strip_prefix(VXLAN) else {
            continue;
        };
        is_asked_for = true;
        let invalid = || Error::invalid(format!("invalid value for option {name}: {value:?}"));
        match option {
            "id" => tunnel.id = value.parse().map_err(|_| invalid())?,
            "port" => tunnel.port = value.parse().map_err(|_| invalid())?,
            "local" => tunnel.local = Some(value.parse().map_err(|_| invalid())?),
            "peers" => {
                let peers = value.split(',').map(str::parse);
                tunnel.peers = peers.collect::<Result<_, _>>().map_err(|_| invalid())?;
            }
            _ => {
                return Err(Error::unsupported(format!(
                    "the option {name:?} of the bridge driver is not supported"
                )));
            }
        }
    }
    if !is_asked_for {
        return Ok(None);
    }
    let checked = tunnel.check();
    checked.map_err(|failure| Error::invalid(failure.to_string()))?;
    Ok(Some(tunnel))
}

/// Reads the options of the drivers without a bridge. `id`: the network's.
pub(super) fn apply_uplink(
    options: &BTreeMap<String, String>,
    driver: Driver,
    id: &str,
    config: &mut BridgeConfig,
) -> Result<()> {
    let mut parent = None;
    let mut macvlan = MacvlanMode::Bridge;
    let (mut ipvlan, mut flag) = (IpvlanMode::L2, IpvlanFlag::Bridge);
    let mut others = BTreeMap::new();
    for (name, value) in options {
        let unknown = || Error::invalid(format!("unknown {name} {value:?}"));
        match (driver, name.as_str()) {
            (_, "parent") => parent = Some(value.clone()),
            (Driver::Macvlan, "macvlan_mode") => {
                macvlan = match value.as_str() {
                    "" | "bridge" => MacvlanMode::Bridge,
                    "private" => MacvlanMode::Private,
                    "vepa" => MacvlanMode::Vepa,
                    "passthru" => MacvlanMode::Passthru,
                    _ => return Err(unknown()),
                };
            }
            (Driver::Ipvlan, "ipvlan_mode") => {
                ipvlan = match value.as_str() {
                    "" | "l2" => IpvlanMode::L2,
                    "l3" => IpvlanMode::L3,
                    "l3s" => IpvlanMode::L3s,
                    _ => return Err(unknown()),
                };
            }
            (Driver::Ipvlan, "ipvlan_flag") => {
                flag = match value.as_str() {
                    "" | "bridge" => IpvlanFlag::Bridge,
                    "private" => IpvlanFlag::Private,
                    "vepa" => IpvlanFlag::Vepa,
                    _ => return Err(unknown()),
                };
            }
            (_, INTERFACE_PREFIX | "com.docker.network.driver.mtu") => {
                others.insert(name.clone(), value.clone());
            }
            _ => {
                return Err(Error::unsupported(format!(
                    "the option {name:?} of the {} driver is not supported",
                    driver.as_str()
                )));
            }
        }
    }
    let parent = match parent.filter(|parent| !parent.is_empty()) {
        Some(parent) => Parent::Host(parent),
        None => {
            // Nothing leads out of it.
            config.internal = true;
            Parent::Nowhere(format!("dm-{}", &id[..12]))
        }
    };
    let mode = match driver {
        Driver::Ipvlan => UplinkMode::Ipvlan(ipvlan, flag),
        _ => UplinkMode::Macvlan(macvlan),
    };
    config.uplink = Some(Uplink { parent, mode });
    apply(&others, config)
}

fn gateway_mode(text: &str, internal: bool) -> Option<GatewayMode> {
    match text {
        "" | "nat" => Some(GatewayMode::Nat),
        "nat-unprotected" => Some(GatewayMode::NatUnprotected),
        "routed" => Some(GatewayMode::Routed),
        "isolated" if internal => Some(GatewayMode::Isolated),
        _ => None,
    }
}

/// What stands before the number of an interface in a container.
pub(super) fn interface_prefix(options: &BTreeMap<String, String>) -> &str {
    options.get(INTERFACE_PREFIX).map_or("eth", String::as_str)
}

/// The host's address that ports are published on when none was asked for.
pub(super) fn host_binding(options: &BTreeMap<String, String>) -> Ipv4Addr {
    let binding = options
        .get(HOST_BINDING)
        .and_then(|value| value.parse().ok());
    binding.unwrap_or(Ipv4Addr::UNSPECIFIED)
}

/// The default bridge's, for those who look for them.
pub(super) fn of_default_bridge(
    config: &BridgeConfig,
    host_binding: Ipv4Addr,
) -> BTreeMap<String, String> {
    let options = [
        ("bridge.default_bridge", "true".to_owned()),
        ("bridge.enable_icc", config.icc.to_string()),
        ("bridge.enable_ip_masquerade", config.masquerade.to_string()),
        ("bridge.host_binding_ipv4", host_binding.to_string()),
        ("bridge.name", config.interface.clone()),
    ];
    let mtu = config.mtu.map(|mtu| ("driver.mtu", mtu.to_string()));
    let options = options.into_iter().chain(mtu);
    let option = |(name, value): (&str, String)| (format!("{PREFIX}{name}"), value);
    options.map(option).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<BridgeConfig> {
        let options = pairs.iter().map(|(name, value)| {
            let name = match name.strip_prefix("hull.") {
                Some(_) => (*name).to_owned(),
                None => format!("{PREFIX}{name}"),
            };
            (name, (*value).to_owned())
        });
        let mut config = BridgeConfig::new("br0");
        apply(&options.collect(), &mut config)?;
        Ok(config)
    }

    #[test]
    fn a_network_of_several_hosts_names_them() {
        let config = read(&[
            ("hull.network.vxlan.id", "42"),
            ("hull.network.vxlan.peers", "192.0.2.2,192.0.2.3"),
        ]);
        let config = config.unwrap();
        assert_eq!(config.mtu, Some(1450));
        let tunnel = config.tunnel.unwrap();
        assert_eq!((tunnel.id, tunnel.peers.len(), tunnel.port), (42, 2, 4789));
        for bad in [
            ("hull.network.vxlan.id", "42"),
            ("hull.network.vxlan.peers", "192.0.2.2"),
            ("hull.network.vxlan.colour", "red"),
        ] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn options_are_dockers_and_unknown_ones_are_named() {
        let config = read(&[
            ("bridge.name", "mine0"),
            ("bridge.enable_icc", "false"),
            ("bridge.enable_ip_masquerade", "0"),
            ("bridge.gateway_mode_ipv6", "routed"),
            ("driver.mtu", "1400"),
            ("bridge.host_binding_ipv4", "127.0.0.1"),
            ("container_iface_prefix", "net"),
            ("hull.network.bridge.check_senders", "false"),
        ]);
        let expected = BridgeConfig {
            icc: false,
            masquerade: false,
            gateway_mode6: GatewayMode::Routed,
            mtu: Some(1400),
            checks_senders: false,
            ..BridgeConfig::new("mine0")
        };
        assert_eq!(config.unwrap(), expected);
        let unknown = read(&[("bridge.colour", "red")]).unwrap_err();
        assert!(unknown.chain().contains("bridge.colour"), "{unknown:?}");
        for bad in [
            ("driver.mtu", "1"),
            ("bridge.enable_icc", "perhaps"),
            ("bridge.gateway_mode_ipv4", "isolated"),
            ("bridge.host_binding_ipv4", "::1"),
            ("container_iface_prefix", "a/b"),
        ] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
    }
}
