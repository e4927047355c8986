//! `-p [[address:]host-port:]container-port[/protocol]` and `--expose`, with ranges.

use api_types::{Empty, PortBinding, PortMap};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// What `-p` and `--expose` say together.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    /// `port/protocol` of all.
    pub(crate) exposed: BTreeMap<String, Empty>,
    /// The published ones.
    pub(crate) bindings: PortMap,
}

impl Ports {
    /// Reads all values of both flags.
    pub(crate) fn parse(publish: &[String], expose: &[String]) -> Result<Self, String> {
        let mut ports = Self::default();
        for spec in publish {
            match spec.contains('=') {
                true => ports.publish(&long_form(spec)?)?,
                false => ports.publish(spec)?,
            }
        }
        for spec in expose {
            ports.expose(spec)?;
        }
        Ok(ports)
    }

    fn publish(&mut self, spec: &str) -> Result<(), String> {
        let mut parts = spec.rsplitn(3, ':');
        let (container, host) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        let address = parts.next().unwrap_or_default();
        let (container, protocol) = split_protocol(container);
        if container.is_empty() {
            return Err(format!("no port specified: {spec}<empty>"));
        }
        let address = match address.strip_prefix('[') {
            Some(inner) => inner
                .strip_suffix(']')
                .ok_or(format!("invalid IP address: {address}"))?,
            None => address,
        };
        if !address.is_empty() && address.parse::<IpAddr>().is_err() {
            return Err(format!("invalid IP address: {address}"));
        }
        let container_range =
            range(container).ok_or(format!("invalid containerPort: {container}"))?;
        let protocol = protocol_name(protocol)?;
        let host_range = match host {
            "" => None,
            host => Some(range(host).ok_or(format!("invalid hostPort: {host}"))?),
        };
        let single = container_range.len() == 1;
        if let Some(host_range) = &host_range
            && host_range.len() != container_range.len()
            && !single
        {
            return Err(format!(
                "invalid ranges specified for container and host Ports: {container} and {host}"
            ));
        }
        for (index, port) in container_range.enumerate() {
            let host_port = match &host_range {
                None => String::new(),
                // One container port and several host ports: the engine chooses.
                Some(range) if single && range.len() > 1 => {
                    format!("{}-{}", range.start(), range.end())
                }
                Some(range) => range
                    .clone()
                    .nth(index)
                    .map(|port| port.to_string())
                    .unwrap_or_default(),
            };
            let key = format!("{port}/{protocol}");
            self.exposed.insert(key.clone(), Empty {});
            let binding = PortBinding {
                host_ip: address.to_owned(),
                host_port,
            };
            self.bindings
                .entry(key)
                .or_default()
                .get_or_insert_default()
                .push(binding);
        }
        Ok(())
    }

    fn expose(&mut self, spec: &str) -> Result<(), String> {
        if spec.contains(':') {
            return Err(format!("invalid port format for --expose: {spec}"));
        }
        let (port, protocol) = split_protocol(spec);
        let range = range(port).ok_or(format!("invalid range format for --expose: {spec}"))?;
        let protocol = protocol_name(protocol)?;
        for port in range {
            self.exposed.insert(format!("{port}/{protocol}"), Empty {});
        }
        Ok(())
    }
}

/// `target=80,published=8080,protocol=tcp` to the short form.
fn long_form(spec: &str) -> Result<String, String> {
    let mut params = BTreeMap::from([("protocol", "tcp")]);
    for param in spec.split(',') {
        let pair = param.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) = pair.ok_or_else(|| {
            format!("invalid publish opts format (should be name=value but got '{param}')")
        })?;
        params.insert(key, value);
    }
    let get = |key| params.get(key).copied().unwrap_or_default();
    Ok(format!(
        "{}:{}/{}",
        get("published"),
        get("target"),
        get("protocol")
    ))
}

fn split_protocol(spec: &str) -> (&str, &str) {
    match spec.split_once('/') {
        Some((port, protocol)) if !protocol.is_empty() => (port, protocol),
        Some((port, _)) => (port, "tcp"),
        None => (spec, "tcp"),
    }
}

fn protocol_name(protocol: &str) -> Result<String, String> {
    let lower = protocol.to_ascii_lowercase();
    match lower.as_str() {
        "tcp" | "udp" | "sctp" => Ok(lower),
        _ => Err(format!("invalid proto: {protocol}")),
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse().ok())?
    };
    let (start, end) = match text.split_once('-') {
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(text)?, number(text)?),
    };
    (start <= end).then_some(start..=end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(publish: &[&str]) -> Result<String, String> {
        let publish: Vec<String> = publish.iter().map(|spec| (*spec).to_owned()).collect();
        let ports = Ports::parse(&publish, &[])?;
        let lines = ports.bindings.iter().map(|(key, bindings)| {
            let bindings = bindings.iter().flatten();
            let bindings: Vec<_> = bindings
                .map(|b| format!("{}:{}", b.host_ip, b.host_port))
                .collect();
            format!("{key}={}", bindings.join("+"))
        });
        Ok(lines.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn every_form_of_publish() {
        for (specs, expected) in [
            (&["80"][..], "80/tcp=:"),
            (&["8080:80"], "80/tcp=:8080"),
            (&["127.0.0.1:8080:80/udp"], "80/udp=127.0.0.1:8080"),
            (&["127.0.0.1::80"], "80/tcp=127.0.0.1:"),
            (&["[::1]:8080:80"], "80/tcp=::1:8080"),
            (&["::1:8080:80"], "80/tcp=::1:8080"),
            (&["8080-8081:80-81"], "80/tcp=:8080 81/tcp=:8081"),
            (&["8080-8090:80"], "80/tcp=:8080-8090"),
            (&["80-81"], "80/tcp=: 81/tcp=:"),
            (&["1:80", "2:80/TCP", "3:80/"], "80/tcp=:1+:2+:3"),
            (&["target=80,published=8080,protocol=udp"], "80/udp=:8080"),
            (&["target=80"], "80/tcp=:"),
            (&["0:80"], "80/tcp=:0"),
        ] {
            assert_eq!(show(specs).as_deref(), Ok(expected), "{specs:?}");
        }
    }

    #[test]
    fn malformed_ports_are_named() {
        for spec in [
            "",
            ":",
            "x",
            "80:",
            "1:2:3:4",
            "65536",
            "1-0",
            "8080-8082:80-81",
            "80/foo",
            "[::1:80:80",
            "a=b=c,",
            "1.2.3:80:80",
            "+80",
            "-80",
            "80-",
            "=",
        ] {
            assert!(show(&[spec]).is_err(), "{spec}");
        }
        assert!(Ports::parse(&[], &["1:2".into()]).is_err());
        let exposed = Ports::parse(&[], &["80".into(), "5-6/udp".into()])
            .unwrap()
            .exposed;
        assert_eq!(
            exposed.into_keys().collect::<Vec<_>>(),
            ["5/udp", "6/udp", "80/tcp"]
        );
    }

    proptest! {
        #[test]
        fn no_port_panics(spec in "[-0-9:./\\[\\]=a-z]{0,20}") {
            let _ = Ports::parse(std::slice::from_ref(&spec), std::slice::from_ref(&spec));
        }
    }
}
