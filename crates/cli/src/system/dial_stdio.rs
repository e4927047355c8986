//! `hull system dial-stdio`: passes bytes between its streams and the engine, for who comes by ssh.

use crate::app::{Arity, Command};
use crate::error::{IoContext, Result};
use crate::flags::Matches;
use crate::output;
use crate::session::Session;
use crate::stdio::stdin::Stdin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes copied at once.
const BUFFER_BYTES: usize = 32 << 10;

pub(crate) const DIAL_STDIO: Command = Command {
    usage: "",
    about: "Pass bytes between standard input and output and the engine; ssh:// needs it",
    aliases: &[],
    flags: &[],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, _: &Matches) -> Result<()> {
    let socket = session.client().await?.dial().await?;
    let (mut from_engine, mut to_engine) = tokio::io::split(socket);
    let input = async {
        let mut stdin = Stdin::open()?;
        while let Some(piece) = stdin.next().await {
            if to_engine.write_all(&piece).await.is_err() || to_engine.flush().await.is_err() {
                break;
            }
        }
        // The engine may have more to say, until it has said everything.
        let _ = to_engine.shutdown().await;
        Ok(())
    };
    let output = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match from_engine
                .read(&mut buffer)
                .await
                .during(|| "read from the engine")?
            {
                0 => return Ok(()),
                count => output::write(&buffer[..count])?,
            }
        }
    };
    tokio::pin!(input, output);
    tokio::select! {
        // The end of the engine's words is the end.
        ended = &mut output => ended,
        read = &mut input => match read {
            Ok(()) => output.await,
            failed => failed,
        },
    }
}
