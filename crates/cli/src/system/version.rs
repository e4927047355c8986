//! `hull version`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::go::tabwriter;
use crate::go::template::Template;
use crate::output;
use crate::session::Session;
use api_types::{ComponentVersion, Version};
use client::{ApiVersion, Request};
use serde::Serialize;
use std::collections::BTreeMap;

const FLAGS: &[Flag] = &[Flag::text("format", "How to show it: json, or a Go template").short('f')];

pub(crate) const VERSION: Command = Command {
    usage: "[OPTIONS]",
    about: "Show the versions of the client and the engine",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Versions {
    client: ClientVersion,
    server: Option<Version>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ClientVersion {
    version: &'static str,
    api_version: String,
    #[serde(rename = "DefaultAPIVersion")]
    default_api_version: String,
    git_commit: &'static str,
    /// Empty: this is no Go program.
    go_version: &'static str,
    os: &'static str,
    arch: &'static str,
    build_time: &'static str,
    context: &'static str,
}

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let template = match matches.text("format") {
        "" => None,
        "json" => Some("{{json .}}"),
        text => Some(text),
    };
    let template = template
        .map(Template::parse)
        .transpose()
        .map_err(Error::InspectTemplate)?;
    let (server, api_version, problem) = match server(session).await {
        Ok((server, version)) => (Some(server), version, None),
        // The client's own version is worth something without an engine, too.
        Err(error) => (None, ApiVersion::NEWEST, Some(error)),
    };
    let versions = Versions {
        client: ClientVersion {
            version: env!("CARGO_PKG_VERSION"),
            api_version: api_version.to_string(),
            default_api_version: ApiVersion::NEWEST.to_string(),
            git_commit: "",
            go_version: "",
            os: "linux",
            arch: architecture(),
            build_time: "",
            context: "default",
        },
        server,
    };
    match template {
        None => output::print(&pretty(&versions))?,
        Some(template) => {
            let json =
                serde_json::to_value(&versions).map_err(|error| Error::msg(error.to_string()))?;
            output::line(&template.render_struct(&json).map_err(Error::Template)?)?;
        }
    }
    problem.map_or(Ok(()), Err)
}

async fn server(session: &Session) -> Result<(Version, ApiVersion)> {
    let client = session.client().await?;
    let version = client.settle_version().await?;
    Ok((client.json(&Request::get(&["version"])).await?, version))
}

/// Go's name of the processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

fn pretty(versions: &Versions) -> String {
    let client = &versions.client;
    let downgraded = match client.api_version == client.default_api_version {
        true => String::new(),
        false => format!(" (downgraded from {})", client.default_api_version),
    };
    let mut text = format!(
        "Client:\n Version:\t{}\n API version:\t{}{downgraded}\n OS/Arch:\t{}/{}\n Context:\t{}\n",
        client.version, client.api_version, client.os, client.arch, client.context
    );
    if let Some(server) = &versions.server {
        let name = &server.platform.name;
        let space = if name.is_empty() { "" } else { " " };
        text.push_str(&format!("\nServer:{space}{name}\n"));
        for component in components(server) {
            text.push_str(&show(&component));
        }
    }
    tabwriter::align(&text, 20, 1)
}

/// The components, and the engine as one of them also where it is old and does not say so.
fn components(server: &Version) -> Vec<ComponentVersion> {
    let mut components = server.components.clone();
    if !components
        .iter()
        .any(|component| component.name == "Engine")
    {
        let details = [
            ("ApiVersion", server.api_version.clone()),
            ("MinAPIVersion", server.min_api_version.clone()),
            ("GitCommit", server.git_commit.clone()),
            ("GoVersion", server.go_version.clone()),
            ("Os", server.os.clone()),
            ("Arch", server.arch.clone()),
            ("BuildTime", server.build_time.clone()),
            ("Experimental", server.experimental.to_string()),
        ];
        components.push(ComponentVersion {
            name: "Engine".to_owned(),
            version: server.version.clone(),
            details: details
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        });
    }
    components
}

fn show(component: &ComponentVersion) -> String {
    let get = |name| {
        component
            .details
            .get(name)
            .map(String::as_str)
            .unwrap_or_default()
    };
    let mut lines = vec![("Version", component.version.clone())];
    if component.name == "Engine" {
        lines.extend([
            (
                "API version",
                format!(
                    "{} (minimum version {})",
                    get("ApiVersion"),
                    get("MinAPIVersion")
                ),
            ),
            ("Go version", get("GoVersion").to_owned()),
            ("Git commit", get("GitCommit").to_owned()),
            ("Built", get("BuildTime").to_owned()),
            ("OS/Arch", format!("{}/{}", get("Os"), get("Arch"))),
            ("Experimental", get("Experimental").to_owned()),
        ]);
    } else {
        let details: &BTreeMap<String, String> = &component.details;
        lines.extend(
            details
                .iter()
                .map(|(name, value)| (name.as_str(), value.clone())),
        );
    }
    // An engine that is no Go program has no Go version.
    let lines = lines.iter().filter(|(_, value)| !value.is_empty());
    let lines: String = lines
        .map(|(name, value)| format!("  {name}:\t{value}\n"))
        .collect();
    format!(" {}:\n{lines}", component.name)
}
