//! Network devices of the host that a container takes over: moved, renamed, with the addresses that were meant to stay, and
//! up. Nothing brings them back: they go where the kernel puts a namespace's devices when it ends.
//!
//! Source: config-linux.md "Network Devices", rtnetlink(7), network_namespaces(7).

use crate::error::{Doing, Error, Result};
use crate::namespaces::open;
use oci::runtime::{Linux, NamespaceKind, NetDevice};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use sys::Context;
use sys::netlink::{Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Socket, attributes};
use sys::process::{Namespaces, setns};

/// As many devices as one configuration may name.
const DEVICES_MAX: usize = 1024;
/// As many addresses as are taken along with one.
const ADDRESSES_MAX: usize = 4096;
/// The longest name, as `IFNAMSIZ` has it without the final zero.
const NAME_BYTES_MAX: usize = 15;
/// As many names as are tried for a template.
const NUMBERS_MAX: usize = 32_768;
/// What a template has where a number is to be.
const NUMBER: &str = "%d";

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFF_UP: u32 = 1;
const IFA_F_PERMANENT: u32 = 0x80;
/// What the kernel says of an address, as opposed to what was asked for with it: secondary, duplicate, tentative.
const IFA_F_FOUND: u32 = 0x01 | 0x08 | 0x40 | IFA_F_PERMANENT;
const RT_SCOPE_UNIVERSE: u8 = 0;
/// The size of `struct ifaddrmsg`.
const ADDRESS_HEADER_BYTES: usize = 8;

/// Refuses what cannot be.
pub(crate) fn check(linux: &Linux) -> Result<()> {
    if linux.net_devices.is_empty() {
        return Ok(());
    }
    let own = linux
        .namespaces
        .iter()
        .any(|namespace| namespace.kind == NamespaceKind::Network);
    if !own {
        return Err(Error::invalid(
            "network devices need a network namespace of the container's",
        ));
    }
    if linux.net_devices.len() > DEVICES_MAX {
        return Err(Error::invalid(format!(
            "more than {DEVICES_MAX} network devices"
        )));
    }
    for (name, device) in &linux.net_devices {
        let wanted = wanted(name, device);
        for (name, is_template) in [(name.as_str(), false), (wanted, true)] {
            if !is_name(name, is_template) {
                return Err(Error::invalid(format!(
                    "{name:?} is not the name of a network device"
                )));
            }
        }
    }
    Ok(())
}

/// What a device is to be called, or the template for it.
fn wanted<'a>(name: &'a str, device: &'a NetDevice) -> &'a str {
    let given = device.name.as_deref().filter(|name| !name.is_empty());
    given.unwrap_or(name)
}

fn is_name(name: &str, is_template: bool) -> bool {
    let numberless = if is_template {
        name.replacen(NUMBER, "", 1)
    } else {
        name.to_owned()
    };
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    fits && !matches!(name, "." | "..") && numberless.bytes().all(plain)
}

/// Moves the configuration's devices from the calling thread's network namespace to the container's.
pub(crate) fn take_over(linux: &Linux, namespace: BorrowedFd<'_>) -> Result<()> {
    if linux.net_devices.is_empty() {
        return Ok(());
    }
    let doing = "moving network devices";
    let mut host = open_socket()?;
    let own = open(Path::new("/proc/self/ns/net"))?;
    setns(namespace, Namespaces::NET).doing(doing)?;
    // A socket stays in the namespace that it was opened in.
    let inside = open_socket();
    setns(own.as_fd(), Namespaces::NET).doing(doing)?;
    let mut inside = inside?;
    for (name, device) in &linux.net_devices {
        let doing = || format!("moving the network device {name}");
        let new = free_name(&inside, wanted(name, device)).doing_with(doing)?;
        move_one(&mut host, &mut inside, name, &new, namespace).doing_with(doing)?;
    }
    Ok(())
}

fn open_socket() -> Result<Socket> {
    let socket = Socket::open(None).map_err(sys::Error::from);
    socket.doing("moving network devices")
}

/// A name that no device has: the one that is wanted, or the first of a template's.
fn free_name(socket: &Socket, wanted: &str) -> sys::Result<String> {
    let taken = |name: &str| match name_to_index(socket.fd(), name) {
        Ok(_) => Ok(true),
        Err(Errno::NODEV) => Ok(false),
        Err(errno) => Err(errno).call(|| format!("ioctl(SIOCGIFINDEX, {name:?})")),
    };
    let exists = |name: &str| sys::Error::new(format!("rename to {name:?}"), Errno::EXIST);
    if !wanted.contains(NUMBER) {
        return if taken(wanted)? {
            Err(exists(wanted))
        } else {
            Ok(wanted.to_owned())
        };
    }
    for number in 0..NUMBERS_MAX {
        let name = wanted.replacen(NUMBER, &number.to_string(), 1);
        if name.len() > NAME_BYTES_MAX {
            break;
        }
        if !taken(&name)? {
            return Ok(name);
        }
    }
    Err(exists(wanted))
}

fn move_one(
    host: &mut Socket,
    inside: &mut Socket,
    name: &str,
    new: &str,
    namespace: BorrowedFd<'_>,
) -> sys::Result<()> {
    let index = index_of(host, name)?;
    // Before it is down, when it would lose some.
    let addresses = addresses(host, index)?;
    let what = format!("move link {name} as {new}");
    let moved = Message::new(RTM_NEWLINK, 0, what)
        .fixed(&ifinfo(index, 0))
        .text(IFLA_IFNAME, new)
        .number(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
    host.send(vec![moved])?;
    let index = index_of(inside, new)?;
    let up = format!("set link {new} up");
    let mut messages: Vec<_> = addresses
        .iter()
        .map(|address| address.message(index, new))
        .collect();
    messages.push(Message::new(RTM_NEWLINK, 0, up).fixed(&ifinfo(index, IFF_UP)));
    Ok(inside.send(messages)?)
}

fn index_of(socket: &Socket, name: &str) -> sys::Result<u32> {
    name_to_index(socket.fd(), name).call(|| format!("ioctl(SIOCGIFINDEX, {name:?})"))
}

/// `struct ifinfomsg`
fn ifinfo(index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// An address as the kernel told it, without what is the old place's.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    /// Kinds and values.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    fn message(&self, index: u32, name: &str) -> Message {
        let mut header = [0; ADDRESS_HEADER_BYTES];
        header[..2].copy_from_slice(&[self.family, self.prefix]);
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let what = format!("add an address to {name}");
        let message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, what);
        let message = message.fixed(&header).number(IFA_FLAGS, self.flags);
        let attributes = self.attributes.iter();
        attributes.fold(message, |message, (kind, value)| {
            message.attribute(*kind, value)
        })
    }

    /// Reads one of an interface, if it is permanent and of global scope.
    fn parse(body: &[u8], index: u32) -> Option<Self> {
        let [family, prefix, flags, scope, of @ ..] =
            *body.first_chunk::<ADDRESS_HEADER_BYTES>()?;
        let mut address = Self {
            family,
            prefix,
            flags: flags.into(),
            attributes: Vec::new(),
        };
        for (kind, value) in attributes(&body[ADDRESS_HEADER_BYTES..]) {
            match (kind, value.first_chunk::<4>()) {
                (IFA_FLAGS, Some(flags)) => address.flags = u32::from_ne_bytes(*flags),
                (IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST | IFA_RT_PRIORITY, _) => {
                    address.attributes.push((kind, value.to_vec()));
                }
                _ => {}
            }
        }
        let permanent = address.flags & IFA_F_PERMANENT != 0;
        let wanted = permanent && scope == RT_SCOPE_UNIVERSE && of == index.to_ne_bytes();
        address.flags &= !IFA_F_FOUND;
        wanted.then_some(address)
    }
}

fn addresses(socket: &mut Socket, index: u32) -> sys::Result<Vec<Address>> {
    let what = "list addresses";
    let dump = Message::unacknowledged(RTM_GETADDR, NLM_F_DUMP, what);
    let mut found = Vec::new();
    socket.dump(dump.fixed(&[0; ADDRESS_HEADER_BYTES]), |body| {
        found.extend(Address::parse(body, index));
    })?;
    if found.len() > ADDRESSES_MAX {
        return Err(sys::Error::new(format!("netlink {what}"), Errno::TOOBIG));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_fit_the_kernel_and_templates_have_one_number() {
        for good in ["eth0", "a", "very-long-name0", "eth%d"] {
            assert!(is_name(good, true), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "very-long-name00",
            "%d%d",
            "a%",
            "a%s",
        ] {
            assert!(!is_name(bad, true), "{bad}");
        }
        assert!(!is_name("eth%d", false));
    }

    #[test]
    fn devices_need_a_namespace_and_names() {
        let linux = |text: &str| serde_json::from_str::<Linux>(text).unwrap();
        let own = r#""namespaces":[{"type":"network"}]"#;
        check(&linux(r#"{}"#)).unwrap();
        check(&linux(&format!(
            r#"{{"netDevices":{{"a":{{"name":"b%d"}}}},{own}}}"#
        )))
        .unwrap();
        assert!(check(&linux(r#"{"netDevices":{"a":{}}}"#)).is_err());
        assert!(check(&linux(&format!(r#"{{"netDevices":{{"a%d":{{}}}},{own}}}"#))).is_err());
        assert!(
            check(&linux(&format!(
                r#"{{"netDevices":{{"a":{{"name":"/"}}}},{own}}}"#
            )))
            .is_err()
        );
    }

    #[test]
    fn only_permanent_global_addresses_of_the_device_are_taken_along() {
        let body = |flags: u8, scope: u8, index: u32| {
            let mut body = vec![2, 24, flags, scope];
            body.extend(index.to_ne_bytes());
            body.extend([8, 0, 2, 0, 10, 0, 0, 1]);
            // A label, which is of the old name.
            body.extend([7, 0, 3, 0, b'a', b'0', 0, 0]);
            body
        };
        let taken = Address::parse(&body(0x81, 0, 5), 5).unwrap();
        assert_eq!((taken.prefix, taken.flags), (24, 0));
        assert_eq!(taken.attributes, [(IFA_LOCAL, vec![10, 0, 0, 1])]);
        for other in [body(0, 0, 5), body(0x80, 253, 5), body(0x80, 0, 6)] {
            assert_eq!(Address::parse(&other, 5), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(Address::parse(&body, 1));
        }
    }
}
