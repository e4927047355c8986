//! Addresses of one network.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// An IPv4 network and its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// The gateway's address: the first of the network, unless it was found otherwise.
    pub gateway: Ipv4Addr,
    /// The prefix length, 8 to 30.
    pub prefix: u8,
}

impl Subnet {
    /// The network with its first address as the gateway. None: a prefix that leaves no room, or is none.
    pub fn new(network: Ipv4Addr, prefix: u8) -> Option<Self> {
        (8..=30).contains(&prefix).then(|| {
            let base = network.to_bits() & !host_mask(prefix);
            Self {
                gateway: Ipv4Addr::from_bits(base + 1),
                prefix,
            }
        })
    }

    /// The network's own address.
    pub fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.gateway.to_bits() & !host_mask(self.prefix))
    }

    /// Whether any address is in both.
    pub fn overlaps(&self, network: Ipv4Addr, prefix: u8) -> bool {
        let mask = !host_mask(self.prefix.min(prefix));
        self.gateway.to_bits() & mask == network.to_bits() & mask
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        self.overlaps(address, 32)
    }
}

fn host_mask(prefix: u8) -> u32 {
    u32::MAX.checked_shr(prefix.into()).unwrap_or(0)
}

/// Who has which address. The next one given is the one after the last: an address rests as long as possible, so that
/// what still remembers its last owner has time to forget.
#[derive(Debug)]
pub(crate) struct Pool {
    subnet: Subnet,
    used: BTreeSet<u32>,
    last: u32,
}

impl Pool {
    pub(crate) fn new(subnet: Subnet) -> Self {
        Self {
            subnet,
            used: BTreeSet::new(),
            last: subnet.gateway.to_bits(),
        }
    }

    pub(crate) fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// An address that nobody has. None: they are all taken.
    pub(crate) fn take(&mut self) -> Option<Ipv4Addr> {
        let first = self.subnet.network().to_bits() + 1;
        let end = self.subnet.network().to_bits() | host_mask(self.subnet.prefix);
        let free = |address: &u32| {
            *address != self.subnet.gateway.to_bits() && !self.used.contains(address)
        };
        let found = (self.last + 1..end)
            .chain(first..end.min(self.last + 1))
            .find(free)?;
        self.used.insert(found);
        self.last = found;
        Some(Ipv4Addr::from_bits(found))
    }

    /// Marks an address as taken. False: it is not in the network.
    pub(crate) fn mark(&mut self, address: Ipv4Addr) -> bool {
        self.subnet.contains(address) && {
            self.used.insert(address.to_bits());
            true
        }
    }

    pub(crate) fn give_back(&mut self, address: Ipv4Addr) {
        self.used.remove(&address.to_bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_network_is_used_up_and_reused() {
        let mut pool = Pool::new(Subnet::new(Ipv4Addr::new(10, 0, 0, 0), 29).unwrap());
        let all: Vec<_> = std::iter::from_fn(|| pool.take())
            .map(|address| address.octets()[3])
            .collect();
        assert_eq!(all, [2, 3, 4, 5, 6]);
        pool.give_back(Ipv4Addr::new(10, 0, 0, 4));
        assert_eq!(pool.take(), Some(Ipv4Addr::new(10, 0, 0, 4)));
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn a_freed_address_rests() {
        let mut pool = Pool::new(Subnet::new(Ipv4Addr::new(10, 0, 0, 0), 24).unwrap());
        let first = pool.take().unwrap();
        pool.give_back(first);
        assert_ne!(pool.take().unwrap(), first);
    }

    #[test]
    fn overlap_is_seen_from_both_sides() {
        let subnet = Subnet::new(Ipv4Addr::new(172, 17, 0, 0), 16).unwrap();
        assert!(subnet.overlaps(Ipv4Addr::new(172, 17, 5, 0), 24));
        assert!(subnet.overlaps(Ipv4Addr::new(172, 16, 0, 0), 12));
        assert!(!subnet.overlaps(Ipv4Addr::new(172, 18, 0, 0), 16));
        assert_eq!(Subnet::new(Ipv4Addr::new(10, 0, 0, 0), 31), None);
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(takes in proptest::collection::vec(any::<bool>(), 1..200)) {
            let mut pool = Pool::new(Subnet::new(Ipv4Addr::new(10, 1, 0, 0), 26).unwrap());
            let mut held = Vec::new();
            for take in takes {
                if take {
                    if let Some(address) = pool.take() {
                        prop_assert!(!held.contains(&address) && address != pool.subnet().gateway);
                        held.push(address);
                    }
                } else if let Some(address) = held.pop() {
                    pool.give_back(address);
                }
            }
        }
    }
}
