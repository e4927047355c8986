//! Networks without a bridge: each container has an interface of its own on one of the host's, as if it were another machine on
//! that wire. macvlan gives it a hardware address of its own, ipvlan shares the host's. Nothing of it passes the host's firewall,
//! and the host itself is not reached: both are how the drivers work (linux/if_link.h).

use crate::link::{self, NewLink};
use crate::{Endpoint, Failure, Result};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use sys::netlink::{Message, Socket};

const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IPVLAN_MODE_L2: u16 = 0;

/// What the interfaces of containers are made on, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The host's interface.
    pub parent: String,
    /// How.
    pub mode: UplinkMode,
}

/// How containers share an interface of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UplinkMode {
    /// macvlan: they reach each other.
    Bridge,
    /// macvlan: they do not reach each other.
    Private,
    /// macvlan: they reach each other if the switch sends frames back.
    Vepa,
    /// macvlan: one container has the interface for itself.
    Passthru,
    /// ipvlan in its mode `l2`: they reach each other, and all have the host's hardware address.
    Ipvlan,
}

impl UplinkMode {
    fn describe(self, data: Message) -> Message {
        match self {
            Self::Private => data.number(IFLA_MACVLAN_MODE, 1),
            Self::Vepa => data.number(IFLA_MACVLAN_MODE, 2),
            Self::Bridge => data.number(IFLA_MACVLAN_MODE, 4),
            Self::Passthru => data.number(IFLA_MACVLAN_MODE, 8),
            Self::Ipvlan => data.attribute(IFLA_IPVLAN_MODE, &IPVLAN_MODE_L2.to_ne_bytes()),
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Ipvlan => "ipvlan",
            _ => "macvlan",
        }
    }
}

impl Uplink {
    /// The index of the host's interface.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn parent_index(&self, links: &Socket) -> Result<u32> {
        link::index(links, &self.parent)?.ok_or_else(|| {
            Failure::Invalid(format!(
                "the host has no interface {:?} (--opt parent=…)",
                self.parent
            ))
        })
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
            parent: self.parent_index(links)?,
            netns,
            // All that share the host's address have it.
            mac: (self.mode != UplinkMode::Ipvlan).then_some(endpoint.mac),
            mtu,
            kind,
        };
        match link::create_on(links, new, |data| self.mode.describe(data)) {
            Err(error) if error.errno == Errno::OPNOTSUPP => Err(Failure::Invalid(format!(
                "this kernel has no {kind} interfaces: the module {kind} is needed"
            ))),
            result => Ok(result?),
        }
    }
}

/// Takes a container's interface away from its network namespace; that it is gone is no error.
pub(crate) fn withdraw(netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<()> {
    link::inside(netns, || {
        let mut links = link::open()?;
        Ok(link::delete(&mut links, &endpoint.interface)?)
    })
}
