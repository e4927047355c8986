//! The same bundles run by runc, crun and this runtime, and everything that the process inside and a caller outside can see
//! compared field by field. A difference is in the table of those argued for, or the test fails.
//!
//! With `--nocapture` the argued differences are shown too.
//!
//! Not in the test harness: the program is its own probe, executed in the containers.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod argued;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod peers;
mod probe;

use cases::{CASES, Case};
use peers::PEERS;
use probe::Report;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let word = std::env::args().nth(1);
    if word.as_deref() == Some("probe") {
        let line = serde_json::to_string(&probe::report()).expect("texts are JSON");
        say(&line);
        return ExitCode::SUCCESS;
    }
    if word.as_deref() != Some(ISOLATED) {
        return isolated();
    }
    // The harness's own filter, as far as one is used.
    let filter = std::env::args()
        .nth(2)
        .filter(|word| !word.starts_with('-'));
    let explain = std::env::args().any(|word| word == "--nocapture");
    let chosen = |case: &&Case| {
        filter
            .as_ref()
            .is_none_or(|filter| case.name.contains(filter.as_str()))
    };
    let mut unargued = 0;
    for case in CASES.iter().filter(chosen) {
        let found = compare(case);
        say(&format!(
            "{} ... {} ({} differences are argued for)",
            case.name,
            if found.unargued.is_empty() {
                "ok"
            } else {
                "FAILED"
            },
            found.argued.len()
        ));
        if explain {
            found.argued.iter().for_each(|line| say(line));
        }
        found.unargued.iter().for_each(|line| say(line));
        unargued += found.unargued.len();
    }
    if unargued > 0 {
        say(&format!("{unargued} differences that nothing argues for"));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The word that says that the mount namespace is this program's own.
const ISOLATED: &str = "isolated";

/// Runs the comparison where nothing that is mounted is shared: whether the host's root is, depends on who started the host, and
/// would be most of what is found.
fn isolated() -> ExitCode {
    let this = std::env::current_exe().expect("the kernel knows this program");
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(this)
        .arg(ISOLATED)
        .args(std::env::args().skip(1))
        .status();
    match status.expect("unshare is there").success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The differences of a case, as lines.
#[derive(Default)]
struct Found {
    argued: Vec<String>,
    unargued: Vec<String>,
}

fn compare(case: &Case) -> Found {
    let mut reports = PEERS.iter().map(|peer| (peer, peer.observe(case)));
    let (_, ours) = reports.next().expect("ours is the first");
    assert!(ours.len() > 100, "the probe saw next to nothing: {ours:?}");
    let mut found = Found::default();
    for (peer, theirs) in reports {
        for field in fields(&ours, &theirs) {
            let (our, their) = (ours.get(field), theirs.get(field));
            if our == their {
                continue;
            }
            let values = format!("  {field}\n    hull: {our:?}\n    {}: {their:?}", peer.name);
            match argued::find(peer.name, case.name, field) {
                Some(known) => found.argued.push(format!("{values}\n    {}", known.why)),
                None => found.unargued.push(values),
            }
        }
    }
    found
}

fn fields<'a>(one: &'a Report, other: &'a Report) -> BTreeSet<&'a String> {
    one.keys().chain(other.keys()).collect()
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("somebody reads this");
}
