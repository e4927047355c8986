//! How many connections one peer has: nobody takes all of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bits of an IPv6 address that are one subscriber's: RFC 6177.
const SUBSCRIBER_MASK: u128 = !0 << 64;

/// The connections of each peer, which `K` tells from others.
#[derive(Debug)]
pub struct Peers<K: Eq + Hash = IpAddr> {
    connections_max: usize,
    open: Mutex<HashMap<K, usize>>,
}

/// A connection that counts, until it is dropped.
#[derive(Debug)]
pub struct Connected<K: Eq + Hash = IpAddr> {
    peers: Arc<Peers<K>>,
    peer: K,
}

impl<K: Eq + Hash> Peers<K> {
    /// Nobody has any yet, and each may have so many.
    pub fn new(connections_max: usize) -> Self {
        Self {
            connections_max,
            open: Mutex::new(HashMap::new()),
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Peers<K> {
    /// Counts a connection; `None` when its peer has as many as it may.
    pub fn connect(self: &Arc<Self>, peer: K) -> Option<Connected<K>> {
        let mut open = self.open();
        let count = open.entry(peer.clone()).or_default();
        if *count >= self.connections_max {
            return None;
        }
        *count += 1;
        Some(Connected {
            peers: Arc::clone(self),
            peer,
        })
    }
}

impl<K: Eq + Hash> Drop for Connected<K> {
    fn drop(&mut self) {
        let mut open = self.peers.open();
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// What stands for all addresses of one subscriber.
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & SUBSCRIBER_MASK).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_own_and_gives_them_back() {
        let peers = Arc::new(Peers::new(2));
        let (one, two) = (peers.connect("a"), peers.connect("a"));
        assert!(one.is_some() && two.is_some());
        assert!(peers.connect("a").is_none());
        assert!(peers.connect("b").is_some());
        drop(one);
        assert!(peers.connect("a").is_some());
        drop(two);
        assert!(peers.open().is_empty());
    }

    #[test]
    fn a_network_of_one_subscriber_is_one_address() {
        let of = |text: &str| subscriber(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
