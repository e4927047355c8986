//! Registries beside each other, each with eight clients at once: pushing, pulling, and asking for a manifest again and again.
//!
//! The clients are threads here that speak HTTP by hand: what they cost is the same for every server. CPU time is the server's.

use super::process::{Registry, cpu_time, peak_bytes};
use super::{bytes_to_mb, print_table};
use crate::{Result, shell};
use sha2::{Digest as _, Sha256};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

const CLIENTS: usize = 8;
/// Bytes of a blob that each pushes, and that each then pulls of everybody.
const BLOB_BYTES: usize = 16 << 20;
/// Requests for a manifest that each sends.
const REQUESTS: usize = 1000;
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Measures the servers that are installed, in turns.
pub(super) fn run(hull: &Path, rounds: usize) -> Result<()> {
    let mut servers = vec![Registry::hull(hull)?];
    if shell::is_installed("docker-registry") {
        servers.push(Registry::docker()?);
    } else {
        shell::print("docker-registry: not installed");
    }
    let mut tables = [
        ("8 clients push 16 MB each", Times::new(&servers)),
        ("8 clients pull all of it", Times::new(&servers)),
        (
            "8 clients ask for a manifest 1000 times",
            Times::new(&servers),
        ),
    ];
    for round in 1..=rounds {
        shell::say(&format!("registries: round {round} of {rounds}"));
        for (index, server) in servers.iter().enumerate() {
            let blobs: Vec<Blob> = (0..CLIENTS)
                .map(|client| Blob::new(round, client))
                .collect();
            let [(_, push), (_, pull), (_, ask)] = &mut tables;
            push.time(index, server, |client| blobs[client].push(server.address))?;
            pull.time(index, server, |client| {
                let others = blobs.iter().cycle().skip(client).take(CLIENTS);
                others
                    .into_iter()
                    .try_for_each(|blob| blob.pull(server.address))
            })?;
            let tag = format!("/v2/bench/manifests/{round}");
            blobs[0].push_manifest(server.address, &tag)?;
            ask.time(index, server, |_| ask_often(server.address, &tag))?;
        }
    }
    for (title, times) in tables {
        times.print(title, &servers);
    }
    for server in &servers {
        if let Some(peak) = peak_bytes(server.pid()) {
            let mb = bytes_to_mb(peak);
            shell::print(&format!("  {}: at most {mb:.1} MB resident", server.name));
        }
    }
    Ok(())
}

/// Times of one kind, by server.
struct Times {
    wall: Vec<Vec<Duration>>,
    cpu: Vec<Vec<Duration>>,
}

impl Times {
    fn new(servers: &[Registry]) -> Self {
        Self {
            wall: vec![Vec::new(); servers.len()],
            cpu: vec![Vec::new(); servers.len()],
        }
    }

    /// Times what all clients do at once.
    fn time(
        &mut self,
        index: usize,
        server: &Registry,
        client: impl Fn(usize) -> Result<()> + Sync,
    ) -> Result<()> {
        rustix::fs::sync();
        let (before, start) = (cpu_time(server.pid()), Instant::now());
        let client = &client;
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| scope.spawn(move || client(number)))
                .collect();
            clients.into_iter().try_for_each(|client| {
                let ended = client.join();
                ended.unwrap_or_else(|_| Err("a client panicked".to_owned()))
            })
        })
        .map_err(|error| format!("{}: {error}", server.name))?;
        self.wall[index].push(start.elapsed());
        self.cpu[index].push(cpu_time(server.pid()).saturating_sub(before));
        Ok(())
    }

    fn print(self, title: &str, servers: &[Registry]) {
        let names = servers.iter().map(|server| server.name);
        print_table(title, names.clone().zip(self.wall));
        print_table("  of that, on a CPU", names.zip(self.cpu));
    }
}

/// Content that nobody else has.
struct Blob {
    bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(round: usize, client: usize) -> Self {
        // Marsaglia's xorshift, another sequence for each.
        let mut state = 0x9e37_79b9_7f4a_7c15 ^ ((round * CLIENTS + client) as u64 + 1);
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let bytes: Vec<u8> = words.take(BLOB_BYTES / 8).flatten().collect();
        let digest = digest(&bytes);
        Self { bytes, digest }
    }

    fn push(&self, address: SocketAddr) -> Result<()> {
        let begun = send(address, "POST", "/v2/bench/blobs/uploads/", "", &[])?;
        let location = begun.header("location").ok_or("an upload has no place")?;
        let path = location
            .strip_prefix(&format!("http://{address}"))
            .unwrap_or(location);
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}digest={}", self.digest);
        expect(
            &send(
                address,
                "PUT",
                &path,
                "application/octet-stream",
                &self.bytes,
            )?,
            201,
        )
    }

    fn pull(&self, address: SocketAddr) -> Result<()> {
        let path = format!("/v2/bench/blobs/{}", self.digest);
        let answer = send(address, "GET", &path, "", &[])?;
        expect(&answer, 200)?;
        match answer.body_bytes == self.bytes.len() {
            true => Ok(()),
            false => Err("a blob is cut off".to_owned()),
        }
    }

    /// Pushes a manifest that is made of this alone.
    fn push_manifest(&self, address: SocketAddr, path: &str) -> Result<()> {
        let descriptor = serde_json::json!({
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": self.digest,
            "size": self.bytes.len(),
        });
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor,
            "layers": [],
        });
        let bytes = manifest.to_string();
        expect(
            &send(address, "PUT", path, MANIFEST_TYPE, bytes.as_bytes())?,
            201,
        )
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Asks for a manifest by HEAD on one connection.
fn ask_often(address: SocketAddr, path: &str) -> Result<()> {
    let error = |error: std::io::Error| error.to_string();
    let socket = TcpStream::connect(address).map_err(error)?;
    socket.set_nodelay(true).map_err(error)?;
    let mut answers = BufReader::new(socket.try_clone().map_err(error)?);
    let request =
        format!("HEAD {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {MANIFEST_TYPE}\r\n\r\n");
    for _ in 0..REQUESTS {
        (&socket).write_all(request.as_bytes()).map_err(error)?;
        expect(&Answer::read(&mut answers)?, 200)?;
    }
    Ok(())
}

/// The head of an answer, and how long its body was.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body_bytes: usize,
}

impl Answer {
    fn read(reader: &mut BufReader<TcpStream>) -> Result<Self> {
        let mut next = || {
            let mut line = String::new();
            let read = reader.read_line(&mut line);
            read.map(|_| line.trim_end().to_owned())
                .map_err(|error| error.to_string())
        };
        let status = next()?;
        let status = status.split(' ').nth(1).and_then(|word| word.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = next()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        Ok(Self {
            status: status.ok_or("the answer is no HTTP")?,
            headers,
            body_bytes: 0,
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Sends a request on a connection of its own; the body of the answer is thrown away.
fn send(address: SocketAddr, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Answer> {
    let error = |error: std::io::Error| error.to_string();
    let socket = TcpStream::connect(address).map_err(error)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if method != "GET" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    if !kind.is_empty() {
        head.push_str(&format!("Content-Type: {kind}\r\n"));
    }
    head.push_str("\r\n");
    (&socket).write_all(head.as_bytes()).map_err(error)?;
    (&socket).write_all(body).map_err(error)?;
    let mut reader = BufReader::new(socket);
    let mut answer = Answer::read(&mut reader)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer).map_err(error)? {
            0 => return Ok(answer),
            count => answer.body_bytes += count,
        }
    }
}

fn expect(answer: &Answer, status: u16) -> Result<()> {
    match answer.status == status {
        true => Ok(()),
        false => Err(format!("{} instead of {status}", answer.status)),
    }
}
