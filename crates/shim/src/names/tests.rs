//! The resolver by its sockets, with servers on addresses of the loopback network. Needs root, as port 53 does.

use super::*;
use crate::watch::Poll;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

const WAIT: Duration = Duration::from_secs(60);
const A: u16 = kind::A;

/// A resolver that serves on a thread of its own.
struct Served {
    udp: SocketAddr,
    tcp: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Served {
    fn new(table: &str, links: &[(&str, &str)], upstream: Upstream) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("net");
        std::fs::write(&file, table).unwrap();
        let links = links
            .iter()
            .map(|(name, id)| ((*name).to_owned(), (*id).to_owned()));
        let names = Names {
            files: vec![file, PathBuf::from("/nowhere/gone")],
            links: links.collect(),
            upstream,
        };
        let mut poll = Poll::new().unwrap();
        let netns = std::fs::File::open("/proc/self/ns/net").unwrap();
        let mut resolver = Resolver::open(&mut poll, netns.as_fd(), names).unwrap();
        let (udp, tcp) = resolver.ports().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut events = Vec::with_capacity(16);
            while !seen.load(Ordering::Relaxed) {
                resolver.expire(&mut poll, Instant::now());
                resolver.set_interests(&poll).unwrap();
                poll.wait(&mut events, Some(Duration::from_millis(20)))
                    .unwrap();
                for event in &events {
                    resolver.ready(&mut poll, event.data.u64(), event.flags);
                }
            }
        });
        Self {
            udp: (ADDRESS, udp).into(),
            tcp: (ADDRESS, tcp).into(),
            ended,
            thread: Some(thread),
            _dir: dir,
        }
    }

    fn ask(&self, message: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket.send_to(message, self.udp).unwrap();
        let mut answer = vec![0; 65535];
        let count = socket.recv(&mut answer).unwrap();
        answer.truncate(count);
        answer
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.tcp).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(|thread| thread.join());
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(1_u16.to_be_bytes());
    message
}

/// The code of an answer, and the last bytes of its records of addresses.
fn outcome(answer: &[u8]) -> (u8, Vec<u8>) {
    assert_eq!(answer[..2], [0x12, 0x34], "{answer:?}");
    let count = usize::from(answer[7]);
    let records = &answer[answer.len() - count * 16..];
    (
        answer[3] & 0xf,
        records.chunks(16).map(|record| record[15]).collect(),
    )
}

fn send(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, message].concat()).unwrap();
}

fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

/// An address of the loopback network that no other test has.
fn server_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., a, b] = std::process::id().to_be_bytes();
    [
        127,
        a.clamp(1, 254),
        b,
        NEXT.fetch_add(1, Ordering::Relaxed),
    ]
    .into()
}

/// What a server says to each query: this code, and this address when there is one.
fn reply(query: &[u8], code: u8, last: u8) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | code;
    if code == 0 {
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 192, 0, 2, last]);
    }
    answer
}

/// A server for datagrams that answers so long as the test lasts, by `answer`.
fn serve(address: IpAddr, answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) {
    let socket = UdpSocket::bind((address, 53)).expect("port 53, as root");
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((count, client)) = socket.recv_from(&mut buffer) {
            for message in answer(&buffer[..count]) {
                socket.send_to(&message, client).unwrap();
            }
        }
    });
}

const TABLE: &str =
    "network front\n10.0.0.2 aaaa web app\nfd00::2 aaaa web app\n10.0.0.3 bbbb db app\n";

#[test]
fn known_names_are_answered_and_addresses_take_turns() {
    let served = Served::new(TABLE, &[("store", "bbbb")], Upstream::Nobody);
    let ask = |name: &str, kind| outcome(&served.ask(&query(name, kind)));
    assert_eq!(ask("db", A), (0, vec![3]));
    assert_eq!(ask("DB.front", A), (0, vec![3]));
    assert_eq!(ask("store", A), (0, vec![3]));
    // There is such a name, but no address of the family, and no mail server.
    assert_eq!(ask("db", kind::AAAA), (0, vec![]));
    assert_eq!(ask("db", 15), (0, vec![]));
    assert_eq!(ask("nobody", A), (3, vec![]));
    let firsts: Vec<u8> = (0..4).map(|_| ask("app", A).1[0]).collect();
    assert!(firsts.contains(&2) && firsts.contains(&3), "{firsts:?}");
    let name = served.ask(&query("3.0.0.10.in-addr.arpa", kind::PTR));
    assert!(name.ends_with(b"\x02db\x05front\0"), "{name:?}");
    // The same over a stream, several in a row.
    let mut stream = served.connect();
    for _ in 0..3 {
        send(&mut stream, &query("db", A));
        assert_eq!(outcome(&receive(&mut stream)), (0, vec![3]));
    }
}

#[test]
fn other_names_are_asked_for_elsewhere_until_somebody_answers() {
    let (nobody, refuses, answers) = (server_address(), server_address(), server_address());
    serve(refuses, |query| vec![reply(query, 5, 0)]);
    serve(answers, |query| {
        // Who guesses, and who answers something else, is not heard.
        let mut guess = reply(query, 0, 66);
        guess[0] ^= 0xff;
        let mut other = reply(query, 0, 67);
        other[13] ^= 1;
        vec![guess, other, reply(query, 0, 7)]
    });
    let served = Served::new(
        TABLE,
        &[],
        Upstream::Servers(vec![nobody, refuses, answers]),
    );
    assert_eq!(outcome(&served.ask(&query("example.org", A))), (0, vec![7]));
    // The last one's refusal is passed on, and when nobody is there that is said.
    let served = Served::new(TABLE, &[], Upstream::Servers(vec![refuses]));
    assert_eq!(outcome(&served.ask(&query("example.org", A))).0, 5);
    let served = Served::new(TABLE, &[], Upstream::Servers(vec![nobody]));
    assert_eq!(outcome(&served.ask(&query("example.org", A))).0, 2);
    let mut stream = served.connect();
    send(&mut stream, &query("example.org", A));
    assert_eq!(outcome(&receive(&mut stream)).0, 2);
}

#[test]
fn streams_are_passed_on_as_streams() {
    let (nobody, address) = (server_address(), server_address());
    let listener = TcpListener::bind((address, 53)).expect("port 53, as root");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let query = receive(&mut stream);
            // In pieces.
            let answer = reply(&query, 0, 9);
            let bytes = [
                &u16::try_from(answer.len()).unwrap().to_be_bytes(),
                &answer[..],
            ]
            .concat();
            for piece in bytes.chunks(7) {
                stream.write_all(piece).unwrap();
            }
        }
    });
    let served = Served::new(TABLE, &[], Upstream::Servers(vec![nobody, address]));
    let mut stream = served.connect();
    for _ in 0..2 {
        send(&mut stream, &query("example.org", A));
        assert_eq!(outcome(&receive(&mut stream)), (0, vec![9]));
        send(&mut stream, &query("db", A));
        assert_eq!(outcome(&receive(&mut stream)), (0, vec![3]));
    }
}

#[test]
fn a_silent_server_is_followed_by_the_next() {
    let (silent, answers) = (server_address(), server_address());
    serve(silent, |_| Vec::new());
    serve(answers, |query| vec![reply(query, 0, 7)]);
    let served = Served::new(TABLE, &[], Upstream::Servers(vec![silent, answers]));
    assert_eq!(outcome(&served.ask(&query("example.org", A))), (0, vec![7]));
}

#[test]
fn what_is_no_query_harms_nobody() {
    let served = Served::new(TABLE, &[], Upstream::Nobody);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for noise in [&b""[..], b"x", &[0xff; 40], &[0; 12]] {
        socket.send_to(noise, served.udp).unwrap();
    }
    let mut stream = served.connect();
    stream.write_all(&[0, 1, 7]).unwrap();
    assert_eq!(outcome(&served.ask(&query("db", A))), (0, vec![3]));
}
