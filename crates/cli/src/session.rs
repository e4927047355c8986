//! One run of the program: how it was called, which engine it means, and the client of that engine.

use crate::config::{self, Config};
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::output;
use crate::pages::Face;
use crate::spawn;
use client::{ApiVersion, Client, Host};
use std::cell::OnceCell;
use std::path::PathBuf;

/// The flags before the command.
pub(crate) const GLOBAL_FLAGS: &[Flag] = &[
    Flag::text("config", "Directory of the client's config.json"),
    Flag::text(
        "context",
        "Name of the context to use, which says where the engine is",
    )
    .short('c'),
    Flag::bool(
        "debug",
        "Show the requests to the engine; as --log-level debug",
    )
    .short('D'),
    Flag::list(
        "host",
        "Address of the engine: unix:///path, tcp://address:port, ssh://user@host",
    )
    .short('H'),
    Flag::text(
        "log-level",
        "How much to say: debug, info; warn, error, fatal are as info",
    )
    .short('l')
    .default("info")
    .check(check_log_level),
    Flag::bool("tls", "Use TLS; --tlsverify also looks who answers"),
    Flag::text(
        "tlscacert",
        "Who vouches for the engine (default ca.pem in $DOCKER_CERT_PATH)",
    ),
    Flag::text("tlscert", "Certificate to show (default cert.pem there)"),
    Flag::text("tlskey", "Its key (default key.pem there)"),
    Flag::bool("tlsverify", "Use TLS, and verify who answers"),
    Flag::bool("version", "Print the version and quit").short('v'),
];

fn check_log_level(level: &str) -> Result<(), String> {
    match level {
        "debug" | "info" | "warn" | "error" | "fatal" => Ok(()),
        _ => Err("not one of debug, info, warn, error, fatal".to_owned()),
    }
}

/// How the program was called.
#[derive(Debug)]
pub(crate) struct Session {
    /// The name it was called by, `hull` or `docker`.
    pub(crate) program: String,
    /// The commands that the program answers itself.
    pub(crate) faces: fn() -> Vec<Face>,
    global: Matches,
    /// Whether hull's own engine is started where none was named and none runs.
    starts_engine: bool,
    config: OnceCell<Config>,
    client: OnceCell<Client>,
}

impl Session {
    pub(crate) fn new(program: String, global: Matches, faces: fn() -> Vec<Face>) -> Self {
        Self {
            program,
            faces,
            global,
            starts_engine: true,
            config: OnceCell::new(),
            client: OnceCell::new(),
        }
    }

    /// The same, but that no engine is started.
    pub(crate) fn that_starts_nothing(self) -> Self {
        Self {
            starts_engine: false,
            ..self
        }
    }

    /// The settings of `config.json`.
    pub(crate) fn config(&self) -> &Config {
        self.config
            .get_or_init(|| Config::load(&self.config_directory()))
    }

    /// Where config.json is.
    pub(crate) fn config_directory(&self) -> PathBuf {
        config::directory(self.global.text("config"))
    }

    /// The engine's client. When no engine was named and hull's own does not run, it is started first.
    pub(crate) async fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let version = match std::env::var("DOCKER_API_VERSION") {
            Ok(text) if !text.is_empty() => Some(text.parse::<ApiVersion>().map_err(|()| {
                Error::msg(format!("DOCKER_API_VERSION={text:?} is not an API version"))
            })?),
            _ => None,
        };
        let directory = self.config_directory();
        let endpoint = Endpoint::find(&self.global, &directory, &self.config().current_context)?;
        let own = endpoint.host.is_none();
        let host = endpoint.host.unwrap_or(Host::Unix(default_socket()));
        let mut client = Client::new(host, version);
        if let Some(tls) = endpoint.tls {
            client.secure(tls.connector()?);
        }
        if self.debug() {
            client.trace(|call, outcome| output::complain(&format!("debug: {call}: {outcome}")));
        }
        if own && self.starts_engine {
            spawn::ensure(&self.program, &client).await?;
        }
        Ok(self.client.get_or_init(|| client))
    }

    /// Whether to show what happens.
    pub(crate) fn debug(&self) -> bool {
        self.global.on("debug") || self.global.text("log-level") == "debug"
    }

    /// The flags before the command.
    pub(crate) fn global(&self) -> &Matches {
        &self.global
    }

    /// The keys that detach: the flag's, or the settings'.
    pub(crate) fn detach_keys(&self, matches: &Matches) -> String {
        match matches.text("detach-keys") {
            "" => self.config().detach_keys.clone(),
            keys => keys.to_owned(),
        }
    }
}

/// Where hull's own engine listens.
pub(crate) fn default_socket() -> PathBuf {
    spawn::runtime_directory().join("hull.sock")
}
