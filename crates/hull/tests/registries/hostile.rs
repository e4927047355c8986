//! Registries and images that no good one is like: refused, and nothing is left.

use crate::content::{
    by_digest, config, descriptor, index, manifest, registry_of, registry_of_image, tar_of,
};
use crate::server::{Answer, Server};
use crate::support::{self, Engine};
use oci::Digest;
use oci::image::media_type;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Everything that images leave on disk.
pub(crate) fn stored(engine: &Engine) -> Vec<std::path::PathBuf> {
    let directories = ["blobs", "layers", "tmp"].map(|name| engine.path("data").join(name));
    let mut pending = directories.to_vec();
    let mut found = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() && entry.file_name() == "sha256" {
                true => pending.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found
}

/// A pull that fails with these words, and leaves nothing.
fn refused(engine: &Engine, server: &Server, words: &str) {
    let said = engine.run(&["pull", &format!("{}/image:1", server.address)]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains(words), "{words}: {said:?}");
    assert_eq!(engine.ok(&["images", "-q"]), "");
    assert_eq!(stored(engine), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_is_no_image_is_refused_and_leaves_nothing() {
    let engine = Engine::empty();
    let artifact = manifest(&descriptor("application/vnd.example.chart", b"{}"), "");
    let server = registry_of(vec![
        ("/manifests/1".into(), artifact.into()),
        by_digest("{}"),
    ]);
    refused(&engine, &server, "artifact");

    // Indexes of indexes end somewhere.
    let mut contents = vec![by_digest(index(""))];
    for _ in 0..8 {
        let (_, last) = contents.last().unwrap();
        contents.push(by_digest(index(&descriptor(media_type::OCI_INDEX, last))));
    }
    contents.last_mut().unwrap().0 = "/manifests/1".to_owned();
    refused(&engine, &registry_of(contents), "nested more than");

    // The layer is not what the configuration says, or not what the manifest says.
    let layer = tar_of("x");
    let server = registry_of_image(&layer, &config(b"another", ""));
    refused(&engine, &server, "has the digest");
    let config = config(&layer, "");
    let manifest = manifest(
        &descriptor(media_type::OCI_CONFIG, config.as_bytes()),
        &descriptor(media_type::OCI_LAYER, &layer),
    );
    let mut other = layer.clone();
    // A byte of the file's content.
    other[1024] ^= 1;
    let server = registry_of(vec![
        ("/manifests/1".into(), manifest.into()),
        by_digest(&config),
        (Digest::sha256(&layer).to_string(), other),
    ]);
    refused(&engine, &server, "has the digest");
}

#[test]
fn a_tag_that_moves_during_a_pull_gives_one_image_or_the_other() {
    let engine = Engine::empty();
    let (layer, count) = (tar_of("x"), AtomicUsize::new(0));
    let config = config(&layer, "");
    let real = manifest(
        &descriptor(media_type::OCI_CONFIG, config.as_bytes()),
        &descriptor(media_type::OCI_LAYER, &layer),
    );
    let expected = Digest::sha256(real.as_bytes()).to_string();
    let listed = |bytes: &[u8]| {
        let platform = r#","platform":{"architecture":"amd64","os":"linux"}}"#;
        let plain = descriptor(media_type::OCI_MANIFEST, bytes);
        index(&plain.replacen('}', platform, 1))
    };
    let (list, moved) = (listed(real.as_bytes()), listed(b"gone"));
    let known = [by_digest(&real), by_digest(&config), by_digest(&layer)];
    let server = Server::start(move |request| {
        if request.path.ends_with("/manifests/1") {
            // The second time it means something that is nowhere.
            let now = [&list, &moved][count.fetch_add(1, Ordering::Relaxed).min(1)];
            return Answer::ok(now).with("Content-Type", media_type::OCI_INDEX);
        }
        match known.iter().find(|(name, _)| request.path.ends_with(name)) {
            Some((_, bytes)) => Answer::ok(bytes).with("Content-Type", media_type::OCI_MANIFEST),
            None => Answer::status(404),
        }
    });
    engine.ok(&["pull", "-q", &format!("{}/image:1", server.address)]);
    assert!(
        server
            .requests()
            .iter()
            .any(|request| request.path.ends_with(&expected))
    );
}

#[test]
fn a_pull_that_is_stopped_leaves_nothing() {
    let engine = Engine::empty();
    let layer = tar_of("x");
    let config = config(&layer, "");
    let manifest = manifest(
        &descriptor(media_type::OCI_CONFIG, config.as_bytes()),
        &descriptor(media_type::OCI_LAYER, &layer),
    );
    let (name, half) = (
        Digest::sha256(&layer).to_string(),
        layer[..layer.len() / 2].to_vec(),
    );
    let length = layer.len();
    let server = Server::start(move |request| match &request.path {
        path if path.ends_with("/manifests/1") => {
            Answer::ok(&manifest).with("Content-Type", media_type::OCI_MANIFEST)
        }
        path if path.ends_with(name.as_str()) => Answer::Stall {
            length,
            sent: half.clone(),
        },
        _ => Answer::ok(&config),
    });
    let image = format!("{}/image:1", server.address);
    let client = engine.hull(&["pull", &image]).spawn().unwrap();
    engine.until("the layer is on its way", || !stored(&engine).is_empty());
    // `timeout`, which stands before the client, gives it on.
    let pid = client.id().to_string();
    let kill = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(kill.unwrap().success());
    assert!(!client.wait_with_output().unwrap().status.success());
    engine.until("what came is gone", || stored(&engine).is_empty());
    assert_eq!(engine.ok(&["images", "-q"]), "");
}

#[test]
fn attack_38_39_and_41_an_images_configuration_is_not_the_hosts() {
    let engine = Engine::empty();
    let layer = support::busybox_tar();
    // A volume above the root, labels that other engines took for orders, a user from nowhere.
    let marker = engine.path("marker");
    let more = format!(
        r#""Volumes":{{"/../../../../{0}":{{}}}},"Labels":{{"containerd.io/gc.root":"{0}","io.hull.hook":"touch {0}","prestart":"touch {0}"}},"Cmd":["sh","-c","ls -d /volume* {0} 2>&1; id -u"]"#,
        marker.display()
    );
    let server = registry_of_image(&layer, &config(&layer, &more));
    let image = format!("{}/image:1", server.address);
    engine.ok(&["pull", "-q", &image]);
    let said = engine.run(&["run", "--rm", &image]);
    assert!(!marker.exists(), "{said:?}");
    for user in [
        "0\\n",
        "root:x:0:0",
        "-1",
        "4294967296",
        "+0",
        "nobody/../root",
    ] {
        let more = format!(r#""User":"{user}","Cmd":["id","-u"]"#);
        let server = registry_of_image(&layer, &config(&layer, &more));
        let image = format!("{}/image:1", server.address);
        engine.ok(&["pull", "-q", &image]);
        let said = engine.run(&["run", "--rm", &image]);
        assert!(said.code != 0 && said.stdout.is_empty(), "{user}: {said:?}");
    }
    engine.assert_nothing_left();
}

/// So many bytes of zeros, compressed by a command.
fn bomb(bytes: u64, command: &str) -> Vec<u8> {
    let script = format!("head -c {bytes} /dev/zero | {command}");
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .output();
    let output = output.unwrap();
    assert!(output.status.success() && output.stdout.len() < 1 << 20);
    output.stdout
}

/// A pull of a layer that is another than the configuration says, whatever it expands to, ends in these words.
fn exploded(engine: &Engine, layer: Vec<u8>, kind: &str, words: &str) {
    let config = config(b"whatever", "");
    let manifest = manifest(
        &descriptor(media_type::OCI_CONFIG, config.as_bytes()),
        &descriptor(kind, &layer),
    );
    let server = registry_of(vec![
        ("/manifests/1".into(), manifest.into()),
        by_digest(config),
        by_digest(layer),
    ]);
    refused(engine, &server, words);
}

#[test]
fn attack_29_a_layer_that_expands_without_end_is_stopped() {
    let engine = Engine::empty();
    // zstd has no limit of its own.
    let layer = bomb(2 << 30, "zstd -1 -q -c");
    exploded(
        &engine,
        layer,
        media_type::OCI_LAYER_ZSTD,
        "expands to more than",
    );
    // gzip has, which is as much as zeros in earnest have: it comes in pieces, is found out at its end, and leaves nothing.
    let layer = bomb(300 << 20, "gzip -9 -c");
    exploded(&engine, layer, media_type::OCI_LAYER_GZIP, "has the digest");
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 200 << 10, "{peak_kib} KiB at most");
}

/// Annotations and labels that other engines obeyed.
const ORDERS: [(&str, &str); 6] = [
    ("cdi.k8s.io/devices", "vendor.example/device=all"),
    ("io.kubernetes.cri-o.annotations.checkpoint.name", "x"),
    ("org.criu.checkpoint.container.name", "x"),
    ("org.criu.checkpoint.rootfsImageName", "busybox:latest"),
    (
        "io.containerd.image.name",
        "docker.io/library/busybox:latest",
    ),
    ("org.opencontainers.image.ref.name", "busybox:latest"),
];

/// The registry of an image that has everything which other engines took from checkpoints: names to give, devices to add,
/// links to a file of the host to read.
fn registry_of_checkpoint(secret: &std::path::Path) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for name in [
        "spec.dump",
        "config.dump",
        "network.status",
        "checkpoint",
        "rootfs-diff.tar",
    ] {
        std::os::unix::fs::symlink(secret, root.join(name)).unwrap();
    }
    let tar = std::process::Command::new("tar")
        .arg("-C")
        .arg(root)
        .args(["-c", "."])
        .output();
    let upper = tar.unwrap().stdout;
    let busybox = support::busybox_tar();
    let orders: Vec<String> = ORDERS
        .iter()
        .map(|(name, value)| format!(r#""{name}":"{value}""#))
        .collect();
    let orders = orders.join(",");
    let ids = [&busybox, &upper].map(|layer| Digest::sha256(layer).to_string());
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{{{orders}}}}},"rootfs":{{"type":"layers","diff_ids":["{}","{}"]}}}}"#,
        ids[0], ids[1]
    );
    let layers = [&busybox, &upper].map(|layer| descriptor(media_type::OCI_LAYER, layer));
    let plain = manifest(
        &descriptor(media_type::OCI_CONFIG, config.as_bytes()),
        &layers.join(","),
    );
    let annotated = format!(
        r#"{},"annotations":{{{orders}}}}}"#,
        plain.strip_suffix('}').unwrap()
    );
    registry_of(vec![
        ("/manifests/1".into(), annotated.into()),
        by_digest(config),
        by_digest(busybox),
        by_digest(upper),
    ])
}

#[test]
fn attack_40_a_checkpoint_is_no_more_than_an_image() {
    let engine = Engine::new();
    std::fs::write(engine.path("secret"), "the host's").unwrap();
    let server = registry_of_checkpoint(&engine.path("secret"));
    let image = format!("{}/image:1", server.address);
    let known = engine.ok(&["images", "-q", "--no-trunc", "busybox:latest"]);
    engine.ok(&["pull", "-q", &image]);
    // Nothing has got a name that was not asked for.
    assert_eq!(
        engine.ok(&["images", "-q", "--no-trunc", "busybox:latest"]),
        known
    );
    assert_eq!(engine.ok(&["images", "-q"]).lines().count(), 2);
    let devices = |image: &str| engine.ok(&["run", "--rm", image, "ls", "-lR", "/dev"]);
    let names = |text: &str| {
        let last = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
        text.lines().map(last).collect::<Vec<_>>()
    };
    assert_eq!(names(&devices(&image)), names(&devices("busybox")));
    let said = engine.run(&["run", "--rm", &image, "cat", "/spec.dump", "/config.dump"]);
    assert!(said.code != 0 && said.stdout.is_empty(), "{said:?}");
    engine.ok(&["create", "--name", "one", &image, "true"]);
    let said = engine.run(&["start", "--checkpoint", "x", "one"]);
    assert!(
        said.code != 0 && said.stderr.contains("checkpoint"),
        "{said:?}"
    );
    let log = engine.ok(&[
        "inspect",
        "-f",
        "{{.HostConfig.Devices}} {{.State.Status}}",
        "one",
    ]);
    assert_eq!(log, "[] created");
    engine.ok(&["rm", "one"]);
    engine.assert_nothing_left();
}
