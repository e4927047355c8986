//! Ids and names.

use crate::error::{Error, Kind, Result};

/// How long a container's or volume's name may be.
const NAME_BYTES_MAX: usize = 255;

/// 256 random bits as 64 hexadecimal digits.
///
/// # Errors
/// As getrandom(2).
pub(crate) fn random_id() -> Result<String> {
    use std::fmt::Write;
    loop {
        let mut bytes = [0_u8; 32];
        let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Error::system("getrandom", std::io::Error::from(errno)))?;
        if count < bytes.len() {
            return Err(Error::new(Kind::System, "getrandom gave too few bytes"));
        }
        let mut id = String::with_capacity(64);
        for byte in bytes {
            let _ = write!(id, "{byte:02x}");
        }
        // A short id of digits only could be taken for a number; Docker avoids them, too.
        if !id[..12].bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

/// Checks a name that the user chose.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest =
        name.len() > 1 && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Invalid {what} name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at most {NAME_BYTES_MAX} of them"
    )))
}

/// Checks a network's name, which may have spaces between its words.
pub(crate) fn check_network_name(name: &str) -> Result<()> {
    let is_plain = |c: char| !c.is_control() && c != '/';
    let words = !name.is_empty() && name.trim() == name;
    if words && name.chars().all(is_plain) && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Invalid network name ({name:?}): slashes, control characters and spaces around it are not allowed, nor more than {NAME_BYTES_MAX} bytes"
    )))
}

/// A name for a container without one, made of its random id.
pub(crate) fn made_up_name(id: &str) -> String {
    const FIRST: [&str; 32] = [
        "amber", "brisk", "calm", "clear", "copper", "dapper", "eager", "early", "fair", "fleet",
        "fresh", "gentle", "golden", "hardy", "jolly", "keen", "lively", "lucky", "mellow",
        "merry", "nimble", "patient", "plucky", "proud", "quiet", "ready", "silver", "steady",
        "sunny", "swift", "tidy", "witty",
    ];
    const SECOND: [&str; 32] = [
        "anchor", "barge", "beacon", "boom", "bowline", "buoy", "capstan", "clipper", "compass",
        "cutter", "dinghy", "ferry", "galley", "halyard", "harbour", "helm", "jetty", "keel",
        "ketch", "lantern", "mast", "mooring", "pilot", "quay", "rudder", "sail", "schooner",
        "sextant", "sloop", "tiller", "trawler", "yawl",
    ];
    let pick = |at: usize| usize::from(u8::from_str_radix(&id[at..at + 2], 16).unwrap_or(0)) % 32;
    format!("{}_{}_{}", FIRST[pick(0)], SECOND[pick(2)], &id[4..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_docker_does() {
        for good in ["ab", "a1", "1a", "a_.-b"] {
            check_name("container", good).unwrap();
        }
        for bad in ["", "a", "-ab", "a/b", "a b", "ä1", &"a".repeat(256)] {
            assert!(check_name("container", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_made_up_name_is_a_name() {
        check_name("container", &made_up_name(&random_id().unwrap())).unwrap();
    }
}
