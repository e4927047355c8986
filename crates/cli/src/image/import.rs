//! `hull import`.

use crate::app::{Arity, Command};
use crate::error::{IoContext, Result};
use crate::flags::{Flag, Matches};
use crate::image::load::{Blocking, show};
use crate::session::Session;
use client::Request;
use std::fs::File;

const FLAGS: &[Flag] = &[
    Flag::list("change", "Apply a Dockerfile instruction to the image").short('c'),
    Flag::text("message", "Message of the image's history").short('m'),
    Flag::text("platform", "Platform of the image (os[/arch[/variant]])"),
];

pub(crate) const IMPORT: Command = Command {
    usage: "[OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]",
    about: "Make an image of a tar archive of a root filesystem",
    aliases: &["image import", "import"],
    flags: &[FLAGS],
    arity: Arity::Between(1, 2),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let source = matches.args[0].as_str();
    let url = source.starts_with("http://") || source.starts_with("https://");
    let reference = matches
        .args
        .get(1)
        .filter(|reference| !reference.is_empty());
    let some = |flag| matches.get(flag).filter(|text| !text.is_empty());
    let mut request = Request::post(&["images", "create"])
        .query("fromSrc", if url { source } else { "-" })
        .query_some("repo", reference)
        .query_some("message", some("message"))
        .query_some("platform", some("platform").map(str::to_lowercase));
    for change in matches.list("change") {
        request = request.query("changes", change);
    }
    const TYPE: &str = "text/plain";
    let response = match source {
        "-" => {
            session
                .client()
                .await?
                .upload(&request, TYPE, Blocking(std::io::stdin()))
                .await?
        }
        // The engine fetches it.
        _ if url => session.client().await?.send(&request).await?,
        path => {
            let file = File::open(path).during(|| format!("open {path}"))?;
            session
                .client()
                .await?
                .upload(&request, TYPE, Blocking(file))
                .await?
        }
    };
    show(response, false).await
}
