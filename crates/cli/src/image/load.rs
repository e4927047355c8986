//! `hull load`: an archive, or a directory that holds an OCI layout.

use crate::app::{Arity, Command};
use crate::container::cp::tree::TarStream;
use crate::error::{Error, IoContext, Result};
use crate::flags::{Flag, Matches};
use crate::parse::platform;
use crate::progress::{self, To};
use crate::session::Session;
use crate::stdio;
use client::{Request, Response};
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

const FLAGS: &[Flag] = &[
    Flag::text(
        "input",
        "Read this file, or this directory with an OCI layout, instead of standard input",
    )
    .short('i'),
    Flag::text(
        "platform",
        "Load the image for this platform (os[/arch[/variant]])",
    ),
    Flag::bool("quiet", "Do not show the progress").short('q'),
];

pub(crate) const LOAD: Command = Command {
    usage: "[OPTIONS]",
    about: "Load images from a tar archive or an OCI layout",
    aliases: &["image load", "load"],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let platform = platform::document(matches.text("platform"))?;
    let quiet = matches.on("quiet") || !stdio::is_terminal();
    let request = Request::post(&["images", "load"])
        .query("quiet", if quiet { "1" } else { "0" })
        .query_some("platform", platform);
    let input = matches.text("input");
    if input.is_empty() && std::io::stdin().is_terminal() {
        return Err(Error::msg("requested load from stdin, but stdin is empty"));
    }
    let source = if input.is_empty() {
        None
    } else {
        Some(File::open(input).during(|| format!("open {input}"))?)
    };
    let client = session.client().await?;
    let response = match source {
        None => {
            client
                .upload(&request, "application/x-tar", Blocking(std::io::stdin()))
                .await?
        }
        Some(file) if file.metadata().during(|| format!("stat {input}"))?.is_dir() => {
            let tar = TarStream::of_directory(Path::new(input))?;
            let failure = tar.failure();
            let result = client.upload(&request, "application/x-tar", tar).await;
            failure.or(result)?
        }
        Some(file) => {
            client
                .upload(&request, "application/x-tar", Blocking(file))
                .await?
        }
    };
    show(response, matches.on("quiet")).await
}

/// Shows what the engine says of its progress.
pub(crate) async fn show(response: Response, quiet: bool) -> Result<()> {
    match response.header("Content-Type") {
        Some(kind) if kind.starts_with("application/json") => {
            let to = if quiet { To::Nowhere } else { To::Stdout };
            progress::show(response.lines(), to).await
        }
        _ => stdio::copy_raw(response.reader()).await,
    }
}

/// A reader that blocks, as an asynchronous one: nothing else is to be done while an archive is read.
pub(crate) struct Blocking<R>(pub(crate) R);

impl<R: Read + Unpin> AsyncRead for Blocking<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = self.0.read(buffer.initialize_unfilled());
        Poll::Ready(count.map(|count| buffer.advance(count)))
    }
}
