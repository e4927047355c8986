//! `--ssh`: the SSH agents that a build may ask, as docker buildx has them: `default`, `id`, `id=socket`, `id=key[,key]`.
//!
//! Keys in files get an agent of their own, OpenSSH's, which ends with this program, however that ends. Invariant: a build can
//! have keys listed and something signed, and no more: nothing else gets through to an agent of the user's.
//! Source: draft-ietf-sshm-ssh-agent, ssh-agent(1).

use crate::error::{Error, IoContext, Result};
use client::{Client, Hijacked, Request};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Where a user's agent is.
const VARIABLE: &str = "SSH_AUTH_SOCK";
/// Bytes of a message, as OpenSSH limits them.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// What an agent may be asked for: SSH_AGENTC_REQUEST_IDENTITIES, SSH_AGENTC_SIGN_REQUEST.
const ALLOWED: [u8; 2] = [11, 13];
/// SSH_AGENT_IDENTITIES_ANSWER.
const IDENTITIES: u8 = 12;
/// SSH_AGENT_FAILURE, as a whole message.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
/// What runs below an agent: it adds the keys, tells where the agent is, and stays until this program has gone. The agent ends
/// when it has.
const KEEPER: &str = r#"trap 'kill "$SSH_AGENT_PID"' EXIT
trap 'exit 1' HUP INT TERM
exec 3<&0
ssh-add -q -- "$@" </dev/null || exit 1
echo "$SSH_AUTH_SOCK"
read -r _ <&3"#;

/// The agents that a build may ask.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    sockets: BTreeMap<String, Socket>,
    own: Vec<Own>,
}

/// Where an agent is.
#[derive(Debug, Clone)]
struct Socket {
    path: PathBuf,
    /// It has been begun here, and calls keys by their files: the build is not told where those are.
    is_own: bool,
}

/// An agent for keys in files.
#[derive(Debug)]
struct Own(Child);

impl Drop for Own {
    fn drop(&mut self) {
        // It ends at the end of its input.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Agents {
    /// Reads the flags, and begins the agents that are needed.
    ///
    /// # Errors
    /// No agent, no key, or something else at a path.
    pub(crate) fn read(flags: &[String]) -> Result<Self> {
        let mut this = Self::default();
        for text in flags {
            let bad = |what: &str| Error::msg(format!("invalid --ssh {text:?}: {what}"));
            let (id, paths) = text.split_once('=').unwrap_or((text, ""));
            let paths: Vec<&str> = paths.split(',').filter(|path| !path.is_empty()).collect();
            if id.is_empty() {
                return Err(bad("it is id[=socket|key[,key]]"));
            }
            if this.sockets.contains_key(id) {
                return Err(bad("there is an agent of that name"));
            }
            let is_socket = |path: &str| -> Result<bool> {
                let found = std::fs::metadata(path).during(|| format!("stat {path}"))?;
                Ok(found.file_type().is_socket())
            };
            let mut is_own = false;
            let path = match paths.as_slice() {
                [] => std::env::var_os(VARIABLE)
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from)
                    .ok_or_else(|| bad(&format!("there is no agent: {VARIABLE} is not set")))?,
                [path] if is_socket(path)? => PathBuf::from(path),
                keys => {
                    for key in keys {
                        if is_socket(key)? {
                            return Err(bad("there is one socket, or there are keys"));
                        }
                    }
                    let (own, socket) = Own::begin(keys)?;
                    this.own.push(own);
                    is_own = true;
                    socket
                }
            };
            let socket = Socket { path, is_own };
            this.sockets.insert(id.to_owned(), socket);
        }
        Ok(this)
    }

    /// Their names.
    pub(crate) fn ids(&self) -> Vec<&str> {
        self.sockets.keys().map(String::as_str).collect()
    }

    /// Opens a connection that the engine waits for, and answers on it for an agent from now on.
    ///
    /// # Errors
    /// The engine cannot be reached. An agent that cannot be is an end of the connection, as without it.
    pub(crate) async fn answer(&self, client: &Client, id: &str, connection: &str) -> Result<()> {
        let request = Request::post(&["build", "agent"]).query("connection", connection);
        let opened = match client.hijack(&request).await {
            // Who has connected is gone.
            Err(error) if error.is_not_found() => return Ok(()),
            opened => opened?,
        };
        let Some(Socket { path, is_own }) = self.sockets.get(id).cloned() else {
            return Ok(());
        };
        tokio::spawn(async move {
            let Hijacked { reader, writer } = opened;
            if let Ok(agent) = UnixStream::connect(path).await {
                // It ends when either side does; there is nobody to tell why.
                let _ = converse(reader, writer, agent, is_own).await;
            }
        });
        Ok(())
    }
}

impl Own {
    fn begin(keys: &[&str]) -> Result<(Self, PathBuf)> {
        let child = Command::new("ssh-agent")
            .args(["sh", "-c", KEEPER, "ssh-agent"])
            .args(keys.iter().map(|key| absolute(key)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut own = Self(child.during(|| "run ssh-agent")?);
        let mut line = String::new();
        let output = own.0.stdout.take().expect("it is piped");
        let read = BufReader::new(output).read_line(&mut line);
        read.during(|| "read what ssh-agent says")?;
        match line.trim_end() {
            "" => Err(Error::msg(format!("cannot use {}", keys.join(", ")))),
            path => Ok((own, PathBuf::from(path))),
        }
    }
}

/// Not to be taken for an option, wherever it is.
fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| Path::new(".").join(path))
}

/// Passes on what an agent may be asked for, and its answers; refuses everything else. `unnamed`: keys are listed without comments.
async fn converse(
    mut asked: impl AsyncRead + Unpin,
    mut answers: impl AsyncWrite + Unpin,
    mut agent: impl AsyncRead + AsyncWrite + Unpin,
    unnamed: bool,
) -> std::io::Result<()> {
    while let Some(request) = message(&mut asked).await? {
        // The first byte behind the length.
        match request.get(4).is_some_and(|kind| ALLOWED.contains(kind)) {
            true => {
                agent.write_all(&request).await?;
                let Some(answer) = message(&mut agent).await? else {
                    return Ok(());
                };
                let unnamed = unnamed.then(|| without_comments(&answer)).flatten();
                answers.write_all(&unnamed.unwrap_or(answer)).await?;
            }
            false => answers.write_all(&FAILURE).await?,
        }
        answers.flush().await?;
    }
    answers.shutdown().await
}

/// A list of keys without what they are called; `None` where it is none.
fn without_comments(answer: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = answer.split_first_chunk::<4>()?;
    let (_, mut rest) = rest
        .split_first()
        .filter(|(kind, _)| **kind == IDENTITIES)?;
    let mut take = |count: usize| {
        let (taken, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(taken)
    };
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
    let count = take(4)?;
    let mut kept = [&length[..], &[IDENTITIES], count].concat();
    for _ in 0..number(count)? {
        let bytes = take(4)?;
        kept.extend(bytes);
        kept.extend(take(number(bytes)? as usize)?);
        let comment = number(take(4)?)?;
        take(comment as usize)?;
        kept.extend([0; 4]);
    }
    let bytes = u32::try_from(kept.len() - 4).ok()?;
    kept[..4].copy_from_slice(&bytes.to_be_bytes());
    Some(kept)
}

/// A message with its length before it; `None` at the end.
async fn message(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let bytes = u32::from_be_bytes(length) as usize;
    if bytes > MESSAGE_BYTES_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut message = length.to_vec();
    message.resize(4 + bytes, 0);
    from.read_exact(&mut message[4..]).await?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read() {
        let refused = |text: &str| Agents::read(&[text.to_owned()]).unwrap_err().to_string();
        assert!(refused("=x").contains("id[=socket|key"));
        assert!(refused("a=/none/such").contains("stat /none/such"));
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let flag = |id: &str| format!("{id}={}", socket.display());
        let agents = Agents::read(&[flag("a"), flag("b")]).unwrap();
        assert_eq!(agents.ids(), ["a", "b"]);
        Agents::read(&[flag("a"), flag("a")]).unwrap_err();
        assert!(refused(&format!("{0},{0}", flag("a"))).contains("one socket"));
    }

    #[test]
    fn keys_are_listed_without_what_they_are_called() {
        let listed = |comments: [&[u8]; 2]| {
            let mut body = vec![IDENTITIES, 0, 0, 0, 2];
            for (key, comment) in [&b"key"[..], b"k"].into_iter().zip(comments) {
                for text in [key, comment] {
                    body.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                    body.extend(text);
                }
            }
            let bytes = u32::try_from(body.len()).unwrap();
            [&bytes.to_be_bytes()[..], &body].concat()
        };
        let named = listed([b"/home/ann/key", b""]);
        assert_eq!(without_comments(&named), Some(listed([b"", b""])));
        // What is cut off, and what is another answer, is none.
        assert_eq!(without_comments(&named[..named.len() - 1]), None);
        assert_eq!(without_comments(&[0, 0, 0, 5, 14, 0, 0, 0, 0]), None);
        assert_eq!(without_comments(&FAILURE), None);
    }

    #[tokio::test]
    async fn an_agent_lists_and_signs_and_does_nothing_else() {
        let (client, here) = tokio::io::duplex(1 << 10);
        let (agent, mut there) = tokio::io::duplex(1 << 10);
        let (reader, writer) = tokio::io::split(here);
        tokio::spawn(converse(reader, writer, agent, false));
        let (mut answers, mut asks) = tokio::io::split(client);
        // Removal of all keys.
        asks.write_all(&[0, 0, 0, 1, 19]).await.unwrap();
        assert_eq!(message(&mut answers).await.unwrap().unwrap(), FAILURE);
        asks.write_all(&[0, 0, 0, 1, 11]).await.unwrap();
        assert_eq!(
            message(&mut there).await.unwrap().unwrap(),
            [0, 0, 0, 1, 11]
        );
        there.write_all(&[0, 0, 0, 2, 12, 0]).await.unwrap();
        assert_eq!(
            message(&mut answers).await.unwrap().unwrap(),
            [0, 0, 0, 2, 12, 0]
        );
        asks.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert_eq!(message(&mut answers).await.unwrap(), None, "it is too long");
    }
}
