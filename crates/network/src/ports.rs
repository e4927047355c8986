//! Which ports of the host are published, and the choice of free ones.

use crate::{Failure, PortMapping, Protocol, Publish};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The ports to choose from when any will do: Linux's own range for the purpose.
const EPHEMERAL: (u16, u16) = (32768, 60999);

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
        self.taken
            .insert((mapping.protocol, mapping.host_port, mapping.host_ip));
    }

    pub(crate) fn give_back(&mut self, mapping: &PortMapping) {
        self.taken
            .remove(&(mapping.protocol, mapping.host_port, mapping.host_ip));
    }

    /// Chooses a host port for each request, all or none.
    pub(crate) fn choose(&mut self, requests: &[Publish]) -> Result<Vec<PortMapping>, Failure> {
        let mut chosen: Vec<PortMapping> = Vec::new();
        for request in requests {
            match self.choose_one(request) {
                Ok(mapping) => {
                    self.mark(&mapping);
                    chosen.push(mapping);
                }
                Err(failure) => {
                    chosen.iter().for_each(|mapping| self.give_back(mapping));
                    return Err(failure);
                }
            }
        }
        Ok(chosen)
    }

    fn choose_one(&mut self, request: &Publish) -> Result<PortMapping, Failure> {
        let IpAddr::V4(_) = request.host_ip else {
            return Err(Failure::Invalid(format!(
                "cannot publish port {} on {}: IPv6 addresses of the host are not supported yet",
                request.container_port, request.host_ip
            )));
        };
        let (first, last) = request.host_ports;
        if first == last && first > 0 {
            return self.check(request, first);
        }
        let (first, last) = if first == 0 { EPHEMERAL } else { (first, last) };
        let start = if (first..last).contains(&self.last) && request.host_ports.0 == 0 {
            self.last + 1
        } else {
            first
        };
        let found = (start..=last)
            .chain(first..start)
            .find_map(|port| self.check(request, port).ok());
        let found = found.ok_or_else(|| {
            Failure::PortTaken(format!(
                "all ports from {first} to {last} of {} are taken",
                request.host_ip
            ))
        })?;
        if request.host_ports.0 == 0 {
            self.last = found.host_port;
        }
        Ok(found)
    }

    fn check(&self, request: &Publish, port: u16) -> Result<PortMapping, Failure> {
        let ip = request.host_ip;
        let here = self
            .taken
            .range((request.protocol, port, IpAddr::from([0, 0, 0, 0]))..);
        let mut here = here
            .take_while(|(protocol, number, _)| (*protocol, *number) == (request.protocol, port));
        if here.any(|(_, _, other)| *other == ip || other.is_unspecified() || ip.is_unspecified()) {
            return Err(Failure::PortTaken(format!(
                "Bind for {ip}:{port} failed: port is already allocated"
            )));
        }
        is_free(request.protocol, SocketAddr::new(ip, port)).map_err(|errno| {
            let text = match errno {
                Errno::ADDRINUSE => "address already in use".to_owned(),
                Errno::ADDRNOTAVAIL => "cannot assign requested address".to_owned(),
                other => other.to_string(),
            };
            Failure::PortTaken(format!(
                "failed to bind host port for {ip}:{port}/{}: {text}",
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

/// Whether a program of the host could listen there: then none does.
fn is_free(protocol: Protocol, address: SocketAddr) -> Result<(), Errno> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    if protocol == Protocol::Tcp {
        // Connections that linger in TIME_WAIT do not count.
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    fn publish(host_ip: Ipv4Addr, host_ports: (u16, u16)) -> Publish {
        Publish {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: host_ip.into(),
            host_ports,
        }
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
    fn ephemeral_ports_differ() {
        let mut ports = Ports::new();
        let any = publish(Ipv4Addr::LOCALHOST, (0, 0));
        let chosen = ports.choose(&[any.clone(), any.clone(), any]).unwrap();
        let numbers: BTreeSet<u16> = chosen.iter().map(|mapping| mapping.host_port).collect();
        assert_eq!(numbers.len(), 3);
    }
}
