//! What tests of the command line need: the program, and an engine that is a script.

#![allow(dead_code, reason = "every test file uses its own part of this module")]
#![allow(
    clippy::unwrap_used,
    reason = "clippy does not take this module for a test"
)]

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// The program under test, which cargo builds with the tests: `examples/hull`.
pub(crate) fn hull() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let target = test
        .parent()
        .and_then(Path::parent)
        .expect("tests lie in target/…/deps");
    let hull = target.join("examples/hull");
    assert!(
        hull.exists(),
        "{} is missing: run the tests of the whole package",
        hull.display()
    );
    hull
}

/// A command with nothing of this environment but what the test gives.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/nonexistent");
    command.env("TZ", "UTC").current_dir("/");
    command
}

/// A request as an engine sees it. The API version is not part of it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) query: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub(crate) body: serde_json::Value,
    /// `X-Registry-Auth`, decoded.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub(crate) auth: serde_json::Value,
    /// The version in the path, without its `v`.
    #[serde(skip)]
    pub(crate) version: String,
    #[serde(skip)]
    pub(crate) bytes: Vec<u8>,
}

/// What to answer: a whole response, or the beginning of a stream that the handler goes on with.
pub(crate) enum Answer {
    /// Status, headers, body.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// These bytes, and the end of the connection.
    Cut(Vec<u8>),
    /// Upgrades the connection and hands it over.
    Upgrade(Box<dyn FnOnce(UnixStream) + Send>),
}

impl Answer {
    pub(crate) fn json(status: u16, json: &str) -> Self {
        Self::Whole(
            status,
            vec![("Content-Type", "application/json".into())],
            json.into(),
        )
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self::Whole(status, Vec::new(), Vec::new())
    }
}

/// An engine on a unix socket that does what `handler` says, and remembers what it was asked.
pub(crate) struct Engine {
    directory: tempfile::TempDir,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Engine {
    pub(crate) fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("engine.sock")).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (handler, log) = (Arc::new(handler), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (handler, log) = (handler.clone(), log.clone());
                std::thread::spawn(move || serve(stream, &*handler, &log));
            }
        });
        Self {
            directory,
            requests,
        }
    }

    /// The value of `DOCKER_HOST`.
    pub(crate) fn host(&self) -> String {
        format!(
            "unix://{}",
            self.directory.path().join("engine.sock").display()
        )
    }

    /// What was asked so far, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The requests as `METHOD path?query`.
    pub(crate) fn summary(&self) -> Vec<String> {
        let query = |request: &Request| {
            let pairs = request
                .query
                .iter()
                .flat_map(|(k, vs)| vs.iter().map(move |v| format!("{k}={v}")));
            let pairs: Vec<String> = pairs.collect();
            if pairs.is_empty() {
                String::new()
            } else {
                format!("?{}", pairs.join("&"))
            }
        };
        let line =
            |request: &Request| format!("{} {}{}", request.method, request.path, query(request));
        self.requests().iter().map(line).collect()
    }
}

fn serve(
    stream: UnixStream,
    handler: &(impl Fn(&Request) -> Answer + ?Sized),
    log: &Mutex<Vec<Request>>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read_request(&mut reader) {
        log.lock().unwrap().push(request.clone());
        match handler(&request) {
            Answer::Whole(status, headers, body) => {
                let head = head(status, &headers, Some(body.len()));
                let body = if request.method == "HEAD" {
                    &[]
                } else {
                    body.as_slice()
                };
                if (&stream)
                    .write_all(head.as_bytes())
                    .and_then(|()| (&stream).write_all(body))
                    .is_err()
                {
                    return;
                }
            }
            Answer::Cut(bytes) => return (&stream).write_all(&bytes).unwrap(),
            Answer::Upgrade(go_on) => {
                let headers = [("Connection", "Upgrade".into()), ("Upgrade", "tcp".into())];
                (&stream)
                    .write_all(head(101, &headers, None).as_bytes())
                    .unwrap();
                return go_on(stream);
            }
        }
    }
}

fn head(status: u16, headers: &[(&str, String)], length: Option<usize>) -> String {
    let mut head = format!("HTTP/1.1 {status} X\r\nOstype: linux\r\n");
    if !headers.iter().any(|(name, _)| *name == "Api-Version") {
        head.push_str("Api-Version: 1.51\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(length) = length {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head + "\r\n"
}

fn read_request(reader: &mut BufReader<UnixStream>) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut chunked) = (0, false);
    let mut auth = serde_json::Value::Null;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let lower = line.trim().to_lowercase();
        if lower.starts_with("x-registry-auth: ") {
            let (_, value) = line.trim().split_once(": ")?;
            auth = serde_json::from_slice(&BASE64_URL_SAFE.decode(value).ok()?).ok()?;
        }
        match lower.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(("transfer-encoding", "chunked")) => chunked = true,
            None => break,
            _ => {}
        }
    }
    let bytes = if chunked {
        read_chunks(reader)?
    } else {
        read_exact(reader, length)?
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (version, path) = match path
        .strip_prefix("/v")
        .and_then(|rest| rest.split_once('/'))
    {
        Some((version, rest)) if version.contains('.') => (version.to_owned(), format!("/{rest}")),
        _ => (String::new(), path.to_owned()),
    };
    let mut parsed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        parsed
            .entry(name.to_owned())
            .or_default()
            .push(unescape(value));
    }
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    Some(Request {
        method,
        path,
        query: parsed,
        body,
        auth,
        version,
        bytes,
    })
}

fn read_exact(reader: &mut impl Read, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn read_chunks(reader: &mut BufReader<UnixStream>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        bytes.extend(read_exact(reader, length)?);
        read_exact(reader, 2)?;
        if length == 0 {
            return Some(bytes);
        }
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: Vec<u8> = rest.by_ref().take(2).collect();
                u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}
