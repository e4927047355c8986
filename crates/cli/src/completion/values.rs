//! What may stand as a flag's value or as an argument.

use super::{Answer, Candidate, NO_FILES, NO_SPACE, TIMEOUT};
use crate::error::{Error, Result};
use crate::pages::{Choice, Page};
use crate::parse::keyvalue;
use crate::session::Session;
use api_types::{ContainerSummary, ImageSummary, Network, VolumeListResponse};
use client::Request;

/// What a value is one of.
#[derive(Debug, Clone, Copy)]
enum Source {
    Words(&'static [&'static str]),
    Containers,
    /// Those in one of these states.
    ContainersThatAre(&'static [&'static str]),
    Images,
    Networks,
    Volumes,
    Files,
}

/// The flags whose values are known, for all commands that have them.
const FLAGS: &[(&str, Source)] = &[
    ("cgroupns", Source::Words(&["host", "private"])),
    ("cidfile", Source::Files),
    ("config", Source::Files),
    ("env-file", Source::Files),
    ("file", Source::Files),
    ("iidfile", Source::Files),
    ("input", Source::Files),
    (
        "ipc",
        Source::Words(&["host", "none", "private", "shareable"]),
    ),
    ("label-file", Source::Files),
    ("link", Source::Containers),
    (
        "log-driver",
        Source::Words(&["journald", "json-file", "local", "none", "syslog"]),
    ),
    (
        "log-level",
        Source::Words(&["debug", "error", "fatal", "info", "warn"]),
    ),
    ("metadata-file", Source::Files),
    ("network", Source::Networks),
    ("output", Source::Files),
    ("pid", Source::Words(&["host"])),
    ("platform", Source::Words(&["linux/amd64", "linux/arm64"])),
    ("pull", Source::Words(&["always", "missing", "never"])),
    (
        "restart",
        Source::Words(&["always", "no", "on-failure", "unless-stopped"]),
    ),
    ("signal", Source::Words(SIGNALS)),
    ("stop-signal", Source::Words(SIGNALS)),
    ("tlscacert", Source::Files),
    ("tlscert", Source::Files),
    ("tlskey", Source::Files),
    (
        "type",
        Source::Words(&["container", "image", "network", "volume"]),
    ),
    ("userns", Source::Words(&["host", "private"])),
    ("uts", Source::Words(&["host"])),
    ("volumes-from", Source::Containers),
];

/// Signals that people send: signal(7).
const SIGNALS: &[&str] = &[
    "SIGCONT", "SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGTERM", "SIGUSR1", "SIGUSR2",
];

/// The commands that are for containers in some states alone.
const STATES: &[(&str, &[&str])] = &[
    ("attach", &["running"]),
    ("exec", &["running"]),
    ("kill", &["running", "paused"]),
    ("pause", &["running"]),
    ("port", &["running"]),
    ("start", &["created", "exited"]),
    ("stats", &["running"]),
    ("stop", &["running", "paused", "restarting"]),
    ("top", &["running"]),
    ("unpause", &["paused"]),
    ("wait", &["running"]),
];

/// What may be the value of a flag, which `before` stands before in the same word.
pub(super) fn of_flag(flag: &Choice, before: &str, session: &Session) -> Answer {
    let long = match flag.long.as_str() {
        "net" => "network",
        long => long,
    };
    let source = FLAGS.iter().find(|(name, _)| *name == long);
    let mut answer = match source {
        Some((_, source)) => one_of(*source, session),
        None => nothing(),
    };
    for candidate in &mut answer.candidates {
        candidate.word.insert_str(0, before);
    }
    answer
}

/// What may be an argument, which the usage calls by `name`. What stands there already is not offered again.
pub(super) fn of_argument(
    page: &Page,
    name: &str,
    earlier: &[String],
    session: &Session,
) -> Answer {
    let command = page.path.rsplit(' ').next().unwrap_or_default();
    let states = { STATES.iter() }.find(|(name, _)| *name == command);
    let answer = match name {
        "CONTAINER" => match states {
            Some((_, states)) => one_of(Source::ContainersThatAre(states), session),
            None => one_of(Source::Containers, session),
        },
        "CONTAINER:SRC_PATH" => container_or_path(session),
        "IMAGE" | "NAME[:TAG]" | "SOURCE_IMAGE[:TAG]" => one_of(Source::Images, session),
        // A new one has a name that nothing has.
        "NETWORK" | "VOLUME" if command == "create" => nothing(),
        "NETWORK" => one_of(Source::Networks, session),
        "VOLUME" => one_of(Source::Volumes, session),
        "NAME|ID" => anything(session),
        "SHELL" => one_of(Source::Words(&["bash", "fish", "zsh"]), session),
        _ => one_of(Source::Files, session),
    };
    let is_new = |candidate: &Candidate| !earlier.contains(&candidate.word);
    Answer {
        candidates: answer.candidates.into_iter().filter(is_new).collect(),
        ..answer
    }
}

fn nothing() -> Answer {
    Answer {
        candidates: Vec::new(),
        directive: NO_FILES,
    }
}

fn one_of(source: Source, session: &Session) -> Answer {
    let names = match source {
        Source::Files => return Answer::default(),
        Source::Words(words) => Ok(words.iter().map(|word| Candidate::new(*word, "")).collect()),
        Source::Containers => ask(session, async |session| containers(session, &[]).await),
        Source::ContainersThatAre(states) => {
            ask(session, async |session| containers(session, states).await)
        }
        Source::Images => ask(session, images),
        Source::Networks => ask(session, networks),
        Source::Volumes => ask(session, volumes),
    };
    Answer {
        candidates: names.unwrap_or_default(),
        ..nothing()
    }
}

/// `inspect` takes whatever has a name.
fn anything(session: &Session) -> Answer {
    let sources = [
        Source::Containers,
        Source::Images,
        Source::Networks,
        Source::Volumes,
    ];
    let mut all: Vec<Candidate> = Vec::new();
    for candidate in { sources.into_iter() }.flat_map(|source| one_of(source, session).candidates) {
        if !all.iter().any(|other| other.word == candidate.word) {
            all.push(candidate);
        }
    }
    Answer {
        candidates: all,
        ..nothing()
    }
}

/// A path of this machine, or of a container.
fn container_or_path(session: &Session) -> Answer {
    let mut answer = one_of(Source::Containers, session);
    for candidate in &mut answer.candidates {
        candidate.word.push(':');
    }
    answer.directive = NO_SPACE;
    answer
}

/// Asks the engine, for as long as a person waits.
fn ask(
    session: &Session,
    question: impl AsyncFnOnce(&Session) -> Result<Vec<Candidate>>,
) -> Result<Vec<Candidate>> {
    crate::app::block_on(async {
        match tokio::time::timeout(TIMEOUT, question(session)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::msg("the engine does not answer")),
        }
    })
}

async fn containers(session: &Session, states: &[&str]) -> Result<Vec<Candidate>> {
    let filters: Vec<String> = { states.iter() }
        .map(|state| format!("status={state}"))
        .collect();
    let request = Request::get(&["containers", "json"])
        .query_flag("all", true)
        .query_some("filters", keyvalue::filters(&filters).to_query());
    let containers: Vec<ContainerSummary> = session.client().await?.json(&request).await?;
    let candidates = containers.iter().filter_map(|container| {
        let mut names = { container.names.iter() }.map(|name| name.trim_start_matches('/'));
        let own = names.find(|name| !name.contains('/'))?;
        let about = format!("{}, {}", container.image, container.status);
        Some(Candidate::new(own, about))
    });
    Ok(candidates.collect())
}

async fn images(session: &Session) -> Result<Vec<Candidate>> {
    let request = Request::get(&["images", "json"]);
    let images: Vec<ImageSummary> = session.client().await?.json(&request).await?;
    let tags = images.iter().flat_map(|image| &image.repo_tags);
    let named = tags.filter(|tag| !tag.contains("<none>"));
    Ok(named.map(|tag| Candidate::new(tag, "")).collect())
}

async fn networks(session: &Session) -> Result<Vec<Candidate>> {
    let request = Request::get(&["networks"]);
    let networks: Vec<Network> = session.client().await?.json(&request).await?;
    let candidates =
        { networks.iter() }.map(|network| Candidate::new(&network.name, &network.driver));
    Ok(candidates.collect())
}

async fn volumes(session: &Session) -> Result<Vec<Candidate>> {
    let request = Request::get(&["volumes"]);
    let answer: VolumeListResponse = session.client().await?.json(&request).await?;
    let volumes = answer.volumes.unwrap_or_default();
    Ok({ volumes.iter() }
        .map(|volume| Candidate::new(&volume.name, ""))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages;

    #[test]
    fn what_is_said_of_flags_and_commands_is_of_some_that_exist() {
        let pages = pages::all(Vec::new());
        for (name, _) in FLAGS {
            let known =
                { pages.iter() }.any(|page| page.options.iter().any(|flag| flag.long == *name));
            assert!(known, "--{name}");
        }
        for (name, _) in STATES {
            assert!(pages.iter().any(|page| page.path == *name), "{name}");
        }
    }
}
