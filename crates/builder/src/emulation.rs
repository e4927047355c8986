//! Whether this machine can run programs of another architecture: what is registered with the kernel's binfmt_misc.
//!
//! Nothing is taken by its name: an interpreter is for an architecture when it would be chosen for a program of that, as the
//! kernel chooses. Source: the kernel's admin-guide/binfmt-misc.rst, elf(5).

use crate::error::{Error, Result};
use oci::image::Platform;
use std::path::Path;

/// Where the kernel tells what is registered.
const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";
/// Bytes of a program's start that interpreters are chosen by, of those that are known here.
const START_BYTES: usize = 64;

/// What a program's header says of its architecture: 64 bits, big endian, the machine's number.
struct Header {
    wide: bool,
    big_endian: bool,
    machine: u16,
}

impl Header {
    fn of(platform: &Platform) -> Option<Self> {
        let (wide, big_endian, machine) = match platform.architecture.as_str() {
            "386" => (false, false, 3),
            "amd64" => (true, false, 62),
            "arm" => (false, false, 40),
            "arm64" => (true, false, 183),
            "loong64" => (true, false, 258),
            "mips64" => (true, true, 8),
            "mips64le" => (true, false, 8),
            "ppc64le" => (true, false, 21),
            "riscv64" => (true, false, 243),
            "s390x" => (true, true, 22),
            _ => return None,
        };
        Some(Self {
            wide,
            big_endian,
            machine,
        })
    }

    /// The first bytes of a program.
    fn start(&self) -> [u8; START_BYTES] {
        let mut start = [0; START_BYTES];
        start[..4].copy_from_slice(b"\x7fELF");
        start[4] = if self.wide { 2 } else { 1 };
        start[5] = if self.big_endian { 2 } else { 1 };
        start[6] = 1;
        let number = |number: u16| match self.big_endian {
            true => number.to_be_bytes(),
            false => number.to_le_bytes(),
        };
        // An executable, as static programs are.
        start[16..18].copy_from_slice(&number(2));
        start[18..20].copy_from_slice(&number(self.machine));
        start
    }
}

/// Checks that commands for a platform can run on a host.
///
/// # Errors
/// Nothing is registered that runs them, or not in such a way that it works in containers.
pub(crate) fn check(platform: &Platform, host: &Platform) -> Result<()> {
    check_in(Path::new(REGISTERED), platform, host)
}

fn check_in(registered: &Path, platform: &Platform, host: &Platform) -> Result<()> {
    let runs_itself = |found: &Platform| {
        found.architecture == host.architecture
            || (found.architecture == "386" && host.architecture == "amd64")
    };
    if platform.os == host.os && runs_itself(platform) {
        return Ok(());
    }
    let cannot = |why: &str| {
        let what = format!("commands for {platform} cannot run on {host}: {why}");
        Err(Error::Invalid(what))
    };
    if platform.os != host.os {
        return cannot("it is another system");
    }
    let Some(header) = Header::of(platform) else {
        return cannot("the architecture is not known here");
    };
    let start = header.start();
    // Where nothing is mounted there, nothing is registered.
    let entries = std::fs::read_dir(registered)
        .into_iter()
        .flatten()
        .flatten();
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let fitting: Vec<String> = texts.filter(|text| runs(text, &start)).collect();
    match fitting.as_slice() {
        [] => cannot(
            "no emulator is registered with binfmt_misc (install qemu-user-static, or build from --platform=$BUILDPLATFORM and cross-compile)",
        ),
        all if all.iter().any(|text| has_flag_f(text)) => Ok(()),
        _ => cannot(
            "the emulator that is registered with binfmt_misc is not opened beforehand (flag F), and so not found in containers",
        ),
    }
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

fn has_flag_f(text: &str) -> bool {
    field(text, "flags:").is_some_and(|flags| flags.contains('F'))
}

/// Whether what is registered is chosen for a program.
fn runs(text: &str, start: &[u8; START_BYTES]) -> bool {
    if text.lines().next() != Some("enabled") {
        return false;
    }
    let offset = field(text, "offset ").and_then(|text| text.parse::<usize>().ok());
    let (Some(offset), Some(magic)) = (offset, field(text, "magic ").and_then(bytes)) else {
        return false;
    };
    let mask = match field(text, "mask ") {
        Some(text) => match bytes(text) {
            Some(mask) if mask.len() == magic.len() => mask,
            _ => return false,
        },
        None => vec![0xff; magic.len()],
    };
    let Some(found) = start.get(offset..).and_then(|rest| rest.get(..magic.len())) else {
        return false;
    };
    { found.iter().zip(&magic).zip(&mask) }
        .all(|((found, magic), mask)| (found ^ magic) & mask == 0)
}

/// Bytes as two digits each.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
                         magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    fn checked(entries: &[(&str, &str)], wanted: &str, host: &str) -> Result<()> {
        let registered = tempfile::tempdir().unwrap();
        for (name, text) in entries {
            std::fs::write(registered.path().join(name), text).unwrap();
        }
        check_in(registered.path(), &platform(wanted), &platform(host))
    }

    #[test]
    fn an_emulator_is_found_by_what_it_runs() {
        let one = [
            ("any-name", ARM64),
            ("status", "enabled\n"),
            ("register", ""),
        ];
        checked(&one, "linux/arm64", "linux/amd64").unwrap();
        checked(&one, "linux/s390x", "linux/amd64").unwrap_err();
        checked(&one, "linux/arm/v7", "linux/amd64").unwrap_err();
        checked(&[], "linux/amd64/v3", "linux/amd64").unwrap();
        checked(&[], "linux/386", "linux/amd64").unwrap();
        checked(&one, "windows/amd64", "linux/amd64").unwrap_err();
        checked(&one, "linux/vax", "linux/amd64").unwrap_err();
    }

    #[test]
    fn one_that_is_of_no_use_is_told() {
        let off = ARM64.replacen("enabled", "disabled", 1);
        let lazy = ARM64.replace("POCF", "POC");
        for (text, expected) in [(&off, "no emulator is registered"), (&lazy, "flag F")] {
            let error = checked(&[("qemu-aarch64", text)], "linux/arm64", "linux/amd64");
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
