//! The terminal: raw mode while a process is attached, and its size.

use crate::error::{Error, IoContext, Result};
use client::{Client, Request};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use std::convert::Infallible;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// A process may not have its terminal yet when the size is first sent; so often, and after so long, it is sent again.
const RESIZE_RETRIES: u32 = 10;
const RESIZE_PAUSE: Duration = Duration::from_millis(10);

/// Standard input in raw mode, until dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    saved: Termios,
}

impl RawMode {
    /// Switches standard input to raw mode if it is a terminal.
    pub(crate) fn enter() -> Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let saved = termios::tcgetattr(&stdin).during(|| "tcgetattr(0)")?;
        let mut raw = saved.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw).during(|| "tcsetattr(0)")?;
        Ok(Some(Self { saved }))
    }
}

/// Standard input without echo, until dropped: for secrets.
#[derive(Debug)]
pub(crate) struct NoEcho {
    saved: Termios,
}

impl NoEcho {
    /// Switches the echo off. Standard input has to be a terminal.
    pub(crate) fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let saved = termios::tcgetattr(&stdin).during(|| "tcgetattr(0)")?;
        let mut silent = saved.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(&stdin, OptionalActions::Flush, &silent).during(|| "tcsetattr(0)")?;
        Ok(Self { saved })
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.saved);
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.saved);
    }
}

/// Refuses to give a process a terminal whose input is none.
pub(crate) fn check_stdin(attach_stdin: bool, tty: bool) -> Result<()> {
    match attach_stdin && tty && !std::io::stdin().is_terminal() {
        true => Err(Error::msg("the input device is not a TTY")),
        false => Ok(()),
    }
}

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Rows and columns of standard output's terminal; zeros where there is none.
pub(crate) fn size() -> [u32; 2] {
    match termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) => [size.ws_row.into(), size.ws_col.into()],
        Err(_) => [0, 0],
    }
}

/// Tells the engine the terminal's size, now and whenever it changes. Never returns. `path` is that of the container or
/// exec. A size that cannot be set is no reason to end the process.
pub(crate) async fn keep_size(client: &Client, path: &[&str]) -> Infallible {
    let mut path = path.to_vec();
    path.push("resize");
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return std::future::pending().await;
    };
    for retry in 1..=RESIZE_RETRIES {
        if send_size(client, &path).await {
            break;
        }
        tokio::time::sleep(RESIZE_PAUSE * retry).await;
    }
    while changes.recv().await.is_some() {
        send_size(client, &path).await;
    }
    std::future::pending().await
}

/// Gives the terminal another size for a moment: programs then draw their whole screen anew.
pub(crate) async fn make_redraw(client: &Client, path: &[&str]) {
    let mut path = path.to_vec();
    path.push("resize");
    let [rows, columns] = size();
    send(client, &path, [rows + 1, columns + 1]).await;
}

async fn send_size(client: &Client, path: &[&str]) -> bool {
    send(client, path, size()).await
}

async fn send(client: &Client, path: &[&str], [rows, columns]: [u32; 2]) -> bool {
    if rows == 0 && columns == 0 {
        return true;
    }
    let request = Request::post(path)
        .query("h", rows.to_string())
        .query("w", columns.to_string());
    client.call(&request).await.is_ok()
}
