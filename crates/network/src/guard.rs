//! What arrives from containers, where it arrives: a chain of nf_tables' family netdev for each host's end of a container's interface.
//!
//! The chain drops what is beyond the container's [rate](crate::rate), and what it [may not send](crate::spoofing). It is the first thing that a packet
//! meets, and every packet of a container meets it: what it compares with stands in its rules, which costs a fraction of asking a set of
//! all ports for interface and address. It can only be made when the interface is there, so that interfaces are raised after it.
//!
//! Sources: linux/netfilter/nf_tables.h, nft(8) on the family netdev.

use crate::nft::{self, Family, Table, live};
use crate::rate::BURST_BYTES;
use crate::spoofing::Member;
use rustix::io::Errno;
use std::collections::BTreeSet;
use sys::netlink::{Error, Message, Socket};

/// How many are made in one transaction. Where an interface is gone, those of its transaction are made one by one.
const GUARDS_PER_TRANSACTION: usize = 32;

/// What is to be checked at a host's end.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    pub(crate) interface: &'a str,
    /// How many bytes may pass per second.
    pub(crate) rate: Option<u64>,
    /// Whose name alone the container may speak in. None: any.
    pub(crate) member: Option<Member>,
}

impl Guard<'_> {
    /// Whether everything passes.
    pub(crate) fn is_open(&self) -> bool {
        self.rate.is_none() && self.member.is_none()
    }

    fn messages(&self, table: Table<'_>) -> Vec<Message> {
        // What was checked before is until this is.
        let mut messages = vec![
            table.ingress_chain(self.interface, self.interface),
            table.empty_chain(self.interface),
        ];
        let rate = self
            .rate
            .map(|rate| vec![vec![nft::exceeds(rate, BURST_BYTES)], nft::drop()]);
        let own = self.member.iter().flat_map(Member::rules);
        let rules = rate.into_iter().chain(own);
        messages.extend(rules.map(|parts| table.rule(self.interface, parts)));
        messages
    }
}

/// The guards of an engine: its table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guards<'a>(Table<'a>);

impl<'a> Guards<'a> {
    pub(crate) fn new(name: &'a str) -> Self {
        Self(Table {
            family: Family::Netdev,
            name,
        })
    }

    /// Has an interface guarded like this from now on. One that is gone needs no guard.
    pub(crate) fn set(self, socket: &mut Socket, guard: &Guard<'_>) -> Result<(), Error> {
        if guard.is_open() {
            return self.remove(socket, guard.interface);
        }
        self.set_all(socket, std::slice::from_ref(guard))
    }

    /// Forgets the guard of an interface, if it has one.
    pub(crate) fn remove(self, socket: &mut Socket, interface: &str) -> Result<(), Error> {
        unless_gone(nft::transaction(
            socket,
            vec![self.0.chain_removal(interface)],
        ))
    }

    /// Has these interfaces guarded, and no others.
    pub(crate) fn replace(self, socket: &mut Socket, guards: &[Guard<'_>]) -> Result<(), Error> {
        let wanted: BTreeSet<&str> = guards.iter().map(|guard| guard.interface).collect();
        let chains = live::chains(socket)?.into_iter();
        let stale = chains.filter(|chain| {
            chain.family == Family::Netdev as u8
                && chain.table == self.0.name
                && !wanted.contains(&*chain.name)
        });
        for chain in stale {
            self.remove(socket, &chain.name)?;
        }
        for guards in guards.chunks(GUARDS_PER_TRANSACTION) {
            self.set_all(socket, guards)?;
        }
        Ok(())
    }

    /// In one transaction, unless one of the interfaces is gone.
    fn set_all(self, socket: &mut Socket, guards: &[Guard<'_>]) -> Result<(), Error> {
        let mut messages = vec![self.0.present()];
        messages.extend(guards.iter().flat_map(|guard| guard.messages(self.0)));
        match nft::transaction(socket, messages) {
            Err(error) if error.errno == Errno::NOENT && guards.len() > 1 => {
                { guards.iter() }.try_for_each(|guard| self.set(socket, guard))
            }
            result => unless_gone(result),
        }
    }
}

fn unless_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.errno == Errno::NOENT => Ok(()),
        result => result,
    }
}
