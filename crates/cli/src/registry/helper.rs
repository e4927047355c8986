//! `docker-credential-<name>`: programs that keep credentials, by their protocol of standard input and output.
//!
//! A helper may ask a person for another secret first, so nothing limits how long it takes; ctrl-C ends it together with this
//! program. Source: docker-credential-helpers, "Development".

use crate::error::{Error, IoContext, Result};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// Bytes of what a helper says.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// What a helper says when it knows nothing of a registry.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user's name with which a secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// A helper by the name that config.json has.
#[derive(Debug)]
pub(super) struct Helper(pub(super) String);

/// What a helper keeps of a registry.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Secret {
    #[serde(rename = "ServerURL")]
    server: String,
    username: String,
    secret: String,
}

impl Secret {
    pub(super) fn new(auth: &api_types::AuthConfig, server: &str) -> Self {
        let (username, secret) = match auth.identity_token.as_str() {
            "" => (auth.username.clone(), auth.password.clone()),
            token => (TOKEN_USER.to_owned(), token.to_owned()),
        };
        Self {
            server: server.to_owned(),
            username,
            secret,
        }
    }

    fn into_auth(self, server: &str) -> api_types::AuthConfig {
        let mut auth = api_types::AuthConfig {
            server_address: server.to_owned(),
            ..api_types::AuthConfig::default()
        };
        if self.username == TOKEN_USER {
            auth.identity_token = self.secret;
        } else {
            (auth.username, auth.password) = (self.username, self.secret);
        }
        auth
    }
}

impl Helper {
    /// The credentials for a registry, where the helper has any.
    pub(super) fn get(&self, server: &str) -> Result<Option<api_types::AuthConfig>> {
        let answer = self.call("get", server.as_bytes())?;
        if !answer.done {
            return match answer.text.trim() == NOT_FOUND {
                true => Ok(None),
                false => Err(self.error("get", answer.text.trim())),
            };
        }
        let secret: Secret = api_types::from_slice(answer.text.as_bytes())
            .map_err(|error| self.error("get", &error.to_string()))?;
        Ok(Some(secret.into_auth(server)))
    }

    pub(super) fn store(&self, secret: &Secret) -> Result<()> {
        let document =
            serde_json::to_vec(secret).map_err(|error| self.error("store", &error.to_string()))?;
        self.demand("store", &document)
    }

    pub(super) fn erase(&self, server: &str) -> Result<()> {
        self.demand("erase", server.as_bytes())
    }

    fn demand(&self, verb: &str, input: &[u8]) -> Result<()> {
        let answer = self.call(verb, input)?;
        match answer.done || answer.text.trim() == NOT_FOUND {
            true => Ok(()),
            false => Err(self.error(verb, answer.text.trim())),
        }
    }

    fn call(&self, verb: &str, input: &[u8]) -> Result<Answer> {
        let program = self.program();
        // Its name comes from a file: a path in it would be another program than one of a helper.
        if self.0.contains('/') {
            return Err(Error::msg(format!("{program:?} is no name of a program")));
        }
        let mut child = Command::new(&program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .during(|| format!("exec {program}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends before it has read everything says why.
            let _ = stdin.write_all(input);
        }
        let mut text = String::new();
        if let Some(stdout) = child.stdout.take() {
            { stdout.take(ANSWER_BYTES_MAX) }
                .read_to_string(&mut text)
                .during(|| format!("read from {program}"))?;
        }
        let status = child.wait().during(|| format!("wait for {program}"))?;
        Ok(Answer {
            done: status.success(),
            text,
        })
    }

    fn program(&self) -> String {
        format!("docker-credential-{}", self.0)
    }

    fn error(&self, verb: &str, said: &str) -> Error {
        Error::msg(format!("{} {verb}: {said}", self.program()))
    }
}

struct Answer {
    done: bool,
    text: String,
}
