//! A bridge's firewall table, which has the bridge's name: nf_tables over netlink, one transaction for every change.
//!
//! ```text
//! table ip BRIDGE {
//!   map published_at { type inet_proto . inet_service . ipv4_addr : ipv4_addr . inet_service; }
//!   map published    { type inet_proto . inet_service             : ipv4_addr . inet_service; }
//!   chain guard       { type filter hook prerouting priority -300;
//!                       iifname BRIDGE ip daddr 127.0.0.0/8 drop }
//!   chain prerouting  { type nat hook prerouting priority -100;
//!                       fib daddr type local dnat to meta l4proto . th dport . ip daddr map @published_at
//!                       fib daddr type local dnat to meta l4proto . th dport map @published }
//!   chain output      { type nat hook output priority -100;            the same two }
//!   chain postrouting { type nat hook postrouting priority 100;
//!                       oifname != BRIDGE ip saddr SUBNET masquerade   (outwards)
//!                       oifname BRIDGE ip saddr 127.0.0.0/8 masquerade (from the host's loopback)
//!                       oifname BRIDGE ip saddr SUBNET ct status dnat masquerade (a container by way of a published port) }
//!   chain forward     { type filter hook forward priority 0;
//!                       oifname BRIDGE ct state established,related accept
//!                       oifname BRIDGE ct status dnat accept
//!                       oifname BRIDGE iifname != BRIDGE drop }
//! }
//! ```
//! Publishing any number of ports adds map elements, never rules: looking one up costs the same however many there are.
//! `guard` is there because the bridge routes to the loopback network (`route_localnet`) for ports published to the host
//! itself: without it a container could reach what listens on 127.0.0.1.
//!
//! Sources: linux/netfilter/nf_tables.h, nfnetlink.h; nft(8) for the notation above.

use crate::{PortMapping, Protocol, Subnet};
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr};
use sys::netlink::{Error, Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Socket};

/// Elements in one message: a nest holds at most 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 512;

const NFNL_SUBSYS_NFTABLES: u16 = 10 << 8;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFPROTO_IPV4: u8 = 2;

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_FORWARD: u32 = 2;
const NF_INET_LOCAL_OUT: u32 = 3;
const NF_INET_POST_ROUTING: u32 = 4;

/// 32-bit registers: the key of a look-up from the first, its result from the fifth on.
const KEY: u32 = 8;
const RESULT: u32 = 12;
const NFT_REG_VERDICT: u32 = 0;

const NFT_META_L4PROTO: u32 = 16;
const NFT_META_IIFNAME: u32 = 6;
const NFT_META_OIFNAME: u32 = 7;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFT_CT_STATE: u32 = 0;
const NFT_CT_STATUS: u32 = 2;
const IPS_DST_NAT: u32 = 1 << 5;
const CT_ESTABLISHED: u32 = 1 << 1;
const CT_RELATED: u32 = 1 << 2;
const RTN_LOCAL: u32 = 2;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 1 << 1;
const IFNAME_BYTES: usize = 16;

/// A map, its number in the transaction that makes it, and the length of its key.
#[derive(Clone, Copy)]
struct Map {
    name: &'static str,
    id: u32,
    key_bytes: u32,
}

const PUBLISHED_AT: Map = Map {
    name: "published_at",
    id: 1,
    key_bytes: 12,
};
const PUBLISHED: Map = Map {
    name: "published",
    id: 2,
    key_bytes: 8,
};

/// A mapping and the container it leads to.
pub(crate) type Element<'a> = (&'a PortMapping, Ipv4Addr);

/// The firewall.
#[derive(Debug)]
pub(crate) struct Firewall {
    socket: Socket,
    /// The bridge's name, and the table's.
    bridge: String,
}

impl Firewall {
    pub(crate) fn open(bridge: &str) -> Result<Self, Error> {
        let socket = Socket::open(Some(rustix::net::netlink::NETFILTER))?;
        Ok(Self {
            socket,
            bridge: bridge.to_owned(),
        })
    }

    /// Makes the table anew with exactly these elements: in one transaction, so that there is no moment without it.
    pub(crate) fn rebuild(
        &mut self,
        subnet: Subnet,
        elements: &[Element<'_>],
    ) -> Result<(), Error> {
        let bridge = self.bridge.clone();
        let mut messages = vec![
            // Made first, so that deleting it cannot fail, whether it was there or not.
            message(NFT_MSG_NEWTABLE, NLM_F_CREATE, &bridge, "add table"),
            message(NFT_MSG_DELTABLE, 0, &bridge, "delete table"),
            message(NFT_MSG_NEWTABLE, NLM_F_CREATE, &bridge, "add table"),
            map(&bridge, PUBLISHED_AT),
            map(&bridge, PUBLISHED),
        ];
        messages.extend(chains(&bridge, subnet));
        messages.extend(element_messages(
            &self.bridge,
            NFT_MSG_NEWSETELEM,
            NLM_F_CREATE | NLM_F_EXCL,
            elements,
        ));
        self.transaction(messages)
    }

    /// Publishes.
    pub(crate) fn add(&mut self, elements: &[Element<'_>]) -> Result<(), Error> {
        self.transaction(element_messages(
            &self.bridge,
            NFT_MSG_NEWSETELEM,
            NLM_F_CREATE | NLM_F_EXCL,
            elements,
        ))
    }

    /// Takes back what was published. What is not there any more is no error.
    pub(crate) fn remove(&mut self, elements: &[Element<'_>]) -> Result<(), Error> {
        match self.transaction(element_messages(
            &self.bridge,
            NFT_MSG_DELSETELEM,
            0,
            elements,
        )) {
            Err(error) if error.errno == Errno::NOENT && elements.len() > 1 => {
                // One that is missing fails them all: each by itself, then.
                elements
                    .iter()
                    .try_for_each(|element| self.remove(&[*element]))
            }
            Err(error) if error.errno == Errno::NOENT => Ok(()),
            result => result,
        }
    }

    fn transaction(&mut self, messages: Vec<Message>) -> Result<(), Error> {
        let mut batch = vec![boundary(NFNL_MSG_BATCH_BEGIN)];
        batch.extend(messages);
        batch.push(boundary(NFNL_MSG_BATCH_END));
        self.socket.send(batch)
    }
}

fn boundary(kind: u16) -> Message {
    // The resource id, in network order, is the subsystem.
    Message::unacknowledged(kind, 0, "nf_tables transaction").fixed(&[0, 0, 0, 10])
}

/// A message about something in a table, whose name is the first attribute of every kind.
fn message(kind: u16, flags: u16, table: &str, what: &str) -> Message {
    const NFTA_TABLE: u16 = 1;
    let what = format!("{what} in table ip {table}");
    Message::new(NFNL_SUBSYS_NFTABLES | kind, flags, what)
        .fixed(&[NFPROTO_IPV4, 0, 0, 0])
        .text(NFTA_TABLE, table)
}

fn map(table: &str, map: Map) -> Message {
    const NFT_SET_MAP: u32 = 8;
    const DATA_BYTES: u32 = 8;
    /// nft's own numbers of types, six bits each, are only for its listing: inet_proto 12, inet_service 13, ipv4_addr 7.
    const SERVICE_TYPES: u32 = (12 << 6) | 13;
    let key_type = if map.key_bytes == PUBLISHED.key_bytes {
        SERVICE_TYPES
    } else {
        (SERVICE_TYPES << 6) | 7
    };
    message(
        NFT_MSG_NEWSET,
        NLM_F_CREATE,
        table,
        &format!("add map {}", map.name),
    )
    .text(2, map.name)
    .be32(3, NFT_SET_MAP)
    .be32(4, key_type)
    .be32(5, map.key_bytes)
    .be32(6, (7 << 6) | 13)
    .be32(7, DATA_BYTES)
    .be32(10, map.id)
}

fn chains(bridge: &str, subnet: Subnet) -> Vec<Message> {
    let mut messages = vec![
        chain(bridge, "guard", ("filter", NF_INET_PRE_ROUTING), -300),
        chain(bridge, "prerouting", ("nat", NF_INET_PRE_ROUTING), -100),
        chain(bridge, "output", ("nat", NF_INET_LOCAL_OUT), -100),
        chain(bridge, "postrouting", ("nat", NF_INET_POST_ROUTING), 100),
        chain(bridge, "forward", ("filter", NF_INET_FORWARD), 0),
    ];
    messages.extend(translations(bridge, subnet));
    messages.extend(filters(bridge));
    messages
}

/// The rules that drop and accept.
fn filters(bridge: &str) -> [Message; 4] {
    let accept = || vec![verdict(NF_ACCEPT)];
    let drop = || vec![verdict(NF_DROP)];
    let known = conntrack(NFT_CT_STATE, CT_ESTABLISHED | CT_RELATED);
    let published = conntrack(NFT_CT_STATUS, IPS_DST_NAT);
    let to_loopback = address_in(DADDR, LOOPBACK, LOOPBACK_PREFIX);
    let rule = |chain, expressions: [Vec<Expression>; 3]| rule(bridge, chain, expressions);
    [
        rule("guard", [from(bridge), to_loopback, drop()]),
        rule("forward", [into(bridge), known, accept()]),
        rule("forward", [into(bridge), published, accept()]),
        rule("forward", [into(bridge), not_from(bridge), drop()]),
    ]
}

/// The rules that translate addresses.
fn translations(bridge: &str, subnet: Subnet) -> Vec<Message> {
    let masquerade = || vec![expression("masq", |data| data)];
    let ours = || address_in(SADDR, subnet.network(), subnet.prefix);
    let from_loopback = address_in(SADDR, LOOPBACK, LOOPBACK_PREFIX);
    let ours_by_port = [ours(), conntrack(NFT_CT_STATUS, IPS_DST_NAT)].concat();
    let mut rules = Vec::new();
    for chain in ["prerouting", "output"] {
        for map in [PUBLISHED_AT, PUBLISHED] {
            let expressions = [to_local(), look_up(map), vec![dnat()]];
            rules.push(rule(bridge, chain, expressions));
        }
    }
    for expressions in [
        [not_into(bridge), ours(), masquerade()],
        [into(bridge), from_loopback, masquerade()],
        [into(bridge), ours_by_port, masquerade()],
    ] {
        rules.push(rule(bridge, "postrouting", expressions));
    }
    rules
}

/// 127.0.0.0/8
const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 0);
const LOOPBACK_PREFIX: u8 = 8;

fn into(bridge: &str) -> Vec<Expression> {
    through(NFT_META_OIFNAME, NFT_CMP_EQ, bridge)
}

fn not_into(bridge: &str) -> Vec<Expression> {
    through(NFT_META_OIFNAME, NFT_CMP_NEQ, bridge)
}

fn from(bridge: &str) -> Vec<Expression> {
    through(NFT_META_IIFNAME, NFT_CMP_EQ, bridge)
}

fn not_from(bridge: &str) -> Vec<Expression> {
    through(NFT_META_IIFNAME, NFT_CMP_NEQ, bridge)
}

fn through(which: u32, operator: u32, bridge: &str) -> Vec<Expression> {
    vec![interface(which), compare_name(operator, bridge)]
}

fn chain(table: &str, name: &str, (kind, hook): (&str, u32), priority: i32) -> Message {
    message(
        NFT_MSG_NEWCHAIN,
        NLM_F_CREATE,
        table,
        &format!("add chain {name}"),
    )
    .text(3, name)
    .nest(4, |nest| {
        nest.be32(1, hook).attribute(2, &priority.to_be_bytes())
    })
    .be32(5, NF_ACCEPT)
    .text(7, kind)
}

/// One expression of a rule, yet to be appended.
type Expression = (&'static str, Vec<(u16, Value)>);

/// What an expression's attribute holds.
#[derive(Clone)]
enum Value {
    Number(u32),
    Text(&'static str),
    /// Compared or masked bytes.
    Bytes(Vec<u8>),
    Verdict(u32),
}

struct Data(Vec<(u16, Value)>);

impl Data {
    fn number(mut self, kind: u16, value: u32) -> Self {
        self.0.push((kind, Value::Number(value)));
        self
    }

    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.push((kind, Value::Bytes(value.to_vec())));
        self
    }
}

fn expression(name: &'static str, fill: impl FnOnce(Data) -> Data) -> Expression {
    (name, fill(Data(Vec::new())).0)
}

fn rule<const N: usize>(table: &str, chain: &str, expressions: [Vec<Expression>; N]) -> Message {
    let flags = NLM_F_CREATE | NLM_F_APPEND;
    let message = message(
        NFT_MSG_NEWRULE,
        flags,
        table,
        &format!("add rule to chain {chain}"),
    );
    message.text(2, chain).nest(4, |list| {
        expressions
            .into_iter()
            .flatten()
            .fold(list, |list, (name, data)| {
                list.nest(NFTA_LIST_ELEM, |element| {
                    element
                        .text(NFTA_EXPR_NAME, name)
                        .nest(NFTA_EXPR_DATA, |nest| data.into_iter().fold(nest, append))
                })
            })
    })
}

fn append(message: Message, (kind, value): (u16, Value)) -> Message {
    match value {
        Value::Number(number) => message.be32(kind, number),
        Value::Text(text) => message.text(kind, text),
        Value::Bytes(bytes) => message.nest(kind, |nest| nest.attribute(NFTA_DATA_VALUE, &bytes)),
        Value::Verdict(code) => message.nest(kind, |nest| {
            nest.nest(NFTA_DATA_VERDICT, |v| v.be32(NFTA_VERDICT_CODE, code))
        }),
    }
}

/// Offsets in the IPv4 header.
const SADDR: u32 = 12;
const DADDR: u32 = 16;

fn interface(which: u32) -> Expression {
    expression("meta", |data| data.number(1, KEY).number(2, which))
}

fn compare_name(operator: u32, name: &str) -> Expression {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(IFNAME_BYTES, 0);
    expression("cmp", |data| {
        data.number(1, KEY).number(2, operator).bytes(3, &bytes)
    })
}

fn compare(operator: u32, value: &[u8]) -> Expression {
    expression("cmp", |data| {
        data.number(1, KEY).number(2, operator).bytes(3, value)
    })
}

fn bitwise(mask: &[u8]) -> Expression {
    let length = u32::try_from(mask.len()).expect("a register is 16 bytes");
    let zero = vec![0; mask.len()];
    expression("bitwise", |data| {
        data.number(1, KEY)
            .number(2, KEY)
            .number(3, length)
            .bytes(4, mask)
            .bytes(5, &zero)
    })
}

fn payload(register: u32, base: u32, offset: u32, length: u32) -> Expression {
    expression("payload", |data| {
        data.number(1, register)
            .number(2, base)
            .number(3, offset)
            .number(4, length)
    })
}

fn address_in(offset: u32, network: Ipv4Addr, prefix: u8) -> Vec<Expression> {
    let mask = !u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    let load = payload(KEY, NFT_PAYLOAD_NETWORK_HEADER, offset, 4);
    vec![
        load,
        bitwise(&mask.to_be_bytes()),
        compare(NFT_CMP_EQ, &network.octets()),
    ]
}

/// Any of the bits is set in what connection tracking knows.
fn conntrack(what: u32, bits: u32) -> Vec<Expression> {
    let load = expression("ct", |data| data.number(1, KEY).number(2, what));
    vec![
        load,
        bitwise(&bits.to_ne_bytes()),
        compare(NFT_CMP_NEQ, &[0; 4]),
    ]
}

/// The destination is an address of this host.
fn to_local() -> Vec<Expression> {
    let fib = expression("fib", |data| {
        data.number(1, KEY)
            .number(2, NFT_FIB_RESULT_ADDRTYPE)
            .number(3, NFTA_FIB_F_DADDR)
    });
    vec![fib, compare(NFT_CMP_EQ, &RTN_LOCAL.to_ne_bytes())]
}

fn look_up(map: Map) -> Vec<Expression> {
    let mut key = vec![
        expression("meta", |data| {
            data.number(1, KEY).number(2, NFT_META_L4PROTO)
        }),
        payload(KEY + 1, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2),
    ];
    if map.key_bytes == PUBLISHED_AT.key_bytes {
        key.push(payload(KEY + 2, NFT_PAYLOAD_NETWORK_HEADER, DADDR, 4));
    }
    let (name, mut data) = expression("lookup", |data| {
        data.number(2, KEY).number(3, RESULT).number(4, map.id)
    });
    data.insert(0, (1, Value::Text(map.name)));
    key.push((name, data));
    key
}

fn dnat() -> Expression {
    const NFT_NAT_DNAT: u32 = 1;
    expression("nat", |data| {
        data.number(1, NFT_NAT_DNAT)
            .number(2, NFPROTO_IPV4.into())
            .number(3, RESULT)
            .number(5, RESULT + 1)
    })
}

fn verdict(code: u32) -> Expression {
    (
        "immediate",
        vec![
            (1, Value::Number(NFT_REG_VERDICT)),
            (2, Value::Verdict(code)),
        ],
    )
}

fn element_messages(bridge: &str, kind: u16, flags: u16, elements: &[Element<'_>]) -> Vec<Message> {
    let specific = |element: &&Element<'_>| !element.0.host_ip.is_unspecified();
    let (at, any): (Vec<_>, Vec<_>) = elements.iter().partition(specific);
    let with_data = kind == NFT_MSG_NEWSETELEM;
    let mut messages = Vec::new();
    for (map, elements) in [(PUBLISHED_AT, at), (PUBLISHED, any)] {
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let what = match chunk {
                [(mapping, _)] => format!("publish {}:{}", mapping.host_ip, mapping.host_port),
                _ => format!("publish {} ports", chunk.len()),
            };
            messages.push(
                message(kind, flags, bridge, &what)
                    .text(2, map.name)
                    .nest(3, |list| {
                        chunk.iter().fold(list, |list, element| {
                            list.nest(NFTA_LIST_ELEM, |nest| {
                                push_element(nest, element, with_data)
                            })
                        })
                    }),
            );
        }
    }
    messages
}

fn push_element(nest: Message, (mapping, address): &Element<'_>, with_data: bool) -> Message {
    let protocol = match mapping.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let [high, low] = mapping.host_port.to_be_bytes();
    let mut key = vec![protocol, 0, 0, 0, high, low, 0, 0];
    if let IpAddr::V4(host_ip) = mapping.host_ip
        && !host_ip.is_unspecified()
    {
        key.extend(host_ip.octets());
    }
    let nest = nest.nest(1, |nest| nest.attribute(NFTA_DATA_VALUE, &key));
    if !with_data {
        return nest;
    }
    let [a, b, c, d] = address.octets();
    let [high, low] = mapping.container_port.to_be_bytes();
    nest.nest(2, |nest| {
        nest.attribute(NFTA_DATA_VALUE, &[a, b, c, d, high, low, 0, 0])
    })
}
