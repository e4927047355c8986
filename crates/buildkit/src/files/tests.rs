//! Clients of every kind send their files.

use super::*;
use crate::grpc::{Answer, Call, Service, framed, serve};
use crate::session::{Announced, Sessions};
use hyper_util::rt::TokioIo;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// A client that lists, and then sends one of `answers` for each packet that comes; all of them where it asks nothing.
#[derive(Debug)]
struct Client {
    listed: Vec<Packet>,
    contents: HashMap<u32, Vec<Packet>>,
    headers: Arc<Mutex<HeaderMap>>,
}

impl Service for Client {
    async fn call(&self, call: Call) -> std::result::Result<Answer, Status> {
        *self.headers.lock().unwrap() = call.headers.clone();
        let (sender, receiver) = mpsc::channel(4);
        let (listed, contents) = (self.listed.clone(), self.contents.clone());
        let mut messages = call.into_messages();
        tokio::spawn(async move {
            for packet in &listed {
                if sender.send(Ok(framed(packet))).await.is_err() {
                    return;
                }
            }
            while let Ok(Some(asked)) = messages.next::<Packet>().await {
                let answers = match asked.kind() {
                    PacketKind::Request => contents.get(&asked.id).cloned().unwrap_or_default(),
                    PacketKind::End => vec![packet(PacketKind::End, 0, b"")],
                    _ => Vec::new(),
                };
                for answer in &answers {
                    let _ = sender.send(Ok(framed(answer))).await;
                }
                if asked.kind() == PacketKind::End {
                    return;
                }
            }
        });
        Ok(Answer::Many(receiver))
    }
}

fn packet(kind: PacketKind, id: u32, data: &[u8]) -> Packet {
    Packet {
        kind: kind as i32,
        id,
        data: Bytes::copy_from_slice(data),
        stat: None,
    }
}

fn listed(path: &str, mode: u32, link: &str) -> Packet {
    Packet {
        stat: Some(Stat {
            path: path.as_bytes().to_vec(),
            mode,
            link: link.as_bytes().to_vec(),
            modified: 1_000_000_007,
            ..Stat::default()
        }),
        ..packet(PacketKind::Stat, 0, b"")
    }
}

const END: fn() -> Packet = || packet(PacketKind::Stat, 0, b"");
const DIRECTORY: u32 = 1 << 31 | 0o755;
const SYMLINK: u32 = 1 << 27 | 0o777;

/// The content of a file in two pieces.
fn content(id: u32, bytes: &[u8]) -> Vec<Packet> {
    let (one, two) = bytes.split_at(bytes.len() / 2);
    [one, two, b""]
        .into_iter()
        .enumerate()
        .filter(|(at, piece)| *at == 2 || !piece.is_empty())
        .map(|(_, piece)| packet(PacketKind::Data, id, piece))
        .collect()
}

/// What became of a transfer into `to/` of a directory.
struct Received {
    directory: tempfile::TempDir,
    result: Result<()>,
    headers: HeaderMap,
}

fn receive(listed: Vec<Packet>, contents: &[(u32, Vec<Packet>)], wanted: &Wanted) -> Received {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("to")).unwrap();
    let headers = Arc::new(Mutex::default());
    let client = Client {
        listed,
        contents: contents.iter().cloned().collect(),
        headers: Arc::clone(&headers),
    };
    let (here, there) = tokio::io::duplex(64 << 10);
    let sessions = Arc::new(Sessions::default());
    runtime.spawn(serve(TokioIo::new(there), Arc::new(client)));
    let kept = Arc::clone(&sessions);
    let announced = Announced {
        id: "s".to_owned(),
        methods: BTreeSet::from([DIFF_COPY.to_ascii_lowercase()]),
        shared_key: String::new(),
    };
    runtime.spawn(async move { kept.keep(announced, None, TokioIo::new(here)).await });
    let session = runtime.block_on(sessions.get("s")).unwrap();
    let (_stop, stopped) = watch::channel(false);
    let transfer = Transfer {
        handle: runtime.handle(),
        session: &session,
        stop: &stopped,
    };
    let tree = Root::open(&directory.path().join("to")).unwrap();
    let result = transfer.receive(wanted, (&tree, None), &mut |_| {});
    let headers = headers.lock().unwrap().clone();
    Received {
        directory,
        result,
        headers,
    }
}

#[test]
fn files_arrive_as_they_are() {
    let files = vec![
        listed("d", DIRECTORY, ""),
        listed("d/a", 0o640 | 1 << 23, ""),
        listed("d/b", 0o600, "d/a"),
        listed("d/link", SYMLINK, "../../x"),
        listed("empty", 0o644, ""),
        listed("socket", 1 << 24, ""),
        END(),
    ];
    let contents = [(1, content(1, b"content")), (4, content(4, b""))];
    let wanted = Wanted {
        directory: "context".to_owned(),
        follow: vec!["a b".to_owned(), "\u{e4}".to_owned()],
        exclude: vec!["*.log".to_owned()],
    };
    let received = receive(files, &contents, &wanted);
    received.result.unwrap();
    let to = received.directory.path().join("to");
    assert_eq!(std::fs::read(to.join("d/b")).unwrap(), b"content");
    let a = std::fs::metadata(to.join("d/a")).unwrap();
    assert_eq!((a.mode() & 0o7777, a.mtime(), a.nlink()), (0o4640, 1, 2));
    assert_eq!(std::fs::metadata(to.join("d")).unwrap().mtime(), 1);
    assert_eq!(
        std::fs::read_link(to.join("d/link")).unwrap(),
        Path::new("../../x")
    );
    assert_eq!(std::fs::read(to.join("empty")).unwrap(), b"");
    assert!(!to.join("socket").exists());
    let values = |name: &str| -> Vec<String> {
        let values = received.headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(values("dir-name"), ["context"]);
    assert_eq!(values("followpaths"), ["a+b", "%C3%A4"]);
    assert_eq!(values("followpaths-encoded"), ["1"]);
    assert_eq!(values("exclude-patterns"), ["*.log"]);
}

#[test]
fn more_files_than_may_be_open_arrive() {
    let count = 5 * u32::try_from(OPEN_MAX).unwrap();
    let mut files: Vec<Packet> = (0..count)
        .map(|at| listed(&format!("f{at:04}"), 0o644, ""))
        .collect();
    files.push(END());
    let contents: Vec<_> = (0..count)
        .map(|at| (at, content(at, at.to_string().as_bytes())))
        .collect();
    let received = receive(files, &contents, &Wanted::default());
    received.result.unwrap();
    for at in 0..count {
        let path = received.directory.path().join(format!("to/f{at:04}"));
        assert_eq!(std::fs::read_to_string(path).unwrap(), at.to_string());
    }
}

/// CVE-2026-44517 and its like: a context that leads out of its directory.
#[test]
fn nothing_is_written_elsewhere() {
    let content = [(1, content(1, b"evil")), (0, content(0, b"evil"))];
    for files in [
        vec![listed("../evil", 0o644, ""), END()],
        vec![listed("a/../../evil", 0o644, ""), END()],
        vec![
            listed("up", SYMLINK, ".."),
            listed("up/evil", 0o644, ""),
            END(),
        ],
        vec![
            listed("up", SYMLINK, "../../.."),
            listed("up/evil", DIRECTORY, ""),
            END(),
        ],
        vec![listed("link", 0o644, "../secret"), END()],
        vec![
            listed("up", SYMLINK, ".."),
            listed("link", 0o644, "up/secret"),
            END(),
        ],
    ] {
        let told = format!("{files:?}");
        let received = receive(files, &content, &Wanted::default());
        let outside: Vec<_> = std::fs::read_dir(received.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(outside, ["to"], "{told}");
        let link = received.directory.path().join("to/link");
        assert!(std::fs::symlink_metadata(link).is_err(), "{told}");
    }
}

#[test]
fn clients_that_break_the_protocol_are_told() {
    let file = || listed("a", 0o644, "");
    let stray = packet(PacketKind::Data, 7, b"x");
    for (files, expected) in [
        (vec![file(), stray, END()], "nobody has asked for"),
        (vec![END(), file()], "the end"),
        (
            vec![packet(PacketKind::Request, 0, b""), END()],
            "nobody expects",
        ),
        (
            vec![packet(PacketKind::Error, 0, b"no such directory")],
            "no such directory",
        ),
        (
            vec![listed("a", 1 << 31 | 1 << 27, ""), END()],
            "unknown kind",
        ),
        (
            vec![listed("a", DIRECTORY, ""), listed("a", 0o644, ""), END()],
            "directory",
        ),
    ] {
        let received = receive(files, &[], &Wanted::default());
        let error = received.result.unwrap_err().chain();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let control = Wanted {
        follow: vec!["a\nb".to_owned()],
        ..Wanted::default()
    };
    assert!(receive(vec![END()], &[], &control).result.is_err());
}
