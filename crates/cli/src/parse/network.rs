//! `--network name` and `--network name=…,alias=…,ip=…,…`, and how the flags about addresses join them.

use crate::flags::Matches;
use crate::go::{csv, units};
use crate::parse::address;
use api_types::{EndpointIpamConfig, EndpointSettings, NetworkRate, NetworkingConfig};
use std::collections::BTreeMap;

/// One `--network`.
#[derive(Debug, Default, Clone)]
struct Attachment {
    target: String,
    aliases: Vec<String>,
    links: Vec<String>,
    driver_opts: BTreeMap<String, String>,
    ipv4: String,
    ipv6: String,
    link_local: Vec<String>,
    mac: String,
    gw_priority: i64,
}

/// Checks one value of `--network`.
pub(crate) fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

/// Checks a value of `--network-rate`.
pub(crate) fn check_rate(text: &str) -> Result<(), String> {
    rate(text).map(drop)
}

/// Reads `10m`, which is both, or `receive=10m,send=1m`; what is not named is not limited, and neither is 0.
pub(crate) fn rate(text: &str) -> Result<NetworkRate, String> {
    let bytes = |text: &str| {
        let bytes = units::ram_in_bytes(text)?;
        u64::try_from(bytes).map_err(|_| format!("invalid rate {text:?}"))
    };
    if !text.contains('=') {
        let both = bytes(text)?;
        return Ok(NetworkRate {
            receive: both,
            send: both,
        });
    }
    let mut rate = NetworkRate::default();
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("receive", value)) => rate.receive = bytes(value)?,
            Some(("send", value)) => rate.send = bytes(value)?,
            _ => {
                return Err(format!(
                    "invalid rate {part:?}: it reads like receive=10m,send=1m"
                ));
            }
        }
    }
    Ok(rate)
}

fn parse(text: &str) -> Result<Attachment, String> {
    let mut attachment = Attachment::default();
    if !is_long(text) {
        attachment.target = text.to_owned();
        return Ok(attachment);
    }
    for field in csv::record(text)? {
        let lower = field.to_lowercase();
        let pair = lower.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) = pair.ok_or_else(|| format!("invalid field {field}"))?;
        let value = value.trim().to_owned();
        match key.trim() {
            "name" => attachment.target = value,
            "alias" => attachment.aliases.push(value),
            "ip" => attachment.ipv4 = value,
            "ip6" => attachment.ipv6 = value,
            "mac-address" => attachment.mac = value,
            "link-local-ip" => attachment.link_local.push(value),
            "driver-opt" => {
                let pair = value.split_once('=').filter(|(key, _)| !key.is_empty());
                let (key, value) = pair.ok_or("invalid key value pair format in driver options")?;
                attachment
                    .driver_opts
                    .insert(key.trim().to_owned(), value.trim().to_owned());
            }
            "gw-priority" => {
                let number = value.parse();
                attachment.gw_priority =
                    number.map_err(|_| format!("invalid gw-priority ({value}): not a number"))?;
            }
            key => return Err(format!("invalid field key {key}")),
        }
    }
    match attachment.target.is_empty() {
        true => Err("network name/id is not specified".to_owned()),
        false => Ok(attachment),
    }
}

/// Whether there is an `=` between two word characters.
fn is_long(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.as_bytes()
        .windows(3)
        .any(|three| word(three[0]) && three[1] == b'=' && word(three[2]))
}

/// Whether a network mode names a network that somebody made.
fn is_user_defined(mode: &str) -> bool {
    !matches!(mode, "default" | "bridge" | "host" | "none") && !mode.starts_with("container:")
}

/// The network mode and the endpoints of a container.
pub(crate) fn resolve(matches: &Matches) -> Result<(String, NetworkingConfig), String> {
    let mut attachments = matches
        .list("network")
        .iter()
        .map(|text| parse(text))
        .collect::<Result<Vec<_>, _>>()?;
    let explicit = !attachments.is_empty();
    if !explicit {
        attachments.push(Attachment {
            target: "default".to_owned(),
            ..Attachment::default()
        });
    }
    let mode = attachments[0].target.clone();
    apply_flags(&mut attachments[0], matches)?;
    let user_defined = attachments
        .iter()
        .filter(|one| is_user_defined(&one.target))
        .count();
    let mut endpoints = BTreeMap::new();
    let alone = attachments.len() == 1;
    for attachment in &attachments {
        let endpoint = endpoint(attachment)?;
        if endpoints.contains_key(&attachment.target) {
            return Err(format!(
                "network {:?} is specified multiple times",
                attachment.target
            ));
        }
        // One network without any wish is said by the network mode already.
        if explicit && alone && endpoint == EndpointSettings::default() {
            continue;
        }
        endpoints.insert(attachment.target.clone(), Some(endpoint));
    }
    if user_defined != 0 && user_defined != attachments.len() {
        return Err("conflicting options: cannot attach both user-defined and non-user-defined network-modes".to_owned());
    }
    Ok((
        mode,
        NetworkingConfig {
            endpoints_config: Some(endpoints),
        },
    ))
}

/// The flags without a network's name are the first network's.
fn apply_flags(first: &mut Attachment, matches: &Matches) -> Result<(), String> {
    let conflict = |flag: &str, what: &str| {
        Err(format!(
            "conflicting options: cannot specify both --{flag} and per-network {what}"
        ))
    };
    let user_defined = is_user_defined(&first.target);
    let list = |flag, own: &mut Vec<String>, what| match (matches.list(flag), own.is_empty()) {
        ([], _) => Ok(()),
        (values, true) => {
            *own = values.to_vec();
            Ok(())
        }
        (_, false) => conflict(flag, what),
    };
    list("network-alias", &mut first.aliases, "alias")?;
    if user_defined {
        list("link", &mut first.links, "links")?;
    }
    list(
        "link-local-ip",
        &mut first.link_local,
        "link-local IP addresses",
    )?;
    for (flag, own, what) in [
        ("ip", &mut first.ipv4, "IPv4 address"),
        ("ip6", &mut first.ipv6, "IPv6 address"),
        ("mac-address", &mut first.mac, "MAC address"),
    ] {
        match matches.text(flag) {
            "" => {}
            value if own.is_empty() => *own = value.to_owned(),
            _ => return conflict(flag, what),
        }
    }
    Ok(())
}

fn endpoint(attachment: &Attachment) -> Result<EndpointSettings, String> {
    if attachment.target.trim().is_empty() {
        return Err("no name set for network".to_owned());
    }
    if !is_user_defined(&attachment.target) {
        if !attachment.aliases.is_empty() {
            return Err(
                "network-scoped aliases are only supported for user-defined networks".to_owned(),
            );
        }
        if !attachment.links.is_empty() {
            return Err("links are only supported for user-defined networks".to_owned());
        }
    }
    if !attachment.mac.is_empty() && !address::is_mac(&attachment.mac) {
        return Err(format!("{} is not a valid mac address", attachment.mac));
    }
    let addresses = EndpointIpamConfig {
        ipv4_address: attachment.ipv4.clone(),
        ipv6_address: attachment.ipv6.clone(),
        link_local_ips: attachment.link_local.clone(),
    };
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    Ok(EndpointSettings {
        ipam_config: (addresses != EndpointIpamConfig::default()).then_some(addresses),
        links: some(&attachment.links),
        aliases: some(&attachment.aliases),
        mac_address: attachment.mac.clone(),
        driver_opts: (!attachment.driver_opts.is_empty()).then(|| attachment.driver_opts.clone()),
        gw_priority: attachment.gw_priority,
        ..EndpointSettings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_both_ways_or_of_each() {
        let shown = |text| rate(text).map(|rate| (rate.receive, rate.send)).ok();
        assert_eq!(shown("10k"), Some((10240, 10240)));
        assert_eq!(shown("send=1m"), Some((0, 1 << 20)));
        assert_eq!(shown("receive=2k,send=1k"), Some((2048, 1024)));
        assert_eq!(shown("0"), Some((0, 0)));
        for bad in ["", "x", "send=", "up=1m", "send=1m,", "-1"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }

    #[test]
    fn short_and_long_forms() {
        assert_eq!(parse("my-net").unwrap().target, "my-net");
        assert_eq!(parse("container:a=").unwrap().target, "container:a=");
        let long =
            parse("name=Net,alias=a,alias=b,ip=10.0.0.2,driver-opt=k=v,gw-priority=-1").unwrap();
        assert_eq!(
            (long.target.as_str(), long.aliases.len(), long.gw_priority),
            ("net", 2, -1)
        );
        assert_eq!(long.driver_opts["k"], "v");
        for text in [
            "alias=a",
            "name=x,foo=bar",
            "name=x,gw-priority=y",
            "name=x,driver-opt=y",
            "name=x,y",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
