//! What a shim does for its container's network while that runs: it answers for names, and hands connections on.

use crate::names::Resolver;
use crate::protocol::{Names, Route};
use crate::relay::Relay;
use crate::watch::{EventFlags, Poll, Token};
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

/// The services; each is there once the engine has asked for it. Boxed, as most containers have none.
#[derive(Debug, Default)]
pub(crate) struct Services {
    resolver: Option<Box<Resolver>>,
    relay: Option<Box<Relay>>,
}

impl Services {
    /// Answers for names in the network namespace of a process, and returns the ports for UDP and TCP.
    pub(crate) fn serve_names(
        &mut self,
        poll: &mut Poll,
        pid: i32,
        names: Names,
    ) -> io::Result<(u16, u16)> {
        let resolver = match &mut self.resolver {
            Some(resolver) => {
                resolver.set_names(names);
                resolver
            }
            none => {
                let netns = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
                let opened = Resolver::open(poll, netns.as_fd(), names)?;
                none.insert(Box::new(opened))
            }
        };
        resolver.ports()
    }

    /// Hands connections to ::1 on by these routes, and returns the port they are to be led to. None: this host has no ::1.
    pub(crate) fn relay(&mut self, poll: &mut Poll, routes: Vec<Route>) -> io::Result<Option<u16>> {
        if self.relay.is_none() {
            self.relay = Relay::open(poll)?.map(Box::new);
        }
        let Some(relay) = &mut self.relay else {
            return Ok(None);
        };
        relay.set_routes(routes);
        relay.port().map(Some)
    }

    /// Serves a descriptor that is ready. One that was just forgotten is nobody's.
    pub(crate) fn ready(&mut self, poll: &mut Poll, token: Token, flags: EventFlags) {
        let resolver = self.resolver.as_mut();
        if resolver.is_some_and(|resolver| resolver.ready(poll, token, flags)) {
            return;
        }
        if let Some(relay) = &mut self.relay {
            relay.ready(poll, token, flags);
        }
    }

    /// Gives up what has waited too long.
    pub(crate) fn expire(&mut self, poll: &mut Poll) {
        let now = Instant::now();
        if let Some(resolver) = &mut self.resolver {
            resolver.expire(poll, now);
        }
        if let Some(relay) = &mut self.relay {
            relay.expire(now);
        }
    }

    /// When something has to be given up, at the earliest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let resolver = self.resolver.as_ref().and_then(|names| names.deadline());
        let relay = self.relay.as_ref().and_then(|relay| relay.deadline());
        resolver.into_iter().chain(relay).min()
    }

    /// Waits for what it can do something with.
    pub(crate) fn set_interests(&mut self, poll: &Poll) -> io::Result<()> {
        if let Some(resolver) = &mut self.resolver {
            resolver.set_interests(poll)?;
        }
        match &mut self.relay {
            Some(relay) => relay.set_interests(poll),
            None => Ok(()),
        }
    }
}
