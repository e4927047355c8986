//! One run of the program: how it was called, which engine it means, and the client of that engine.

use crate::config::{self, Config};
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
    Flag::text("context", "Name of a context; only \"default\" exists").short('c'),
    Flag::bool(
        "debug",
        "Show the requests to the engine; as --log-level debug",
    )
    .short('D'),
    Flag::list(
        "host",
        "Address of the engine: unix:///path or tcp://address:port",
    )
    .short('H'),
    Flag::text(
        "log-level",
        "How much to say: debug, info; warn, error, fatal are as info",
    )
    .short('l')
    .default("info")
    .check(check_log_level),
    Flag::bool("tls", "Use TLS (not supported yet)"),
    Flag::text(
        "tlscacert",
        "Certificate authority to trust (not supported yet)",
    ),
    Flag::text("tlscert", "Client certificate (not supported yet)"),
    Flag::text("tlskey", "Client key (not supported yet)"),
    Flag::bool(
        "tlsverify",
        "Use TLS and verify the engine (not supported yet)",
    ),
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
        let named = self.named_host()?;
        let host = named.clone().unwrap_or(Host::Unix(default_socket()));
        let mut client = Client::new(host, version);
        if self.debug() {
            client.trace(|call, outcome| output::complain(&format!("debug: {call}: {outcome}")));
        }
        if named.is_none() && self.starts_engine {
            spawn::ensure(&self.program, &client).await?;
        }
        Ok(self.client.get_or_init(|| client))
    }

    /// Whether to show what happens.
    pub(crate) fn debug(&self) -> bool {
        self.global.on("debug") || self.global.text("log-level") == "debug"
    }

    /// The engine that flags or the environment name, if any.
    fn named_host(&self) -> Result<Option<Host>> {
        let env = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        for flag in ["tls", "tlsverify"] {
            if self.global.on(flag) {
                return Err(Error::msg(format!("--{flag} is not supported yet")));
            }
        }
        if let Some(flag) = ["tlscacert", "tlscert", "tlskey"]
            .iter()
            .find(|flag| self.global.given(flag))
        {
            return Err(Error::msg(format!("--{flag} is not supported yet")));
        }
        let context = self.global.get("context").map(str::to_owned);
        if context.is_some() && self.global.given("host") {
            return Err(Error::msg(
                "conflicting options: either specify --host or --context, not both",
            ));
        }
        let host = match self.global.list("host") {
            [] => None,
            [host] => Some(host.clone()),
            _ => return Err(Error::msg("specify only one -H")),
        };
        let host = host.or_else(|| match &context {
            Some(_) => None,
            None => env("HULL_HOST").or_else(|| env("DOCKER_HOST")),
        });
        let context = context.or_else(|| {
            if host.is_none() {
                env("DOCKER_CONTEXT")
            } else {
                None
            }
        });
        if let Some(context) = context.filter(|context| context != "default") {
            return Err(Error::msg(format!(
                "context {context:?} does not exist: contexts are not supported yet, use --host or DOCKER_HOST"
            )));
        }
        let Some(host) = host else { return Ok(None) };
        let host = Host::parse(&host)?;
        if matches!(host, Host::Tcp { .. })
            && (env("DOCKER_TLS_VERIFY").is_some() || env("DOCKER_TLS").is_some())
        {
            return Err(Error::msg(
                "TLS is not supported yet: DOCKER_TLS_VERIFY or DOCKER_TLS is set",
            ));
        }
        Ok(Some(host))
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
fn default_socket() -> PathBuf {
    spawn::runtime_directory().join("hull.sock")
}
