//! What a Dockerfile gets when the user allows it, and caches that begin with something; by hull's client and by buildx.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::Said;
use support::buildx::{Bench, assert_has};

/// A build by hull's client.
fn hull(bench: &Bench, flags: &[&str]) -> Said {
    let context = bench.path("context");
    let flags = [&["build", "--no-cache", "-t", "t"], flags, &[&context]];
    bench.engine.run(&flags.concat())
}

/// A build by hull's client, and then by buildx; what `/shown` has in the image.
fn both(bench: &Bench, flags: &[&str]) -> [String; 2] {
    let built = hull(bench, flags);
    assert_eq!(built.code, 0, "{built:?}\n{}", bench.engine.log());
    let first = bench.shell("cat /shown");
    bench.build(&[&["--no-cache"], flags].concat());
    [first, bench.shell("cat /shown")]
}

/// Both clients are refused, with these words.
fn refused(bench: &Bench, flags: &[&str], words: &str) {
    let said = hull(bench, flags);
    assert_ne!(said.code, 0, "{said:?}");
    assert_has(&said.stderr, &[words]);
    assert_has(&bench.fails(flags), &[words]);
    bench.assert_clean();
}

#[test]
fn the_hosts_network_is_for_dockerfiles_that_are_allowed_it() {
    let bench = Bench::new(
        "FROM busybox\nRUN --network=host readlink /proc/self/ns/net > /shown\n",
        &[],
    );
    refused(&bench, &[], "network.host is not allowed");
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let host = host.to_str().unwrap();
    for flags in [["--allow", "network.host"], ["--network", "host"]] {
        assert_eq!(both(&bench, &flags), [host, host], "{flags:?}");
    }
    bench.assert_clean();
}

#[test]
fn privileges_are_for_dockerfiles_that_are_allowed_them() {
    let command =
        "mkdir /m && mount -t tmpfs none /m && umount /m && rmdir /m && echo mounted > /shown";
    let bench = Bench::new(
        &format!(
            "FROM busybox\nRUN --security=insecure {command}\nRUN ! mount -t tmpfs none /root\n"
        ),
        &[],
    );
    refused(&bench, &[], "security.insecure is not allowed");
    let shown = both(&bench, &["--allow", "security.insecure"]);
    assert_eq!(shown, ["mounted", "mounted"]);
    let said = hull(&bench, &["--allow", "device"]);
    assert_has(&said.stderr, &["to allow \"device\" is not supported"]);
    bench.assert_clean();
}

#[test]
fn caches_begin_with_what_they_are_told() {
    let bench = Bench::new(
        "FROM busybox AS first\nRUN mkdir -p /seed/sub && echo seed > /seed/sub/f && chown 7:8 /seed && chmod 750 /seed\n\
         FROM busybox\n\
         RUN --mount=type=cache,id=c,target=/c,from=first,source=/seed cat /c/sub/f >> /shown; stat -c '%a %u %g' /c >> /shown; echo more > /c/more\n\
         RUN --mount=type=cache,id=c,target=/d cat /d/sub/f /d/more >> /shown\n\
         RUN --mount=type=cache,target=/e,from=named cat /e/f >> /shown\n",
        &[],
    );
    bench.write("named/f", "named\n");
    let named = format!("named={}", bench.path("named"));
    let expected = "seed\n750 7 8\nseed\nmore\nnamed";
    let shown = both(&bench, &["--build-context", &named]);
    assert_eq!(shown, [expected, expected]);
    // The stage is as it was.
    bench.write(
        "context/Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,id=x,target=/c,from=busybox,source=/etc/passwd true\n",
    );
    refused(&bench, &[], "which is no directory");
}
