//! Clients that are killed at every phase of a build: hull's own, Docker's with its classic builder, and buildx.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use support::buildx::{self, Bench};

/// Bytes of a file that a client is not done with when it is killed. On the disk there is nothing of them.
const LARGE: u64 = 20 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Hull,
    Classic,
    Buildx,
}

const ALL: [Client; 3] = [Client::Hull, Client::Classic, Client::Buildx];
/// Those that can send results elsewhere.
const EXPORTING: [Client; 2] = [Client::Hull, Client::Buildx];

/// A client that builds. No guard of its time is around it, which would outlive it.
struct Building {
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Building {
    fn begin(bench: &Bench, client: Client, flags: &[&str]) -> Self {
        let plain = ["build", "--progress", "plain"];
        let (program, words) = match client {
            Client::Hull => (env!("CARGO_BIN_EXE_hull").into(), &plain[..]),
            Client::Classic => ("docker".into(), &plain[..1]),
            Client::Buildx => (buildx::program(), &plain[..]),
        };
        let mut child = Command::new(program)
            .args(words)
            .args(flags)
            .arg(&bench.context)
            .env("HULL_HOST", bench.engine.socket())
            .env("DOCKER_HOST", bench.engine.socket())
            .env("DOCKER_CONFIG", bench.engine.path("docker-config"))
            .env("DOCKER_BUILDKIT", "0")
            .env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let shown: Arc<Mutex<String>> = Arc::default();
        let (all, errors) = (Arc::clone(&shown), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                all.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, shown }
    }

    /// Kills it as soon as something is so, and has the engine show that nothing is left and that it goes on.
    fn killed_when(mut self, bench: &Bench, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        bench.engine.until(what, || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{what}: {}", self.shown.lock().unwrap());
            is_so(&self)
        });
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        bench.assert_clean();
        // An image is there before it is sent elsewhere.
        let images = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
        for image in bench.engine.ok(&images).lines() {
            if image != "busybox:latest" {
                bench.engine.ok(&["rmi", image]);
            }
        }
        bench.engine.ok(&["builder", "prune", "-af"]);
        bench.engine.until("layers go", || {
            let layers = std::fs::read_dir(bench.engine.path("data/layers"));
            layers.unwrap().count() == 1
        });
        bench.write("other/Dockerfile", "FROM busybox\nRUN echo on > /on\n");
        bench.engine.ok(&["build", "-q", &bench.path("other")]);
        bench.engine.ok(&["builder", "prune", "-af"]);
        bench.engine.ok(&["image", "prune", "-f"]);
    }

    fn has_shown(&self, text: &str) -> bool {
        self.shown.lock().unwrap().contains(text)
    }
}

fn is_empty(path: PathBuf) -> bool {
    std::fs::read_dir(path).map_or(true, |mut all| all.next().is_none())
}

#[test]
fn while_the_context_comes() {
    let bench = Bench::new("FROM busybox\nCOPY . /\n", &[]);
    let large = std::fs::File::create(bench.context.join("large")).unwrap();
    large.set_len(LARGE).unwrap();
    for client in ALL {
        let building = Building::begin(&bench, client, &[]);
        building.killed_when(&bench, &format!("{client:?} sends"), |_| {
            !is_empty(bench.engine.path("data/tmp"))
        });
    }
}

#[test]
fn while_a_command_runs() {
    let bench = Bench::new(
        "FROM busybox\nRUN --mount=type=cache,target=/c sleep 1000\n",
        &[],
    );
    for client in ALL {
        let building = Building::begin(&bench, client, &[]);
        building.killed_when(&bench, &format!("the command of {client:?} runs"), |_| {
            !bench.engine.ok(&["ps", "-q"]).is_empty()
        });
    }
}

#[test]
fn while_files_are_copied() {
    let bench = Bench::new(
        "FROM busybox AS made\nRUN truncate -s 1G /large\nFROM busybox\nRUN true\nCOPY --from=made /large /\n",
        &[],
    );
    for client in EXPORTING {
        let building = Building::begin(&bench, client, &[]);
        building.killed_when(&bench, &format!("{client:?} is told of COPY"), |it| {
            it.has_shown("] COPY --from=made")
        });
    }
}

#[test]
fn while_a_result_is_sent() {
    let bench = Bench::new(
        "FROM busybox\nRUN dd if=/dev/zero of=/large bs=1M count=64\n",
        &[],
    );
    for (client, kind) in EXPORTING
        .into_iter()
        .flat_map(|client| ["tar", "oci", "docker"].map(|kind| (client, kind)))
    {
        let output = format!("type={kind},dest=-");
        let mut building = Building::begin(&bench, client, &["-o", &output]);
        // Nobody takes more than this of what comes.
        let mut result = building.child.stdout.take().unwrap();
        let mut first = [0];
        result.read_exact(&mut first).unwrap();
        building.killed_when(&bench, &format!("{client:?} gets a {kind}"), |_| true);
    }
}

/// A registry that takes a layer's beginning, and no more.
fn stuck_registry() -> (String, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (reached, when_reached) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let reached = reached.clone();
            std::thread::spawn(move || answer(stream, &reached));
        }
    });
    (address, when_reached)
}

/// Answers until content comes, which is left where it is for as long as the other side waits.
fn answer(stream: TcpStream, reached: &mpsc::Sender<()>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        // What is no text is TLS, which it does not speak.
        while !head.ends_with("\r\n\r\n") {
            if !matches!(reader.read_line(&mut head), Ok(1..)) {
                return;
            }
        }
        let said = match head.split(' ').next().unwrap() {
            "GET" => "200 OK",
            "HEAD" => "404 Not Found",
            "POST" => "202 Accepted\r\nLocation: /v2/x/blobs/uploads/1\r\nRange: 0-0",
            _ => {
                reached.send(()).unwrap();
                std::thread::sleep(std::time::Duration::from_secs(600));
                return;
            }
        };
        let said = format!("HTTP/1.1 {said}\r\nContent-Length: 0\r\n\r\n");
        if (&stream).write_all(said.as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn while_an_image_is_pushed() {
    let bench = Bench::new(
        "FROM busybox\nRUN dd if=/dev/urandom of=/large bs=1M count=24\n",
        &[],
    );
    for client in EXPORTING {
        let (address, reached) = stuck_registry();
        let output = format!("type=registry,name={address}/x:1");
        let building = Building::begin(&bench, client, &["-o", &output]);
        building.killed_when(&bench, &format!("{client:?} pushes"), |_| {
            reached.try_recv().is_ok()
        });
    }
}
