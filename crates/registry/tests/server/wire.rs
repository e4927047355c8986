//! A registry in this process, and HTTP to it by hand: what is sent is what is written here, byte by byte.

use oci::Digest;
use registry::server::{Access, Identity, Rule, Server, Settings, Sweep, UpstreamSettings};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry on a port of its own.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    pub(crate) storage: TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

/// What a registry is started with.
#[derive(Default)]
pub(crate) struct Options<'a> {
    pub(crate) read_only: bool,
    pub(crate) no_deletion: bool,
    pub(crate) tls: Option<Identity>,
    pub(crate) htpasswd: Option<&'a Path>,
    pub(crate) rules: &'a [&'a str],
    pub(crate) upstream: Option<UpstreamSettings>,
    pub(crate) sweep: Option<(Duration, Sweep)>,
    pub(crate) connections_max: Option<usize>,
    pub(crate) quotas: &'a [&'a str],
}

impl Registry {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options<'_>) -> Self {
        Self::on(tempfile::tempdir().unwrap(), options).await
    }

    pub(crate) async fn on(storage: TempDir, options: Options<'_>) -> Self {
        let rules: Vec<Rule> = { options.rules.iter() }
            .map(|rule| rule.parse().unwrap())
            .collect();
        let settings = Settings {
            storage: storage.path().to_owned(),
            read_only: options.read_only,
            deletion: !options.no_deletion,
            access: Access::new(options.htpasswd, rules).unwrap(),
            tls: options.tls,
            connections_per_address_max: options.connections_max.unwrap_or(100),
            quotas: { options.quotas.iter() }
                .map(|quota| quota.parse().unwrap())
                .collect(),
            sweep: options.sweep,
            upstream: options.upstream,
        };
        let server = Server::open(settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve(listener, async {
            // Dropped with the registry, which stops it as well.
            let _ = stopped.await;
        }));
        Self {
            address,
            storage,
            stop: Some(stop),
            serving: Some(serving),
        }
    }

    /// Stops the server; its storage stays.
    pub(crate) async fn stop(mut self) -> TempDir {
        drop(self.stop.take());
        self.serving.take().unwrap().await.unwrap();
        std::mem::replace(&mut self.storage, tempfile::tempdir().unwrap())
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || ["POST", "PUT", "PATCH"].contains(&method) {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    /// Sends bytes as they are, and reads until the server closes the connection.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        // Who sends too much is cut off in the middle of it.
        let _ = socket.write_all(bytes).await;
        let mut answer = Vec::new();
        // A connection that breaks off has an answer that is too short.
        let _ = socket.read_to_end(&mut answer).await;
        Answer::parse(&answer)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    /// Pushes a blob in one request.
    pub(crate) async fn push_blob(&self, name: &str, content: &[u8]) -> Digest {
        let digest = Digest::sha256(content);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let answer = self.send("POST", &path, &[], content).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    }

    /// Begins an upload, and tells its location.
    pub(crate) async fn begin(&self, name: &str) -> String {
        let path = format!("/v2/{name}/blobs/uploads/");
        let answer = self.send("POST", &path, &[], b"").await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.header("location").unwrap().to_owned()
    }

    /// Pushes a manifest of one blob, which is its configuration too.
    pub(crate) async fn push_image(&self, name: &str, tag: &str, blob: &[u8]) -> Digest {
        let blob = self.push_blob(name, blob).await;
        let manifest = image(&[&blob], "");
        let path = format!("/v2/{name}/manifests/{tag}");
        let kind = [("Content-Type", OCI_MANIFEST)];
        let answer = self.send("PUT", &path, &kind, manifest.as_bytes()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        Digest::sha256(manifest.as_bytes())
    }
}

/// A manifest whose configuration is the first blob, and whose layers are all of them; `more` are further fields.
pub(crate) fn image(blobs: &[&Digest], more: &str) -> String {
    let parts: Vec<String> = { blobs.iter() }
        .map(|digest| format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":1}}"#))
        .collect();
    let (config, layers) = (&parts[0], parts.join(","));
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[{layers}]{more}}}"#
    )
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else {
            // No answer at all.
            return Self {
                status: 0,
                headers: HashMap::new(),
                body: bytes.to_vec(),
            };
        };
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_lowercase(), value.trim().to_owned())
        });
        Self {
            status: status.parse().unwrap(),
            headers: headers.collect(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The code of the error that it is.
    pub(crate) fn code(&self) -> String {
        self.json()["errors"][0]["code"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Whether the body is as long as was announced.
    pub(crate) fn is_whole(&self) -> bool {
        self.header("content-length") == Some(&self.body.len().to_string())
    }
}
