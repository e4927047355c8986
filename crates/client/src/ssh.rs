//! An engine on another machine, reached by the program `ssh`, which knows keys, agents, jump hosts and `~/.ssh/config`.
//!
//! It runs `system dial-stdio` there, which passes bytes between its streams and the engine. What `ssh` has to say goes to the
//! user's own terminal; it asks nothing, as with Docker's client: a key that needs a passphrase belongs to an agent.

use crate::host::Ssh;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{ChildStdin, ChildStdout, Command};

/// How long `ssh` may take to connect.
const CONNECT_TIMEOUT_S: u32 = 30;

/// The bytes that `ssh` carries. It is ended when this is dropped.
pub struct Tunnel {
    /// None: shut down.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    ended: Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send + Sync>>,
    has_read: bool,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

impl Tunnel {
    pub(crate) fn open(ssh: &Ssh) -> io::Result<Self> {
        let mut child = Command::new("ssh")
            .args(arguments(ssh))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            // The terminal's signals are for the client, which needs the connection to pass them on. As the terminal is not
            // this program's then, it must not ask.
            .process_group(0)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    io::Error::new(io::ErrorKind::NotFound, "there is no program ssh")
                }
                _ => error,
            })?;
        let missing = || io::Error::other("ssh has no streams");
        Ok(Self {
            stdin: Some(child.stdin.take().ok_or_else(missing)?),
            stdout: child.stdout.take().ok_or_else(missing)?,
            ended: Box::pin(async move { child.wait().await }),
            has_read: false,
        })
    }
}

/// What `ssh` is called with. Its words for the other side are read by a shell there, of whatever kind: they are one command,
/// which takes hull where it is, and docker otherwise.
fn arguments(ssh: &Ssh) -> Vec<String> {
    let mut arguments = vec![
        "-T".to_owned(),
        "-o".to_owned(),
        "BatchMode=yes".to_owned(),
        "-o".to_owned(),
        format!("ConnectTimeout={CONNECT_TIMEOUT_S}"),
    ];
    if let Some(user) = &ssh.user {
        arguments.extend(["-l".to_owned(), user.clone()]);
    }
    if let Some(port) = ssh.port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    arguments.extend(["--".to_owned(), ssh.name.clone()]);
    let host = match &ssh.socket {
        None => String::new(),
        Some(socket) => format!(" --host {}", quote(&format!("unix://{socket}"))),
    };
    let there = format!(
        "if command -v hull >/dev/null; then exec hull{host} system dial-stdio; else exec docker{host} system dial-stdio; fi"
    );
    arguments.extend(["sh".to_owned(), "-c".to_owned(), quote(&there)]);
    arguments
}

/// One word for a shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(context, buffer))?;
        if buffer.filled().len() > before || self.has_read {
            self.has_read = true;
            return Poll::Ready(Ok(()));
        }
        self.failure(context).map(Err)
    }
}

impl Tunnel {
    /// Why nothing ever came, which the program's end says.
    fn failure(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        self.ended.as_mut().poll(context).map(|ended| match ended {
            Err(error) => error,
            Ok(status) => io::Error::other(format!(
                "ssh has ended with {status}: check that it reaches the host, and that hull or docker is installed there"
            )),
        })
    }

    /// What became of a write: of one that nobody has read, the reason.
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        written: io::Result<T>,
    ) -> Poll<io::Result<T>> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && !self.has_read => {
                self.failure(context).map(Err)
            }
            written => Poll::Ready(written),
        }
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => {
                let written = ready!(Pin::new(stdin).poll_write(context, bytes));
                self.written(context, written)
            }
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => {
                let written = ready!(Pin::new(stdin).poll_flush(context));
                self.written(context, written)
            }
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(stdin) = &mut self.stdin {
            ready!(Pin::new(stdin).poll_shutdown(context))?;
        }
        // A pipe ends when it is closed.
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Host;

    #[test]
    fn ssh_gets_the_host_as_no_option_and_the_other_side_one_command() {
        let Host::Ssh(ssh) = Host::parse("ssh://ann@engine:2222/run/it's.sock").unwrap() else {
            panic!("that is ssh");
        };
        let arguments = arguments(&ssh);
        assert_eq!(
            arguments[..5],
            ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30"]
        );
        assert_eq!(arguments[5..9], ["-l", "ann", "-p", "2222"]);
        assert_eq!(arguments[9..13], ["--", "engine", "sh", "-c"]);
        // What a shell makes of it is what another shell is to run.
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("printf %s {}", arguments[13]))
            .output();
        let there = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(
            there.contains("exec docker --host 'unix:///run/it'\\''s.sock' system dial-stdio"),
            "{there}"
        );
    }
}
