//! nf_tables over netlink: tables, chains, sets and rules, in one transaction for every change.
//!
//! Sources: linux/netfilter/nf_tables.h, nfnetlink.h; nft(8).

mod expression;
pub(crate) mod live;

pub(crate) use expression::{
    End, KEY, LINK_HEADER, NETWORK_HEADER, TRANSPORT_HEADER, accept, address_in, carries,
    conntrack, ct, differs, dnat, drop, equals, ethertype, exceeds, family, from, go_back,
    interface_bytes, into, load_address, load_meta, look_up, masquerade, meta, not_from, not_into,
    payload, redirect, rewrite, to_local,
};

use sys::netlink::{Error, Message, NLM_F_APPEND, NLM_F_CREATE, Socket};

/// Elements in one message: a nest holds at most 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;

const NFNL_SUBSYS_NFTABLES: u16 = 10 << 8;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFT_JUMP: u32 = (-3_i32).cast_unsigned();
const NF_ACCEPT: u32 = 1;

/// What a table sees: nf_tables' numbers of families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// What arrives by an interface, before anything else sees it.
    Netdev = 5,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Netdev => "netdev",
        }
    }
}

/// nft's own numbers of types, for its listing.
pub(crate) mod types {
    pub(crate) const IPV4: u32 = 7;
    pub(crate) const IPV6: u32 = 8;
    pub(crate) const PROTOCOL: u32 = 12;
    pub(crate) const SERVICE: u32 = 13;
    pub(crate) const IFNAME: u32 = 41;
    pub(crate) const VERDICT: u32 = 0xffff_ff00;

    /// Several in a row: six bits each.
    pub(crate) fn concatenated(parts: &[u32]) -> u32 {
        parts.iter().fold(0, |sum, part| (sum << 6) | part)
    }
}

/// A set, or a map where it has data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    /// Its number in the transaction that makes it.
    pub(crate) id: u32,
    /// The parts of its key.
    pub(crate) key: &'static [u32],
    /// The parts of its data; none: it is a set.
    pub(crate) data: &'static [u32],
}

impl Set {
    fn bytes(parts: &[u32]) -> u32 {
        let bytes = |part: &u32| match *part {
            types::IPV6 | types::IFNAME => 16,
            _ => 4,
        };
        parts.iter().map(bytes).sum()
    }

    fn is_verdict_map(&self) -> bool {
        self.data == [types::VERDICT]
    }
}

/// What an element leads to.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    /// Nothing: the set has none.
    None,
    /// Bytes, as the map's type says.
    Bytes(Vec<u8>),
    /// A chain.
    Jump(String),
}

/// A key and what it leads to.
pub(crate) type Element = (Vec<u8>, Data);

/// Where in the kernel a chain is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// The hook of [`Family::Netdev`].
const INGRESS: u32 = 0;

/// The hooks of [`Family::Inet`].
pub(crate) const PREROUTING: u32 = 0;
pub(crate) const FORWARD: u32 = 2;
pub(crate) const OUTPUT: u32 = 3;
pub(crate) const POSTROUTING: u32 = 4;

/// Sends messages as one transaction.
pub(crate) fn transaction(socket: &mut Socket, messages: Vec<Message>) -> Result<(), Error> {
    // The resource id, in network order, is the subsystem.
    let boundary =
        |kind| Message::unacknowledged(kind, 0, "nf_tables transaction").fixed(&[0, 0, 0, 10]);
    let (begin, end) = (NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END);
    socket.send_transaction(boundary(begin), messages, boundary(end))
}

/// Has a chain called by the kernel, for everything or for one interface; what none of its rules decides passes.
fn hooked(chain: Message, hook: Hook, interface: Option<&str>) -> Message {
    let chain = chain.nest(4, |nest| {
        let nest = nest
            .be32(1, hook.number)
            .attribute(2, &hook.priority.to_be_bytes());
        match interface {
            Some(interface) => nest.text(3, interface),
            None => nest,
        }
    });
    chain.be32(5, NF_ACCEPT).text(7, hook.kind)
}

/// A table, to make messages about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table<'a> {
    pub(crate) family: Family,
    pub(crate) name: &'a str,
}

impl Table<'_> {
    /// A message about something in the table, whose name is the first attribute of every kind.
    fn message(self, kind: u16, flags: u16, what: &str) -> Message {
        const NFTA_TABLE: u16 = 1;
        let what = format!("{what} in table {} {}", self.family.name(), self.name);
        Message::new(NFNL_SUBSYS_NFTABLES | kind, flags, what)
            .fixed(&[self.family as u8, 0, 0, 0])
            .text(NFTA_TABLE, self.name)
    }

    /// The table without anything in it, whether there was one or not.
    pub(crate) fn anew(self) -> Vec<Message> {
        let mut messages = self.removal();
        messages.push(self.present());
        messages
    }

    /// The table, whether there was one or not.
    pub(crate) fn present(self) -> Message {
        self.message(NFT_MSG_NEWTABLE, NLM_F_CREATE, "add table")
    }

    /// The table gone, whether there was one or not: made first, so that deleting it cannot fail.
    pub(crate) fn removal(self) -> Vec<Message> {
        vec![
            self.present(),
            self.message(NFT_MSG_DELTABLE, 0, "delete table"),
        ]
    }

    /// A chain; without a hook, one that others jump to.
    pub(crate) fn chain(self, name: &str, hook: Option<Hook>) -> Message {
        let message = self.unhooked_chain(name);
        match hook {
            Some(hook) => hooked(message, hook, None),
            None => message,
        }
    }

    /// A chain that filters what arrives by an interface. The table is of [`Family::Netdev`].
    pub(crate) fn ingress_chain(self, name: &str, interface: &str) -> Message {
        let ingress = Hook {
            kind: "filter",
            number: INGRESS,
            priority: 0,
        };
        hooked(self.unhooked_chain(name), ingress, Some(interface))
    }

    fn unhooked_chain(self, name: &str) -> Message {
        let what = format!("add chain {name}");
        self.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE, &what)
            .text(3, name)
    }

    /// All rules of a chain gone.
    pub(crate) fn empty_chain(self, name: &str) -> Message {
        let what = format!("empty chain {name}");
        self.message(NFT_MSG_DELRULE, 0, &what).text(2, name)
    }

    /// A chain gone, with its rules.
    pub(crate) fn chain_removal(self, name: &str) -> Message {
        let what = format!("delete chain {name}");
        self.message(NFT_MSG_DELCHAIN, 0, &what).text(3, name)
    }

    pub(crate) fn set(self, set: Set) -> Message {
        const NFT_SET_MAP: u32 = 8;
        let what = format!("add set {}", set.name);
        let message = self.message(NFT_MSG_NEWSET, NLM_F_CREATE, &what);
        let flags = if set.data.is_empty() { 0 } else { NFT_SET_MAP };
        let message = message
            .text(2, set.name)
            .be32(3, flags)
            .be32(4, types::concatenated(set.key))
            .be32(5, Set::bytes(set.key));
        let message = match set.data {
            [] => message,
            [types::VERDICT] => message.be32(6, types::VERDICT),
            data => message
                .be32(6, types::concatenated(data))
                .be32(7, Set::bytes(data)),
        };
        let message = message.be32(10, set.id);
        if set.key[0] == types::IFNAME {
            // nft's own note on how to list the key, as type, length, value: names are in the machine's order.
            const KEY_BYTE_ORDER: u8 = 0;
            const HOST_ENDIAN: u32 = 1;
            let [a, b, c, d] = HOST_ENDIAN.to_ne_bytes();
            return message.attribute(13, &[KEY_BYTE_ORDER, 4, a, b, c, d]);
        }
        message
    }

    /// A rule after those that the chain has.
    pub(crate) fn rule(
        self,
        chain: &str,
        parts: impl IntoIterator<Item = Vec<Expression>>,
    ) -> Message {
        let what = format!("add rule to chain {chain}");
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        let message = self.message(NFT_MSG_NEWRULE, flags, &what);
        message.text(2, chain).nest(4, |list| {
            parts
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

    /// Elements that are to be there. With `flags` of NLM_F_EXCL one that is there already is an error.
    pub(crate) fn add_elements(self, set: Set, elements: &[Element], flags: u16) -> Vec<Message> {
        self.elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE | flags, set, elements)
    }

    /// Elements that are there and are to go.
    pub(crate) fn remove_elements(self, set: Set, elements: &[Element]) -> Vec<Message> {
        self.elements(NFT_MSG_DELSETELEM, 0, set, elements)
    }

    fn elements(self, kind: u16, flags: u16, set: Set, elements: &[Element]) -> Vec<Message> {
        let with_data = kind == NFT_MSG_NEWSETELEM;
        let chunks = elements.chunks(ELEMENTS_PER_MESSAGE).map(|chunk| {
            let what = format!("change {} elements of {}", chunk.len(), set.name);
            let message = self.message(kind, flags, &what);
            message.text(2, set.name).nest(3, |list| {
                chunk.iter().fold(list, |list, (key, data)| {
                    list.nest(NFTA_LIST_ELEM, |nest| {
                        let nest = nest.nest(1, |nest| nest.attribute(NFTA_DATA_VALUE, key));
                        match data {
                            Data::Bytes(bytes) if with_data => {
                                nest.nest(2, |nest| nest.attribute(NFTA_DATA_VALUE, bytes))
                            }
                            Data::Jump(chain) if with_data => {
                                nest.nest(2, |nest| verdict_data(nest, NFT_JUMP, Some(chain)))
                            }
                            _ => nest,
                        }
                    })
                })
            })
        });
        chunks.collect()
    }
}

/// An expression of a rule: its name and its attributes.
pub(crate) type Expression = (&'static str, Vec<(u16, Value)>);

/// What an expression's attribute holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// In network order.
    Number(u32),
    /// Likewise.
    Long(u64),
    Text(&'static str),
    /// Compared or masked bytes.
    Bytes(Vec<u8>),
    Verdict(u32, Option<String>),
}

fn append(message: Message, (kind, value): (u16, Value)) -> Message {
    match value {
        Value::Number(number) => message.be32(kind, number),
        Value::Long(number) => message.attribute(kind, &number.to_be_bytes()),
        Value::Text(text) => message.text(kind, text),
        Value::Bytes(bytes) => message.nest(kind, |nest| nest.attribute(NFTA_DATA_VALUE, &bytes)),
        Value::Verdict(code, chain) => {
            message.nest(kind, |nest| verdict_data(nest, code, chain.as_deref()))
        }
    }
}

fn verdict_data(nest: Message, code: u32, chain: Option<&str>) -> Message {
    nest.nest(NFTA_DATA_VERDICT, |verdict| {
        let verdict = verdict.be32(NFTA_VERDICT_CODE, code);
        match chain {
            Some(chain) => verdict.text(NFTA_VERDICT_CHAIN, chain),
            None => verdict,
        }
    })
}
