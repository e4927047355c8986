//! That limits of a container's network bind, both ways, and that the container cannot lift them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use network::{BridgeConfig, Networks, Rate};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use support::{KEY, Member, networks, on_host, ruleset, run, until};

const RATE: u64 = 1 << 20;

/// What is sent, of which a second's worth and a burst may pass at once.
const BYTES: usize = 3 << 20;
const AT_LEAST: Duration = Duration::from_millis(1500);

fn both(bytes: Option<u64>) -> Rate {
    Rate {
        receive: bytes,
        send: bytes,
    }
}

/// How long it takes until all of [`BYTES`] has come from one to the other.
fn transfer(from: &Member, to: &Member) -> Duration {
    let listener = to
        .namespace
        .inside(|| TcpListener::bind("0.0.0.0:90").unwrap());
    let started = Instant::now();
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap()
    });
    let address: SocketAddr = (to.address(false), 90).into();
    let mut stream = from
        .namespace
        .inside(|| TcpStream::connect(address).unwrap());
    stream.write_all(&vec![0; BYTES]).unwrap();
    drop(stream);
    assert_eq!(receiver.join().unwrap(), BYTES);
    started.elapsed()
}

fn pair() -> (Networks, Member, Member) {
    let networks = networks(BridgeConfig::new("hull0"));
    let bounded = Member::new(&networks, KEY, "vetha");
    let other = Member::new(&networks, KEY, "vethb");
    (networks, bounded, other)
}

#[test]
fn a_limit_binds_both_ways_and_is_lifted() {
    on_host(|| {
        let (networks, bounded, other) = pair();
        networks
            .bound(KEY, &bounded.endpoint, both(Some(RATE)))
            .unwrap();
        // What the container has may be changed by it, and that is nothing of the limit.
        bounded.namespace.inside(|| run("tc qdisc del dev eth0 root || true; tc qdisc del dev eth0 ingress || true; nft flush ruleset"));
        let slow = [transfer(&bounded, &other), transfer(&other, &bounded)];
        assert!(slow.iter().all(|took| *took > AT_LEAST), "{slow:?}");
        networks.bound(KEY, &bounded.endpoint, both(None)).unwrap();
        let fast = [transfer(&bounded, &other), transfer(&other, &bounded)];
        assert!(
            fast.iter().zip(slow).all(|(fast, slow)| *fast < slow / 2),
            "{fast:?} {slow:?}"
        );
        assert!(!ruleset().contains("limit rate"), "{}", ruleset());
    });
}

#[test]
fn a_limit_is_put_back_with_the_rest_and_goes_with_its_interface() {
    on_host(|| {
        let (networks, bounded, _other) = pair();
        let rate = Rate {
            send: Some(RATE),
            receive: None,
        };
        networks.bound(KEY, &bounded.endpoint, rate).unwrap();
        assert!(
            ruleset().contains("limit rate over 1 mbytes/second burst 256 kbytes drop"),
            "{}",
            ruleset()
        );
        run("nft flush ruleset");
        until("the limit is back", || {
            ruleset().contains("limit rate over")
        });
        assert!(networks.disconnect(KEY, &bounded.endpoint, true).is_empty());
        until("it is gone", || !ruleset().contains("limit rate over"));
        let again = networks.bound(KEY, &bounded.endpoint, rate);
        assert!(again.unwrap_err().to_string().contains("vetha"));
        for bad in [0, 5, u64::MAX] {
            let refused = networks.bound(KEY, &bounded.endpoint, both(Some(bad)));
            assert!(
                refused
                    .unwrap_err()
                    .to_string()
                    .contains("bytes per second")
            );
        }
    });
}
