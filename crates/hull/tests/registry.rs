//! `hull registry` as a process: with skopeo, killed at any moment, cleaned while it serves.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

const HULL: &str = env!("CARGO_BIN_EXE_hull");
/// How long anything may take, on a slow machine, too.
const WAIT: Duration = Duration::from_secs(120);

/// A registry's process.
struct Registry {
    child: Child,
    address: SocketAddr,
}

impl Registry {
    fn start(storage: &Path) -> Self {
        let mut child = Command::new(HULL)
            .args([
                "registry",
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--delete",
                "--storage",
            ])
            .arg(storage)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let address = { line.split_whitespace() }
            .find_map(|word| word.strip_prefix("address="))
            .unwrap_or_else(|| panic!("the registry says {line:?}"));
        let address = address.parse().unwrap();
        // Somebody has to read on, or the registry would wait for that.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }

    /// Ends it as a power failure would, as far as a process can tell.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn send(&self, request: &str, body: &[u8]) -> Option<(u16, String, Vec<u8>)> {
        send(self.address, request, body)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request such as `GET /v2/`, and gives the status, the head and the body; `None` when the connection breaks.
fn send(address: SocketAddr, request: &str, body: &[u8]) -> Option<(u16, String, Vec<u8>)> {
    let mut socket = TcpStream::connect(address).ok()?;
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .ok()?;
    let head = format!(
        "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).ok()?;
    socket.write_all(body).ok()?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..end].to_vec()).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head, answer[end + 4..].to_vec()))
}

fn digest(content: &[u8]) -> String {
    let mut sum = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sum.stdin.take().unwrap().write_all(content).unwrap();
    let output = sum.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    format!("sha256:{}", text.split_whitespace().next().unwrap())
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn skopeo_pushes_lists_pulls_and_deletes() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start(&directory.path().join("storage"));
    let tar = directory.path().join("layer.tar");
    std::fs::write(directory.path().join("file"), "content").unwrap();
    run(Command::new("tar")
        .arg("-cf")
        .arg(&tar)
        .arg("-C")
        .arg(directory.path())
        .arg("file"));
    let image = format!("docker://{}/team/app", registry.address);
    let skopeo = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        run(command.args(["120", "skopeo"]).args(arguments))
    };
    let source = format!("tarball:{}", tar.display());
    let tagged = format!("{image}:one");
    skopeo(&["copy", "--dest-tls-verify=false", &source, &tagged]);
    // Into another repository, by mounting what is there.
    let other = tagged.replace("team/app", "other");
    skopeo(&[
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        &tagged,
        &other,
    ]);
    let tags = skopeo(&["list-tags", "--tls-verify=false", &image]);
    assert!(tags.contains("\"one\""), "{tags}");
    let back = format!("oci:{}:one", directory.path().join("back").display());
    skopeo(&["copy", "--src-tls-verify=false", &other, &back]);
    let inspect = |what: &str| {
        skopeo(&[
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Layers}}",
            what,
        ])
    };
    assert_eq!(inspect(&tagged), inspect(&back));
    skopeo(&["delete", "--tls-verify=false", &tagged]);
    let (status, ..) = registry
        .send("GET /v2/team/app/manifests/one", b"")
        .unwrap();
    assert_eq!(status, 404);
    let (status, ..) = registry.send("GET /v2/other/manifests/one", b"").unwrap();
    assert_eq!(status, 200);
}

#[test]
fn what_was_acknowledged_survives_being_killed() {
    let directory = tempfile::tempdir().unwrap();
    let storage = directory.path().join("storage");
    let mut acknowledged: Vec<(String, Vec<u8>)> = Vec::new();
    for round in 0..6u8 {
        let mut registry = Registry::start(&storage);
        let address = registry.address;
        let (status, head, _) = registry.send("POST /v2/a/blobs/uploads/", b"").unwrap();
        assert_eq!(status, 202);
        let location = { head.lines() }.find_map(|line| line.strip_prefix("location: "));
        let location = location.unwrap().to_owned();
        let (status, ..) = registry
            .send(&format!("PATCH {location}"), b"first ")
            .unwrap();
        assert_eq!(status, 202);
        let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        let pushed: Vec<(String, Vec<u8>)> = std::thread::scope(|scope| {
            let pushing: Vec<_> = (0..4u8)
                .map(|thread| {
                    let (stop, count) = (&stop, &count);
                    scope.spawn(move || push_until(address, [round, thread], stop, count))
                })
                .collect();
            // In the middle of the others, after some.
            let begun = Instant::now();
            while count.load(Ordering::Relaxed) <= usize::from(round) * 3 {
                assert!(begun.elapsed() < WAIT, "nothing is acknowledged");
                std::thread::sleep(Duration::from_millis(1));
            }
            registry.kill();
            stop.store(true, Ordering::Relaxed);
            { pushing.into_iter() }
                .flat_map(|pushing| pushing.join().unwrap())
                .collect()
        });
        acknowledged.extend(pushed);
        // The next process has all that was acknowledged, and goes on with what was begun.
        let registry = Registry::start(&storage);
        for (digest, content) in &acknowledged {
            let (status, _, body) = registry
                .send(&format!("GET /v2/a/blobs/{digest}"), b"")
                .unwrap();
            assert_eq!(status, 200, "{digest}");
            assert!(body == *content, "{digest}");
        }
        let whole = digest(b"first second");
        let request = format!("PUT {location}?digest={whole}");
        let (status, ..) = registry.send(&request, b"second").unwrap();
        assert_eq!(status, 201);
    }
    // Whatever has a name is whole.
    for entry in walk(&storage.join("blobs/sha256")) {
        let content = std::fs::read(&entry).unwrap();
        let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(digest(&content), format!("sha256:{name}"));
    }
}

/// Pushes blobs until there is nobody to push to; those that were acknowledged.
fn push_until(
    address: SocketAddr,
    seed: [u8; 2],
    stop: &AtomicBool,
    count: &AtomicUsize,
) -> Vec<(String, Vec<u8>)> {
    let mut acknowledged = Vec::new();
    for number in 0..u8::MAX {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let content = [&seed[..], &[number]].concat().repeat(50_000);
        let digest = digest(&content);
        let request = format!("POST /v2/a/blobs/uploads/?digest={digest}");
        if let Some((201, ..)) = send(address, &request, &content) {
            acknowledged.push((digest, content));
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    acknowledged
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn garbage_is_collected_beside_a_running_registry() {
    let directory = tempfile::tempdir().unwrap();
    let storage = directory.path().join("storage");
    let registry = Registry::start(&storage);
    let (used, unused) = (digest(b"used"), digest(b"unused"));
    for (digest, content) in [(&used, "used"), (&unused, "unused")] {
        let request = format!("POST /v2/a/blobs/uploads/?digest={digest}");
        let (status, ..) = registry.send(&request, content.as_bytes()).unwrap();
        assert_eq!(status, 201);
    }
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{{"mediaType":"x","digest":"{used}","size":4}},"layers":[]}}"#
    );
    let (status, ..) =
        { registry.send("PUT /v2/a/manifests/latest", manifest.as_bytes()) }.unwrap();
    assert_eq!(status, 201);
    let gc = |more: &[&str]| {
        let mut command = Command::new(HULL);
        run(command
            .args(["registry", "gc", "--storage"])
            .arg(&storage)
            .args(more))
    };
    // All of it is too new.
    assert!(gc(&[]).starts_with("deleted 0 blobs"));
    for path in walk(&storage) {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    assert!(gc(&["--dry-run"]).starts_with("would delete 1 blobs of 6 bytes"));
    assert!(gc(&[]).starts_with("deleted 1 blobs of 6 bytes"));
    for (digest, expected) in [(&used, 200), (&unused, 404)] {
        let (status, ..) = registry
            .send(&format!("GET /v2/a/blobs/{digest}"), b"")
            .unwrap();
        assert_eq!(status, expected);
    }
    let nowhere = Command::new(HULL)
        .args(["registry", "gc", "--storage", "/nonexistent"])
        .output();
    let nowhere = nowhere.unwrap();
    assert!(!nowhere.status.success());
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("no storage"));
}

#[test]
fn flags_that_expose_or_contradict_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (flags, reason) in [
        (&["--listen", "0.0.0.0:0"][..], "--plain-http"),
        (&["--tls-cert", "x"], "--tls-key"),
        (&["--read-only", "--delete"], "cannot be used with"),
        (&["--allow", "x=fly"], "no right"),
        (&["--htpasswd", "/nonexistent"], "/nonexistent"),
        (&["--proxy", "ftp://x"], "neither http nor https"),
    ] {
        let mut command = Command::new("timeout");
        command
            .args(["120", HULL, "registry", "serve", "--storage"])
            .arg(directory.path());
        let output = command.args(flags).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(reason),
            "{flags:?}: {stderr}"
        );
    }
}
