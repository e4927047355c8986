//! How long a group's tasks have waited for what they needed: pressure stall information.
//!
//! Source: kernel `Documentation/accounting/psi.rst`. Only groups of v2 have it, in the hybrid layout as well.

use super::dir::Dir;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sys::Result;

/// Of each resource; None: the kernel does not keep account of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureStats {
    /// CPU time.
    pub cpu: Option<Pressure>,
    /// Memory.
    pub memory: Option<Pressure>,
    /// Block input and output.
    pub io: Option<Pressure>,
}

/// Of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// When at least one task waited.
    pub some: Stall,
    /// When all waited.
    pub full: Stall,
}

/// Shares of time in hundredths of a percent, over the last 10, 60 and 300 seconds, and all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// Over 10 seconds.
    pub average_10s: u32,
    /// Over 60 seconds.
    pub average_60s: u32,
    /// Over 300 seconds.
    pub average_300s: u32,
    /// Microseconds since the group was made.
    pub total_us: u64,
}

/// Reads a group's files.
pub(super) fn pressure(dir: &Dir) -> Result<PressureStats> {
    let read = |file: &str| match dir.read_if_there(file) {
        // A kernel that could, and was told not to.
        Err(error) if error.errno == Errno::OPNOTSUPP => Ok(None),
        text => text.map(|text| text.as_deref().and_then(parse)),
    };
    Ok(PressureStats {
        cpu: read("cpu.pressure")?,
        memory: read("memory.pressure")?,
        io: read("io.pressure")?,
    })
}

/// Reads `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the same of `full`, which older kernels do not have for CPUs.
fn parse(text: &str) -> Option<Pressure> {
    let stall = |name: &str| {
        let line = { text.lines() }.find_map(|line| line.strip_prefix(name))?;
        let mut stall = Stall::default();
        for (key, value) in line
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
        {
            match key {
                "avg10" => stall.average_10s = hundredths(value)?,
                "avg60" => stall.average_60s = hundredths(value)?,
                "avg300" => stall.average_300s = hundredths(value)?,
                "total" => stall.total_us = value.parse().ok()?,
                _ => {}
            }
        }
        Some(stall)
    };
    Some(Pressure {
        some: stall("some ")?,
        full: stall("full ").unwrap_or_default(),
    })
}

/// Reads `12.34`.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.')?;
    if fraction.len() != 2 {
        return None;
    }
    let whole: u32 = whole.parse().ok()?;
    whole.checked_mul(100)?.checked_add(fraction.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it() {
        let text = "some avg10=12.34 avg60=0.05 avg300=100.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let pressure = parse(text).unwrap();
        let expected = Stall {
            average_10s: 1234,
            average_60s: 5,
            average_300s: 10_000,
            total_us: 77,
        };
        assert_eq!((pressure.some, pressure.full.total_us), (expected, 5));
        assert_eq!(
            parse("some avg10=1.00 total=1").unwrap().full,
            Stall::default()
        );
        for bad in ["", "full avg10=0.00", "some avg10=x", "some avg10=1.5"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
