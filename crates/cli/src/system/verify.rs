//! `hull system verify`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::go::units;
use crate::output;
use crate::session::Session;
use api_types::Verification;
use client::Request;

const FLAGS: &[Flag] = &[Flag::bool(
    "repair",
    "Remove damaged images that no container has: pull or load them again",
)];

pub(crate) const VERIFY: Command = Command {
    usage: "[OPTIONS]",
    about: "Check that all images are what they were",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

#[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let request = Request::post(&["system", "verify"]).query_flag("mend", matches.on("repair"));
    let found: Verification = session.client().await?.json(&request).await?;
    let mut left = 0;
    for finding in &found.findings {
        let mut line = format!("{}: {}", finding.object, finding.problem);
        if finding.mended.is_empty() {
            left += 1;
        } else {
            line.push_str(&format!(" ({})", finding.mended));
        }
        output::line(&line)?;
    }
    let read = units::human_size(found.bytes as f64);
    output::line(&format!(
        "Checked {} objects, read {read} of layers",
        found.checked
    ))?;
    match left {
        0 => Ok(()),
        _ if matches.on("repair") => Err(Error::msg(format!("{left} problems are left"))),
        _ => Err(Error::msg(format!(
            "{left} problems; 'system verify --repair' removes images that cannot be used"
        ))),
    }
}
