//! Addresses of one network, and the choice of networks when nobody has chosen.

use crate::subnet::{Subnet, bits};
use crate::{Failure, Result};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network of one family as it was asked for, or chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// All its addresses.
    pub subnet: Subnet,
    /// The bridge's; None: the first.
    pub gateway: Option<IpAddr>,
    /// Where addresses are taken from when nobody asks for one; None: the subnet.
    pub pool: Option<Subnet>,
    /// Addresses that are others'.
    pub reserved: Vec<IpAddr>,
}

impl Range {
    /// All of a network.
    pub fn new(subnet: Subnet) -> Self {
        Self {
            subnet,
            gateway: None,
            pool: None,
            reserved: Vec::new(),
        }
    }

    /// The bridge's address.
    pub fn gateway(&self) -> IpAddr {
        let first = || self.subnet.address(bits(self.subnet.network()) + 1);
        self.gateway.unwrap_or_else(first)
    }

    /// # Errors
    /// What is not in the subnet, or leaves no room in it.
    pub(crate) fn check(&self) -> Result<()> {
        let subnet = self.subnet;
        let bad = |text: String| Err(Failure::Invalid(text));
        if subnet.hosts().is_none() {
            return bad(format!(
                "{subnet} has no room for a gateway and a container"
            ));
        }
        for address in self.gateway.iter().chain(&self.reserved) {
            if !subnet.contains(*address) {
                return bad(format!("address {address} is not in the subnet {subnet}"));
            }
        }
        match self.pool {
            Some(pool) if !subnet.contains(pool.network()) || pool.prefix() < subnet.prefix() => {
                bad(format!("the range {pool} is not in the subnet {subnet}"))
            }
            _ => Ok(()),
        }
    }
}

/// Who has which address. The next one given is the one after the last: an address rests as long as possible, so that
/// what still remembers its last owner has time to forget.
#[derive(Debug)]
pub(crate) struct Pool {
    range: Range,
    first: u128,
    last: u128,
    used: BTreeSet<u128>,
    latest: u128,
}

impl Pool {
    pub(crate) fn new(range: Range) -> Result<Self> {
        range.check()?;
        let (first, last) = range.subnet.hosts().expect("it was checked");
        let (first, last) = match range.pool {
            None => (first, last),
            Some(pool) => {
                let start = bits(pool.network());
                let host_bits = if pool.is_ipv6() { 128 } else { 32 } - u32::from(pool.prefix());
                let length = 1_u128.checked_shl(host_bits).unwrap_or(0).wrapping_sub(1);
                (start.max(first), (start | length).min(last))
            }
        };
        let mut used: BTreeSet<u128> = range
            .reserved
            .iter()
            .map(|address| bits(*address))
            .collect();
        used.insert(bits(range.gateway()));
        Ok(Self {
            latest: last,
            first,
            last,
            used,
            range,
        })
    }

    pub(crate) fn range(&self) -> &Range {
        &self.range
    }

    /// An address that nobody has: this one, or any.
    pub(crate) fn take(&mut self, wanted: Option<IpAddr>) -> Result<IpAddr> {
        let subnet = self.range.subnet;
        if let Some(wanted) = wanted {
            let is_host = |(first, last)| (first..=last).contains(&bits(wanted));
            if !subnet.contains(wanted) || !subnet.hosts().is_some_and(is_host) {
                return Err(Failure::Invalid(format!(
                    "no configured subnet contains IP address {wanted}"
                )));
            }
            if !self.used.insert(bits(wanted)) {
                return Err(Failure::AddressTaken(wanted));
            }
            return Ok(wanted);
        }
        let next = if self.latest >= self.last {
            self.first
        } else {
            self.latest + 1
        };
        // From the next one to the end, and then from the beginning: of the used ones as many are passed as there are.
        let free = first_free(&self.used, next, self.last)
            .or_else(|| first_free(&self.used, self.first, next));
        let free =
            free.ok_or_else(|| Failure::Exhausted(format!("no free address in {subnet}")))?;
        self.used.insert(free);
        self.latest = free;
        Ok(subnet.address(free))
    }

    /// Marks an address as taken.
    pub(crate) fn mark(&mut self, address: IpAddr) {
        if self.range.subnet.contains(address) {
            self.used.insert(bits(address));
        }
    }

    pub(crate) fn give_back(&mut self, address: IpAddr) {
        self.used.remove(&bits(address));
    }
}

/// The first of a range that is not used.
fn first_free(used: &BTreeSet<u128>, first: u128, last: u128) -> Option<u128> {
    let mut candidate = first;
    for taken in used.range(first..=last.max(first)) {
        if *taken != candidate {
            break;
        }
        candidate += 1;
    }
    (candidate <= last).then_some(candidate)
}

/// Networks to choose from: all of one size within a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    base: Subnet,
    size: u8,
}

impl AddressPool {
    /// The networks with prefixes of `size` in `base`.
    ///
    /// # Errors
    /// The base is smaller than that, or the networks have no room for a gateway and a container.
    pub fn new(base: Subnet, size: u8) -> Result<Self> {
        let network = Subnet::new(base.network(), size);
        if size < base.prefix() || network.and_then(|network| network.hosts()).is_none() {
            return Err(Failure::Invalid(format!(
                "an address pool of {base} has no networks of size {size}"
            )));
        }
        Ok(Self { base, size })
    }

    fn subnets(self) -> impl Iterator<Item = Subnet> {
        let width = if self.base.is_ipv6() { 128 } else { 32 };
        let count = 1_u128.checked_shl((self.size - self.base.prefix()).into());
        let (first, step) = (
            bits(self.base.network()),
            1_u128.checked_shl(width - u32::from(self.size)),
        );
        // Of a network with room for hosts neither is 128 bits wide.
        let step = step.unwrap_or(0);
        (0..count.unwrap_or(u128::MAX)).filter_map(move |number| {
            Subnet::new(self.base.address(first + number * step), self.size)
        })
    }
}

/// How many networks of a pool are looked at.
const LOOKED_AT_MAX: usize = 1 << 16;

/// The IPv4 networks to choose from when nobody has said, in this order: Docker's, so that firewalls and habits fit, and when
/// they are used up, small ones from the middle of 10.0.0.0/8.
fn default_pools() -> Vec<AddressPool> {
    let subnet = |octets: [u8; 4], prefix| Subnet::new(Ipv4Addr::from(octets).into(), prefix);
    let pool = |octets, prefix, size| {
        let base = subnet(octets, prefix).expect("a prefix of IPv4");
        AddressPool { base, size }
    };
    let large = (17..=31).map(|b| pool([172, b, 0, 0], 16, 16));
    let rest = [
        pool([192, 168, 0, 0], 16, 20),
        pool([10, 192, 0, 0], 11, 24),
    ];
    large.chain(rest).collect()
}

/// A network of a family that overlaps none of these, out of the pools that there are for the family. Without any of IPv6 it is
/// a unique local one.
pub(crate) fn choose(is_ipv6: bool, pools: &[AddressPool], taken: &[Subnet]) -> Result<Subnet> {
    let of_family = |pool: &AddressPool| pool.base.is_ipv6() == is_ipv6;
    let mut pools: Vec<AddressPool> = pools.iter().copied().filter(of_family).collect();
    if pools.is_empty() {
        if is_ipv6 {
            return choose_unique_local(taken);
        }
        pools = default_pools();
    }
    let free = |subnet: &Subnet| taken.iter().all(|other| !other.overlaps(subnet));
    let mut subnets = pools
        .into_iter()
        .flat_map(|pool| pool.subnets().take(LOOKED_AT_MAX));
    subnets.find(free).ok_or_else(|| {
        Failure::Exhausted(
            "every network of the address pools overlaps a route of the host or another network: choose one with --subnet".to_owned(),
        )
    })
}

/// A unique local IPv6 network with a random global id: RFC 4193 section 3.2.
fn choose_unique_local(taken: &[Subnet]) -> Result<Subnet> {
    loop {
        let mut random = [0_u8; 5];
        let count = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        if count != Ok(random.len()) {
            return Err(Failure::Exhausted(
                "getrandom gave no random number".to_owned(),
            ));
        }
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&random);
        let subnet = Subnet::new(Ipv6Addr::from(octets).into(), 64).expect("64 is a prefix");
        if taken.iter().all(|other| !other.overlaps(&subnet)) {
            return Ok(subnet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(subnet: &str) -> Pool {
        Pool::new(Range::new(subnet.parse().unwrap())).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn pools_are_used_up_one_after_the_other() {
        let subnet = |text: &str| text.parse::<Subnet>().unwrap();
        let pools = [
            AddressPool::new(subnet("10.5.0.0/23"), 24).unwrap(),
            AddressPool::new(subnet("fd00:5::/48"), 64).unwrap(),
            AddressPool::new(subnet("10.7.0.0/24"), 24).unwrap(),
        ];
        let mut taken = vec![subnet("10.5.0.0/25")];
        for expected in ["10.5.1.0/24", "10.7.0.0/24"] {
            let chosen = choose(false, &pools, &taken).unwrap();
            assert_eq!(chosen.to_string(), expected);
            taken.push(chosen);
        }
        assert!(choose(false, &pools, &taken).is_err());
        let chosen = choose(true, &pools, &[subnet("fd00:5::/64")]).unwrap();
        assert_eq!(chosen.to_string(), "fd00:5:0:1::/64");
        assert!(AddressPool::new(subnet("10.5.0.0/24"), 23).is_err());
        assert!(AddressPool::new(subnet("10.5.0.0/24"), 32).is_err());
        assert!(AddressPool::new(subnet("10.5.0.0/24"), 33).is_err());
    }

    #[test]
    fn a_small_network_is_used_up_and_reused() {
        let mut pool = pool("10.0.0.0/29");
        let all: Vec<_> = std::iter::from_fn(|| pool.take(None).ok())
            .map(|a| a.to_string())
            .collect();
        assert_eq!(
            all,
            ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
        );
        pool.give_back(address("10.0.0.4"));
        assert_eq!(pool.take(None).unwrap(), address("10.0.0.4"));
        assert!(matches!(pool.take(None), Err(Failure::Exhausted(_))));
    }

    #[test]
    fn a_freed_address_rests() {
        let mut pool = pool("fd00::/64");
        let first = pool.take(None).unwrap();
        pool.give_back(first);
        assert_ne!(pool.take(None).unwrap(), first);
    }

    #[test]
    fn an_address_is_asked_for_in_the_subnet_and_given_once() {
        let mut pool = pool("10.0.0.0/24");
        assert_eq!(
            pool.take(Some(address("10.0.0.77"))).unwrap(),
            address("10.0.0.77")
        );
        assert!(matches!(
            pool.take(Some(address("10.0.0.77"))),
            Err(Failure::AddressTaken(_))
        ));
        assert!(matches!(
            pool.take(Some(address("10.0.0.1"))),
            Err(Failure::AddressTaken(_))
        ));
        for outside in ["10.0.1.1", "10.0.0.0", "10.0.0.255", "fd00::1"] {
            assert!(
                matches!(pool.take(Some(address(outside))), Err(Failure::Invalid(_))),
                "{outside}"
            );
        }
    }

    #[test]
    fn a_range_bounds_what_is_given_and_reserved_ones_are_not() {
        let range = Range {
            gateway: Some(address("10.0.0.254")),
            pool: Some("10.0.0.8/30".parse().unwrap()),
            reserved: vec![address("10.0.0.9")],
            ..Range::new("10.0.0.0/24".parse().unwrap())
        };
        let mut pool = Pool::new(range.clone()).unwrap();
        let all: Vec<_> = std::iter::from_fn(|| pool.take(None).ok())
            .map(|a| a.to_string())
            .collect();
        assert_eq!(all, ["10.0.0.8", "10.0.0.10", "10.0.0.11"]);
        // By hand any address of the subnet can be had.
        pool.take(Some(address("10.0.0.100"))).unwrap();
        let bad = [
            Range {
                gateway: Some(address("10.0.1.1")),
                ..range.clone()
            },
            Range {
                pool: Some("10.0.1.0/24".parse().unwrap()),
                ..range.clone()
            },
            Range {
                pool: Some("10.0.0.0/16".parse().unwrap()),
                ..range.clone()
            },
            Range::new("10.0.0.0/31".parse().unwrap()),
        ];
        assert!(bad.into_iter().all(|range| Pool::new(range).is_err()));
    }

    #[test]
    fn networks_are_chosen_beside_others() {
        let mut taken: Vec<Subnet> = vec![
            "172.17.0.0/24".parse().unwrap(),
            "172.18.0.0/15".parse().unwrap(),
        ];
        assert_eq!(
            choose(false, &[], &taken).unwrap().to_string(),
            "172.20.0.0/16"
        );
        taken.extend([
            "172.16.0.0/12".parse().unwrap(),
            "192.168.0.0/16".parse::<Subnet>().unwrap(),
        ]);
        assert_eq!(
            choose(false, &[], &taken).unwrap().to_string(),
            "10.192.0.0/24"
        );
        taken.push("10.0.0.0/8".parse().unwrap());
        assert!(choose(false, &[], &taken).is_err());
        assert!(
            choose(true, &[], &taken)
                .unwrap()
                .to_string()
                .starts_with("fd")
        );
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(takes in proptest::collection::vec(any::<bool>(), 1..200)) {
            let mut pool = pool("10.1.0.0/26");
            let mut held = Vec::new();
            for take in takes {
                if take {
                    if let Ok(address) = pool.take(None) {
                        prop_assert!(!held.contains(&address) && address != pool.range().gateway());
                        held.push(address);
                    }
                } else if let Some(address) = held.pop() {
                    pool.give_back(address);
                }
            }
        }
    }
}
