//! How a call ends: a code, a sentence, and details that clients may know.

use super::{CONTENT_TYPE, STATUS, STATUS_DETAILS, STATUS_MESSAGE};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use prost::Message;
use std::fmt;
use std::fmt::Write as _;

/// Bytes of details: more than clients take headers of.
const DETAILS_BYTES_MAX: usize = 48 << 10;
/// Bytes of a sentence.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// Why a call failed, as `google.rpc.Code` numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Code {
    fn from_number(number: i32) -> Self {
        [
            Self::Cancelled,
            Self::InvalidArgument,
            Self::NotFound,
            Self::AlreadyExists,
            Self::ResourceExhausted,
            Self::Unimplemented,
            Self::Internal,
            Self::Unavailable,
        ]
        .into_iter()
        .find(|code| *code as i32 == number)
        .unwrap_or(Self::Unknown)
    }
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// Each a type's address and a value of it.
    pub(crate) details: Vec<Detail>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Detail {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct StatusMessage {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Detail>,
}

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// What another has told.
    pub(crate) fn from_message(message: StatusMessage) -> Self {
        Self {
            code: Code::from_number(message.code),
            message: message.message,
            details: message.details,
        }
    }

    /// Reads the end of a call: `Ok` where it went well.
    pub(super) fn read(headers: &HeaderMap) -> Result<(), Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let code = match text(STATUS).map(str::parse::<i32>) {
            Some(Ok(0)) => return Ok(()),
            Some(Ok(code)) => Code::from_number(code),
            Some(Err(_)) | None => {
                return Err(Self::new(Code::Internal, "the call ended without a status"));
            }
        };
        Err(Self::new(
            code,
            decode(text(STATUS_MESSAGE).unwrap_or_default()),
        ))
    }

    pub(super) fn ok_headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(STATUS, HeaderValue::from_static("0"));
        headers
    }

    pub(super) fn into_headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        headers.insert(STATUS, HeaderValue::from(self.code as i32));
        let end = self.message.floor_char_boundary(MESSAGE_BYTES_MAX);
        let message = encode(&self.message[..end]);
        let details = StatusMessage {
            code: self.code as i32,
            message: self.message,
            details: self.details,
        };
        if let Ok(value) = HeaderValue::try_from(message) {
            headers.insert(STATUS_MESSAGE, value);
        }
        let details = match details.details.is_empty() {
            true => Vec::new(),
            false => details.encode_to_vec(),
        };
        if !details.is_empty() && details.len() <= DETAILS_BYTES_MAX {
            let value = HeaderValue::try_from(STANDARD_NO_PAD.encode(details));
            headers.insert(STATUS_DETAILS, value.expect("base64 can be a header"));
        }
        headers
    }

    /// The value of a header whose name ends in `-bin`.
    #[cfg(test)]
    fn details_of(headers: &HeaderMap) -> Option<StatusMessage> {
        let text = headers.get(STATUS_DETAILS)?.to_str().ok()?;
        let bytes = STANDARD_NO_PAD.decode(text).ok()?;
        StatusMessage::decode(&*bytes).ok()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

/// Percent-encodes what a header cannot have.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            other => {
                write!(encoded, "%{other:02X}").expect("a string takes everything");
            }
        }
    }
    encoded
}

/// Takes percent-encoding back; what is none stays.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3);
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match (bytes[at], digits.map(|text| u8::from_str_radix(text, 16))) {
            (b'%', Some(Ok(byte))) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_goes_through_headers() {
        let mut status = Status::new(Code::NotFound, "100% of ä\nare missing");
        status.details.push(Detail {
            type_url: "x/y".to_owned(),
            value: b"{}".to_vec(),
        });
        let headers = status.clone().into_headers();
        assert_eq!(headers[STATUS_MESSAGE], "100%25 of %C3%A4%0Aare missing");
        let read = Status::read(&headers).unwrap_err();
        assert_eq!((read.code, &read.message), (status.code, &status.message));
        let details = Status::details_of(&headers).unwrap();
        assert_eq!(Status::from_message(details), status);
        Status::read(&Status::ok_headers()).unwrap();
        Status::read(&HeaderMap::new()).unwrap_err();
    }

    #[test]
    fn long_sentences_are_cut() {
        let status = Status::new(Code::Unknown, "ä".repeat(MESSAGE_BYTES_MAX));
        let headers = status.into_headers();
        assert_eq!(headers[STATUS_MESSAGE].len(), 3 * MESSAGE_BYTES_MAX);
    }

    #[test]
    fn half_an_escape_is_text() {
        assert_eq!(decode("a%2"), "a%2");
        assert_eq!(decode("%zz%41"), "%zzA");
    }
}
