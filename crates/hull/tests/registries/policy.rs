//! What a policy lets be pulled: signatures made here, as cosign lays them out, and everything that is not quite one.

use crate::content::{
    Contents, by_digest, config, descriptor, index, manifest, registry_with, tar_of,
};
use crate::hostile::stored;
use crate::server::Server;
use crate::support::Engine;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use oci::Digest;
use oci::image::media_type;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

/// What SubjectPublicKeyInfo puts before a key.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 3, 1, 7, 3, 0x42, 0,
];
const ED25519: &[u8] = &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

enum Key {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    fn p256() -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self::P256(EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap())
    }

    fn ed25519() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    fn sign(&self, message: &[u8]) -> String {
        BASE64_STANDARD.encode(match self {
            Self::P256(pair) => pair.sign(&SystemRandom::new(), message).unwrap(),
            Self::Ed25519(pair) => pair.sign(message),
        })
    }

    fn pem(&self) -> String {
        let der = match self {
            Self::P256(pair) => [P256, pair.public_key().as_ref()].concat(),
            Self::Ed25519(pair) => [ED25519, pair.public_key().as_ref()].concat(),
        };
        let text = BASE64_STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }
}

/// What a signature says.
fn payload(name: &str, digest: &Digest) -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{name}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
    )
}

/// Payloads, and the signature of each.
type Signed = Vec<(String, String)>;

/// Makes signatures for a name.
type Sign<'a> = Box<dyn FnOnce(&str) -> Signed + 'a>;

/// The manifest of signatures, and what it needs.
fn signatures(signed: &Signed) -> (Vec<u8>, Contents) {
    const KIND: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
    let layers = signed.iter().map(|(payload, signature)| {
        let plain = descriptor(KIND, payload.as_bytes());
        let annotations =
            format!(r#","annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}"#);
        plain.replacen('}', &annotations, 1)
    });
    let layers: Vec<String> = layers.collect();
    let document = manifest(
        &descriptor(media_type::OCI_CONFIG, b"{}"),
        &layers.join(","),
    );
    let mut contents: Vec<_> = { signed.iter() }
        .map(|(payload, _)| by_digest(payload))
        .collect();
    contents.push(by_digest("{}"));
    (document.into(), contents)
}

/// A small image: its manifest, and what is in a registry for it.
struct Image {
    digest: Digest,
    contents: Contents,
}

impl Image {
    fn new(content: &str) -> Self {
        let layer = tar_of(content);
        let config = config(&layer, "");
        let document = manifest(
            &descriptor(media_type::OCI_CONFIG, config.as_bytes()),
            &descriptor(media_type::OCI_LAYER, &layer),
        );
        Self {
            digest: Digest::sha256(document.as_bytes()),
            contents: vec![
                ("/manifests/1".to_owned(), document.clone().into()),
                by_digest(document),
                by_digest(config),
                by_digest(layer),
            ],
        }
    }

    /// The same in a list for this machine, which the tag then names.
    fn listed(self) -> Self {
        let (_, document) = &self.contents[0];
        let platform = r#","platform":{"architecture":"amd64","os":"linux"}}"#;
        let entry = descriptor(media_type::OCI_MANIFEST, document).replacen('}', platform, 1);
        let list = index(&entry);
        let mut contents = self.contents;
        contents[0].1 = list.clone().into();
        Self {
            digest: Digest::sha256(list.as_bytes()),
            contents,
        }
    }

    fn tag(&self) -> String {
        format!("/manifests/sha256-{}.sig", self.digest.hex())
    }

    /// A registry with the image, and with signatures, which are made for the image's name there.
    fn serve(&self, sign: impl FnOnce(&str) -> Signed) -> Server {
        registry_with(|address| {
            let mut contents = self.contents.clone();
            let signed = sign(&format!("{address}/team/image"));
            if !signed.is_empty() {
                let (document, more) = signatures(&signed);
                contents.push((self.tag(), document));
                contents.extend(more);
            }
            contents
        })
    }
}

/// An engine with a policy.
struct Guarded {
    engine: Engine,
}

impl Guarded {
    fn new() -> Self {
        let engine = Engine::empty();
        Self { engine }
    }

    fn policy(&self, text: &str, keys: &[&Key]) {
        for (number, key) in keys.iter().enumerate() {
            let path = self.engine.path(&format!("{number}.pub"));
            std::fs::write(path, key.pem()).unwrap();
        }
        std::fs::write(self.engine.path("policy.toml"), text).unwrap();
    }

    fn require(&self, server: &Server, keys: &[&Key]) {
        let files: Vec<String> = (0..keys.len()).map(|n| format!("\"{n}.pub\"")).collect();
        let text = format!(
            "default = \"reject\"\n[rule.\"{}/team\"]\npolicy = \"require\"\nkeys = [{}]\n",
            server.address,
            files.join(", ")
        );
        self.policy(&text, keys);
    }

    /// A pull that is refused in these words, by this rule, and leaves nothing.
    fn refused(&self, server: &Server, rule: &str, words: &str) {
        let said = self.engine.run(&["pull", &name(server)]);
        let policy = self.engine.path("policy.toml");
        let beginning = format!(
            "policy {policy:?}, rule {rule:?}: {} may not be pulled: ",
            name(server)
        );
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stderr.contains(&beginning), "{beginning}: {said:?}");
        assert!(said.stderr.contains(words), "{words}: {said:?}");
        assert_eq!(self.engine.ok(&["images", "-q"]), "");
        assert_eq!(stored(&self.engine), Vec::<std::path::PathBuf>::new());
    }

    fn pulled(&self, server: &Server) {
        self.engine.ok(&["pull", "-q", &name(server)]);
        self.engine.ok(&["rmi", &name(server)]);
    }
}

fn name(server: &Server) -> String {
    format!("{}/team/image:1", server.address)
}

#[test]
fn what_is_signed_by_a_key_of_the_rule_is_pulled() {
    let (guarded, key, other) = (Guarded::new(), Key::p256(), Key::ed25519());
    let sign = |key: &Key, image: &Image, name: &str| {
        let payload = payload(name, &image.digest);
        let signature = key.sign(payload.as_bytes());
        (payload, signature)
    };
    for image in [Image::new("x"), Image::new("x").listed()] {
        let server = image.serve(|name| vec![sign(&key, &image, name)]);
        guarded.require(&server, &[&key]);
        guarded.pulled(&server);
        // Only once is asked what the tag means.
        let asked = server.requests().into_iter();
        let by_tag = asked.filter(|request| request.path.ends_with("/manifests/1"));
        assert_eq!(by_tag.count(), 1);
        guarded.require(&server, &[&other]);
        guarded.refused(&server, &rule(&server), "signed, but by none of the keys");

        // One good one among others is enough, as is a tag that is the one asked for.
        let server = image.serve(|name| {
            let (said, _) = sign(&key, &image, name);
            let tagged = sign(&other, &image, &format!("{name}:1"));
            vec![(said, "bm9uZQ==".to_owned()), tagged]
        });
        guarded.require(&server, &[&key, &other]);
        guarded.pulled(&server);
    }
}

#[test]
fn what_is_not_quite_a_signature_is_none() {
    let (guarded, key) = (Guarded::new(), Key::p256());
    let (image, another) = (Image::new("x"), Image::new("y"));
    let signed = |payload: String| {
        let signature = key.sign(payload.as_bytes());
        vec![(payload, signature)]
    };

    let cases: [(Sign<'_>, &str); 7] = [
        (Box::new(|_| Vec::new()), "it has no signature"),
        (
            Box::new(|name| signed(payload(name, &another.digest))),
            "of another digest",
        ),
        (
            Box::new(|name| signed(payload(&format!("{name}s"), &image.digest))),
            "for another name",
        ),
        (
            Box::new(|name| signed(payload(&format!("{name}:2"), &image.digest))),
            "for another name",
        ),
        (
            Box::new(|name| {
                let (_, signature) = signed(payload(name, &another.digest)).remove(0);
                let said = payload(name, &image.digest);

                vec![(said, signature)]
            }),
            "signed, but by none of the keys",
        ),
        (
            Box::new(|name| vec![(payload(name, &image.digest), "?".to_owned())]),
            "is not base64",
        ),
        (
            Box::new(|name| {
                signed(payload(name, &image.digest).replace("container image", "blob"))
            }),
            "not of an image",
        ),
    ];
    for (sign, words) in cases {
        let server = image.serve(sign);
        guarded.require(&server, &[&key]);
        guarded.refused(&server, &rule(&server), words);
    }
}

#[test]
fn a_signature_that_refers_to_the_image_counts() {
    let (guarded, key, image) = (Guarded::new(), Key::p256(), Image::new("x"));
    let server = registry_with(|address| {
        let said = payload(&format!("{address}/team/image"), &image.digest);
        let signature = key.sign(said.as_bytes());
        let (document, more) = signatures(&vec![(said, signature)]);
        let entry = descriptor(media_type::OCI_MANIFEST, &document);
        let kind = r#","artifactType":"application/vnd.dev.cosign.artifact.sig.v1+json"}"#;
        let list = index(&entry.replacen('}', kind, 1));
        let mut contents = image.contents.clone();
        contents.push((format!("/referrers/{}", image.digest), list.into()));
        contents.push(by_digest(document));
        contents.extend(more);
        contents
    });
    guarded.require(&server, &[&key]);
    guarded.pulled(&server);
    guarded.require(&server, &[&Key::p256()]);
    guarded.refused(&server, &rule(&server), "signed, but by none of the keys");
}

#[test]
fn what_is_rejected_is_not_even_asked_for() {
    let (guarded, image) = (Guarded::new(), Image::new("x"));
    let server = image.serve(|_| Vec::new());
    guarded.policy("default = \"reject\"\n", &[]);
    guarded.refused(&server, "default", "it is rejected");
    let rejected = format!(
        "[rule.\"{0}\"]\npolicy = \"accept\"\n[rule.\"{0}/team\"]\npolicy = \"reject\"\n",
        server.address
    );
    guarded.policy(&rejected, &[]);
    guarded.refused(&server, &rule(&server), "it is rejected");
    assert_eq!(server.requests().len(), 0);
    let run = guarded.engine.run(&["run", "--rm", &name(&server), "true"]);
    assert!(
        run.code == 125 && run.stderr.contains("it is rejected"),
        "{run:?}"
    );

    // The rule that names more of it counts, in whichever order they are.
    guarded.policy(
        &format!(
            "{rejected}[rule.\"{}/team/image\"]\npolicy = \"accept\"\n",
            server.address
        ),
        &[],
    );
    guarded.engine.ok(&["pull", "-q", &name(&server)]);
    // What is here already is not pulled again when that is forbidden by now.
    guarded.policy(&rejected, &[]);
    let said = guarded.engine.run(&["pull", &name(&server)]);
    assert!(
        said.code == 1 && said.stderr.contains("it is rejected"),
        "{said:?}"
    );
    guarded.policy("default = \"accpet\"\n", &[]);
    let said = guarded.engine.run(&["pull", &name(&server)]);
    assert!(
        said.code == 1 && said.stderr.contains("policy.toml") && said.stderr.contains("accpet"),
        "{said:?}"
    );
}

/// The rule that [`Guarded::require`] makes.
fn rule(server: &Server) -> String {
    format!("{}/team", server.address)
}
