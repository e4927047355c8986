//! Expressions, of which rules are made: what is loaded into registers, what is compared, what follows.
//!
//! The key of a look-up is loaded from [`KEY`] on, 32 bits at a time; its result lies from [`RESULT`] on.

use super::{Expression, NF_ACCEPT, Set, Value};
use std::net::IpAddr;

pub(crate) const RESULT: u32 = 16;
pub(crate) const KEY: u32 = 8;
const NF_DROP: u32 = 0;
const NFT_RETURN: u32 = (-5_i32).cast_unsigned();
const IFNAME_BYTES: usize = 16;
const NFT_CMP_NEQ: u32 = 1;
const NFT_CMP_EQ: u32 = 0;
const NFT_REG_VERDICT: u32 = 0;
fn numbers(name: &'static str, attributes: &[(u16, u32)]) -> Expression {
    let attributes = attributes
        .iter()
        .map(|(kind, number)| (*kind, Value::Number(*number)));
    (name, attributes.collect())
}

/// More bytes have come than this many per second, and so many at once.
pub(crate) fn exceeds(bytes: u64, burst: u32) -> Expression {
    const SECOND: u64 = 1;
    const BYTES: u32 = 1;
    const INVERTED: u32 = 1;
    let attributes = vec![
        (1, Value::Long(bytes)),
        (2, Value::Long(SECOND)),
        (3, Value::Number(burst)),
        (4, Value::Number(BYTES)),
        (5, Value::Number(INVERTED)),
    ];
    ("limit", attributes)
}

/// Kinds of metadata.
pub(crate) mod meta {
    pub(crate) const PROTOCOL: u32 = 1;
    pub(crate) const IIFNAME: u32 = 6;
    pub(crate) const OIFNAME: u32 = 7;
    pub(crate) const NFPROTO: u32 = 15;
    pub(crate) const L4PROTO: u32 = 16;
}

/// Loads metadata.
pub(crate) fn load_meta(register: u32, what: u32) -> Expression {
    numbers("meta", &[(1, register), (2, what)])
}

/// Headers that [`payload`] counts from.
pub(crate) const LINK_HEADER: u32 = 0;
pub(crate) const NETWORK_HEADER: u32 = 1;
pub(crate) const TRANSPORT_HEADER: u32 = 2;

/// Loads bytes of the packet.
pub(crate) fn payload(register: u32, header: u32, offset: u32, bytes: u32) -> Expression {
    numbers(
        "payload",
        &[(1, register), (2, header), (3, offset), (4, bytes)],
    )
}

fn compare(operator: u32, bytes: &[u8]) -> Expression {
    let attributes = vec![
        (1, Value::Number(KEY)),
        (2, Value::Number(operator)),
        (3, Value::Bytes(bytes.to_vec())),
    ];
    ("cmp", attributes)
}

/// What is in [`KEY`] is this.
pub(crate) fn equals(bytes: &[u8]) -> Expression {
    compare(NFT_CMP_EQ, bytes)
}

/// What is in [`KEY`] is something else.
pub(crate) fn differs(bytes: &[u8]) -> Expression {
    compare(NFT_CMP_NEQ, bytes)
}

fn bitwise(mask: &[u8]) -> Expression {
    let length = u32::try_from(mask.len()).expect("an address is 16 bytes at most");
    let attributes = vec![
        (1, Value::Number(KEY)),
        (2, Value::Number(KEY)),
        (3, Value::Number(length)),
        (4, Value::Bytes(mask.to_vec())),
        (5, Value::Bytes(vec![0; mask.len()])),
    ];
    ("bitwise", attributes)
}

/// An interface's name in a register.
pub(crate) fn interface_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(IFNAME_BYTES, 0);
    bytes
}

/// The packet comes in by this interface.
pub(crate) fn from(interface: &str) -> Vec<Expression> {
    vec![
        load_meta(KEY, meta::IIFNAME),
        equals(&interface_bytes(interface)),
    ]
}

/// The packet comes in by another interface.
pub(crate) fn not_from(interface: &str) -> Vec<Expression> {
    vec![
        load_meta(KEY, meta::IIFNAME),
        differs(&interface_bytes(interface)),
    ]
}

/// The packet goes out by this interface.
pub(crate) fn into(interface: &str) -> Vec<Expression> {
    vec![
        load_meta(KEY, meta::OIFNAME),
        equals(&interface_bytes(interface)),
    ]
}

/// The packet goes out by another interface.
pub(crate) fn not_into(interface: &str) -> Vec<Expression> {
    vec![
        load_meta(KEY, meta::OIFNAME),
        differs(&interface_bytes(interface)),
    ]
}

/// What frames carry: linux/if_ether.h.
pub(crate) mod ethertype {
    pub(crate) const IPV4: u16 = 0x0800;
    pub(crate) const ARP: u16 = 0x0806;
    pub(crate) const IPV6: u16 = 0x86dd;
}

/// The frame carries this: one of [`ethertype`].
pub(crate) fn carries(ethertype: u16) -> Vec<Expression> {
    vec![
        load_meta(KEY, meta::PROTOCOL),
        equals(&ethertype.to_be_bytes()),
    ]
}

/// The packet is of this family of addresses.
pub(crate) fn family(is_ipv6: bool) -> Vec<Expression> {
    let number = if is_ipv6 { 10 } else { 2 };
    vec![load_meta(KEY, meta::NFPROTO), equals(&[number])]
}

/// Which address of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Loads an address of the packet.
pub(crate) fn load_address(register: u32, end: End, is_ipv6: bool) -> Expression {
    let (offset, bytes) = match (is_ipv6, end) {
        (false, End::Source) => (12, 4),
        (false, End::Destination) => (16, 4),
        (true, End::Source) => (8, 16),
        (true, End::Destination) => (24, 16),
    };
    payload(register, NETWORK_HEADER, offset, bytes)
}

/// The packet's address is in this network; says nothing of the family.
pub(crate) fn address_in(end: End, network: IpAddr, prefix: u8) -> Vec<Expression> {
    let load = load_address(KEY, end, network.is_ipv6());
    match network {
        IpAddr::V4(v4) => {
            let mask = !u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            vec![load, bitwise(&mask.to_be_bytes()), equals(&v4.octets())]
        }
        IpAddr::V6(v6) => {
            let mask = !u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            vec![load, bitwise(&mask.to_be_bytes()), equals(&v6.octets())]
        }
    }
}

/// What connection tracking knows.
pub(crate) mod ct {
    pub(crate) const STATE: u32 = 0;
    pub(crate) const STATUS: u32 = 2;
    pub(crate) const ESTABLISHED_OR_RELATED: u32 = (1 << 1) | (1 << 2);
    /// The destination was translated.
    pub(crate) const DNAT: u32 = 1 << 5;
}

/// Any of the bits is set in what connection tracking knows.
pub(crate) fn conntrack(what: u32, bits: u32) -> Vec<Expression> {
    let load = numbers("ct", &[(1, KEY), (2, what)]);
    vec![load, bitwise(&bits.to_ne_bytes()), differs(&[0; 4])]
}

/// The destination is an address of this host.
pub(crate) fn to_local() -> Vec<Expression> {
    const RTN_LOCAL: u32 = 2;
    const RESULT_ADDRTYPE: u32 = 3;
    const OF_DESTINATION: u32 = 1 << 1;
    let fib = numbers(
        "fib",
        &[(1, KEY), (2, RESULT_ADDRTYPE), (3, OF_DESTINATION)],
    );
    vec![fib, equals(&RTN_LOCAL.to_ne_bytes())]
}

/// What is in [`KEY`] is in the set, or not; a map gives its data.
pub(crate) fn look_up(set: Set, is_in: bool) -> Expression {
    const INVERTED: u32 = 1;
    let mut attributes = vec![(1, Value::Text(set.name)), (2, Value::Number(KEY))];
    if set.is_verdict_map() {
        attributes.push((3, Value::Number(NFT_REG_VERDICT)));
    } else if !set.data.is_empty() {
        attributes.push((3, Value::Number(RESULT)));
    }
    attributes.push((4, Value::Number(set.id)));
    if !is_in {
        attributes.push((5, Value::Number(INVERTED)));
    }
    ("lookup", attributes)
}

/// The destination becomes what a map has given: an address and a port.
pub(crate) fn dnat(is_ipv6: bool) -> Expression {
    const NFT_NAT_DNAT: u32 = 1;
    let (family, port) = if is_ipv6 {
        (10, RESULT + 4)
    } else {
        (2, RESULT + 1)
    };
    numbers(
        "nat",
        &[(1, NFT_NAT_DNAT), (2, family), (3, RESULT), (5, port)],
    )
}

/// The destination becomes this host, at the port that a map has given.
pub(crate) fn redirect() -> Vec<Expression> {
    vec![numbers("redir", &[(1, RESULT)])]
}

/// The two bytes at an offset of the transport's header become these; its checksum is at another.
pub(crate) fn rewrite(offset: u32, bytes: [u8; 2], checksum: u32) -> Vec<Expression> {
    const INTERNET_CHECKSUM: u32 = 1;
    let load = vec![
        (1, Value::Number(RESULT)),
        (2, Value::Bytes(bytes.to_vec())),
    ];
    let write = numbers(
        "payload",
        &[
            (2, TRANSPORT_HEADER),
            (3, offset),
            (4, 2),
            (5, RESULT),
            (6, INTERNET_CHECKSUM),
            (7, checksum),
        ],
    );
    vec![("immediate", load), write]
}

/// The source becomes the address of the interface that the packet leaves by.
pub(crate) fn masquerade() -> Vec<Expression> {
    vec![("masq", Vec::new())]
}

fn verdict(code: u32, chain: Option<&str>) -> Vec<Expression> {
    let attributes = vec![
        (1, Value::Number(NFT_REG_VERDICT)),
        (2, Value::Verdict(code, chain.map(str::to_owned))),
    ];
    vec![("immediate", attributes)]
}

pub(crate) fn accept() -> Vec<Expression> {
    verdict(NF_ACCEPT, None)
}

pub(crate) fn drop() -> Vec<Expression> {
    verdict(NF_DROP, None)
}

/// Ends the chain, and goes on where it was called.
pub(crate) fn go_back() -> Vec<Expression> {
    verdict(NFT_RETURN, None)
}
