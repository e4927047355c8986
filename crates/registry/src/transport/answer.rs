//! Answers of registries: read piece by piece or whole, within limits; their connection is free again afterwards.

use super::connection::{Place, Sender};
use super::{Call, Transport, limited, protocol, transport};
use crate::error::{Error, Result};
use crate::waits::Waits;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use std::fmt;
use std::sync::Arc;

/// Bytes of an answer that is an error which are read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Characters of it that are told.
const ERROR_CHARS_MAX: usize = 300;

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What was asked in the end.
    pub(crate) call: Call,
    pub(crate) response: Response<Incoming>,
    pub(super) waits: Waits,
    pub(super) connection: Option<Returning>,
}

/// A connection that is free again when an answer is read to its end.
pub(super) struct Returning {
    pub(super) sender: Sender,
    pub(super) place: Place,
    pub(super) transport: Arc<Transport>,
}

impl fmt::Debug for Returning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Returning")
    }
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next piece of the body, `None` at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = limited(
                &self.call,
                self.waits.pause,
                self.response.body_mut().frame(),
            )
            .await?;
            match frame {
                None => {
                    self.release();
                    return Ok(None);
                }
                Some(Err(error)) => return Err(transport(&self.call, error)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// The whole body, of a limited size.
    pub(crate) async fn bytes(mut self, bytes_max: u64) -> Result<Bytes> {
        let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let body = Limited::new(self.response.body_mut(), limit);
        let read = limited(&self.call, self.waits.answer, body.collect()).await?;
        let bytes = read.map_err(|error| match error.is::<LengthLimitError>() {
            // It would send as much the next time.
            true => protocol(&self.call, format!("sends more than {bytes_max} bytes")),
            false => transport(&self.call, error),
        })?;
        self.release();
        Ok(bytes.to_bytes())
    }

    /// The error that the answer is.
    pub(crate) async fn into_error(self) -> Error {
        let (call, status) = (self.call.to_string(), self.status());
        let message = self.message().await;
        Error::Status {
            call,
            status,
            message,
        }
    }

    /// What the error that the answer is says, or something else where it says nothing.
    pub(crate) async fn message_or(self, default: &str) -> String {
        let message = self.message().await;
        match message.is_empty() {
            true => default.to_owned(),
            false => message,
        }
    }

    async fn message(self) -> String {
        let body = self.bytes(ERROR_BYTES_MAX as u64).await;
        message(&body.unwrap_or_default())
    }

    /// Reads what is left of a small answer, so that its connection can be used again.
    pub(crate) async fn discard(self) {
        // Without that it is closed, which does no harm.
        let _ = self.bytes(ERROR_BYTES_MAX as u64).await;
    }

    /// Gives the connection back.
    fn release(&mut self) {
        if let Some(Returning {
            sender,
            place,
            transport,
        }) = self.connection.take()
        {
            transport.keep(place, sender);
        }
    }
}

/// What a registry's error document says: the first error's code and message.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Document {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Document>(body) {
        Ok(Document { errors }) => { errors.into_iter().next() }
            .map(|Entry { code, message }| {
                format!("{}: {message}", code.to_lowercase().replace('_', " "))
            })
            .unwrap_or_default(),
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    // It goes to a terminal.
    let printable = text.chars().filter(|character| !character.is_control());
    printable.take(ERROR_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_short_and_harmless() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown\u001b[2J","detail":{}}]}"#;
        assert_eq!(message(body), "manifest unknown: manifest unknown[2J");
        assert_eq!(message(b"<html>\x07oops"), "<html>oops");
        assert_eq!(message("x".repeat(1000).as_bytes()).len(), ERROR_CHARS_MAX);
    }
}
