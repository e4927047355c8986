//! Messages of the syslog protocol, in the forms that Docker's driver has.
//!
//! Source: RFC 3164, RFC 5424. Of a message that stands for a line, the severity is informational, or error for standard error.

use super::Stream;
use crate::protocol::SyslogFormat;
use jiff::Timestamp;
use jiff::tz::TimeZone;

const SEVERITY_ERROR: u8 = 3;
const SEVERITY_INFORMATIONAL: u8 = 6;

/// Who speaks.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    pub(super) facility: u8,
    pub(super) tag: &'a str,
    pub(super) host: &'a str,
    pub(super) pid: i32,
}

/// The severity of a stream's lines, for the journal as well.
pub(super) fn severity(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => SEVERITY_INFORMATIONAL,
        Stream::Stderr => SEVERITY_ERROR,
    }
}

/// A message as it goes by TLS: RFC 5424's behind its length (RFC 5425 section 4.3), others as they are.
pub(super) fn frame(format: SyslogFormat, message: Vec<u8>) -> Vec<u8> {
    match format {
        SyslogFormat::Rfc5424 | SyslogFormat::Rfc5424Micro => {
            [format!("{} ", message.len()).as_bytes(), &message].concat()
        }
        SyslogFormat::Local | SyslogFormat::Rfc3164 => message,
    }
}

/// A message with the newline that ends it on a connection.
pub(super) fn message(
    format: SyslogFormat,
    sender: &Sender<'_>,
    stream: Stream,
    time: Timestamp,
    line: &[u8],
) -> Vec<u8> {
    let Sender {
        facility,
        tag,
        host,
        pid,
    } = sender;
    let priority = facility << 3 | severity(stream);
    let local = time.to_zoned(TimeZone::system());
    let stamp = |format: &str| local.strftime(format).to_string();
    let header = match format {
        SyslogFormat::Local => {
            format!("<{priority}>{} {tag}[{pid}]: ", stamp("%b %e %H:%M:%S"))
        }
        SyslogFormat::Rfc3164 => {
            format!(
                "<{priority}>{} {host} {tag}[{pid}]: ",
                stamp("%b %e %H:%M:%S")
            )
        }
        SyslogFormat::Rfc5424 => {
            let time = stamp("%Y-%m-%dT%H:%M:%S%:z");
            format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - ")
        }
        SyslogFormat::Rfc5424Micro => {
            let time = stamp("%Y-%m-%dT%H:%M:%S.%6f%:z");
            format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - ")
        }
    };
    let mut message = header.into_bytes();
    message.extend_from_slice(line);
    message.push(b'\n');
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_says_who_what_and_when() {
        let sender = Sender {
            facility: 3,
            tag: "web",
            host: "box",
            pid: 7,
        };
        let time: Timestamp = "2026-02-03T04:05:06.7Z".parse().unwrap();
        let text = |format, stream| {
            String::from_utf8(message(format, &sender, stream, time, b"hello")).unwrap()
        };
        let local = time.to_zoned(TimeZone::system());
        let stamp = local.strftime("%b %e %H:%M:%S").to_string();
        let full = local.strftime("%Y-%m-%dT%H:%M:%S");
        let zone = local.strftime("%:z");
        assert_eq!(
            text(SyslogFormat::Local, Stream::Stdout),
            format!("<30>{stamp} web[7]: hello\n")
        );
        assert_eq!(
            text(SyslogFormat::Rfc3164, Stream::Stderr),
            format!("<27>{stamp} box web[7]: hello\n")
        );
        assert_eq!(
            text(SyslogFormat::Rfc5424, Stream::Stdout),
            format!("<30>1 {full}{zone} box web 7 web - hello\n")
        );
        assert_eq!(
            text(SyslogFormat::Rfc5424Micro, Stream::Stdout),
            format!("<30>1 {full}.700000{zone} box web 7 web - hello\n")
        );
    }
}
