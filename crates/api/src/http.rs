//! Requests and responses as the handlers see them: query, body in, body out, errors.

use crate::body::Body;
use bytes::Bytes;
use engine::Kind;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;

/// The largest JSON body that is read.
const JSON_BYTES_MAX: usize = 8 << 20;

/// How many pieces of a streamed body wait for a slow peer.
const PIECES_MAX: usize = 8;

/// How large a piece of a streamed body is, at least, when its maker writes bytes.
const PIECE_BYTES: usize = 64 << 10;

/// A handler's result.
pub(crate) type Reply = Result<Response<Body>, Error>;

/// A failed request: the status and the sentence for the client.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The answer is the sentence alone, and no JSON.
    plain: bool,
}

impl Error {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            plain: false,
        }
    }

    /// To be answered without JSON.
    pub(crate) fn in_plain_text(mut self) -> Self {
        self.plain = true;
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn unsupported(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("{what} is not supported yet"),
        )
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        if self.status == StatusCode::NOT_MODIFIED {
            return empty(self.status);
        }
        if self.plain {
            return text_with(self.status, self.message);
        }
        let body = api_types::ErrorResponse {
            message: self.message,
        };
        json_with(self.status, &body).unwrap_or_else(|error| empty(error.status))
    }
}

/// The one place where a class of failure becomes a status.
impl From<engine::Error> for Error {
    fn from(error: engine::Error) -> Self {
        let status = match error.kind() {
            Kind::Invalid | Kind::CommandNotFound | Kind::CommandNotExecutable => {
                StatusCode::BAD_REQUEST
            }
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotModified => StatusCode::NOT_MODIFIED,
            Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.chain())
    }
}

/// Likewise for the image store's.
impl From<engine::images::Error> for Error {
    fn from(error: engine::images::Error) -> Self {
        use engine::images::ErrorKind;
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, sys::chain(&error))
    }
}

/// A response without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = status;
    response
}

/// A line of text.
fn text_with(status: StatusCode, mut line: String) -> Response<Body> {
    line.push('\n');
    let mut response = Response::new(Body::Whole(Some(line.into())));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// A JSON response.
pub(crate) fn json<T: Serialize>(value: &T) -> Reply {
    json_with(StatusCode::OK, value)
}

/// A JSON response with a status.
pub(crate) fn json_with<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    let mut body = serde_json::to_vec(value).map_err(|error| not_encoded(&error))?;
    body.push(b'\n');
    Ok(json_response(status, Body::Whole(Some(body.into()))))
}

/// A JSON array whose elements are made while it is sent.
pub(crate) fn json_each<T: Serialize>(elements: impl Iterator<Item = T> + Send + 'static) -> Reply {
    let body = Body::array(elements);
    let body = body.map_err(|error| not_encoded(&error))?;
    Ok(json_response(StatusCode::OK, body))
}

fn not_encoded(error: &dyn std::fmt::Display) -> Error {
    Error::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("encode the response: {error}"),
    )
}

fn json_response(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// Where a streamed body's pieces go.
pub(crate) type Pieces = mpsc::Sender<io::Result<Bytes>>;

/// A response whose body is written meanwhile.
pub(crate) fn stream(content_type: &'static str) -> (Pieces, Response<Body>) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let mut response = Response::new(Body::Pieces(receiver));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    (sender, response)
}

/// Sends a value as a line of JSON. False: the peer is gone.
pub(crate) async fn send_line<T: Serialize>(pieces: &Pieces, value: &T) -> bool {
    let mut line = match serde_json::to_vec(value) {
        Ok(line) => line,
        Err(error) => return pieces.send(Err(error.into())).await.is_ok(),
    };
    line.extend_from_slice(b"\r\n");
    pieces.send(Ok(line.into())).await.is_ok()
}

/// Writes a streamed body from a blocking task.
#[derive(Debug)]
pub(crate) struct PieceWriter {
    pieces: Pieces,
    buffer: Vec<u8>,
}

impl PieceWriter {
    pub(crate) fn new(pieces: Pieces) -> Self {
        Self {
            pieces,
            buffer: Vec::new(),
        }
    }

    /// Sends the rest, or breaks the body off with the error.
    pub(crate) fn finish(mut self, result: Result<(), String>) {
        let end = match result {
            Ok(()) => io::Write::flush(&mut self),
            Err(message) => {
                // The peer may be gone; then there is nobody to tell.
                let _ = self.pieces.blocking_send(Err(io::Error::other(message)));
                return;
            }
        };
        if end.is_err() {
            tracing::debug!("the peer left before the body's end");
        }
    }
}

impl io::Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        self.pieces
            .blocking_send(Ok(piece))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A request's body for a blocking task.
#[derive(Debug)]
pub(crate) struct BodyReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl BodyReader {
    /// Reads the body from now on, as fast as it is taken.
    pub(crate) fn new(mut body: Incoming) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let piece = match frame {
                    Ok(frame) => frame.into_data().map(Ok).ok(),
                    Err(error) => Some(Err(io::Error::other(error))),
                };
                if let Some(piece) = piece
                    && sender.send(piece).await.is_err()
                {
                    return;
                }
            }
        });
        Self {
            pieces,
            piece: Bytes::new(),
        }
    }
}

impl io::Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// How much of a body that nobody wants is read, and how long, before the request is refused.
const UNWANTED_BYTES_MAX: usize = 16 << 20;
const UNWANTED_WAIT: Duration = Duration::from_secs(2);

/// Reads the rest of a body that nobody wants, in bounds: a client that still sends when the connection ends is told of that, and
/// not of the answer.
pub(crate) async fn pass_over(body: Incoming) {
    let mut rest = http_body_util::Limited::new(body, UNWANTED_BYTES_MAX);
    // What is wrong with it is nothing to a request that is refused already.
    let over = async { while let Some(Ok(_)) = rest.frame().await {} };
    let _ = tokio::time::timeout(UNWANTED_WAIT, over).await;
}

/// Reads a request's JSON body; an empty one is the default value.
pub(crate) async fn read_json<T: DeserializeOwned + Default>(
    request: Request<Incoming>,
) -> Result<T, Error> {
    let (parts, body) = request.into_parts();
    json_body(&parts.headers, body).await
}

/// As [`read_json`], of a request that is in parts.
pub(crate) async fn json_body<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Incoming,
) -> Result<T, Error> {
    let limited = http_body_util::Limited::new(body, JSON_BYTES_MAX);
    let bytes = limited.collect().await.map_err(|error| {
        Error::bad_request(format!(
            "cannot read the request's body (at most {JSON_BYTES_MAX} bytes): {error}"
        ))
    })?;
    let bytes = bytes.to_bytes();
    check_json(headers, bytes.is_empty())?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::bad_request(
            "invalid JSON: got EOF while reading request body",
        ));
    }
    api_types::from_slice(&bytes)
        .map_err(|error| Error::bad_request(format!("invalid JSON: {error}")))
}

/// A body is said to be JSON, which a form of a web page cannot say.
fn check_json(headers: &HeaderMap, is_empty: bool) -> Result<(), Error> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return match is_empty {
            true => Ok(()),
            false => Err(Error::bad_request(
                "malformed Content-Type header (): mime: no media type",
            )),
        };
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let media_type = text.split(';').next().unwrap_or_default().trim();
    match media_type.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(Error::bad_request(format!(
            "unsupported Content-Type header ({text}): must be 'application/json'"
        ))),
    }
}

/// A request's query parameters.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            parameters
                .entry(name.into_owned())
                .or_default()
                .push(value.into_owned());
        }
        Self(parameters)
    }

    /// The first value; empty ones count as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name)
            .first()
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Takes a parameter for absent.
    pub(crate) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Every value.
    pub(crate) fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// As Docker reads booleans: anything but nothing, 0, no, false, none is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let value = self
            .get(name)
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// As [`Query::flag`], with another default.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.get(name).is_some() {
            self.flag(name)
        } else {
            default
        }
    }

    /// A number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        let parse = |value: &str| {
            value.parse().map_err(|_| {
                Error::bad_request(format!(
                    "bad parameter {name}: {value:?} is no number it can be"
                ))
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// The filters, each of which must be one of `known`.
    pub(crate) fn filters(&self, known: &[&str]) -> Result<api_types::Filters, Error> {
        let filters = api_types::Filters::from_query(self.get("filters").unwrap_or_default())
            .map_err(|error| Error::bad_request(format!("invalid filters: {error}")))?;
        let unknown = filters
            .names()
            .find(|name| !known.contains(name))
            .map(str::to_owned);
        unknown.map_or(Ok(filters), |name| {
            Err(Error::bad_request(format!("invalid filter '{name}'")))
        })
    }

    /// A time as seconds since 1970, with or without a fraction.
    pub(crate) fn time(&self, name: &str) -> Result<Option<jiff::Timestamp>, Error> {
        self.get(name).map(parse_time).transpose()
    }
}

fn parse_time(value: &str) -> Result<jiff::Timestamp, Error> {
    let bad = || {
        Error::bad_request(format!(
            "bad time {value:?}: it is seconds since 1970, or RFC 3339"
        ))
    };
    if let Ok(time) = value.parse::<jiff::Timestamp>() {
        return Ok(time);
    }
    let (seconds, fraction) = value.split_once('.').unwrap_or((value, ""));
    let nanoseconds = format!("{fraction:0<9}");
    let nanoseconds = nanoseconds
        .get(..9)
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(bad)?;
    jiff::Timestamp::new(seconds.parse().map_err(|_| bad())?, nanoseconds).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_read_as_docker_does() {
        let query = Query::parse("a=1&b=0&c=&d=True&e=no&f=x");
        let flags: Vec<bool> = ["a", "b", "c", "d", "e", "f", "g"]
            .map(|name| query.flag(name))
            .to_vec();
        assert_eq!(flags, [true, false, false, true, false, true, false]);
    }

    #[test]
    fn times_have_fractions() {
        let time = parse_time("1136073600.000000001").unwrap();
        assert_eq!(
            (time.as_second(), time.subsec_nanosecond()),
            (1_136_073_600, 1)
        );
        assert_eq!(parse_time("10").unwrap().as_second(), 10);
        assert!(parse_time("x").is_err() && parse_time("1.x").is_err());
    }
}
