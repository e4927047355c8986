//! What is in the kernel at this moment, whoever has put it there.

use super::{NFNL_SUBSYS_NFTABLES, NFTA_DATA_VALUE, NFTA_LIST_ELEM, Set, Table};
use rustix::io::Errno;
use std::collections::BTreeSet;
use sys::netlink::{Error, Message, NLM_F_DUMP, Socket, attributes};

const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETSETELEM: u16 = 13;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NF_DROP: u32 = 0;

/// A chain of anybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    /// nf_tables' number.
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
    /// Where the kernel calls it, and whether it is one that decides: None for chains that others jump to.
    pub(crate) hook: Option<u32>,
    pub(crate) filters: bool,
    pub(crate) drops: bool,
    /// Of a chain with a hook, its rules.
    pub(crate) rules: u32,
}

/// Every chain there is.
pub(crate) fn chains(socket: &mut Socket) -> Result<Vec<Chain>, Error> {
    let mut found = Vec::new();
    let message = get(NFT_MSG_GETCHAIN, 0, "list chains");
    socket.dump(message, |body| {
        let Some((header, rest)) = body.split_first_chunk::<4>() else {
            return;
        };
        let of = |wanted| {
            let mut all = attributes(rest);
            all.find(|(kind, _)| *kind == wanted)
                .map(|(_, value)| value)
        };
        let text = |wanted| of(wanted).map(text).unwrap_or_default();
        let hook = of(NFTA_CHAIN_HOOK).and_then(|hook| {
            let mut inner = attributes(hook);
            inner.find(|(kind, _)| *kind == NFTA_HOOK_HOOKNUM)
        });
        found.push(Chain {
            family: header[0],
            table: text(NFTA_CHAIN_TABLE),
            name: text(NFTA_CHAIN_NAME),
            hook: hook.and_then(|(_, number)| be32(number)),
            filters: text(NFTA_CHAIN_TYPE) == "filter",
            drops: of(NFTA_CHAIN_POLICY).and_then(be32) == Some(NF_DROP),
            rules: of(NFTA_CHAIN_USE).and_then(be32).unwrap_or(0),
        });
    })?;
    Ok(found)
}

impl Table<'_> {
    /// The keys in a set of it. None: there is no such set, or no such table.
    pub(crate) fn keys(
        self,
        socket: &mut Socket,
        set: Set,
    ) -> Result<Option<BTreeSet<Vec<u8>>>, Error> {
        let mut found = BTreeSet::new();
        let what = format!("list {} of {}", set.name, self.name);
        let message = get(NFT_MSG_GETSETELEM, self.family as u8, &what)
            .text(1, self.name)
            .text(2, set.name);
        let dumped = socket.dump(message, |body| {
            let all = attributes(body.get(4..).unwrap_or_default());
            let lists = all.filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS);
            let elements = lists.flat_map(|(_, list)| attributes(list));
            let elements = elements.filter(|(kind, _)| *kind == NFTA_LIST_ELEM);
            found.extend(elements.filter_map(|(_, element)| {
                let (_, key) = attributes(element).find(|(kind, _)| *kind == NFTA_SET_ELEM_KEY)?;
                let (_, key) = attributes(key).find(|(kind, _)| *kind == NFTA_DATA_VALUE)?;
                Some(key.to_vec())
            }));
        });
        match dumped {
            Err(error) if error.errno == Errno::NOENT => Ok(None),
            result => result.map(|()| Some(found)),
        }
    }
}

fn get(kind: u16, family: u8, what: &str) -> Message {
    Message::unacknowledged(NFNL_SUBSYS_NFTABLES | kind, NLM_F_DUMP, what).fixed(&[family, 0, 0, 0])
}

fn be32(value: &[u8]) -> Option<u32> {
    value
        .first_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}
