//! Between Docker's wire types and the engine's model. Nothing outside this module knows both.

pub(crate) mod changes;
pub(crate) mod connections;
pub(crate) mod create;
pub(crate) mod defaults;
pub(crate) mod inspect;
pub(crate) mod isolation;
pub(crate) mod limits;
mod long_mounts;
pub(crate) mod mounts;
pub(crate) mod stats;
pub(crate) mod summary;

use engine::model::Port;

/// The time Docker shows for "never".
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// `80/tcp`
pub(crate) fn port_name(port: Port) -> String {
    format!("{}/{}", port.number, port.protocol.as_str())
}

/// `02:42:ac:11:00:02`
pub(crate) fn mac_name(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// RFC 3339, or Docker's "never".
pub(crate) fn time(time: Option<jiff::Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}
