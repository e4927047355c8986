//! Calls of x86 that share one number and are told apart by its first argument: socketcall(2) and ipc(2).
//!
//! The other arguments are in memory, where a filter cannot look, so that only rules without conditions reach them.
//! Source: `include/uapi/linux/net.h`, `include/uapi/linux/ipc.h`.

/// `ipc` has a version in the upper half of its first argument.
const IPC_MASK: u64 = 0xffff;

/// How a call is made through another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// The number of the shared call.
    pub(super) number: u32,
    /// Of its first argument, what tells the calls apart.
    pub(super) mask: u64,
    /// What that is for this one.
    pub(super) value: u64,
}

/// The part of `socketcall` or `ipc` that a call is.
pub(super) fn part(name: &str) -> Option<Part> {
    let of = |names: &[(&str, u64)]| {
        let found = names.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value)
    };
    let socket = of(&SOCKETCALL).map(|value| Part {
        number: 102,
        mask: u64::MAX,
        value,
    });
    socket.or_else(|| {
        of(&IPC).map(|value| Part {
            number: 117,
            mask: IPC_MASK,
            value,
        })
    })
}

const SOCKETCALL: [(&str, u64); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

const IPC: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];
