//! Outputs of builds and caches elsewhere, by Docker's buildx.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use support::buildx::{Bench, assert_has};
use support::registry::Registry;

const STAGES: &str = "FROM busybox AS one\nCOPY a /a\nRUN --mount=type=cache,id=things,target=/c \
                      cat /a >> /c/seen; cat /c/seen > /one\n\
                      FROM busybox\nCOPY b /b\nCOPY --from=one /one /one\nRUN cat /b /one > /end\n";

fn files(bench: &Bench) {
    bench.write("context/a", "A");
    bench.write("context/b", "B");
}

fn bench(dockerfile: &str) -> Bench {
    let bench = Bench::new(dockerfile, &[]);
    files(&bench);
    bench
}

/// Steps that a build took from the cache.
fn cached(shown: &str) -> usize {
    shown.matches("CACHED").count()
}

fn forget(bench: &Bench) {
    bench.engine.ok(&["rmi", "t"]);
    bench.engine.ok(&["builder", "prune", "-af"]);
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_cache_in_a_registry_serves_another_engine() {
    let registry = Registry::open();
    let reference = registry.name("cache");
    let one = bench(STAGES);
    let to = format!("type=registry,ref={reference},mode=max,mounts=true");
    let shown = one.build(&["--cache-to", &to]);
    assert_has(&shown, &["exporting cache to registry"]);
    let two = bench(STAGES);
    let from = format!("type=registry,ref={reference}");
    let shown = two.build(&["--cache-from", &from]);
    assert_has(&shown, &["importing cache manifest from"]);
    assert_eq!(cached(&shown), 5, "{shown}");
    assert_eq!(two.shell("cat /end"), "BA");
    let layers = [
        "inspect",
        "--type",
        "image",
        "--format",
        "{{json .RootFS}}",
        "t",
    ];
    assert_eq!(one.engine.ok(&layers), two.engine.ok(&layers));
    // What is below a changed file is built; the cache mount has come along.
    two.write("context/a", "C");
    let shown = two.build(&["--cache-from", &from]);
    assert_eq!(cached(&shown), 1, "{shown}");
    assert_eq!(two.shell("cat /end"), "BAC");
    // The same again, all of it forgotten in between.
    forget(&one);
    assert_eq!(cached(&one.build(&[])), 0);
    forget(&one);
    assert_eq!(cached(&one.build(&["--cache-from", &from])), 5);
    one.assert_clean();
    two.assert_clean();
}

#[test]
fn the_least_cache_has_what_the_image_has() {
    let registry = Registry::open();
    let reference = registry.name("cache:least");
    let one = bench(STAGES);
    one.build(&["--cache-to", &format!("type=registry,ref={reference}")]);
    forget(&one);
    let shown = one.build(&["--cache-from", &reference]);
    // The first stage is built, and leads to the same.
    assert_eq!(cached(&shown), 3, "{shown}");
    one.assert_clean();
}

#[test]
fn an_image_can_have_its_cache_in_it() {
    let registry = Registry::open();
    let reference = registry.name("image:1");
    let one = bench("FROM busybox\nCOPY a /a\nRUN cat /a > /b\nRUN cat /b > /c\n");
    let said = one.try_build(&["-t", &reference, "--push", "--cache-to", "type=inline"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let two = bench("FROM busybox\nCOPY a /a\nRUN cat /a > /b\nRUN cat /b > /d\n");
    let shown = two.build(&["--cache-from", &reference]);
    assert_eq!(cached(&shown), 2, "{shown}");
    // An image on top of one that has a cache has none of it.
    two.engine.ok(&["pull", "-q", &reference]);
    two.write(
        "context/Dockerfile",
        &format!("FROM {reference}\nRUN true\n"),
    );
    two.build(&[]);
    two.engine.ok(&["save", "-o", &two.path("saved.tar"), "t"]);
    let saved = std::fs::read(two.engine.path("saved.tar")).unwrap();
    let has = |text: &[u8]| saved.windows(text.len()).any(|window| window == text);
    assert!(has(b"oci-layout") && !has(b"hull.build-cache"));
    two.assert_clean();
}

#[test]
fn a_cache_in_a_directory_serves_another_engine() {
    let one = bench(STAGES);
    let directory = one.path("cache");
    let to = format!("type=local,dest={directory},mode=max,compression=zstd");
    one.build(&["--cache-to", &to]);
    let index = json(&one.engine.path("cache/index.json"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let two = bench(STAGES);
    let shown = two.build(&["--cache-from", &format!("type=local,src={directory}")]);
    assert_eq!(cached(&shown), 5, "{shown}");
    // What is there already is not sent again, and what is new comes beside it.
    one.write("context/a", "C");
    one.build(&["--cache-to", &to]);
    one.assert_clean();
    two.assert_clean();
}

#[test]
fn a_cache_that_is_of_no_use_is_a_warning() {
    let registry = Registry::open();
    let reference = registry.name("cache");
    let one = bench(STAGES);
    let directory = one.path("cache");
    one.build(&[
        "--cache-to",
        &format!("type=local,dest={directory},mode=max"),
    ]);
    // Layers that are damaged, one and all.
    let blobs = one.engine.path("cache/blobs/sha256");
    for blob in std::fs::read_dir(&blobs).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    forget(&one);
    let from = format!("type=local,src={directory}");
    let shown = one.build(&["--cache-from", &from]);
    assert_eq!(cached(&shown), 0, "{shown}");
    assert_eq!(one.shell("cat /end"), "BA");
    // No cache at all, an image without one, a registry that is not there.
    forget(&one);
    one.engine.ok(&["tag", "busybox", &reference]);
    one.engine.ok(&["push", "-q", &reference]);
    for wrong in [&registry.name("none"), &reference, "127.0.0.1:1/none"] {
        let shown = one.build(&["--no-cache-filter", "one", "--cache-from", wrong]);
        assert_has(&shown, &["importing cache manifest from", "ERROR"]);
    }
    // One that cannot be written fails the build, unless that does not matter.
    let bad = "type=registry,ref=127.0.0.1:1/none";
    assert_has(
        &one.fails(&["--cache-to", bad]),
        &["exporting cache to registry"],
    );
    one.build(&["--cache-to", &format!("{bad},ignore-error=true")]);
    one.assert_clean();
}

#[test]
fn images_go_to_archives_and_directories() {
    let bench = bench("FROM busybox\nCOPY a /a\n");
    let oci = bench.path("oci.tar");
    let output = |text: &str| {
        let said = bench.try_build(&["-t", "x/y:1", "-o", text]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    };
    output(&format!(
        "type=oci,dest={oci},annotation.a=b,compression=zstd"
    ));
    bench.engine.ok(&["load", "-i", &oci]);
    let run = ["run", "--rm", "--network", "none", "x/y:1", "cat", "/a"];
    assert_eq!(bench.engine.ok(&run), "A");
    for program in ["bzip2", "xz"] {
        bench.engine.ok(&["rmi", "x/y:1"]);
        let packed = bench.path(program);
        let script = format!("{program} -c < {oci} > {packed}");
        assert!(
            Command::new("sh")
                .args(["-c", &script])
                .status()
                .unwrap()
                .success()
        );
        bench.engine.ok(&["load", "-i", &packed]);
        assert_eq!(bench.engine.ok(&run), "A");
    }
    bench.engine.ok(&["rmi", "x/y:1"]);
    output(&format!("type=docker,dest={}", bench.path("docker.tar")));
    let listed = Command::new("tar")
        .args(["-tf", &bench.path("docker.tar")])
        .output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    assert_has(&listed, &["manifest.json", "index.json", "oci-layout"]);
    bench.engine.ok(&["load", "-i", &bench.path("docker.tar")]);
    assert_eq!(bench.engine.ok(&run), "A");
    output(&format!("type=oci,tar=false,dest={}", bench.path("layout")));
    let index = json(&bench.engine.path("layout/index.json"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let manifest = format!("layout/blobs/{}", digest.replace(':', "/"));
    let manifest = json(&bench.engine.path(&manifest));
    for blob in manifest["layers"].as_array().unwrap() {
        let digest = blob["digest"].as_str().unwrap();
        let path = bench
            .engine
            .path(&format!("layout/blobs/{}", digest.replace(':', "/")));
        assert_eq!(
            path.metadata().unwrap().len(),
            blob["size"].as_u64().unwrap()
        );
    }
    bench.assert_clean();
}

#[test]
fn the_engine_pushes_what_it_has_built() {
    let registry = Registry::open();
    let (one, two) = (registry.name("a:1"), registry.name("b:2"));
    let bench = bench("FROM busybox\nCOPY a /a\n");
    let metadata = bench.path("metadata");
    let said = bench.try_build(&[
        "-t",
        &one,
        "-t",
        &two,
        "--push",
        "--annotation",
        "who=me",
        "--metadata-file",
        &metadata,
    ]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let told = json(Path::new(&metadata));
    let digest = told["containerimage.digest"].as_str().unwrap();
    assert_eq!(told["containerimage.descriptor"]["digest"], digest);
    let format = [
        "inspect",
        "--type",
        "image",
        "--format",
        "{{.Id}} {{json .RepoDigests}}",
        &one,
    ];
    let inspected = bench.engine.ok(&format);
    assert_has(
        &inspected,
        &[
            digest,
            told["containerimage.config.digest"].as_str().unwrap(),
        ],
    );
    for name in [&one, &two] {
        let shown = bench.engine.ok(&["manifest", "inspect", name]);
        assert_has(&shown, &["\"who\": \"me\""]);
        bench.engine.ok(&["rmi", name]);
    }
    bench
        .engine
        .ok(&["pull", "-q", &format!("{}@{digest}", registry.name("a"))]);
    bench.assert_clean();
}

const CROSS: &str = "FROM --platform=$BUILDPLATFORM busybox AS one\nARG TARGETPLATFORM TARGETARCH\n\
                     RUN echo $TARGETPLATFORM $TARGETARCH > /for\n\
                     FROM scratch\nCOPY --from=one /for /for\nCOPY --from=one /bin/busybox /bin/\n";

/// The document of an OCI layout that a descriptor refers to.
fn document(bench: &Bench, layout: &str, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap();
    json(
        &bench
            .engine
            .path(&format!("{layout}/blobs/{}", digest.replace(':', "/"))),
    )
}

#[test]
fn platforms_are_built_at_the_same_time() {
    // Each waits for the other.
    let bench = bench(
        "FROM --platform=$BUILDPLATFORM busybox AS one\nARG TARGETARCH\n\
         RUN --mount=type=cache,target=/m,id=meeting busybox touch /m/$TARGETARCH; \
         for n in $(busybox seq 600); do \
         [ -e /m/amd64 ] && [ -e /m/arm64 ] && exit 0; busybox sleep 0.1; done; exit 1\n\
         FROM scratch\nCOPY --from=one /bin/sh /\n",
    );
    let output = format!("type=oci,dest={}", bench.path("both.tar"));
    let said = bench.try_build(&["--platform", "linux/amd64,linux/arm64", "-o", &output]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    // A failure of one ends the other.
    bench.write(
        "context/Dockerfile",
        "FROM --platform=$BUILDPLATFORM busybox AS one\nARG TARGETARCH\n\
         RUN [ $TARGETARCH = amd64 ] && exit 7; busybox sleep 1000\n",
    );
    let shown = bench.fails(&["--platform", "linux/amd64,linux/arm64", "-o", &output]);
    assert!(shown.contains("exit code: 7"), "{shown}");
}

#[test]
fn several_platforms_are_an_index() {
    let registry = Registry::open();
    let bench = bench(CROSS);
    let both = "linux/amd64/v2,linux/arm64";
    let layout = bench.path("layout");
    let output = format!("type=oci,tar=false,dest={layout}");
    let said = bench.try_build(&["--platform", both, "-o", &output]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_has(
        &said.stderr,
        &["[linux/arm64 one 2/2] RUN echo", "[linux/amd64/v2 one"],
    );
    let index = json(&bench.engine.path("layout/index.json"));
    let index = document(&bench, "layout", &index["manifests"][0]);
    for (at, platform) in [(0, "linux/amd64/v2"), (1, "linux/arm64")] {
        let found = &index["manifests"][at]["platform"];
        let variant = found["variant"]
            .as_str()
            .map(|variant| format!("/{variant}"));
        let shown = format!(
            "{}/{}{}",
            found["os"].as_str().unwrap(),
            found["architecture"].as_str().unwrap(),
            variant.unwrap_or_default()
        );
        assert_eq!(shown, platform);
        let manifest = document(&bench, "layout", &index["manifests"][at]);
        let config = document(&bench, "layout", &manifest["config"]);
        assert_eq!(config["architecture"], found["architecture"]);
    }
    // An image of another platform than this machine's is kept, and pushed, as any other.
    let name = registry.name("cross:1");
    let said = bench.try_build(&["--platform", "linux/s390x", "-t", &name, "--push"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let format = [
        "inspect",
        "--type",
        "image",
        "--format",
        "{{.Architecture}}",
        &name,
    ];
    assert_eq!(bench.engine.ok(&format), "s390x");
    // What stands on it is for that platform; it is not run.
    bench.write("context/Dockerfile", &format!("FROM {name}\nCOPY a /a\n"));
    bench.engine.ok(&["rmi", &name]);
    let said = bench.try_build(&["--platform", "linux/s390x", "-t", "other"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    bench.assert_clean();
}

#[test]
fn commands_of_another_architecture_need_an_emulator() {
    let foreign = if cfg!(target_arch = "s390x") {
        "linux/ppc64le"
    } else {
        "linux/s390x"
    };
    let bench = bench("FROM scratch\nCOPY a /\nRUN [\"/a\"]\n");
    // A machine with emulators may have one for it.
    let emulators = std::fs::read_dir("/proc/sys/fs/binfmt_misc")
        .into_iter()
        .flatten();
    if emulators
        .flatten()
        .any(|it| it.file_name().to_string_lossy().starts_with("qemu-"))
    {
        return;
    }
    let shown = bench.fails(&["--platform", foreign]);
    assert_has(&shown, &["cannot run on", "binfmt_misc", ">>> RUN"]);
}

#[test]
fn images_come_with_attestations() {
    let bench = bench(
        "FROM busybox\nARG A\nRUN --mount=type=secret,id=s true\nCOPY packages /var/lib/dpkg/status\n",
    );
    bench.write(
        "context/packages",
        "Package: hello\nStatus: install ok installed\nVersion: 2.10-3\nArchitecture: amd64\n\n",
    );
    bench.write("secret", "hidden");
    let layout = bench.path("layout");
    let said = bench.try_build(&[
        "-t",
        "x:1",
        "--build-arg",
        "A=value",
        "--secret",
        &format!("id=s,src={}", bench.path("secret")),
        "--provenance",
        "mode=max",
        "--sbom",
        "true",
        "-o",
        &format!("type=oci,tar=false,dest={layout}"),
    ]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let index = json(&bench.engine.path("layout/index.json"));
    let index = document(&bench, "layout", &index["manifests"][0]);
    let [image, attested] = index["manifests"].as_array().unwrap().as_slice() else {
        panic!("{index}");
    };
    assert_eq!(
        attested["annotations"]["vnd.docker.reference.type"],
        "attestation-manifest"
    );
    assert_eq!(
        attested["annotations"]["vnd.docker.reference.digest"],
        image["digest"]
    );
    let manifest = document(&bench, "layout", attested);
    let [sbom, provenance] = manifest["layers"].as_array().unwrap().as_slice() else {
        panic!("{manifest}");
    };
    let sbom = document(&bench, "layout", sbom);
    assert_eq!(sbom["predicateType"], "https://spdx.dev/Document");
    assert_eq!(sbom["predicate"]["packages"][0]["name"], "hello");
    assert!(
        image["digest"]
            .as_str()
            .unwrap()
            .ends_with(sbom["subject"][0]["digest"]["sha256"].as_str().unwrap())
    );
    let provenance = document(&bench, "layout", provenance);
    assert_eq!(
        provenance["predicateType"],
        "https://slsa.dev/provenance/v1"
    );
    let definition = &provenance["predicate"]["buildDefinition"];
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:A"], "value");
    assert_eq!(request["secrets"][0]["id"], "s");
    assert!(!provenance.to_string().contains("hidden"));
    assert_has(
        definition["resolvedDependencies"][0]["uri"]
            .as_str()
            .unwrap(),
        &["pkg:docker/busybox"],
    );
    bench.assert_clean();
}

#[test]
fn attestations_are_in_nobodys_way() {
    let bench = bench("FROM busybox\nCOPY a /a\n");
    // An archive with some is loaded as one of the image.
    let tar = bench.path("x.tar");
    let output = format!("type=oci,dest={tar}");
    let said = bench.try_build(&["-t", "x:1", "--provenance", "true", "-o", &output]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    bench.engine.ok(&["load", "-i", &tar]);
    // What is attested by default is for what is pushed alone.
    let said = bench.try_build(&["-t", "x:2", "--provenance", "mode=min,inline-only=true"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    bench.assert_clean();
}

#[test]
fn files_come_with_attestations_where_they_are_asked_for() {
    let bench = bench("FROM scratch\nCOPY a /dir/a\n");
    let attest = ["--provenance", "mode=max", "--sbom", "true"];
    let output = |name: &str| format!("type=local,dest={}", bench.path(name));
    hull(&bench, &[&attest[..], &["-o", &output("hull")]].concat());
    let prefixed = format!("{},attestation-prefix=x.", output("buildx"));
    let said = bench.try_build(&[&attest[..], &["-o", &prefixed]].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    for place in ["hull/", "buildx/x."] {
        for (name, kind) in [("provenance", "slsa.dev"), ("sbom.spdx", "spdx.dev")] {
            let statement = json(&bench.engine.path(&format!("{place}{name}.json")));
            assert_has(statement["predicateType"].as_str().unwrap(), &[kind]);
            let [subject] = statement["subject"].as_array().unwrap().as_slice() else {
                panic!("{statement}");
            };
            assert_eq!(subject["name"], "dir/a");
        }
    }
    // What is for images that are pushed is beside no files.
    let inline = "mode=min,inline-only=true";
    hull(&bench, &["--provenance", inline, "-o", &output("plain")]);
    let files = std::fs::read_dir(bench.engine.path("plain")).unwrap();
    assert_eq!(files.count(), 1);
    bench.assert_clean();
}

/// Lists what is in each file system that it is to scan, which it cannot write to.
const GENERATOR: &str = r#"FROM busybox
COPY --chmod=755 <<'END' /generate
#!/bin/sh
set -e
scan() {
    printf '{"predicateType": "https://spdx.dev/Document", "predicate": {"found": "%s", "told": "%s"}}' \
        "$(ls $1 | tr '\n' ' ')" "$BUILDKIT_SCAN_told" > $BUILDKIT_SCAN_DESTINATION/$(basename $1).spdx.json
}
scan $BUILDKIT_SCAN_SOURCE
for extra in $BUILDKIT_SCAN_SOURCE_EXTRAS*; do [ ! -d "$extra" ] || scan $extra; done
! touch $BUILDKIT_SCAN_SOURCE/a 2>/dev/null
touch /tmp/a
if [ "$BUILDKIT_SCAN_told" = no ]; then echo "it is told no"; exit 3; fi
END
ENTRYPOINT ["/generate"]
"#;

#[test]
fn a_generator_says_what_is_in_an_image() {
    let bench = bench(GENERATOR);
    hull(&bench, &["-t", "generator"]);
    bench.write(
        "context/Dockerfile",
        "FROM busybox AS one\nARG BUILDKIT_SBOM_SCAN_STAGE=true\n\
         RUN echo \"[$(env | grep -c SCAN)]\" > /one\nFROM busybox AS two\nRUN echo > /two\n\
         FROM scratch\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n\
         COPY --from=one /one /\nCOPY --from=two /two /\nCOPY a /\n",
    );
    let attested = |layout: &str| {
        let index = json(&bench.engine.path(&format!("{layout}/index.json")));
        let index = document(&bench, layout, &index["manifests"][0]);
        let manifest = document(&bench, layout, &index["manifests"][1]);
        let layers = manifest["layers"].as_array().unwrap().clone();
        let told = |layer: &Value| {
            let statement = document(&bench, layout, layer);
            assert_eq!(statement["predicateType"], "https://spdx.dev/Document");
            assert_eq!(
                statement["subject"][0]["digest"]["sha256"],
                index["manifests"][0]["digest"].as_str().unwrap()["sha256:".len()..]
            );
            assert_eq!(statement["predicate"]["told"], "much");
            statement["predicate"]["found"].as_str().unwrap().to_owned()
        };
        layers.iter().map(told).collect::<Vec<String>>()
    };
    let output = |name: &str| format!("type=oci,tar=false,dest={}", bench.path(name));
    let sbom = ["--sbom", "generator=generator,told=much"];
    hull(&bench, &[&sbom[..], &["-o", &output("by-hull")]].concat());
    let said = bench.try_build(&[&sbom[..], &["-o", &output("by-buildx")]].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_has(&said.stderr, &["generating sbom using generator"]);
    for layout in ["by-hull", "by-buildx"] {
        let [core, context, stage] = &attested(layout)[..] else {
            panic!("{:?}", attested(layout));
        };
        assert_eq!(core, "a one two ");
        assert_has(context, &["Dockerfile", "b"]);
        assert_has(stage, &["bin", "one"]);
    }
    // It can be turned off for a build, and what commands see is the same.
    let off = ["--build-arg", "BUILDKIT_SBOM_SCAN_STAGE=false", "-t", "t"];
    let shown = hull(&bench, &[&sbom[..], &off, &["-o", &output("off")]].concat());
    assert_eq!(attested("off").len(), 2);
    assert_has(&shown, &["cached"]);
    // What it says when it fails, and what is no image at all.
    let output = output("none");
    let shown = bench.fails(&["--sbom", "generator=generator,told=no", "-o", &output]);
    assert_has(&shown, &["has failed with 3", "it is told no"]);
    bench.fails(&["--sbom", "generator=127.0.0.1:1/none", "-o", &output]);
    bench.assert_clean();
}

/// Builds by hull's own client; what was shown.
fn hull(bench: &Bench, arguments: &[&str]) -> String {
    let context = bench.context.display().to_string();
    let said = bench
        .engine
        .run(&[&["build"], arguments, &[&context]].concat());
    assert_eq!(
        said.code,
        0,
        "{}\nengine: {}",
        said.stderr,
        bench.engine.log()
    );
    said.stderr
}

#[test]
fn hulls_own_client_takes_caches_and_outputs() {
    let registry = Registry::open();
    let reference = registry.name("cache");
    let one = bench(STAGES);
    let directory = one.path("cache");
    let to_directory =
        |tag: &str| format!("type=local,dest={directory},mode=max,mounts=true,tag={tag}");
    let to_registry = format!("type=registry,ref={reference},mode=max");
    let first = [
        "-t",
        "t",
        "--cache-to",
        &to_directory("a"),
        "--cache-to",
        &to_registry,
    ];
    hull(&one, &first);
    hull(&one, &["-t", "t", "--cache-to", &to_directory("b")]);
    let index = json(&one.engine.path("cache/index.json"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    let sources = [format!("type=local,src={directory},tag=a"), reference];
    for source in &sources {
        let two = bench(STAGES);
        let shown = hull(
            &two,
            &[
                "-t",
                "t",
                "--cache-from",
                "type=local,src=/none",
                "--cache-from",
                source,
            ],
        );
        assert_has(
            &shown,
            &[
                "/none is of no use",
                "importing cache manifest",
                ", 5 cached",
            ],
        );
        assert_eq!(two.shell("cat /end"), "BA");
        two.assert_clean();
    }
    // A client of BuildKit's protocol reads the same directory.
    forget(&one);
    let shown = one.build(&["--cache-from", &format!("type=local,src={directory},tag=b")]);
    assert_eq!(cached(&shown), 5, "{shown}");
    one.assert_clean();
}

#[test]
fn hulls_own_client_takes_layouts_and_pushes() {
    let registry = Registry::open();
    let name = registry.name("x:1");
    let bench = bench(CROSS);
    let (layout, tar, metadata) = (
        bench.path("layout"),
        bench.path("x.tar"),
        bench.path("metadata"),
    );
    hull(
        &bench,
        &[
            "--platform",
            "linux/amd64,linux/arm64",
            "-t",
            &name,
            "--push",
            "--provenance",
            "true",
            "--annotation",
            "index:who=me",
            "--metadata-file",
            &metadata,
            "-o",
            &format!("type=oci,dest={tar}"),
            "-o",
            &format!("type=oci,tar=false,dest={layout}"),
        ],
    );
    let index = json(&bench.engine.path("layout/index.json"));
    let index = document(&bench, "layout", &index["manifests"][0]);
    // Two images, and what is attested of each.
    assert_eq!(index["manifests"].as_array().unwrap().len(), 4, "{index}");
    assert_eq!(index["annotations"]["who"], "me");
    assert!(std::fs::metadata(&tar).unwrap().len() > 1000);
    let told = json(Path::new(&metadata));
    let digest = told["containerimage.digest"].as_str().unwrap();
    let shown = bench.engine.ok(&["manifest", "inspect", &name]);
    assert_has(&shown, &["arm64", "unknown"]);
    // This engine has it, too, by what the registry knows it by.
    assert_eq!(bench.engine.ok(&["images", "-q"]).lines().count(), 2);
    let format = [
        "inspect",
        "--type",
        "image",
        "--format",
        "{{json .RepoDigests}}",
        &name,
    ];
    assert_has(&bench.engine.ok(&format), &[digest]);
    // Standard output gets what is asked for.
    let context = bench.context.display().to_string();
    let out = [
        "build",
        "-q",
        "-t",
        "y",
        "-o",
        "type=docker,dest=-",
        &context,
    ];
    let archive = bench.engine.hull(&out).output().unwrap();
    assert!(archive.status.success() && archive.stdout.len() > 1000);
    bench.assert_clean();
}

/// What the manifest of an image says to whoever gets the image from here.
fn annotations(bench: &Bench, name: &str) -> Value {
    let (tar, layout) = (bench.path("saved.tar"), bench.engine.path("saved"));
    bench.engine.ok(&["save", "-o", &tar, name]);
    std::fs::create_dir_all(&layout).unwrap();
    let mut unpack = Command::new("tar");
    unpack.arg("-C").arg(&layout).args(["-xf", &tar]);
    assert!(unpack.status().unwrap().success());
    let index = json(&layout.join("index.json"));
    document(bench, "saved", &index["manifests"][0])["annotations"].clone()
}

#[test]
fn annotations_of_an_image_that_is_kept_go_with_it() {
    let bench = bench("FROM busybox\nCOPY a /a\n");
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1000"];
    // buildx says nothing of it where no output is asked for.
    bench.build(&[&epoch[..], &["--load", "--annotation", "who=you"]].concat());
    assert_eq!(annotations(&bench, "t")["who"], "you");
    // The image is the same, and what is said of it is another thing.
    let id = bench.engine.ok(&["images", "-q", "t"]);
    let ours = [&epoch[..], &["-t", "t", "--annotation", "manifest:who=me"]].concat();
    hull(&bench, &ours);
    assert_eq!(bench.engine.ok(&["images", "-q", "t"]), id);
    assert_eq!(annotations(&bench, "t")["who"], "me");
    // It comes back with it, and goes to registries.
    bench.engine.ok(&["rmi", "t"]);
    bench.engine.ok(&["load", "-i", &bench.path("saved.tar")]);
    assert_eq!(annotations(&bench, "t")["who"], "me");
    let registry = Registry::open();
    let name = registry.name("team/t");
    bench.engine.ok(&["tag", "t", &name]);
    bench.engine.ok(&["push", &name]);
    let manifest = bench.engine.ok(&["manifest", "inspect", &name]);
    assert_has(&manifest, &["\"who\": \"me\""]);
    hull(&bench, &[&epoch[..], &["-t", "u"]].concat());
    bench.engine.ok(&["rmi", "-f", &id]);
    hull(&bench, &[&epoch[..], &["-t", "u"]].concat());
    assert!(annotations(&bench, "u").is_null());
    let refused = bench.fails(&["-t", "t", "--load", "--annotation", "index:who=me"]);
    assert_has(&refused, &["an annotation of an index"]);
}
