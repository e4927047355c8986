//! Settings of the host and of containers' interfaces that a network needs.

use crate::{
    Address, Endpoint, Failure, InterfaceSetting, Result, address, link, optional_setting, setting,
};
use std::net::IpAddr;

/// In a container's namespace: both interfaces up, the addresses, and the way out.
/// `announces`: the neighbours are told whose the addresses are now.
pub(crate) fn configure(endpoint: &Endpoint, routes: bool, announces: bool) -> Result<()> {
    let name = &endpoint.interface;
    if announces {
        setting(&format!("ipv4/conf/{name}/arp_notify"), "1")?;
        optional_setting(&format!("ipv6/conf/{name}/ndisc_notify"), "1")?;
    }
    let has_ipv6 =
        endpoint.address(true).is_some() || endpoint.link_local.iter().any(IpAddr::is_ipv6);
    // An IPv4-only network has no IPv6 (CVE-2024-32473), and no network listens to routers that nobody has asked for
    // (CVE-2020-13401). Without IPv6 in the kernel there is nothing to disable.
    optional_setting(
        &format!("ipv6/conf/{name}/disable_ipv6"),
        if has_ipv6 { "0" } else { "1" },
    )?;
    optional_setting(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    apply(name, &endpoint.settings)?;
    let mut links = link::open()?;
    let index = link::index_of(&links, name)?;
    let mut messages = vec![link::loopback()];
    for address in &endpoint.addresses {
        messages.push(address::add_address(
            index,
            name,
            address.address,
            address.prefix,
        ));
    }
    for address in &endpoint.link_local {
        let prefix = if address.is_ipv4() { 16 } else { 64 };
        messages.push(address::add_address(index, name, *address, prefix));
    }
    messages.push(link::up(index, name));
    if routes {
        let gateways = endpoint
            .addresses
            .iter()
            .filter_map(|address| address.gateway);
        messages.extend(gateways.map(|gateway| address::add_default_route(index, gateway)));
    }
    Ok(links.send(messages)?)
}

/// In a container's namespace: what somebody wants an interface to be set to.
pub(crate) fn apply(interface: &str, settings: &[InterfaceSetting]) -> Result<()> {
    settings.iter().try_for_each(|wanted| {
        let (directory, name) = (&wanted.directory, &wanted.name);
        setting(&format!("{directory}/{interface}/{name}"), &wanted.value)
    })
}

/// A hardware address that nobody else has.
pub(crate) fn random_mac() -> Result<[u8; 6]> {
    let mut mac = [0_u8; 6];
    let count = rustix::rand::getrandom(&mut mac, rustix::rand::GetRandomFlags::empty());
    if count != Ok(mac.len()) {
        return Err(Failure::Exhausted(
            "getrandom gave no random number".to_owned(),
        ));
    }
    // One host's, administered locally: IEEE 802.
    mac[0] = (mac[0] & !1) | 2;
    Ok(mac)
}

/// A hardware address derived from the address: what neighbours remember of it stays true for the next owner.
pub(crate) fn derived_mac(addresses: &[Address]) -> [u8; 6] {
    let octets = match addresses.first().map(|address| address.address) {
        Some(IpAddr::V4(v4)) => v4.octets(),
        Some(IpAddr::V6(v6)) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
        None => [0; 4],
    };
    let [a, b, c, d] = octets;
    [0x02, 0x42, a, b, c, d]
}

pub(crate) fn check_interface(name: &str) -> Result<()> {
    let is_name = !name.is_empty()
        && name.len() <= 15
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !matches!(name, "." | "..");
    if is_name {
        return Ok(());
    }
    Err(Failure::Invalid(format!(
        "{name:?} is no name for an interface: it has 1 to 15 letters, digits, '-', '_' or '.'"
    )))
}

/// Sets the host's network up for a bridge.
pub(crate) fn prepare_host(interface: &str, has_ipv6: bool) -> Result<()> {
    // Packets are forwarded; published ports are reached from the loopback network, too; and no router advertisement
    // of a container is listened to (CVE-2020-13401).
    setting("ipv4/ip_forward", "1")?;
    setting(&format!("ipv4/conf/{interface}/route_localnet"), "1")?;
    optional_setting(&format!("ipv6/conf/{interface}/accept_ra"), "0")?;
    let disabled = if has_ipv6 { "0" } else { "1" };
    optional_setting(&format!("ipv6/conf/{interface}/disable_ipv6"), disabled)?;
    if !has_ipv6 {
        return Ok(());
    }
    keep_router_advertisements()?;
    setting("ipv6/conf/all/forwarding", "1")
}

/// A host that forwards does not listen to its own routers any more, unless it is told to: those that it has listened to go on
/// being heard.
fn keep_router_advertisements() -> Result<()> {
    let forwarding = "/proc/sys/net/ipv6/conf/all/forwarding";
    if std::fs::read_to_string(forwarding).is_ok_and(|value| value.trim_end() == "1") {
        return Ok(());
    }
    let dir = "/proc/sys/net/ipv6/conf";
    let failed = |source| Failure::Setting {
        path: dir.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name
            .to_str()
            .filter(|name| !matches!(*name, "all" | "default" | "lo"))
        else {
            continue;
        };
        let path = format!("{dir}/{name}/accept_ra");
        // An interface that goes away meanwhile needs nothing.
        if std::fs::read_to_string(&path).is_ok_and(|value| value.trim_end() == "1") {
            optional_setting(&format!("ipv6/conf/{name}/accept_ra"), "2")?;
        }
    }
    Ok(())
}
