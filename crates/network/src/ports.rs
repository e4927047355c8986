//! Which ports of the host are published, and the choice of free ones.

use crate::{Endpoint, Failure, PortMapping, Protocol, Publish, Result, listeners};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// The ports to choose from when any will do: Linux's own range for the purpose.
const EPHEMERAL: (u16, u16) = (32768, 60999);

/// From how many requests on the kernel is asked which ports the host's programs hold, instead of trying each.
const MANY: usize = 64;

/// The published ports.
#[derive(Debug)]
pub(crate) struct Ports {
    taken: BTreeSet<(Protocol, u16, IpAddr)>,
    /// The last one chosen of the ephemeral ones: a port rests as long as possible.
    last: u16,
}

impl Ports {
    pub(crate) fn new() -> Self {
        Self {
            taken: BTreeSet::new(),
            last: EPHEMERAL.1,
        }
    }

    pub(crate) fn mark(&mut self, mapping: &PortMapping) {
        // What is reached at the container's own address takes no port of the host.
        if mapping.host_port != 0 {
            self.taken
                .insert((mapping.protocol, mapping.host_port, mapping.host_ip));
        }
    }

    pub(crate) fn give_back(&mut self, mapping: &PortMapping) {
        self.taken
            .remove(&(mapping.protocol, mapping.host_port, mapping.host_ip));
    }

    /// Chooses a host port for each request, all or none.
    pub(crate) fn choose(&mut self, requests: &[Publish]) -> Result<Vec<PortMapping>, Failure> {
        let mut chosen: Vec<PortMapping> = Vec::new();
        let mut host = if requests.len() < MANY {
            Host::default()
        } else {
            Host::asked(requests)
        };
        for request in requests {
            match self.choose_one(request, &mut host) {
                Ok(mappings) => {
                    mappings.iter().for_each(|mapping| self.mark(mapping));
                    chosen.extend(mappings);
                }
                Err(failure) => {
                    chosen.iter().for_each(|mapping| self.give_back(mapping));
                    return Err(failure);
                }
            }
        }
        Ok(chosen)
    }

    /// The same port of every address that was asked for.
    fn choose_one(
        &mut self,
        request: &Publish,
        host: &mut Host,
    ) -> Result<Vec<PortMapping>, Failure> {
        let (first, last) = request.host_ports;
        if first == last && first > 0 {
            return self.check(request, first, host);
        }
        let (first, last) = if first == 0 { EPHEMERAL } else { (first, last) };
        let start = if (first..last).contains(&self.last) && request.host_ports.0 == 0 {
            self.last + 1
        } else {
            first
        };
        let found = (start..=last).chain(first..start).find_map(|port| {
            let found = self.check(request, port, host).ok()?;
            Some((port, found))
        });
        let (port, found) = found.ok_or_else(|| {
            let addresses: Vec<_> = request.host_ips.iter().map(IpAddr::to_string).collect();
            Failure::PortTaken(format!(
                "all ports from {first} to {last} of {} are taken",
                addresses.join(" and ")
            ))
        })?;
        if request.host_ports.0 == 0 {
            self.last = port;
        }
        Ok(found)
    }

    fn check(
        &self,
        request: &Publish,
        port: u16,
        host: &mut Host,
    ) -> Result<Vec<PortMapping>, Failure> {
        let addresses = request.host_ips.iter();
        addresses
            .map(|ip| self.check_address(request, *ip, port, host))
            .collect()
    }

    fn check_address(
        &self,
        request: &Publish,
        ip: IpAddr,
        port: u16,
        host: &mut Host,
    ) -> Result<PortMapping, Failure> {
        let here = self
            .taken
            .range((request.protocol, port, IpAddr::from([0, 0, 0, 0]))..);
        let here = here
            .take_while(|(protocol, number, _)| (*protocol, *number) == (request.protocol, port));
        let mut here = here.filter(|(_, _, other)| other.is_ipv4() == ip.is_ipv4());
        if here.any(|(_, _, other)| *other == ip || other.is_unspecified() || ip.is_unspecified()) {
            return Err(Failure::PortTaken(format!(
                "Bind for {} failed: port is already allocated",
                SocketAddr::new(ip, port)
            )));
        }
        let free = host.is_free(request.protocol, SocketAddr::new(ip, port));
        free.map_err(|errno| {
            let text = match errno {
                Errno::ADDRINUSE => "address already in use".to_owned(),
                Errno::ADDRNOTAVAIL => "cannot assign requested address".to_owned(),
                other => other.to_string(),
            };
            Failure::PortTaken(format!(
                "failed to bind host port for {}/{}: {text}",
                SocketAddr::new(ip, port),
                request.protocol
            ))
        })?;
        Ok(PortMapping {
            protocol: request.protocol,
            container_port: request.container_port,
            host_ip: ip,
            host_port: port,
        })
    }
}

/// What is known of the host's own programs while ports are chosen.
#[derive(Debug, Default)]
struct Host {
    /// The ports that any of them holds, of the protocols that the kernel was asked about and has told.
    held: BTreeMap<Protocol, BTreeSet<u16>>,
    /// Addresses that are the host's: a port could be bound.
    own: BTreeSet<IpAddr>,
}

impl Host {
    fn asked(requests: &[Publish]) -> Self {
        let protocols: BTreeSet<Protocol> = requests.iter().map(|r| r.protocol).collect();
        // Where the kernel does not tell, each port is tried.
        let told = |protocol| Some((protocol, listeners::ports(protocol).ok()?));
        Self {
            held: protocols.into_iter().filter_map(told).collect(),
            own: BTreeSet::new(),
        }
    }

    fn is_free(&mut self, protocol: Protocol, address: SocketAddr) -> Result<(), Errno> {
        let is_held = |held: &BTreeSet<u16>| held.contains(&address.port());
        let nobody = self.held.get(&protocol).is_some_and(|held| !is_held(held));
        if nobody && self.own.contains(&address.ip()) {
            return Ok(());
        }
        is_free(protocol, address)?;
        self.own.insert(address.ip());
        Ok(())
    }
}

/// Whether a program of the host could listen there: then none does.
fn is_free(protocol: Protocol, address: SocketAddr) -> Result<(), Errno> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, None),
        Protocol::Udp => (SocketType::DGRAM, None),
        Protocol::Sctp => (SocketType::STREAM, Some(ipproto::SCTP)),
    };
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = match socket_with(family, kind, SocketFlags::CLOEXEC, number) {
        // A kernel without the protocol has nobody who listens.
        Err(Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT) => return Ok(()),
        socket => socket?,
    };
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections that linger in TIME_WAIT do not count.
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)
}

/// Requests for networks that are reached at the containers' own addresses, and those that need ports of the host.
pub(crate) fn split(
    endpoint: &Endpoint,
    requests: &[Publish],
    routed: impl Fn(bool) -> bool,
) -> Result<(Vec<PortMapping>, Vec<Publish>)> {
    let (mut open, mut translated) = (Vec::new(), Vec::new());
    for request in requests {
        let mut host_ips = Vec::new();
        for host_ip in &request.host_ips {
            if host_ip.is_ipv6() && host_ip.is_loopback() {
                if request.protocol != Protocol::Tcp {
                    return Err(Failure::Invalid(format!(
                        "cannot publish port {}/{} on ::1: TCP alone is handed on from there; 127.0.0.1 takes it",
                        request.container_port, request.protocol
                    )));
                }
                host_ips.push(*host_ip);
                continue;
            }
            if endpoint.address(host_ip.is_ipv6()).is_none() {
                return Err(Failure::Invalid(format!(
                    "cannot publish port {} on {host_ip}: the container has no address of its family",
                    request.container_port
                )));
            }
            if routed(host_ip.is_ipv6()) {
                open.push(PortMapping {
                    protocol: request.protocol,
                    container_port: request.container_port,
                    host_ip: *host_ip,
                    host_port: 0,
                });
            } else {
                host_ips.push(*host_ip);
            }
        }
        if !host_ips.is_empty() {
            translated.push(Publish {
                host_ips,
                ..request.clone()
            });
        }
    }
    Ok((open, translated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    fn publish(host_ip: Ipv4Addr, host_ports: (u16, u16)) -> Publish {
        Publish {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ips: vec![host_ip.into()],
            host_ports,
        }
    }

    #[test]
    fn both_families_get_the_same_port() {
        let mut ports = Ports::new();
        let both = Publish {
            host_ips: vec![
                Ipv4Addr::UNSPECIFIED.into(),
                std::net::Ipv6Addr::UNSPECIFIED.into(),
            ],
            ..publish(Ipv4Addr::UNSPECIFIED, (0, 0))
        };
        let chosen = ports.choose(&[both]).unwrap();
        assert_eq!(chosen.len(), 2);
        assert_eq!(chosen[0].host_port, chosen[1].host_port);
    }

    #[test]
    fn a_port_is_given_once_for_overlapping_addresses() {
        let mut ports = Ports::new();
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        ports
            .choose(&[publish(Ipv4Addr::LOCALHOST, (free, free))])
            .unwrap();
        assert!(
            ports
                .choose(&[publish(Ipv4Addr::UNSPECIFIED, (free, free))])
                .is_err()
        );
        assert!(
            ports
                .choose(&[publish(Ipv4Addr::LOCALHOST, (free, free))])
                .is_err()
        );
        ports
            .choose(&[publish(Ipv4Addr::new(127, 0, 0, 2), (free, free))])
            .unwrap();
    }

    #[test]
    fn a_port_of_a_listening_program_is_refused_and_nothing_kept() {
        let mut ports = Ports::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = [
            publish(Ipv4Addr::LOCALHOST, (0, 0)),
            publish(Ipv4Addr::LOCALHOST, (port, port)),
        ];
        let failure = ports.choose(&requests).unwrap_err();
        assert!(
            failure.to_string().contains("address already in use"),
            "{failure}"
        );
        assert!(ports.taken.is_empty());
    }

    #[test]
    fn among_many_the_port_of_a_listening_program_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut requests = vec![publish(Ipv4Addr::LOCALHOST, (0, 0)); MANY];
        let mut ports = Ports::new();
        let chosen = ports.choose(&requests).unwrap();
        assert_eq!(ports.taken.len(), MANY);
        assert!(chosen.iter().all(|mapping| mapping.host_port != port));
        requests.push(publish(Ipv4Addr::LOCALHOST, (port, port)));
        let failure = ports.choose(&requests).unwrap_err();
        assert!(
            failure.to_string().contains("address already in use"),
            "{failure}"
        );
        let elsewhere = vec![publish(Ipv4Addr::new(192, 0, 2, 1), (0, 0)); MANY];
        assert!(ports.choose(&elsewhere).is_err());
        assert_eq!(ports.taken.len(), MANY);
    }

    #[test]
    fn ephemeral_ports_differ() {
        let mut ports = Ports::new();
        let any = publish(Ipv4Addr::LOCALHOST, (0, 0));
        let chosen = ports.choose(&[any.clone(), any.clone(), any]).unwrap();
        let numbers: BTreeSet<u16> = chosen.iter().map(|mapping| mapping.host_port).collect();
        assert_eq!(numbers.len(), 3);
    }
}
