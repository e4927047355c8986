//! One network on several hosts: the bridges of all of them are one wire by VXLAN, RFC 7348.
//!
//! Every host names the others; what nobody has been heard of yet goes to all of them. There is no store that the hosts share: who gives
//! which address is settled by ranges that do not overlap. What passes is not encrypted, and whoever can send to the port of a host
//! can send on the network: the hosts' own network has to be trusted.

use crate::link;
use crate::{Failure, Result};
use std::net::IpAddr;
use sys::netlink::{Message, NLM_F_APPEND, NLM_F_CREATE, Socket};

/// IANA's port for it.
pub const VXLAN_PORT: u16 = 4789;

/// What the headers take of each packet, by the family of the hosts' network.
const HEADER_BYTES: [u32; 2] = [50, 70];
const ETHERNET_MTU: u32 = 1500;

/// How many other hosts there can be.
const PEERS_MAX: usize = 256;
/// The identifier has 24 bits.
const ID_MAX: u32 = (1 << 24) - 1;

const RTM_NEWNEIGH: u16 = 28;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const AF_BRIDGE: u8 = 7;
const NUD_PERMANENT_NOARP: u16 = 0xc0;
const NTF_SELF: u8 = 2;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;

/// The way to the other hosts of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// VXLAN's number of the network, which all hosts name.
    pub id: u32,
    /// The other hosts.
    pub peers: Vec<IpAddr>,
    /// This host's address; None: as it routes.
    pub local: Option<IpAddr>,
    /// The UDP port of all of them, usually [`VXLAN_PORT`].
    pub port: u16,
}

impl Tunnel {
    /// # Errors
    /// Numbers out of range, no peers or too many, addresses of both families.
    pub fn check(&self) -> Result<()> {
        let bad = |text: String| Err(Failure::Invalid(text));
        if !(1..=ID_MAX).contains(&self.id) {
            return bad(format!("a VXLAN id is from 1 to {ID_MAX}, not {}", self.id));
        }
        if self.peers.is_empty() || self.peers.len() > PEERS_MAX || self.port == 0 {
            return bad(format!(
                "a VXLAN network has a port, and from 1 to {PEERS_MAX} other hosts"
            ));
        }
        let is_ipv6 = self.is_ipv6();
        let mut addresses = self.peers.iter().chain(&self.local);
        if addresses.any(|a| a.is_ipv6() != is_ipv6 || a.is_unspecified() || a.is_multicast()) {
            return bad(
                "the hosts of a VXLAN network have addresses of their own, of one family"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn is_ipv6(&self) -> bool {
        self.peers.first().is_some_and(IpAddr::is_ipv6)
    }

    /// The largest packet in bytes, on hosts whose network is Ethernet.
    pub fn mtu(&self) -> u32 {
        ETHERNET_MTU - HEADER_BYTES[usize::from(self.is_ipv6())]
    }

    /// Its interface on this host: an id is there once.
    pub(crate) fn interface(&self) -> String {
        format!("vxlan{}", self.id)
    }

    /// Makes its interface on a bridge, unless it is there.
    pub(crate) fn make(&self, links: &mut Socket, bridge: u32, mtu: Option<u32>) -> Result<()> {
        let name = self.interface();
        if link::index(links, &name)?.is_some() {
            return Ok(());
        }
        link::create_port(links, &name, bridge, mtu, "vxlan", |data| {
            let data = data
                .number(IFLA_VXLAN_ID, self.id)
                .attribute(IFLA_VXLAN_PORT, &self.port.to_be_bytes());
            match self.local {
                Some(IpAddr::V4(local)) => data.attribute(IFLA_VXLAN_LOCAL, &local.octets()),
                Some(IpAddr::V6(local)) => data.attribute(IFLA_VXLAN_LOCAL6, &local.octets()),
                // The family is said by an address, and the unspecified one says no more.
                None if self.is_ipv6() => data.attribute(IFLA_VXLAN_LOCAL6, &[0; 16]),
                None => data,
            }
        })?;
        let index = link::index_of(links, &name)?;
        let flooded = self.peers.iter().map(|peer| flood(index, &name, *peer));
        let told = links.send(flooded.collect());
        if told.is_err() {
            // The first error is the one to tell.
            let _ = link::delete(links, &name);
        }
        Ok(told?)
    }
}

/// What is for nobody who is known goes to this host, too: bridge(8), `fdb append 00:00:00:00:00:00`.
fn flood(index: u32, name: &str, peer: IpAddr) -> Message {
    let mut ndmsg = [0; 12];
    ndmsg[0] = AF_BRIDGE;
    ndmsg[4..8].copy_from_slice(&index.to_ne_bytes());
    ndmsg[8..10].copy_from_slice(&NUD_PERMANENT_NOARP.to_ne_bytes());
    ndmsg[10] = NTF_SELF;
    let what = format!("add the host {peer} to {name}");
    let octets = match peer {
        IpAddr::V4(peer) => peer.octets().to_vec(),
        IpAddr::V6(peer) => peer.octets().to_vec(),
    };
    Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_APPEND, what)
        .fixed(&ndmsg)
        .attribute(NDA_LLADDR, &[0; 6])
        .attribute(NDA_DST, &octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_tunnel_is_refused() {
        let good = Tunnel {
            id: 42,
            peers: vec!["192.0.2.2".parse().unwrap()],
            local: Some("192.0.2.1".parse().unwrap()),
            port: VXLAN_PORT,
        };
        good.check().unwrap();
        assert_eq!(good.mtu(), 1450);
        let with = |change: fn(&mut Tunnel)| {
            let mut tunnel = good.clone();
            change(&mut tunnel);
            tunnel.check()
        };
        assert!(with(|t| t.id = 0).is_err() && with(|t| t.id = 1 << 24).is_err());
        assert!(with(|t| t.peers.clear()).is_err() && with(|t| t.port = 0).is_err());
        assert!(with(|t| t.local = Some("fd00::1".parse().unwrap())).is_err());
        assert!(with(|t| t.peers.push("224.0.0.1".parse().unwrap())).is_err());
    }
}
