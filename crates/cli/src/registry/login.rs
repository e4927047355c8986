//! `hull login`: has the engine try credentials, and keeps those that are good.

use super::credentials::{HUB, Store, host};
use crate::app::{Arity, Command};
use crate::error::{Error, IoContext, Result};
use crate::flags::{Flag, Matches};
use crate::output;
use crate::session::Session;
use crate::stdio::NoEcho;
use api_types::{AuthConfig, AuthResponse};
use client::{Client, Request};
use std::io::{BufRead, IsTerminal, Read};

/// Bytes of a password, or of a line that was asked for.
const INPUT_BYTES_MAX: u64 = 64 << 10;
/// HTTP's status of credentials that are wrong.
const UNAUTHORIZED: u16 = 401;

const FLAGS: &[Flag] = &[
    Flag::text("password", "Password, or a personal access token").short('p'),
    Flag::bool("password-stdin", "Read the password from standard input"),
    Flag::text("username", "User's name").short('u'),
];

pub(crate) const LOGIN: Command = Command {
    usage: "[OPTIONS] [SERVER]",
    about: "Keep credentials for a registry, by default Docker Hub, once it has accepted them",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Between(0, 1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

/// The registry's address on the command line.
pub(super) fn address(matches: &Matches) -> &str {
    match matches.args.first().map(String::as_str) {
        None | Some("" | oci::reference::DEFAULT_DOMAIN) => HUB,
        Some(address) => address,
    }
}

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let password = password(matches)?;
    let user = matches.text("username");
    let key = match address(matches) {
        HUB => HUB,
        address => host(address),
    };
    let mut store = Store::open(&session.config_directory())?;
    let known = store.get(key)?.unwrap_or_default();
    let client = session.client().await?;
    let usable = !known.username.is_empty() && !known.password.is_empty();
    if usable
        && user.is_empty()
        && password.is_empty()
        && again(session, client, &mut store, key, &known).await?
    {
        return Ok(());
    }
    let mut auth = ask(user, password, &known.username)?;
    auth.server_address = key.to_owned();
    let answer = try_out(client, &auth).await?;
    auth.identity_token = answer.identity_token;
    if store.put(key, &auth)? {
        output::complain(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            store.file.path.display()
        ));
    }
    say(&answer.status)
}

/// What `--password` or standard input has.
fn password(matches: &Matches) -> Result<String> {
    if !matches.on("password-stdin") {
        let password = matches.text("password");
        if !password.is_empty() {
            output::complain(
                "WARNING! Using --password via the CLI is insecure. Use --password-stdin.",
            );
        }
        return Ok(password.to_owned());
    }
    if matches.given("password") {
        return Err(Error::msg(
            "conflicting options: cannot specify both --password and --password-stdin",
        ));
    }
    if matches.text("username").is_empty() {
        return Err(Error::msg(
            "the --password-stdin option requires --username to be set",
        ));
    }
    let mut text = String::new();
    { std::io::stdin().take(INPUT_BYTES_MAX) }
        .read_to_string(&mut text)
        .during(|| "read standard input")?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// Tries what is kept already; `false` when it is no longer good.
async fn again(
    session: &Session,
    client: &Client,
    store: &mut Store,
    key: &str,
    known: &AuthConfig,
) -> Result<bool> {
    output::complain(&format!(
        "Authenticating with existing credentials... [Username: {}]\n\n \
         Info -> To login with a different account, run '{program} logout' followed by '{program} login'\n\n",
        known.username,
        program = session.program,
    ));
    let answer = match try_out(client, known).await {
        Ok(answer) => answer,
        Err(Error::Client(error)) => {
            output::complain(&match error.status() {
                Some(UNAUTHORIZED) => "Stored credentials invalid or expired".to_owned(),
                _ => format!(
                    "Login did not succeed, error: {}",
                    crate::error::chain(&error)
                ),
            });
            return Ok(false);
        }
        Err(other) => return Err(other),
    };
    if !answer.identity_token.is_empty() {
        let mut fresh = known.clone();
        fresh.identity_token = answer.identity_token;
        store.put(key, &fresh)?;
    }
    say(&answer.status)?;
    Ok(true)
}

async fn try_out(client: &Client, auth: &AuthConfig) -> Result<AuthResponse> {
    Ok(client.json(&Request::post(&["auth"]).json(auth)).await?)
}

fn say(status: &str) -> Result<()> {
    match status {
        "" => Ok(()),
        status => output::line(status),
    }
}

/// Completes what was given by asking for the rest.
fn ask(user: &str, password: String, known_user: &str) -> Result<AuthConfig> {
    let (mut user, mut password) = (user.to_owned(), password);
    if (user.is_empty() || password.is_empty()) && !std::io::stdin().is_terminal() {
        return Err(Error::msg(
            "Error: Cannot perform an interactive login from a non TTY device",
        ));
    }
    if user.is_empty() {
        output::print(&match known_user {
            "" => "Username: ".to_owned(),
            known => format!("Username ({known}): "),
        })?;
        user = line()?;
        if user.is_empty() {
            user = known_user.to_owned();
        }
        if user.is_empty() {
            return Err(Error::msg("Error: username is required"));
        }
    }
    if password.is_empty() {
        // Before the question: what is typed at once after it is not to be seen, nor lost.
        let silent = NoEcho::enter()?;
        output::print("Password: ")?;
        password = line()?;
        drop(silent);
        output::line("")?;
        if password.is_empty() {
            return Err(Error::msg("Error: password is required"));
        }
    }
    Ok(AuthConfig {
        username: user,
        password,
        ..AuthConfig::default()
    })
}

fn line() -> Result<String> {
    let mut text = String::new();
    { std::io::stdin().lock().take(INPUT_BYTES_MAX) }
        .read_line(&mut text)
        .during(|| "read standard input")?;
    Ok(text.trim().to_owned())
}
