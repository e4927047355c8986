//! What commands about registries say when they fail, by hull's engine as by dockerd: the texts are those of Debian's dockerd
//! 20.10 with Docker's client 28.2 in the same situations.

use crate::support::registry::Registry;
use crate::support::{Engine, Said};
use crate::{HULL, as_user};

/// A situation: the command line, in which OPEN and LOCKED are registries, and the last line that is said.
const TABLE: &[(&str, &str)] = &[
    (
        "pull OPEN/none",
        "Error response from daemon: manifest for OPEN/none:latest not found: manifest unknown: manifest unknown",
    ),
    (
        "pull OPEN/none:x",
        "Error response from daemon: manifest for OPEN/none:x not found: manifest unknown: manifest unknown",
    ),
    (
        "pull -a OPEN/none",
        "Error response from daemon: repository OPEN/none not found: name unknown: repository name not known to registry",
    ),
    (
        "pull BAD",
        "invalid reference format: repository name (library/BAD) must be lowercase",
    ),
    (
        "push OPEN/none",
        "An image does not exist locally with the tag: OPEN/none",
    ),
    (
        "push OPEN/none:x",
        "An image does not exist locally with the tag: OPEN/none",
    ),
    (
        "push -a OPEN/none",
        "An image does not exist locally with the tag: OPEN/none",
    ),
    ("push LOCKED/mine:1", "no basic auth credentials"),
    (
        "push OPEN/a@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "cannot push a digest reference",
    ),
    (
        "rmi none",
        "Error response from daemon: No such image: none:latest",
    ),
    (
        "tag none x",
        "Error response from daemon: No such image: none:latest",
    ),
    (
        "history none",
        "Error response from daemon: No such image: none:latest",
    ),
    (
        "manifest inspect --insecure OPEN/none",
        "no such manifest: OPEN/none:latest",
    ),
    (
        "search -f bad=x OPEN/x",
        "Error response from daemon: invalid filter 'bad'",
    ),
    (
        "search --limit 101 OPEN/x",
        "Error response from daemon: limit 101 is outside the range of [1, 100]",
    ),
];

fn last(said: &Said) -> &str {
    let text = if said.stderr.is_empty() {
        &said.stdout
    } else {
        &said.stderr
    };
    text.trim_end().lines().last().unwrap_or_default()
}

#[test]
fn failures_are_told_in_dockers_words() {
    let (engine, open, locked) = (Engine::new(), Registry::open(), Registry::locked());
    let named = |text: &str| {
        text.replace("OPEN", &open.address)
            .replace("LOCKED", &locked.address)
    };
    engine.ok(&["tag", "busybox", &locked.name("mine:1")]);
    for (line, expected) in TABLE {
        let line = named(line);
        let words: Vec<&str> = line.split(' ').collect();
        for program in [HULL, "docker"] {
            let said = as_user(&engine, program, &words);
            assert_eq!(
                (said.code, last(&said)),
                (1, named(expected).as_str()),
                "{program} {line}: {said:?}"
            );
        }
    }
}

#[test]
fn wrong_credentials_are_told_in_the_registrys_words() {
    let (engine, locked) = (Engine::new(), Registry::locked());
    let name = locked.name("mine:1");
    engine.ok(&["tag", "busybox", &name]);
    std::fs::create_dir_all(engine.path("config")).unwrap();
    // `me:wrong`.
    let kept = format!(
        r#"{{"auths":{{"{}":{{"auth":"bWU6d3Jvbmc="}}}}}}"#,
        locked.address
    );
    std::fs::write(engine.path("config/config.json"), kept).unwrap();
    for program in [HULL, "docker"] {
        let said = as_user(&engine, program, &["push", &name]);
        assert_eq!(
            (said.code, last(&said)),
            (1, "unauthorized: authentication required")
        );
        let said = as_user(&engine, program, &["pull", &name]);
        assert!(
            said.code == 1 && last(&said).ends_with("unauthorized: authentication required"),
            "{said:?}"
        );
    }
}
