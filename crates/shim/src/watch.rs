//! Descriptors in an epoll(7) set, each with a token and the readiness it currently waits for.

use rustix::event::epoll;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(crate) use rustix::event::epoll::EventFlags;

/// Names a descriptor in the set; never reused.
pub(crate) type Token = u64;

/// An epoll set.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
    next: Token,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            next: 0,
        })
    }

    /// Prepares a descriptor for the set; it waits for nothing yet.
    pub(crate) fn watch<F: AsFd>(&mut self, fd: F) -> Watched<F> {
        self.next += 1;
        Watched {
            fd,
            token: self.next,
            interest: None,
        }
    }

    /// The next ready descriptors. `timeout` None waits for as long as it takes.
    pub(crate) fn wait(
        &self,
        events: &mut Vec<epoll::Event>,
        timeout: Option<std::time::Duration>,
    ) -> io::Result<()> {
        events.clear();
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A descriptor that is or may be in a set.
#[derive(Debug)]
pub(crate) struct Watched<F> {
    pub(crate) fd: F,
    pub(crate) token: Token,
    interest: Option<EventFlags>,
}

impl<F: AsFd> Watched<F> {
    /// Waits for `interest` from now on. None takes the descriptor out of the set: even an empty interest reports a
    /// hang-up, again and again, which someone who does not read now could only spin on.
    pub(crate) fn set(&mut self, poll: &Poll, interest: Option<EventFlags>) -> io::Result<()> {
        if self.interest == interest {
            return Ok(());
        }
        let data = epoll::EventData::new_u64(self.token);
        match (self.interest, interest) {
            (None, Some(flags)) => epoll::add(&poll.epoll, &self.fd, data, flags)?,
            (Some(_), Some(flags)) => epoll::modify(&poll.epoll, &self.fd, data, flags)?,
            (_, None) => epoll::delete(&poll.epoll, &self.fd)?,
        }
        self.interest = interest;
        Ok(())
    }
}

impl<F: AsFd> AsFd for Watched<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
