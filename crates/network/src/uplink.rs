//! Networks without a bridge: each container has an interface of its own on one of the host's, as if it were another machine on
//! that wire. macvlan gives it a hardware address of its own, ipvlan shares the host's. Nothing of it passes the host's firewall,
//! and the host itself is not reached: both are how the drivers work (linux/if_link.h).
//!
//! Where the interface is not there it is made for the network, and goes with the last network that is on it: a VLAN of another
//! interface, or one that leads nowhere. What was made so carries [`OURS`] as its alias; what does not is never taken away.

use crate::link::{self, NewLink};
use crate::{Endpoint, Failure, Result};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use sys::netlink::{Error, Message, Socket};

const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;

/// The alias of interfaces of the host that were made for a network.
const OURS: &str = "made by hull for a network";

/// VLANs have numbers from 1 to this: IEEE 802.1Q.
const VLAN_ID_MAX: u16 = 4094;

/// What the interfaces of containers are made on, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The interface.
    pub parent: Parent,
    /// How.
    pub mode: UplinkMode,
}

/// The interface that containers share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// One of the host's. Where there is none and the name is such as `eth0.50`, VLAN 50 of `eth0`.
    Host(String),
    /// One that leads nowhere: containers reach each other alone.
    Nowhere(String),
}

/// How containers share an interface of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UplinkMode {
    /// macvlan: each has a hardware address of its own.
    Macvlan(MacvlanMode),
    /// ipvlan: all have the host's hardware address.
    Ipvlan(IpvlanMode, IpvlanFlag),
}

/// How far containers on a macvlan network reach each other; the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacvlanMode {
    /// They do not.
    Private = 1,
    /// They do if the switch sends frames back.
    Vepa = 2,
    /// They do.
    Bridge = 4,
    /// One container has the interface for itself.
    Passthru = 8,
}

/// What ipvlan looks at; the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpvlanMode {
    /// Frames: containers ask for each other's addresses on the wire.
    L2 = 0,
    /// Packets: the host routes to the containers, and there are no broadcasts.
    L3 = 1,
    /// As [`IpvlanMode::L3`], and packets pass the host's firewall.
    L3s = 2,
}

/// How far containers on an ipvlan network reach each other; the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpvlanFlag {
    /// They do.
    Bridge = 0,
    /// They do not.
    Private = 1,
    /// They do if the switch sends frames back.
    Vepa = 2,
}

impl UplinkMode {
    fn describe(self, data: Message) -> Message {
        match self {
            Self::Macvlan(mode) => data.number(IFLA_MACVLAN_MODE, mode as u32),
            Self::Ipvlan(mode, flag) => data
                .attribute(IFLA_IPVLAN_MODE, &(mode as u16).to_ne_bytes())
                .attribute(IFLA_IPVLAN_FLAGS, &(flag as u16).to_ne_bytes()),
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(..) => "ipvlan",
        }
    }

    /// Whether containers reach everything by the interface itself: there is no wire on which a gateway could be asked for.
    pub(crate) fn is_routed(self) -> bool {
        matches!(self, Self::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s, _))
    }
}

impl Parent {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Host(name) | Self::Nowhere(name) => name,
        }
    }

    /// Makes it, unless it is there.
    fn raise(&self, links: &mut Socket) -> Result<()> {
        let name = self.name();
        if link::index(links, name)?.is_some() {
            return Ok(());
        }
        let made = match self {
            Self::Nowhere(_) => link::create(links, name, None, "dummy", |data| data, OURS),
            Self::Host(_) => {
                let missing = || {
                    Failure::Invalid(format!(
                        "the host has no interface {name:?} (--opt parent=…)"
                    ))
                };
                let (base, id) = vlan(name).ok_or_else(missing)?;
                let base = link::index(links, base)?.ok_or_else(missing)?;
                let id = id.to_ne_bytes();
                let data = |data: Message| data.attribute(IFLA_VLAN_ID, &id);
                link::create(links, name, Some(base), "vlan", data, OURS)
            }
        };
        let module = match self {
            Self::Nowhere(_) => "dummy",
            Self::Host(_) => "8021q",
        };
        made.map_err(|error| missing_kind(error, module))
    }
}

/// The interface and the number that a name such as `eth0.50` says.
fn vlan(name: &str) -> Option<(&str, u16)> {
    let (base, id) = name.rsplit_once('.')?;
    let id = id.parse().ok()?;
    (!base.is_empty() && (1..=VLAN_ID_MAX).contains(&id)).then_some((base, id))
}

/// What the kernel says of a kind of interface that it does not know.
fn missing_kind(error: Error, module: &str) -> Failure {
    if error.errno != Errno::OPNOTSUPP {
        return error.into();
    }
    Failure::Invalid(format!(
        "{}: this kernel has no such interfaces: the module {module} is needed",
        error.what
    ))
}

impl Uplink {
    /// Makes the interface that the containers' are on, unless it is there.
    ///
    /// # Errors
    /// The host has no such interface, or as the kernel.
    pub(crate) fn raise(&self, links: &mut Socket) -> Result<()> {
        self.parent.raise(links)
    }

    /// Takes that interface away if it was made for a network.
    pub(crate) fn lower(&self, links: &mut Socket) -> Result<()> {
        let name = self.parent.name();
        if link::alias(links, name)?.as_deref() == Some(OURS) {
            link::delete(links, name)?;
        }
        Ok(())
    }

    /// Makes a container's interface in its network namespace.
    pub(crate) fn connect(
        &self,
        links: &mut Socket,
        netns: BorrowedFd<'_>,
        endpoint: &Endpoint,
        mtu: Option<u32>,
    ) -> Result<()> {
        let kind = self.mode.kind();
        let new = NewLink {
            name: &endpoint.interface,
            parent: link::index_of(links, self.parent.name())?,
            netns,
            // All that share the host's address have it.
            mac: matches!(self.mode, UplinkMode::Macvlan(_)).then_some(endpoint.mac),
            mtu,
            kind,
        };
        link::create_on(links, new, |data| self.mode.describe(data))
            .map_err(|error| missing_kind(error, kind))
    }
}

/// Takes a container's interface away from its network namespace; that it is gone is no error.
pub(crate) fn withdraw(netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<()> {
    link::inside(netns, || {
        let mut links = link::open()?;
        Ok(link::delete(&mut links, &endpoint.interface)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_vlan() {
        assert_eq!(vlan("eth0.50"), Some(("eth0", 50)));
        assert_eq!(vlan("bond0.1.4094"), Some(("bond0.1", 4094)));
        for none in [
            "eth0",
            "eth0.",
            "eth0.0",
            "eth0.4095",
            ".5",
            "eth0.x",
            "eth0.-1",
        ] {
            assert_eq!(vlan(none), None, "{none}");
        }
    }
}
