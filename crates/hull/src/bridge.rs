//! The engine's flags about networks, in dockerd's words.

use clap::{Arg, ArgAction, ArgMatches};
use engine::Config;
use network::{AddressPool, Addressing, BridgeConfig, Range, Subnet};
use std::net::{IpAddr, Ipv4Addr};

/// The flags.
pub(crate) fn flags() -> Vec<Arg> {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let switch = |name: &'static str, help: &'static str| {
        let flag = Arg::new(name).long(name).help(help).default_value("true");
        let flag = flag.num_args(0..=1).require_equals(true);
        let flag = flag.default_missing_value("true");
        flag.value_parser(clap::value_parser!(bool))
    };
    vec![
        Arg::new("bridge")
            .long("bridge")
            .short('b')
            .default_value("hull0")
            .help("The default bridge's interface"),
        text(
            "bip",
            "ADDRESS/PREFIX",
            "The default bridge's address and network (default: one the host has no route to)",
        ),
        text("bip6", "ADDRESS/PREFIX", "Likewise of IPv6"),
        text(
            "fixed-cidr",
            "SUBNET",
            "Where in its network addresses are given to containers",
        ),
        text(
            "fixed-cidr-v6",
            "SUBNET",
            "Likewise of IPv6; without --bip6 its network",
        ),
        Arg::new("ipv6")
            .long("ipv6")
            .action(ArgAction::SetTrue)
            .help("Give the default bridge IPv6, from a unique local network unless one is named"),
        Arg::new("mtu")
            .long("mtu")
            .value_parser(clap::value_parser!(u32).range(68..=65535))
            .help("Of containers' interfaces on it"),
        switch("icc", "Whether containers on it reach each other"),
        switch(
            "ip-masq",
            "Whether containers on it show the host's address to the world",
        ),
        text(
            "ip",
            "ADDRESS",
            "The host's address that their ports are published on when none is asked for",
        )
        .default_value("0.0.0.0")
        .value_parser(clap::value_parser!(Ipv4Addr)),
        text(
            "default-address-pool",
            "base=SUBNET,size=PREFIX",
            "What networks are chosen from, instead of the defaults",
        )
        .action(ArgAction::Append),
    ]
}

/// Reads the flags into a configuration's `bridge`, `host_binding` and `address_pools`.
pub(crate) fn read(matches: &ArgMatches, config: &mut Config) -> Result<(), String> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let on = |name: &str| matches.get_one::<bool>(name).copied().unwrap_or(true);
    let ipv6 = match range(text("bip6"), text("fixed-cidr-v6"), true)? {
        Some(_) if !matches.get_flag("ipv6") => {
            return Err("--bip6 and --fixed-cidr-v6 need --ipv6".to_owned());
        }
        None if matches.get_flag("ipv6") => Addressing::Choose,
        range => range.map_or(Addressing::None, Addressing::Fixed),
    };
    let ipv4 = range(text("bip"), text("fixed-cidr"), false)?;
    config.bridge = BridgeConfig {
        ipv4: ipv4.map_or(Addressing::Choose, Addressing::Fixed),
        ipv6,
        mtu: matches.get_one::<u32>("mtu").copied(),
        icc: on("icc"),
        masquerade: on("ip-masq"),
        ..BridgeConfig::new(text("bridge").unwrap_or_default())
    };
    if let Some(address) = matches.get_one::<Ipv4Addr>("ip") {
        config.host_binding = *address;
    }
    let pools = matches.get_many::<String>("default-address-pool");
    config.address_pools = pools
        .into_iter()
        .flatten()
        .map(|text| pool(text))
        .collect::<Result<_, _>>()?;
    Ok(())
}

/// The addresses of one family that are asked for: the bridge's own with its network, and where in it containers have theirs.
fn range(bip: Option<&str>, fixed: Option<&str>, is_ipv6: bool) -> Result<Option<Range>, String> {
    let (name, example) = match is_ipv6 {
        false => ("--bip", "172.17.0.1/16"),
        true => ("--bip6", "fd00:1::1/64"),
    };
    let fixed = fixed.map(|text| subnet(text, is_ipv6)).transpose()?;
    let Some(bip) = bip else {
        return Ok(fixed.map(Range::new));
    };
    let bad = || format!("{name} {bip:?}: it reads like {example}, with room for containers");
    let (address, prefix) = bip.split_once('/').ok_or_else(bad)?;
    let gateway: IpAddr = address.parse().map_err(|_| bad())?;
    let subnet = Subnet::new(gateway, prefix.parse().map_err(|_| bad())?);
    let subnet = subnet.filter(|subnet| {
        let room = if is_ipv6 { 126 } else { 30 };
        subnet.is_ipv6() == is_ipv6 && (8..=room).contains(&subnet.prefix())
    });
    Ok(Some(Range {
        gateway: Some(gateway),
        pool: fixed,
        ..Range::new(subnet.ok_or_else(bad)?)
    }))
}

fn subnet(text: &str, is_ipv6: bool) -> Result<Subnet, String> {
    let found: Subnet = text.parse()?;
    if found.is_ipv6() == is_ipv6 {
        return Ok(found);
    }
    Err(format!("the subnet {text} is of the other family"))
}

/// Reads `base=172.30.0.0/16,size=24`.
fn pool(text: &str) -> Result<AddressPool, String> {
    let bad =
        || format!("--default-address-pool {text:?}: it reads like base=172.30.0.0/16,size=24");
    let (mut base, mut size) = (None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("base", value)) => base = Some(value.parse::<Subnet>()?),
            Some(("size", value)) => size = Some(value.parse().map_err(|_| bad())?),
            _ => return Err(bad()),
        }
    }
    let (base, size) = base.zip(size).ok_or_else(bad)?;
    AddressPool::new(base, size).map_err(|failure| failure.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn ranges_are_read_and_what_makes_none_is_refused() {
        let found = range(Some("10.1.0.9/24"), Some("10.1.0.128/25"), false)
            .unwrap()
            .unwrap();
        assert_eq!(found.gateway().to_string(), "10.1.0.9");
        assert_eq!(found.pool.unwrap().to_string(), "10.1.0.128/25");
        let found = range(None, Some("fd00:1::/64"), true).unwrap().unwrap();
        assert_eq!(found.gateway().to_string(), "fd00:1::1");
        assert_eq!(range(None, None, true), Ok(None));
        for (bip, fixed, is_ipv6) in [
            (Some("10.1.0.9"), None, false),
            (Some("10.1.0.9/31"), None, false),
            (Some("fd00::1/64"), None, false),
            (Some("10.1.0.9/24"), None, true),
            (None, Some("fd00::/64"), false),
        ] {
            assert!(range(bip, fixed, is_ipv6).is_err(), "{bip:?} {fixed:?}");
        }
    }

    #[test]
    fn a_pool_has_a_base_and_a_size() {
        assert!(pool("base=10.5.0.0/16,size=24").is_ok());
        for bad in [
            "",
            "base=10.5.0.0/16",
            "size=24",
            "base=10.5.0.0/16,size=8",
            "base=x,size=24",
            "colour=red",
        ] {
            assert!(pool(bad).is_err(), "{bad}");
        }
    }
}
