//! How much of the network a container may use: limits at the host's end of its veth pair, where it reaches neither.
//!
//! What goes to it waits in a token bucket filter, tc-tbf(8), and is dropped when the queue is full. What comes from it is counted
//! where it arrives, by its port's [guard](crate::guard), and dropped when it is too much: a queue needs somebody who waits at its end,
//! and the host's end is where frames arrive. Sources: linux/pkt_sched.h.

use crate::{Failure, Result};
use rustix::io::Errno;
use sys::netlink::{Message, NLM_F_CREATE, NLM_F_REPLACE, Socket};

/// What passes an interface per second at most, in bytes; None: any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// To the container.
    pub receive: Option<u64>,
    /// From it.
    pub send: Option<u64>,
}

impl Rate {
    /// The least that is worth a limit: a frame of the largest size in a fraction of a second.
    pub const BYTES_MIN: u64 = 1 << 10;
    /// What the kernel can count, with much to spare.
    pub const BYTES_MAX: u64 = 8 << 30;

    /// # Errors
    /// Too little, or too much.
    pub fn check(self) -> Result<()> {
        for bytes in self.receive.into_iter().chain(self.send) {
            if !(Self::BYTES_MIN..=Self::BYTES_MAX).contains(&bytes) {
                return Err(Failure::Invalid(format!(
                    "a network rate of {bytes} bytes per second: it is from {} to {}",
                    Self::BYTES_MIN,
                    Self::BYTES_MAX
                )));
            }
        }
        Ok(())
    }
}

/// What may pass at once beyond the rate: some of the largest packets that the kernel puts together.
pub(crate) const BURST_BYTES: u32 = 256 << 10;

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const TC_H_ROOT: u32 = 0xffff_ffff;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TC_LINKLAYER_ETHERNET: u8 = 1;

/// `struct tcmsg`
fn tcmsg(index: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[12..16].copy_from_slice(&TC_H_ROOT.to_ne_bytes());
    bytes
}

/// `struct tc_tbf_qopt`, whose numbers are too small for fast networks: attributes have the rate and the burst.
fn tbf(rate: u64) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[1] = TC_LINKLAYER_ETHERNET;
    let rate32 = u32::try_from(rate).unwrap_or(u32::MAX);
    bytes[8..12].copy_from_slice(&rate32.to_ne_bytes());
    // A tenth of a second's worth waits.
    let waiting = u32::try_from(rate / 10).unwrap_or(u32::MAX);
    let limit = waiting.saturating_add(BURST_BYTES);
    bytes[24..28].copy_from_slice(&limit.to_ne_bytes());
    bytes
}

/// Bounds what goes out of an interface of the host, or takes the bound away.
pub(crate) fn bound_receiving(
    links: &mut Socket,
    (index, name): (u32, &str),
    rate: Option<u64>,
) -> Result<()> {
    let Some(rate) = rate else {
        let what = format!("remove the limit of {name}");
        let message = Message::new(RTM_DELQDISC, 0, what).fixed(&tcmsg(index));
        return match links.send(vec![message]) {
            // There was none.
            Err(error) if matches!(error.errno, Errno::NOENT | Errno::INVAL) => Ok(()),
            result => Ok(result?),
        };
    };
    let what = format!("limit what goes out of {name}");
    let message = Message::new(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, what)
        .fixed(&tcmsg(index))
        .text(TCA_KIND, "tbf")
        .nest(TCA_OPTIONS, |options| {
            options
                .attribute(TCA_TBF_PARMS, &tbf(rate))
                .attribute(TCA_TBF_RATE64, &rate.to_ne_bytes())
                .number(TCA_TBF_BURST, BURST_BYTES)
        });
    match links.send(vec![message]) {
        Err(error) if error.errno == Errno::NOENT => Err(Failure::Invalid(
            "this kernel cannot limit what is sent to containers: the module sch_tbf is needed"
                .to_owned(),
        )),
        result => Ok(result?),
    }
}
