//! Bridges and veth pairs, and work in another network namespace: rtnetlink(7), veth(4).

use crate::Failure;
use crate::address::add_address;
use crate::ipam::Range;
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use std::os::fd::{AsRawFd, BorrowedFd};
use sys::netlink::{
    self, Error, Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Socket, attributes,
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const VETH_INFO_PEER: u16 = 1;

const IFF_UP: u32 = 1;

/// The loopback interface is the first of every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// `struct ifinfomsg`
fn ifinfo(index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// A socket for rtnetlink, protocol 0, in the calling thread's network namespace.
pub(crate) fn open() -> Result<Socket, Error> {
    Socket::open(None)
}

/// The index of an interface; None: there is none of that name.
pub(crate) fn index(socket: &Socket, name: &str) -> Result<Option<u32>, Error> {
    match name_to_index(socket.fd(), name) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::NODEV) => Ok(None),
        Err(errno) => Err(Error {
            what: format!("index of link {name}"),
            errno,
        }),
    }
}

pub(crate) fn up(index: u32, name: &str) -> Message {
    Message::new(RTM_NEWLINK, 0, format!("set link {name} up")).fixed(&ifinfo(index, IFF_UP))
}

/// Makes a bridge; it is down and has no address yet.
pub(crate) fn create_bridge(
    socket: &mut Socket,
    name: &str,
    mtu: Option<u32>,
) -> Result<u32, Error> {
    let mut bridge = Message::new(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        format!("create bridge {name}"),
    )
    .fixed(&ifinfo(0, 0))
    .text(IFLA_IFNAME, name)
    .nest(IFLA_LINKINFO, |info| {
        info.attribute(IFLA_INFO_KIND, b"bridge")
    });
    if let Some(mtu) = mtu {
        bridge = bridge.number(IFLA_MTU, mtu);
    }
    socket.send(vec![bridge])?;
    index_of(socket, name)
}

/// Gives an interface the addresses of these gateways, and brings it up.
pub(crate) fn address_and_raise(
    socket: &mut Socket,
    index: u32,
    name: &str,
    gateways: &[&Range],
) -> Result<(), Error> {
    let addresses = gateways
        .iter()
        .map(|range| add_address(index, name, range.gateway(), range.subnet.prefix()));
    socket.send(addresses.chain([up(index, name)]).collect())
}

/// The index of an interface that there is.
pub(crate) fn index_of(socket: &Socket, name: &str) -> Result<u32, Error> {
    index(socket, name)?.ok_or_else(|| Error {
        what: format!("index of link {name}"),
        errno: Errno::NODEV,
    })
}

/// What a veth pair is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Veth<'a> {
    /// The host's end.
    pub(crate) host_name: &'a str,
    /// The other end, in the network namespace.
    pub(crate) name: &'a str,
    pub(crate) netns: BorrowedFd<'a>,
    /// The other end's hardware address.
    pub(crate) mac: [u8; 6],
    /// The bridge's index.
    pub(crate) bridge: u32,
    pub(crate) mtu: Option<u32>,
    /// Whether it reaches none of the bridge's other isolated ports.
    pub(crate) isolated: bool,
}

/// Makes a veth pair: one end on the bridge, the other in the network namespace. Both are down.
pub(crate) fn create_veth(socket: &mut Socket, veth: &Veth<'_>) -> Result<(), Error> {
    let Veth {
        host_name, name, ..
    } = veth;
    let with_mtu = |message: Message| match veth.mtu {
        Some(mtu) => message.number(IFLA_MTU, mtu),
        None => message,
    };
    let what = format!("create veth {host_name} with its peer {name} in the container");
    let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, what)
        .fixed(&ifinfo(0, 0))
        .text(IFLA_IFNAME, host_name)
        .number(IFLA_MASTER, veth.bridge);
    let message = with_mtu(message).nest(IFLA_LINKINFO, |info| {
        info.attribute(IFLA_INFO_KIND, b"veth")
            .nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    let peer = peer
                        .fixed(&ifinfo(0, 0))
                        .text(IFLA_IFNAME, name)
                        .attribute(IFLA_ADDRESS, &veth.mac)
                        .attribute(IFLA_NET_NS_FD, &veth.netns.as_raw_fd().to_ne_bytes());
                    with_mtu(peer)
                })
            })
    });
    socket.send(vec![message])
}

/// Brings the host's end of a pair up.
pub(crate) fn raise_port(socket: &mut Socket, veth: &Veth<'_>) -> Result<(), Error> {
    let host_name = veth.host_name;
    // A container that reaches its own published port by way of the host: where br_netfilter is loaded, the bridge sees
    // the translated packet and would not send it back out of the port it came from.
    let port = Message::new(RTM_NEWLINK, 0, format!("set port {host_name} up"))
        .fixed(&ifinfo(0, IFF_UP))
        .text(IFLA_IFNAME, host_name)
        .nest(IFLA_LINKINFO, |info| {
            info.attribute(IFLA_INFO_SLAVE_KIND, b"bridge")
                .nest(IFLA_INFO_SLAVE_DATA, |data| {
                    data.attribute(IFLA_BRPORT_MODE, &[1])
                        .attribute(IFLA_BRPORT_ISOLATED, &[veth.isolated.into()])
                })
        });
    socket.send(vec![port])
}

/// Makes an interface of the host that is a port of a bridge, and brings it up. `data`: what its kind has to know.
pub(crate) fn create_port(
    socket: &mut Socket,
    name: &str,
    bridge: u32,
    mtu: Option<u32>,
    kind: &'static str,
    data: impl FnOnce(Message) -> Message,
) -> Result<(), Error> {
    let what = format!("create {kind} {name}");
    let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, what)
        .fixed(&ifinfo(0, IFF_UP))
        .text(IFLA_IFNAME, name)
        .number(IFLA_MASTER, bridge);
    if let Some(mtu) = mtu {
        message = message.number(IFLA_MTU, mtu);
    }
    let message = message.nest(IFLA_LINKINFO, |info| {
        info.attribute(IFLA_INFO_KIND, kind.as_bytes())
            .nest(IFLA_INFO_DATA, data)
    });
    socket.send(vec![message])
}

/// Makes an interface of the host, on another one where its kind is on one, and brings it up. `data`: what its kind has to know.
pub(crate) fn create(
    socket: &mut Socket,
    name: &str,
    parent: Option<u32>,
    kind: &'static str,
    data: impl FnOnce(Message) -> Message,
    alias: &str,
) -> Result<(), Error> {
    let what = format!("create {kind} {name}");
    let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, what)
        .fixed(&ifinfo(0, 0))
        .text(IFLA_IFNAME, name);
    if let Some(parent) = parent {
        message = message.number(IFLA_LINK, parent);
    }
    let message = message.nest(IFLA_LINKINFO, |info| {
        info.attribute(IFLA_INFO_KIND, kind.as_bytes())
            .nest(IFLA_INFO_DATA, data)
    });
    // A new link takes no alias yet.
    let named = Message::new(RTM_NEWLINK, 0, format!("set link {name} up"))
        .fixed(&ifinfo(0, IFF_UP))
        .text(IFLA_IFNAME, name)
        .attribute(IFLA_IFALIAS, alias.as_bytes());
    socket.send(vec![message, named])
}

/// What an interface on another one is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewLink<'a> {
    pub(crate) name: &'a str,
    /// The index of the interface that it is on.
    pub(crate) parent: u32,
    /// Where it is to be.
    pub(crate) netns: BorrowedFd<'a>,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: Option<u32>,
    pub(crate) kind: &'static str,
}

/// Makes an interface on another one. `data`: what its kind has to know.
pub(crate) fn create_on(
    socket: &mut Socket,
    new: NewLink<'_>,
    data: impl FnOnce(Message) -> Message,
) -> Result<(), Error> {
    let what = format!("create {} {} in the container", new.kind, new.name);
    let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, what)
        .fixed(&ifinfo(0, 0))
        .text(IFLA_IFNAME, new.name)
        .number(IFLA_LINK, new.parent)
        .attribute(IFLA_NET_NS_FD, &new.netns.as_raw_fd().to_ne_bytes());
    if let Some(mac) = new.mac {
        message = message.attribute(IFLA_ADDRESS, &mac);
    }
    if let Some(mtu) = new.mtu {
        message = message.number(IFLA_MTU, mtu);
    }
    let message = message.nest(IFLA_LINKINFO, |info| {
        info.attribute(IFLA_INFO_KIND, new.kind.as_bytes())
            .nest(IFLA_INFO_DATA, data)
    });
    socket.send(vec![message])
}

/// Deletes an interface, and with a veth its peer. That it is gone already is no error.
pub(crate) fn delete(socket: &mut Socket, name: &str) -> Result<(), Error> {
    let message = Message::new(RTM_DELLINK, 0, format!("delete link {name}")).fixed(&ifinfo(0, 0));
    match socket.send(vec![message.text(IFLA_IFNAME, name)]) {
        Err(error) if error.errno == Errno::NODEV => Ok(()),
        result => result,
    }
}

/// Brings the loopback interface up.
pub(crate) fn loopback() -> Message {
    up(LOOPBACK_INDEX, "lo")
}

/// Brings the loopback interface of the socket's namespace up.
pub(crate) fn loopback_up(socket: &mut Socket) -> Result<(), Error> {
    socket.send(vec![loopback()])
}

/// The names of the interfaces on a bridge.
pub(crate) fn ports_of(socket: &mut Socket, bridge: u32) -> Result<Vec<String>, Error> {
    let links = list(socket)?.into_iter();
    let on_it = links.filter(|link| link.master == Some(bridge));
    Ok(on_it.map(|link| link.name).collect())
}

/// The alias of an interface, if it is there and has one.
pub(crate) fn alias(socket: &mut Socket, name: &str) -> Result<Option<String>, Error> {
    let mut links = list(socket)?.into_iter();
    Ok(links
        .find(|link| link.name == name)
        .and_then(|link| link.alias))
}

/// What is listed of an interface.
#[derive(Debug, Default)]
struct Link {
    name: String,
    /// The index of the bridge that it is on.
    master: Option<u32>,
    alias: Option<String>,
}

fn list(socket: &mut Socket) -> Result<Vec<Link>, Error> {
    let mut links = Vec::new();
    let message =
        Message::unacknowledged(RTM_GETLINK, NLM_F_DUMP, "list links").fixed(&ifinfo(0, 0));
    let text = |value: &[u8]| {
        let text = String::from_utf8_lossy(value);
        text.trim_end_matches('\0').to_owned()
    };
    socket.dump(message, |body| {
        let mut link = Link::default();
        for (kind, value) in attributes(body.get(16..).unwrap_or_default()) {
            match kind {
                IFLA_IFNAME => link.name = text(value),
                IFLA_IFALIAS => link.alias = Some(text(value)),
                IFLA_MASTER => {
                    let index = value.first_chunk::<4>();
                    link.master = index.map(|index| u32::from_ne_bytes(*index));
                }
                _ => {}
            }
        }
        links.push(link);
    })?;
    Ok(links)
}

/// Runs `work` in a network namespace, on a thread of its own that ends with it: a thread that has entered a namespace
/// is good for nothing else.
pub(crate) fn inside<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(netns, Some(LinkNameSpaceType::Network)).map_err(
                |errno| netlink::Error {
                    what: "setns(CLONE_NEWNET)".to_owned(),
                    errno,
                },
            )?;
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
