//! `hull network create`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::objects;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use api_types::{ConfigReference, Ipam, IpamConfig, NetworkCreateRequest, NetworkCreateResponse};
use client::Request;
use std::net::IpAddr;

const FLAGS: &[Flag] = &[
    Flag::bool("attachable", "Let containers join by hand"),
    Flag::of(
        "aux-address",
        Kind::List("map"),
        "Address that is not given away (name=address)",
    ),
    Flag::text("config-from", "Take the configuration of this network"),
    Flag::bool("config-only", "Create only a configuration for others"),
    Flag::text("driver", "Driver of the network")
        .short('d')
        .default("bridge"),
    Flag::of("gateway", Kind::Strings, "Address of the gateway"),
    Flag::bool("ingress", "Create Swarm's routing mesh"),
    Flag::bool("internal", "No way out of the network"),
    Flag::of(
        "ip-range",
        Kind::Strings,
        "Give away only addresses of this range",
    ),
    Flag::text("ipam-driver", "Driver of address management").default("default"),
    Flag::of(
        "ipam-opt",
        Kind::List("map"),
        "Option of address management",
    ),
    Flag::bool("ipv4", "Have IPv4").default("true"),
    Flag::bool("ipv6", "Have IPv6"),
    Flag::list("label", "Set a label").check(keyvalue::check_label),
    Flag::of("opt", Kind::List("map"), "Option of the driver").short('o'),
    Flag::text("scope", "Scope of the network"),
    Flag::of("subnet", Kind::Strings, "Subnet as address/prefix"),
];

pub(crate) const CREATE: Command = Command {
    usage: "[OPTIONS] NETWORK",
    about: "Create a network",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let name = &matches.args[0];
    objects::check_name(name)?;
    let pools = pools(matches).map_err(Error::Message)?;
    let from = matches.text("config-from");
    let body = NetworkCreateRequest {
        name: name.clone(),
        driver: matches.get("driver").unwrap_or("bridge").to_owned(),
        scope: matches.text("scope").to_owned(),
        enable_ipv4: matches.given("ipv4").then(|| matches.on("ipv4")),
        enable_ipv6: matches.given("ipv6").then(|| matches.on("ipv6")),
        ipam: Some(Ipam {
            driver: matches.get("ipam-driver").unwrap_or("default").to_owned(),
            options: Some(keyvalue::map(matches.list("ipam-opt"))),
            config: Some(pools),
        }),
        internal: matches.on("internal"),
        attachable: matches.on("attachable"),
        ingress: matches.on("ingress"),
        config_only: matches.on("config-only"),
        config_from: (!from.is_empty()).then(|| ConfigReference {
            network: from.to_owned(),
        }),
        options: Some(keyvalue::map(matches.list("opt"))),
        labels: Some(keyvalue::map(matches.list("label"))),
        ..NetworkCreateRequest::default()
    };
    let request = Request::post(&["networks", "create"]).json(&body);
    let response: NetworkCreateResponse = session.client().await?.json(&request).await?;
    if !response.warning.is_empty() {
        output::complain(&format!("WARNING: {}", response.warning));
    }
    output::line(&response.id)
}

/// Each subnet with the range, the gateway and the further addresses that lie in it.
fn pools(matches: &Matches) -> Result<Vec<IpamConfig>, String> {
    let subnets = matches
        .list("subnet")
        .iter()
        .map(|text| Subnet::parse(text))
        .collect::<Result<Vec<_>, _>>()?;
    let mut pools: Vec<IpamConfig> = matches
        .list("subnet")
        .iter()
        .map(|subnet| IpamConfig {
            subnet: subnet.clone(),
            ..IpamConfig::default()
        })
        .collect();
    let owner = |what: &str, text: &str, address: IpAddr| {
        let owner = subnets.iter().position(|subnet| subnet.contains(address));
        owner.ok_or_else(|| format!("no matching subnet for {what} {text}"))
    };
    for text in matches.list("ip-range") {
        let range = Subnet::parse(text)?;
        let pool = &mut pools[owner("range", text, range.address)?];
        replace(&mut pool.ip_range, text, "ip-ranges")?;
    }
    for text in matches.list("gateway") {
        let address = text
            .parse()
            .map_err(|_| format!("invalid gateway {text}"))?;
        let pool = &mut pools[owner("gateway", text, address)?];
        replace(&mut pool.gateway, text, "gateways")?;
    }
    for (name, text) in keyvalue::map(matches.list("aux-address")) {
        let address = text
            .parse()
            .map_err(|_| format!("invalid aux-address {text:?}"))?;
        let pool = &mut pools[owner("aux-address", &text, address)?];
        pool.auxiliary_addresses.insert(name, text);
    }
    Ok(pools)
}

fn replace(field: &mut String, text: &str, what: &str) -> Result<(), String> {
    match field.is_empty() {
        true => {
            text.clone_into(field);
            Ok(())
        }
        false => Err(format!(
            "cannot configure multiple {what} ({text}, {field}) on the same subnet"
        )),
    }
}

/// An address and how many of its first bits count.
struct Subnet {
    address: IpAddr,
    bits: u32,
}

impl Subnet {
    fn parse(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(address, bits)| {
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse().ok().filter(|bits| *bits <= most)?;
            Some(Self { address, bits })
        });
        parsed.ok_or_else(|| format!("invalid subnet {text}: expected address/prefix"))
    }

    fn contains(&self, address: IpAddr) -> bool {
        let (own, other, most) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(own.to_bits()), u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let host_bits = most - self.bits;
        // All bits may be the host's, and a shift by all of them is no shift.
        let network = |bits: u128| bits.checked_shr(host_bits).unwrap_or(0);
        network(own) == network(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<String, String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let pools = pools(&Matches::parse(&[FLAGS], &args, true).unwrap())?;
        Ok(serde_json::to_string(&pools).unwrap())
    }

    #[test]
    fn addresses_find_their_subnet() {
        assert_eq!(parse("x").unwrap(), "[]");
        assert_eq!(
            parse("--subnet 10.0.0.0/8,fd00::/8 --gateway fd00::1 --gateway 10.0.0.1 --ip-range 10.1.0.0/16 --aux-address a=10.2.3.4").unwrap(),
            r#"[{"Subnet":"10.0.0.0/8","IPRange":"10.1.0.0/16","Gateway":"10.0.0.1","AuxiliaryAddresses":{"a":"10.2.3.4"}},{"Subnet":"fd00::/8","Gateway":"fd00::1"}]"#
        );
        for line in [
            "--gateway 10.0.0.1",
            "--subnet 10.0.0.0/33",
            "--subnet 10.0.0.0",
            "--subnet 10.0.0.0/24 --gateway 10.0.1.1",
            "--subnet 10.0.0.0/24 --gateway 10.0.0.1,10.0.0.2",
            "--subnet 10.0.0.0/24 --aux-address a=x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("--subnet ::/0 --gateway fd00::1").is_ok());
    }
}
