//! Where a syslog server is, and how it is spoken to.

use super::{Options, option};
use crate::error::{Error, Result};
use shim::protocol::{SyslogAddress, SyslogFormat, TlsFiles};
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

/// Who vouches for a server, the certificate to show and its key, and whether nobody has to.
pub(super) const TLS_AUTHORITIES: &str = "syslog-tls-ca-cert";
pub(super) const TLS_CERTIFICATE: &str = "syslog-tls-cert";
pub(super) const TLS_KEY: &str = "syslog-tls-key";
pub(super) const TLS_UNVERIFIED: &str = "syslog-tls-skip-verify";

/// Reads `syslog-address` with what belongs to it.
pub(super) fn address(options: &Options) -> Result<SyslogAddress> {
    let tls = tls(options)?;
    match (address_of(option(options, "syslog-address"))?, tls) {
        (SyslogAddress::Tls(address, _), tls) => {
            Ok(SyslogAddress::Tls(address, tls.unwrap_or_default()))
        }
        (address, None) => Ok(address),
        (_, Some(_)) => Err(Error::invalid(
            "the log opts syslog-tls-… need a syslog-address that begins with tcp+tls://",
        )),
    }
}

/// Reads the options of TLS. None: there are none.
fn tls(options: &Options) -> Result<Option<TlsFiles>> {
    let file = |name: &str| match option(options, name) {
        "" => Ok(None),
        path if path.starts_with('/') => Ok(Some(PathBuf::from(path))),
        path => Err(Error::invalid(format!(
            "the log opt {name} is a path on the engine's host, and absolute: {path:?} is not"
        ))),
    };
    let identity = match (file(TLS_CERTIFICATE)?, file(TLS_KEY)?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            return Err(Error::invalid(format!(
                "the log opts {TLS_CERTIFICATE} and {TLS_KEY} belong together"
            )));
        }
    };
    let unverified = match options.get(TLS_UNVERIFIED).map(String::as_str) {
        Some("" | "true" | "1") => true,
        None | Some("false" | "0") => false,
        Some(other) => {
            return Err(Error::invalid(format!(
                "the log opt {TLS_UNVERIFIED} is true or false: {other:?} is neither"
            )));
        }
    };
    let files = TlsFiles {
        authorities: file(TLS_AUTHORITIES)?,
        identity,
        unverified,
    };
    Ok(Some(files).filter(|files| *files != TlsFiles::default()))
}

/// Reads `udp://10.0.0.1:514`, `tcp://[::1]`, `tcp+tls://10.0.0.1:6514`, `unix:///dev/log`.
fn address_of(text: &str) -> Result<SyslogAddress> {
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
        "udp" | "tcp" | "tcp+tls" => {
            let address = internet_address(place).ok_or_else(|| {
                invalid("it needs an IP address (names are not looked up), and perhaps a port")
            })?;
            Ok(match scheme {
                "udp" => SyslogAddress::Udp(address),
                "tcp" => SyslogAddress::Tcp(address),
                _ => SyslogAddress::Tls(address, TlsFiles::default()),
            })
        }
        _ => Err(invalid("the scheme is udp, tcp, tcp+tls, unix or unixgram")),
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
        let read = |text| address_of(text).unwrap();
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

    #[test]
    fn files_of_tls_belong_to_an_address_with_it() {
        let read = |options: &[(&str, &str)]| {
            let words = options
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()));
            address(&words.collect())
        };
        let at = ("syslog-address", "tcp+tls://10.1.2.3:6514");
        let SyslogAddress::Tls(address, files) = read(&[
            at,
            (TLS_AUTHORITIES, "/ca.pem"),
            (TLS_CERTIFICATE, "/cert.pem"),
            (TLS_KEY, "/key.pem"),
        ])
        .unwrap() else {
            panic!("it is another address");
        };
        assert_eq!(address, "10.1.2.3:6514".parse().unwrap());
        let identity = Some(("/cert.pem".into(), "/key.pem".into()));
        assert!(files.identity == identity && !files.unverified, "{files:?}");
        assert!(matches!(
            read(&[at, (TLS_UNVERIFIED, "")]).unwrap(),
            SyslogAddress::Tls(
                _,
                TlsFiles {
                    unverified: true,
                    ..
                }
            )
        ));
        for (options, why) in [
            (&[at, (TLS_CERTIFICATE, "/cert.pem")][..], "belong together"),
            (&[at, (TLS_AUTHORITIES, "ca.pem")], "absolute"),
            (&[at, (TLS_UNVERIFIED, "perhaps")], "true or false"),
            (
                &[("syslog-address", "tcp://10.1.2.3"), (TLS_UNVERIFIED, "1")],
                "tcp+tls",
            ),
        ] {
            let error = read(options).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
