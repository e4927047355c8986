//! Networks as an address and the number of its leading bits that count, of either family: RFC 4632, RFC 4291 section 2.3.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    network: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The network that an address is in. None: a prefix longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        (prefix <= width(address)).then(|| Self {
            network: from_bits(
                address.is_ipv6(),
                bits(address) & !host_mask(address, prefix),
            ),
            prefix,
        })
    }

    /// Its first address, which is its name.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many bits its addresses have in common.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is one of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6() && Self::new(address, self.prefix) == Some(*self)
    }

    /// Whether any address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The first and the last address that an interface may have, as bits. None: there is no room for two of them.
    pub(crate) fn hosts(&self) -> Option<(u128, u128)> {
        let first = bits(self.network);
        let last = first | host_mask(self.network, self.prefix);
        // The network's own address, and in IPv4 the one for all.
        let last = if self.is_ipv6() {
            last
        } else {
            last.checked_sub(1)?
        };
        (first + 1 < last).then_some((first + 1, last))
    }

    pub(crate) fn address(&self, bits: u128) -> IpAddr {
        from_bits(self.is_ipv6(), bits)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(address, prefix)| Self::new(address.parse().ok()?, prefix.parse().ok()?));
        parsed.ok_or_else(|| format!("invalid subnet {text:?}: it reads like 172.20.0.0/16"))
    }
}

pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn from_bits(is_ipv6: bool, bits: u128) -> IpAddr {
    if is_ipv6 {
        return Ipv6Addr::from_bits(bits).into();
    }
    Ipv4Addr::from_bits(u32::try_from(bits).expect("bits of an IPv4 network")).into()
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The bits that differ within the network.
fn host_mask(address: IpAddr, prefix: u8) -> u128 {
    let host_bits = u32::from(width(address) - prefix);
    // All 128 may be the host's, and a shift by all of them is none.
    1_u128
        .checked_shl(host_bits)
        .map_or(u128::MAX, |bit| bit - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn overlap_is_seen_from_both_sides() {
        for (a, b, overlap) in [
            ("172.17.0.0/16", "172.17.5.0/24", true),
            ("172.17.0.0/16", "172.18.0.0/16", false),
            ("172.17.0.0/16", "0.0.0.0/0", true),
            ("fd00::/8", "fd12::/64", true),
            ("::/0", "0.0.0.0/0", false),
        ] {
            assert_eq!(subnet(a).overlaps(&subnet(b)), overlap, "{a} {b}");
            assert_eq!(subnet(b).overlaps(&subnet(a)), overlap, "{b} {a}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "x/8",
            "fd00::/129",
            "10.0.0.0/-1",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
        assert_eq!(subnet("10.1.2.3/8").to_string(), "10.0.0.0/8");
        assert_eq!(subnet("10.0.0.0/31").hosts(), None);
        assert_eq!(
            subnet("10.0.0.0/30").hosts(),
            Some((0x0a00_0001, 0x0a00_0002))
        );
    }

    proptest! {
        #[test]
        fn an_address_is_in_its_network(bits: u128, prefix in 0_u8..=128) {
            let address = IpAddr::V6(Ipv6Addr::from_bits(bits));
            prop_assert!(Subnet::new(address, prefix).unwrap().contains(address));
        }
    }
}
