//! How many connections one address has: nobody takes all of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bits of an IPv6 address that are one subscriber's: RFC 6177.
const SUBSCRIBER_MASK: u128 = !0 << 64;

/// The connections of each address.
#[derive(Debug)]
pub(crate) struct Peers {
    connections_max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that counts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Connected {
    peers: Arc<Peers>,
    address: IpAddr,
}

impl Peers {
    pub(crate) fn new(connections_max: usize) -> Self {
        Self {
            connections_max,
            open: Mutex::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection; `None` when its address has as many as it may.
    pub(crate) fn connect(self: &Arc<Self>, address: IpAddr) -> Option<Connected> {
        let address = subscriber(address);
        let mut open = self.open();
        let count = open.entry(address).or_default();
        if *count >= self.connections_max {
            return None;
        }
        *count += 1;
        Some(Connected {
            peers: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut open = self.peers.open();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// What stands for all addresses of one subscriber.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & SUBSCRIBER_MASK).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_and_gives_them_back() {
        let peers = Arc::new(Peers::new(2));
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = peers.connect(address("10.0.0.1"));
        let two = peers.connect(address("::ffff:10.0.0.1"));
        assert!(one.is_some() && two.is_some());
        assert!(peers.connect(address("10.0.0.1")).is_none());
        assert!(peers.connect(address("10.0.0.2")).is_some());
        drop(one);
        assert!(peers.connect(address("10.0.0.1")).is_some());
        drop(two);
        assert!(peers.open().is_empty());
    }

    #[test]
    fn a_network_of_one_subscriber_is_one_address() {
        let peers = Arc::new(Peers::new(1));
        let _one = peers.connect("2001:db8::1".parse().unwrap());
        assert!(peers.connect("2001:db8::2".parse().unwrap()).is_none());
        assert!(peers.connect("2001:db8:0:1::1".parse().unwrap()).is_some());
    }
}
