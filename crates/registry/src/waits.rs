//! How long anything of a registry may take: all in one place, so that tests can be impatient.

use std::time::Duration;

/// The limits of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// For a connection to come about, its names, proxies and handshakes included.
    pub connect: Duration,
    /// For an answer to begin. Registries assemble an upload before they answer its last request.
    pub answer: Duration,
    /// For a body to go on.
    pub pause: Duration,
    /// Before the second attempt; each further one is twice as long.
    pub retry: Duration,
    /// As long as a registry may ask to wait.
    pub retry_after_max: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            answer: Duration::from_secs(120),
            pause: Duration::from_secs(60),
            retry: Duration::from_millis(250),
            retry_after_max: Duration::from_secs(60),
        }
    }
}
