//! Users, and rules per repository.

use crate::wire::{Options, Registry};
use base64::Engine as _;
use oci::Digest;

/// Two users, "ann" and "bob", both with the password "secret".
fn users() -> tempfile::NamedTempFile {
    let hash = bcrypt::hash_with_salt("secret", 4, [1; 16]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("ann:{hash}\nbob:{hash}\n")).unwrap();
    file
}

fn basic(user: &str, password: &str) -> String {
    let pair = format!("{user}:{password}");
    format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(pair))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_is_asked_for_a_password() {
    let users = users();
    let registry = Registry::with(Options {
        htpasswd: Some(users.path()),
        ..Options::default()
    })
    .await;
    for path in ["/v2/", "/v2/_catalog", "/v2/a/tags/list"] {
        for header in [
            "",
            &basic("ann", "wrong"),
            &basic("eve", "secret"),
            "Bearer x",
            "Basic !",
        ] {
            let headers = [("Authorization", header)];
            let headers = if header.is_empty() {
                &headers[..0]
            } else {
                &headers[..]
            };
            let answer = registry.send("GET", path, headers, b"").await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (401, "UNAUTHORIZED"),
                "{header}"
            );
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Basic realm="), "{challenge}");
        }
        let known = [("Authorization", &*basic("ann", "secret"))];
        let answer = registry.send("GET", path, &known, b"").await;
        assert_ne!(answer.status, 401, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_decide_for_each_repository() {
    let users = users();
    let registry = Registry::with(Options {
        htpasswd: Some(users.path()),
        rules: &[
            "public/**=pull",
            "*@team/*=pull,push",
            "ann@**=pull,push,delete",
        ],
        ..Options::default()
    })
    .await;
    let (ann, bob) = (basic("ann", "secret"), basic("bob", "secret"));
    let blob = Digest::sha256(b"x");
    let push = async |who: Option<&str>, name: &str| {
        let headers: Vec<(&str, &str)> = who.iter().map(|who| ("Authorization", *who)).collect();
        let path = format!("/v2/{name}/blobs/uploads/?digest={blob}");
        registry.send("POST", &path, &headers, b"x").await.status
    };
    assert_eq!(push(None, "public/a").await, 401);
    assert_eq!(push(Some(&bob), "public/a").await, 403);
    assert_eq!(push(Some(&ann), "public/a").await, 201);
    assert_eq!(push(Some(&ann), "private").await, 201);
    assert_eq!(push(Some(&bob), "team/a").await, 201);
    let get = async |who: Option<&str>, method: &str, path: &str| {
        let headers: Vec<(&str, &str)> = who.iter().map(|who| ("Authorization", *who)).collect();
        registry.send(method, path, &headers, b"").await
    };
    for (who, path, status) in [
        (None, "public/a", 200),
        (None, "team/a", 401),
        (Some(&*bob), "team/a", 200),
        (Some(&*bob), "private", 403),
        (Some(&*ann), "private", 200),
    ] {
        let path = format!("/v2/{path}/blobs/{blob}");
        assert_eq!(get(who, "GET", &path).await.status, status, "{path}");
    }
    let path = format!("/v2/team/a/blobs/{blob}");
    assert_eq!(get(Some(&bob), "DELETE", &path).await.status, 403);
    let catalog = get(Some(&bob), "GET", "/v2/_catalog").await.json();
    assert_eq!(
        catalog["repositories"],
        serde_json::json!(["public/a", "team/a"])
    );
    // What may not be read cannot be had by mounting it, and whether it is there is not told.
    let headers = [("Authorization", &*bob)];
    for query in [
        format!("mount={blob}&from=private"),
        format!("mount={blob}"),
    ] {
        let path = format!("/v2/team/b/blobs/uploads/?{query}");
        assert_eq!(
            registry.send("POST", &path, &headers, b"").await.status,
            202
        );
    }
    // Nor can an upload be gone on with from a repository that may be written to.
    let headers = [("Authorization", &*ann)];
    let begun = registry
        .send("POST", "/v2/private/blobs/uploads/", &headers, b"")
        .await;
    let foreign = begun
        .header("location")
        .unwrap()
        .replace("private", "team/a");
    let headers = [("Authorization", &*bob)];
    assert_eq!(
        registry
            .send("PATCH", &foreign, &headers, b"x")
            .await
            .status,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_everybodys_is_pulled_with_a_token_for_nobody() {
    let users = users();
    let registry = Registry::with(Options {
        htpasswd: Some(users.path()),
        rules: &["public/*=pull", "*@**=pull,push"],
        ..Options::default()
    })
    .await;
    let ann = basic("ann", "secret");
    let blob = Digest::sha256(b"x");
    for name in ["public/a", "private"] {
        let path = format!("/v2/{name}/blobs/uploads/?digest={blob}");
        let headers = [("Authorization", &*ann)];
        assert_eq!(
            registry.send("POST", &path, &headers, b"x").await.status,
            201
        );
    }
    // As Docker's client does it: who has no password is not stopped by that.
    let answer = registry.get("/v2/").await;
    let expected = "Bearer realm=\"http://x/v2/token\",service=\"registry\"";
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, Some(expected))
    );
    let token = async |headers: &[(&str, &str)]| {
        let answer = registry
            .send("GET", "/v2/token?service=registry", headers, b"")
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        format!("Bearer {}", answer.json()["token"].as_str().unwrap())
    };
    let empty = basic("", "");
    let wrong = [("Authorization", &*basic("ann", "wrong"))];
    assert_eq!(
        registry.send("GET", "/v2/token", &wrong, b"").await.status,
        401
    );
    for (headers, private) in [
        (&[][..], 401),
        (&[("Authorization", &*empty)][..], 401),
        (&[("Authorization", &*ann)][..], 200),
    ] {
        let token = token(headers).await;
        let headers = [("Authorization", &*token)];
        for (path, status) in [
            ("/v2/".to_owned(), 200),
            (format!("/v2/public/a/blobs/{blob}"), 200),
            (format!("/v2/private/blobs/{blob}"), private),
        ] {
            assert_eq!(
                registry.send("GET", &path, &headers, b"").await.status,
                status,
                "{path}"
            );
        }
    }
    let unknown = [(
        "Authorization",
        "Bearer 00000000-0000-4000-8000-000000000000",
    )];
    assert_eq!(
        registry.send("GET", "/v2/", &unknown, b"").await.status,
        401
    );
}
