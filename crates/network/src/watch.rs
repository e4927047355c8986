//! Notices when somebody else changes the engine's firewall: firewalld's reload and `nft flush ruleset` remove it with everything
//! else, and with it what keeps networks apart (CVE-2025-54388, CVE-2025-54410).

use std::sync::mpsc;
use sys::netlink::{Error, Listener, attributes};

/// The group of changes of nf_tables.
const NFNLGRP_NFTABLES: u32 = 7;

/// The end of a transaction; everything else says what it has changed.
const NFT_MSG_NEWGEN: u8 = 15;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFTA_TABLE: u16 = 1;

/// Starts to listen in the calling thread's network namespace; calls `changed` when another socket than `own` has changed a table
/// of this name, or may have, until it says that nobody needs that any more.
pub(crate) fn start(
    table: String,
    own: u32,
    changed: impl Fn() -> bool + Send + 'static,
) -> Result<(), Error> {
    let listener = Listener::join(rustix::net::netlink::NETFILTER, NFNLGRP_NFTABLES)?;
    // The first message says that the thread is there, so that nothing that happens after this call is missed.
    let (ready, is_ready) = mpsc::channel();
    std::thread::spawn(move || {
        // Whoever waits for it is the caller below.
        let _ = ready.send(());
        loop {
            let mut concerned = false;
            let received = listener.receive(|kind, sender, body| {
                let [message, subsystem] = kind.to_le_bytes();
                let foreign = sender != own && u16::from(subsystem) == NFNL_SUBSYS_NFTABLES;
                if foreign && message != NFT_MSG_NEWGEN {
                    concerned |= names(body, &table);
                }
            });
            // What was lost may have been about it.
            if (concerned || received.is_err()) && !changed() {
                return;
            }
        }
    });
    // It cannot be gone before it has said so.
    let _ = is_ready.recv();
    Ok(())
}

/// Whether a message is about a table: its name is the first attribute of every kind, behind `struct nfgenmsg`.
fn names(body: &[u8], table: &str) -> bool {
    let named = attributes(body.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == NFTA_TABLE);
    named.is_some_and(|(_, name)| name.strip_suffix(b"\0") == Some(table.as_bytes()))
}
