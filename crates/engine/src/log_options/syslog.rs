//! Where a syslog server is, and how it is spoken to.

use crate::error::{Error, Result};
use shim::protocol::{SyslogAddress, SyslogFormat};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The port of syslog.
const SYSLOG_PORT: u16 = 514;

/// The facilities of RFC 5424, by number.
const FACILITIES: [&str; 24] = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "security",
    "console",
    "solaris-cron",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
];

/// The facility of a container's messages unless asked otherwise: `daemon`.
const FACILITY: u8 = 3;

/// Reads `syslog-format`.
pub(super) fn format(name: &str) -> Result<SyslogFormat> {
    match name {
        "" => Ok(SyslogFormat::Local),
        "rfc3164" => Ok(SyslogFormat::Rfc3164),
        "rfc5424" => Ok(SyslogFormat::Rfc5424),
        "rfc5424micro" => Ok(SyslogFormat::Rfc5424Micro),
        other => Err(Error::invalid(format!(
            "Invalid syslog format {other:?}: there are rfc3164, rfc5424 and rfc5424micro"
        ))),
    }
}

/// Reads `syslog-facility`: a name, or a number.
pub(super) fn facility(name: &str) -> Result<u8> {
    if name.is_empty() {
        return Ok(FACILITY);
    }
    let by_name = FACILITIES.iter().position(|known| *known == name);
    let number = by_name.and_then(|number| u8::try_from(number).ok());
    let by_number = || name.parse().ok().filter(|number| *number < 24);
    number
        .or_else(by_number)
        .ok_or_else(|| Error::invalid(format!("invalid syslog facility {name:?}")))
}

/// Reads `udp://10.0.0.1:514`, `tcp://[::1]`, `unix:///dev/log`.
pub(super) fn address(text: &str) -> Result<SyslogAddress> {
    if text.is_empty() {
        return Ok(SyslogAddress::Local);
    }
    let invalid =
        |reason: &str| Error::invalid(format!("invalid syslog-address {text:?}: {reason}"));
    let (scheme, place) = text
        .split_once("://")
        .ok_or_else(|| invalid("it reads like udp://10.0.0.1:514"))?;
    match scheme {
        "unix" | "unixgram" => {
            let path = PathBuf::from(place);
            if !path.is_absolute() {
                return Err(invalid("the path of a socket is absolute"));
            }
            Ok(match scheme {
                "unix" => SyslogAddress::Unix(path),
                _ => SyslogAddress::UnixDatagram(path),
            })
        }
        "udp" | "tcp" => {
            let address = internet_address(place).ok_or_else(|| {
                invalid("it needs an IP address (names are not looked up), and perhaps a port")
            })?;
            Ok(match scheme {
                "udp" => SyslogAddress::Udp(address),
                _ => SyslogAddress::Tcp(address),
            })
        }
        "tcp+tls" => Err(Error::unsupported(
            "syslog over TLS (tcp+tls) is not supported",
        )),
        _ => Err(invalid("the scheme is udp, tcp, unix or unixgram")),
    }
}

fn internet_address(place: &str) -> Option<SocketAddr> {
    let ip = |host: &str| match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host => host.trim_matches(['[', ']']).parse().ok(),
    };
    if let Some(address) = ip(place) {
        return Some(SocketAddr::new(address, SYSLOG_PORT));
    }
    let (host, port) = place.rsplit_once(':')?;
    Some(SocketAddr::new(ip(host)?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port() {
        let read = |text| address(text).unwrap();
        assert_eq!(
            read("udp://10.1.2.3"),
            SyslogAddress::Udp("10.1.2.3:514".parse().unwrap())
        );
        assert_eq!(
            read("tcp://[::1]:6"),
            SyslogAddress::Tcp("[::1]:6".parse().unwrap())
        );
        assert_eq!(
            read("udp://localhost:99"),
            SyslogAddress::Udp("127.0.0.1:99".parse().unwrap())
        );
        assert_eq!(
            read("unix:///dev/log"),
            SyslogAddress::Unix("/dev/log".into())
        );
    }
}
