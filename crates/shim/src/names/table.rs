//! The names of a network, in a file that the engine writes and renames into place: docs/formats/run.md.
//!
//! ```text
//! network front
//! 172.18.0.2 3f2a…64 hexadecimal digits web db
//! fd00::2 3f2a… web db
//! ```
//! It is read anew for every question: on tmpfs that costs less than knowing whether one has to, and nothing is held in
//! memory while nobody asks.

use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;

/// How much of a file is read: some ten thousand endpoints.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A network's names.
#[derive(Debug)]
pub(crate) struct Table(String);

/// An address and who has it.
struct Entry<'a> {
    address: IpAddr,
    id: &'a str,
    names: std::str::SplitAsciiWhitespace<'a>,
}

impl Table {
    /// Reads a file. One that is gone has no names: the network is gone.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut text = String::new();
        match std::fs::File::open(path) {
            Ok(file) => file
                .take(FILE_BYTES_MAX)
                .read_to_string(&mut text)
                .map(drop)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Self(text))
    }

    fn network(&self) -> &str {
        let first = self.0.lines().next().unwrap_or_default();
        first.strip_prefix("network ").unwrap_or_default()
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.0.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            let id = words.next()?;
            let names = words;
            Some(Entry { address, id, names })
        })
    }

    /// The addresses of a name, which may be followed by the network's. `name`: in lower case.
    pub(crate) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let network = self.network();
        let short = name
            .len()
            .checked_sub(network.len() + 1)
            .filter(|_| !network.is_empty())
            .filter(|at| name.is_char_boundary(*at) && name[*at..].starts_with('.'))
            .filter(|at| name[at + 1..].eq_ignore_ascii_case(network))
            .map(|at| &name[..at]);
        let is_it = |known: &str| {
            known.eq_ignore_ascii_case(name)
                || short.is_some_and(|short| known.eq_ignore_ascii_case(short))
        };
        let found = self
            .entries()
            .filter(|entry| entry.names.clone().any(is_it));
        found.map(|entry| entry.address).collect()
    }

    /// The addresses of a container.
    pub(crate) fn addresses_of(&self, id: &str) -> Vec<IpAddr> {
        let found = self.entries().filter(|entry| entry.id == id);
        found.map(|entry| entry.address).collect()
    }

    /// The name of an address, followed by the network's.
    pub(crate) fn name(&self, address: IpAddr) -> Option<String> {
        let mut entry = self.entries().find(|entry| entry.address == address)?;
        Some(format!("{}.{}", entry.names.next()?, self.network()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_with_and_without_their_network() {
        let table = Table(
            "network My-Net\n10.0.0.2 aaaa Web w1 app\nfd00::2 aaaa Web w1 app\n10.0.0.3 bbbb db app\nbroken\n"
                .to_owned(),
        );
        let found = |name: &str| table.addresses(name).len();
        assert_eq!(
            [
                found("web"),
                found("w1"),
                found("app"),
                found("db.my-net"),
                found("nobody"),
                found(".my-net"),
                found("my-net")
            ],
            [2, 2, 3, 1, 0, 0, 0]
        );
        assert_eq!(
            table.addresses_of("bbbb"),
            ["10.0.0.3".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(
            table.name("fd00::2".parse().unwrap()).as_deref(),
            Some("Web.My-Net")
        );
        assert_eq!(table.name("10.0.0.9".parse().unwrap()), None);
    }

    #[test]
    fn a_network_that_is_gone_has_no_names() {
        let table = Table::read(Path::new("/nowhere/names")).unwrap();
        assert!(table.addresses("web").is_empty());
    }
}
