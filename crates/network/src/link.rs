//! Bridges, veth pairs, addresses and routes: rtnetlink(7).

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use sys::netlink::{
    self, Error, Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Socket, attributes,
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// The loopback interface is the first of every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// What a container calls its interface.
pub(crate) const CONTAINER_INTERFACE: &str = "eth0";

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

fn up(index: u32, name: &str) -> Message {
    Message::new(RTM_NEWLINK, 0, format!("set link {name} up")).fixed(&ifinfo(index, IFF_UP))
}

/// Makes a bridge, addressed and up.
pub(crate) fn create_bridge(
    socket: &mut Socket,
    name: &str,
    address: Ipv4Addr,
    prefix: u8,
    mtu: Option<u32>,
) -> Result<(), Error> {
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
    let made = index(socket, name)?.ok_or(Errno::NODEV);
    let configured = made
        .map_err(|errno| Error {
            what: format!("index of bridge {name}"),
            errno,
        })
        .and_then(|index| {
            socket.send(vec![
                add_address(index, name, address, prefix),
                up(index, name),
            ])
        });
    if configured.is_err() {
        // The first error is the one to tell.
        let _ = delete(socket, name);
    }
    configured
}

fn add_address(index: u32, name: &str, address: Ipv4Addr, prefix: u8) -> Message {
    let mut ifaddr = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
    ifaddr[4..].copy_from_slice(&index.to_ne_bytes());
    let mask = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    Message::new(
        RTM_NEWADDR,
        NLM_F_CREATE | NLM_F_EXCL,
        format!("add address {address}/{prefix} to {name}"),
    )
    .fixed(&ifaddr)
    .attribute(IFA_LOCAL, &address.octets())
    .attribute(IFA_ADDRESS, &address.octets())
    .attribute(IFA_BROADCAST, &(address.to_bits() | mask).to_be_bytes())
}

/// Makes a veth pair: one end on the bridge and up, the other in the network namespace.
pub(crate) fn create_veth(
    socket: &mut Socket,
    host_name: &str,
    bridge: u32,
    netns: BorrowedFd<'_>,
    mac: [u8; 6],
    mtu: Option<u32>,
) -> Result<(), Error> {
    let with_mtu = |message: Message| match mtu {
        Some(mtu) => message.number(IFLA_MTU, mtu),
        None => message,
    };
    let what = format!("create veth {host_name} with its peer in the container");
    let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, what)
        .fixed(&ifinfo(0, IFF_UP))
        .text(IFLA_IFNAME, host_name)
        .number(IFLA_MASTER, bridge);
    let message = with_mtu(message).nest(IFLA_LINKINFO, |info| {
        info.attribute(IFLA_INFO_KIND, b"veth")
            .nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    let peer = peer
                        .fixed(&ifinfo(0, 0))
                        .text(IFLA_IFNAME, CONTAINER_INTERFACE)
                        .attribute(IFLA_ADDRESS, &mac)
                        .attribute(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
                    with_mtu(peer)
                })
            })
    });
    // A container that reaches its own published port by way of the host: where br_netfilter is loaded, the bridge sees
    // the translated packet and would not send it back out of the port it came from.
    let hairpin = Message::new(RTM_NEWLINK, 0, format!("set hairpin mode of {host_name}"))
        .fixed(&ifinfo(0, 0))
        .text(IFLA_IFNAME, host_name)
        .nest(IFLA_LINKINFO, |info| {
            info.attribute(IFLA_INFO_SLAVE_KIND, b"bridge")
                .nest(IFLA_INFO_SLAVE_DATA, |data| {
                    data.attribute(IFLA_BRPORT_MODE, &[1])
                })
        });
    socket.send(vec![message, hairpin])
}

/// Deletes an interface, and with a veth its peer. That it is gone already is no error.
pub(crate) fn delete(socket: &mut Socket, name: &str) -> Result<(), Error> {
    let message = Message::new(RTM_DELLINK, 0, format!("delete link {name}")).fixed(&ifinfo(0, 0));
    match socket.send(vec![message.text(IFLA_IFNAME, name)]) {
        Err(error) if error.errno == Errno::NODEV => Ok(()),
        result => result,
    }
}

/// Brings the loopback interface of the socket's namespace up.
pub(crate) fn loopback_up(socket: &mut Socket) -> Result<(), Error> {
    socket.send(vec![up(LOOPBACK_INDEX, "lo")])
}

/// In a container's namespace: both interfaces up, the address, and the way out.
pub(crate) fn configure_container(
    socket: &mut Socket,
    address: Ipv4Addr,
    prefix: u8,
    gateway: Ipv4Addr,
) -> Result<(), Error> {
    let index = index(socket, CONTAINER_INTERFACE)?.ok_or_else(|| Error {
        what: format!("index of link {CONTAINER_INTERFACE}"),
        errno: Errno::NODEV,
    })?;
    let rtmsg = [
        AF_INET,
        0,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_BOOT,
        0,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let route = Message::new(
        RTM_NEWROUTE,
        NLM_F_CREATE,
        format!("add the default route by {gateway}"),
    )
    .fixed(&rtmsg)
    .attribute(RTA_GATEWAY, &gateway.octets());
    socket.send(vec![
        up(LOOPBACK_INDEX, "lo"),
        add_address(index, CONTAINER_INTERFACE, address, prefix),
        up(index, CONTAINER_INTERFACE),
        route,
    ])
}

/// The names of the interfaces on a bridge.
pub(crate) fn ports_of(socket: &mut Socket, bridge: u32) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let message =
        Message::unacknowledged(RTM_GETLINK, NLM_F_DUMP, "list links").fixed(&ifinfo(0, 0));
    socket.dump(message, |body| {
        let mut name = None;
        let mut master = None;
        for (kind, value) in attributes(body.get(16..).unwrap_or_default()) {
            match kind {
                IFLA_IFNAME => {
                    name = std::str::from_utf8(value)
                        .ok()
                        .map(|name| name.trim_end_matches('\0'))
                }
                IFLA_MASTER => {
                    master = value
                        .first_chunk::<4>()
                        .map(|index| u32::from_ne_bytes(*index))
                }
                _ => {}
            }
        }
        if master == Some(bridge) {
            names.extend(name.map(str::to_owned));
        }
    })?;
    Ok(names)
}

/// The IPv4 addresses of an interface, with their prefix lengths.
pub(crate) fn addresses_of(socket: &mut Socket, index: u32) -> Result<Vec<(Ipv4Addr, u8)>, Error> {
    let mut found = Vec::new();
    let message = Message::unacknowledged(RTM_GETADDR, NLM_F_DUMP, "list addresses")
        .fixed(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
    socket.dump(message, |body| {
        let Some(fixed) = body.first_chunk::<8>() else {
            return;
        };
        if u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]) != index {
            return;
        }
        let local = attributes(&body[8..]).find(|(kind, _)| *kind == IFA_LOCAL);
        if let Some(octets) = local.and_then(|(_, value)| value.first_chunk::<4>()) {
            found.push((Ipv4Addr::from(*octets), fixed[1]));
        }
    })?;
    Ok(found)
}

/// The IPv4 networks the host has routes to, the default route left out.
pub(crate) fn routed_networks(socket: &mut Socket) -> Result<Vec<(Ipv4Addr, u8)>, Error> {
    let mut found = Vec::new();
    let mut rtmsg = [0; 12];
    rtmsg[0] = AF_INET;
    let message = Message::unacknowledged(RTM_GETROUTE, NLM_F_DUMP, "list routes").fixed(&rtmsg);
    socket.dump(message, |body| {
        let Some(prefix) = body.get(1).copied().filter(|prefix| *prefix > 0) else {
            return;
        };
        let destination =
            attributes(body.get(12..).unwrap_or_default()).find(|(kind, _)| *kind == RTA_DST);
        if let Some(octets) = destination.and_then(|(_, value)| value.first_chunk::<4>()) {
            found.push((Ipv4Addr::from(*octets), prefix));
        }
    })?;
    Ok(found)
}

/// Runs `work` in a network namespace, on a thread of its own that ends with it: a thread that has entered a namespace
/// is good for nothing else.
pub(crate) fn inside<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
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
