//! `hull build`.

use super::check;
use super::check_engine;
use super::context::Parts;
use super::display::{self, Display, Show};
use super::elsewhere::{Elsewhere, metadata, registries};
use super::named::Named;
use super::shell::Asked;
use super::source::{Source, source};
use super::ssh::Agents;
use crate::app::{Arity, Command};
use crate::error::{Error, IoContext, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::image::load::Blocking;
use crate::output;
use crate::parse::{address, device, keyvalue, platform};
use crate::registry::credentials;
use crate::registry::pull::refuse_trust;
use crate::session::Session;
use crate::stdio;
use api_types::{HEADER_SECRET, KeptContext, SECRETS_BYTES_MAX};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::{Client, Request, Response};
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::Arc;

/// HTTP's status for a context that is another one than the engine has told of.
const CONFLICT: u16 = 409;
/// The type of what is sent.
const TYPE: &str = "application/x-tar";
/// Files that the summary on a terminal names.
const LARGEST: usize = 3;

const WHAT: &[Flag] = &[
    Flag::list("build-arg", "Set a variable of the build"),
    Flag::list(
        "build-context",
        "Further files or images by name (name=path, name=docker-image://ref, name=oci-layout://path, name=address)",
    ),
    Flag::text(
        "file",
        "Dockerfile (default: Dockerfile in the context), or - for standard input",
    )
    .short('f'),
    Flag::text(
        "call",
        "What to do: build; or without that check, list targets or outline (outline,format=json)",
    )
    .default("build"),
    Flag::bool("check", "Check the Dockerfile alone, as --call check does"),
    Flag::list("label", "Label of the image").check(keyvalue::check_label),
    Flag::of(
        "platform",
        Kind::Strings,
        "Platforms to build for (os/arch[/variant],…)",
    ),
    Flag::list(
        "secret",
        "File or variable for RUN --mount=type=secret (id=name[,src=path|env=name])",
    ),
    Flag::list(
        "ssh",
        "SSH agent or keys for commands and repositories (default, id=socket, id=key,key)",
    ),
    Flag::list("tag", "Name of the image (name[:tag])").short('t'),
    Flag::text("target", "Stage to build"),
];
const HOW: &[Flag] = &[
    Flag::of(
        "add-host",
        Kind::Strings,
        "Host name for commands (host:address)",
    ),
    Flag::of(
        "allow",
        Kind::Strings,
        "What the Dockerfile may ask for (network.host, security.insecure)",
    ),
    Flag::text("cgroup-parent", "Cgroup above those of commands"),
    Flag::bool("compress", "Send the context compressed by gzip"),
    Flag::bool(
        "debug-shell-on-failure",
        "Enter a command that has failed: a shell on what it has written",
    ),
    Flag::bool(
        "explain",
        "Say of each step why it was taken from the cache, or was not",
    ),
    Flag::bool(
        "force-rm",
        "Remove containers of failed steps, too, which is always done",
    ),
    Flag::text("network", "Network of commands (default, none, host)").default("default"),
    Flag::bool("no-cache", "Take nothing from the cache"),
    Flag::of(
        "no-cache-filter",
        Kind::Strings,
        "Take nothing from the cache in these stages",
    ),
    Flag::text(
        "builder",
        "Builder to use: there is one, the engine's own (default)",
    ),
    Flag::bool("pull", "Ask registries for newer base images"),
    Flag::bool("rm", "Remove containers of steps").default("true"),
    Flag::of("shm-size", Kind::Bytes, "Size of /dev/shm of commands"),
    Flag::list("ulimit", "Limit of commands (name=soft[:hard])"),
];
const LIMITS: &[Flag] = &[
    Flag::of(
        "cpu-period",
        Kind::Int,
        "Period of the CPU quota in microseconds",
    ),
    Flag::of("cpu-quota", Kind::Int, "CPU quota in microseconds"),
    Flag::of("cpu-shares", Kind::Int, "Relative CPU weight").short('c'),
    Flag::text("cpuset-cpus", "CPUs (0-3, 0,1)"),
    Flag::text("cpuset-mems", "Memory nodes (0-3, 0,1)"),
    Flag::of("memory", Kind::Bytes, "Memory limit").short('m'),
    Flag::of(
        "memory-swap",
        Kind::SwapBytes,
        "Memory and swap together; -1 is no limit",
    ),
];
const RESULT: &[Flag] = &[
    Flag::list(
        "annotation",
        "Annotation of an image that goes elsewhere ([type:]key=value)",
    ),
    Flag::list(
        "attest",
        "Attestation of an image that goes elsewhere (type=sbom|provenance,…)",
    ),
    Flag::list(
        "cache-from",
        "Cache to read (image, type=registry,ref=image, type=local,src=path)",
    ),
    Flag::list(
        "cache-to",
        "Cache to write (type=inline, type=registry,ref=image, type=local,dest=path; mode=min|max, mounts=true)",
    ),
    Flag::text("iidfile", "Write the image's ID to this file"),
    Flag::text(
        "metadata-file",
        "Write what was built to this file, as JSON",
    ),
    Flag::text(
        "provenance",
        "Attest how an image that goes elsewhere was built (true, mode=max)",
    ),
    Flag::text(
        "sbom",
        "Attest what is in an image that goes elsewhere (true, generator=image)",
    ),
    Flag::bool("load", "Keep the image in the engine, which is always done"),
    Flag::list(
        "output",
        "What to make of the image (type=image|registry|oci|docker|tar|local,dest=path)",
    )
    .short('o'),
    Flag::text(
        "progress",
        "How to show the build (auto, plain, tty, rawjson, quiet, none)",
    )
    .default("auto"),
    Flag::bool("push", "Push the image to its registry"),
    Flag::bool("quiet", "Print the image's ID alone").short('q'),
];
/// Docker's flags that its engine on Linux refuses, unless they say what is so without them.
const REFUSED: &[Flag] = &[
    Flag::bool(
        "disable-content-trust",
        "Take base images without signatures by Docker Content Trust, which there are none of",
    )
    .default("true"),
    Flag::text(
        "isolation",
        "How containers are isolated: default, which is all there is on Linux",
    ),
    Flag::of(
        "security-opt",
        Kind::Strings,
        "Security options, which no build on Linux takes (RUN --security is for that)",
    ),
    Flag::bool(
        "squash",
        "Make one layer of all, which is for experimental engines",
    ),
];

pub(crate) const BUILD: Command = Command {
    usage: "[OPTIONS] PATH | URL | -",
    about: "Build an image from a Dockerfile",
    aliases: &["image build", "builder build", "build"],
    flags: &[WHAT, HOW, LIMITS, RESULT, REFUSED],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    refuse(matches)?;
    let call = Call::read(matches)?;
    check_terminal(matches)?;
    let mut elsewhere = Elsewhere::read(matches)?;
    let show = show(matches)?;
    let named = Named::read(matches.list("build-context"))?;
    let request = request(matches, &elsewhere, &named)?;
    let screen = matches!(show, Show::Screen);
    let request = request.query_some("largest", screen.then(|| LARGEST.to_string()));
    let client = session.client().await?;
    check_engine(client).await?;
    if !matches!(call, Call::Build) {
        return ask(session, request, matches, named, call).await;
    }
    let source = source(matches, named, std::mem::take(&mut elsewhere.caches))?;
    let agents = Agents::read(matches.list("ssh"))?;
    let request = match agents.ids() {
        ids if ids.is_empty() => request,
        ids => request.query("agents", serde_json::json!(ids).to_string()),
    };
    let title = elsewhere.title(!matches.list("tag").is_empty());
    let mut display = Display::new(show, file_name(matches), title);
    let registries = registries(matches, &elsewhere);
    let response = send(session, request, source, &registries, Some(&mut display)).await?;
    let asked = Asked {
        client,
        agents,
        detach_keys: session.detach_keys(matches),
    };
    let outcome = display::show(response.lines(), display, elsewhere.receive(), &asked).await?;
    let id = outcome.id();
    if let Some(path) = matches.get("iidfile") {
        std::fs::write(path, id).during(|| format!("write {path}"))?;
    }
    if let Some(path) = matches.get("metadata-file") {
        let metadata = metadata(&outcome, matches.list("tag"));
        std::fs::write(path, metadata).during(|| format!("write {path}"))?;
    }
    match is_quiet(matches) && !elsewhere.uses_stdout() && !id.is_empty() {
        true => output::line(id),
        false => Ok(()),
    }
}

/// What a build is asked for.
enum Call {
    Build,
    Check(check::Form),
    /// What the engine knows by that name.
    Ask(&'static str, check::Form),
}

impl Call {
    fn read(matches: &Matches) -> Result<Self> {
        let asked = match matches.text("call") {
            "" | "build" if matches.on("check") => "check",
            asked => asked,
        };
        let (what, option) = asked.split_once(',').unwrap_or((asked, ""));
        let form = match option {
            "" | "format=text" => check::Form::Text,
            "format=json" => check::Form::Json,
            other => return Err(Error::msg(format!("invalid option {other:?} of --call"))),
        };
        match what {
            "" | "build" => Ok(Self::Build),
            "check" | "lint" => Ok(Self::Check(form)),
            "targets" => Ok(Self::Ask("targets", form)),
            "outline" => Ok(Self::Ask("outline", form)),
            other => Err(Error::msg(format!(
                "--call {other} is not supported: it is build, check, targets or outline"
            ))),
        }
    }
}

/// A shell is of no use without a terminal.
fn check_terminal(matches: &Matches) -> Result<()> {
    let is_terminal = std::io::stdin().is_terminal() && stdio::is_terminal();
    match is_terminal || !matches.on("debug-shell-on-failure") {
        true => Ok(()),
        false => Err(Error::msg(
            "--debug-shell-on-failure needs a terminal: standard input and output are none",
        )),
    }
}

/// The Dockerfile as it is called in messages.
fn file_name(matches: &Matches) -> &str {
    let file = matches.get("file").filter(|file| !file.is_empty());
    file.unwrap_or("Dockerfile")
}

fn refuse(matches: &Matches) -> Result<()> {
    // The builder of a context has its name; the one that is spoken to is the engine's own.
    let builder = matches.text("builder");
    if !matches!(builder, "" | "default") {
        return Err(Error::msg(format!("no builder {builder:?} found")));
    }
    if matches.on("squash") {
        return Err(Error::msg(
            "\"--squash\" is only supported on a Docker daemon with experimental features enabled",
        ));
    }
    refuse_trust(matches)
}

fn show(matches: &Matches) -> Result<Show> {
    let progress = matches.text("progress");
    if matches.on("quiet") && !matches!(progress, "" | "auto" | "quiet") {
        return Err(Error::msg(format!(
            "progress={progress} and quiet cannot be used together"
        )));
    }
    match progress {
        _ if is_quiet(matches) => Ok(Show::Nothing),
        "plain" => Ok(Show::Plain),
        // Where there is no terminal to draw on, there are lines.
        "" | "auto" | "tty" if std::io::stderr().is_terminal() && !is_dumb() => Ok(Show::Screen),
        "" | "auto" | "tty" => Ok(Show::Plain),
        "rawjson" => Ok(Show::Raw),
        "none" => Ok(Show::Nothing),
        other => Err(Error::msg(format!("invalid progress mode {other:?}"))),
    }
}

/// Whether the image's ID is all that is to be said.
fn is_quiet(matches: &Matches) -> bool {
    matches.on("quiet") || matches.text("progress") == "quiet"
}

/// A terminal that does nothing but print.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Everything but the body.
fn request(matches: &Matches, elsewhere: &Elsewhere, named: &Named) -> Result<Request> {
    let text = |flag: &str| {
        matches
            .get(flag)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let document = |value: serde_json::Value| value.to_string();
    let bad =
        |flag: &str, error: String| Error::msg(format!("invalid argument for --{flag}: {error}"));
    let hosts = matches
        .list("add-host")
        .iter()
        .map(|host| address::extra_host(host));
    let hosts = hosts
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad("add-host", error))?;
    let ulimits = device::ulimits(matches.list("ulimit")).map_err(|error| bad("ulimit", error))?;
    let request = Request::post(&["build"])
        .query("events", "1")
        .query(
            "buildargs",
            document(serde_json::json!(build_args(matches.list("build-arg"))?)),
        )
        .query(
            "labels",
            document(serde_json::json!(keyvalue::map(matches.list("label")))),
        )
        .query(
            "nocachefilter",
            document(serde_json::json!(matches.list("no-cache-filter"))),
        )
        .query("allow", document(serde_json::json!(matches.list("allow"))))
        .query("dockerfile", file_name(matches))
        .query("namedimages", document(serde_json::json!(named.images)))
        .query("namedlayouts", document(serde_json::json!(named.layouts)))
        .query(
            "namedaddresses",
            document(serde_json::json!(named.addresses)),
        )
        .query("ulimits", document(serde_json::json!(ulimits)))
        .query("rm", if matches.on_unless("rm") { "1" } else { "0" })
        .query_flag("nocache", matches.on("no-cache"))
        .query_flag("pull", matches.on("pull"))
        .query_flag("explain", matches.on("explain"))
        .query_flag("shellonfailure", matches.on("debug-shell-on-failure"))
        .query_some("target", text("target"))
        .query_some("platform", platforms(matches.list("platform"))?)
        .query_some("networkmode", text("network"))
        .query_some("isolation", text("isolation"));
    let mut request = elsewhere.add_to(limited(request, matches));
    for tag in matches.list("tag") {
        request = request.query("t", tag);
    }
    for option in matches.list("security-opt") {
        request = request.query("securityopt", option);
    }
    for host in hosts {
        request = request.query("extrahosts", host);
    }
    let secrets = secrets(matches.list("secret"))?.into_iter();
    Ok(secrets.fold(request, |request, secret| {
        request.header(HEADER_SECRET, secret)
    }))
}

/// Adds what commands may use.
fn limited(request: Request, matches: &Matches) -> Request {
    let text = |flag: &str| { matches.get(flag) }.filter(|text| !text.is_empty());
    let number = |value: Option<i64>| value.map(|value| value.to_string());
    request
        .query_some("cgroupparent", text("cgroup-parent"))
        .query_some("shmsize", number(matches.bytes("shm-size")))
        .query_some("memory", number(matches.bytes("memory")))
        .query_some("memswap", number(matches.bytes("memory-swap")))
        .query_some("cpuperiod", number(matches.int("cpu-period")))
        .query_some("cpuquota", number(matches.int("cpu-quota")))
        .query_some("cpushares", number(matches.int("cpu-shares")))
        .query_some("cpusetcpus", text("cpuset-cpus"))
        .query_some("cpusetmems", text("cpuset-mems"))
}

/// Platforms in the names that images use.
fn platforms(given: &[String]) -> Result<Option<String>> {
    let all = given.iter().filter(|text| !text.is_empty());
    let all = all.map(|text| Ok(platform::normal(text)?.unwrap_or_default()));
    let all = all.collect::<Result<Vec<_>>>()?;
    Ok(Some(all.join(",")).filter(|text| !text.is_empty()))
}

/// Values of the environment where only a name is given; without one there, none.
fn build_args(values: &[String]) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for text in values {
        match text.split_once('=') {
            Some(("", _)) => {
                let why = format!("invalid --build-arg {text:?}: it has no name");
                return Err(Error::msg(why));
            }
            Some((name, value)) => drop(all.insert(name.to_owned(), value.to_owned())),
            None => all.extend(std::env::var(text).ok().map(|value| (text.clone(), value))),
        }
    }
    Ok(all)
}

/// `id=name,src=path` or `id=name,env=NAME`, as headers take them.
fn secrets(values: &[String]) -> Result<Vec<String>> {
    let mut all = BTreeMap::new();
    for text in values {
        let bad = |what: &str| Error::msg(format!("invalid --secret {text:?}: {what}"));
        let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
        for field in text.split(',') {
            let (name, value) = field
                .split_once('=')
                .ok_or_else(|| bad("it is key=value,…"))?;
            fields.insert(name, value);
        }
        let kind = fields.remove("type");
        let id = fields.remove("id").ok_or_else(|| bad("it needs an id"))?;
        let path = fields.remove("src").or(fields.remove("source"));
        let variable = fields.remove("env");
        if !fields.is_empty() {
            return Err(bad("it has id, type, src and env"));
        }
        let content = match (kind, path, variable) {
            (_, Some(_), Some(_)) => return Err(bad("it has both src and env")),
            (None | Some("file"), Some(path), None) => keyvalue::read_limited(path)?,
            (None | Some("env"), None, Some(variable)) => from_env(variable)?,
            (None, None, None) if std::env::var_os(id).is_some() => from_env(id)?,
            (Some("env"), None, None) => from_env(id)?,
            (None | Some("file"), None, None) => keyvalue::read_limited(id)?,
            _ => return Err(bad("its type and its source do not fit")),
        };
        all.insert(id.to_owned(), BASE64.encode(content));
    }
    let headers = all
        .iter()
        .map(|(id, content)| format!("{}:{content}", BASE64.encode(id)));
    let headers: Vec<String> = headers.collect();
    match headers.iter().map(String::len).sum::<usize>() <= SECRETS_BYTES_MAX {
        true => Ok(headers),
        false => Err(Error::msg(format!(
            "the secrets have more than {SECRETS_BYTES_MAX} bytes together"
        ))),
    }
}

fn from_env(name: &str) -> Result<Vec<u8>> {
    let value = std::env::var(name)
        .map_err(|_| Error::msg(format!("the variable {name} of a secret is not set")))?;
    Ok(value.into_bytes())
}

/// Sends the request with its body.
async fn send(
    session: &Session,
    request: Request,
    source: Source,
    registries: &str,
    mut display: Option<&mut Display>,
) -> Result<Response> {
    let client = session.client().await?;
    let parts = match source {
        Source::Archive(archive) => {
            return Ok(client.upload(&request, TYPE, Blocking(archive)).await?);
        }
        // The engine says what it can fetch.
        Source::Address(address) => {
            return Ok(client.send(&request.query("remote", address)).await?);
        }
        Source::Parts(parts) => parts,
    };
    let text = format!(
        "{} {registries}",
        String::from_utf8_lossy(parts.dockerfile())
    );
    let request = credentials::authorized_for(session, request, &text)?;
    let request = request.query_some("remote", parts.remote.clone());
    let request = request.query("layout", "parts");
    let parts = Arc::new(*parts);
    let nothing = KeptContext::default;
    let Some(name) = parts.kept_name()? else {
        return upload(client, &request, &parts, nothing(), display).await;
    };
    let request = request.query("contextname", name.clone());
    let asked = Request::get(&["build", "context"]).query("name", name);
    let kept: KeptContext = match client.json(&asked).await {
        Err(error) if error.is_not_found() => {
            return upload(client, &request, &parts, nothing(), display).await;
        }
        kept => kept?,
    };
    let base = request
        .clone()
        .query("contextbase", kept.generation.clone());
    match upload(client, &base, &parts, kept, display.as_deref_mut()).await {
        // Another build has taken it.
        Err(Error::Client(error)) if error.status() == Some(CONFLICT) => {
            upload(client, &request, &parts, nothing(), display).await
        }
        sent => sent,
    }
}

/// Sends parts: of the context what has changed since the engine has kept it.
async fn upload(
    client: &Client,
    request: &Request,
    parts: &Arc<Parts>,
    kept: KeptContext,
    display: Option<&mut Display>,
) -> Result<Response> {
    let tar = parts.stream(kept)?;
    let (failure, count) = (tar.failure(), tar.count());
    let sending = async { failure.or(client.upload(request, TYPE, tar).await) };
    match display {
        Some(display) => {
            let task = "[internal] load build context";
            display
                .during(task, "transferring context:", count, sending)
                .await
        }
        None => sending.await,
    }
}

/// Has the Dockerfile checked, or asks something of it; no files are sent for that.
async fn ask(
    session: &Session,
    request: Request,
    matches: &Matches,
    named: Named,
    call: Call,
) -> Result<()> {
    let mut source = source(matches, named, Vec::new())?;
    let mut text = String::new();
    if let Source::Parts(parts) = &mut source {
        parts.context = None;
        parts.named = Named::default();
        text = String::from_utf8_lossy(parts.dockerfile()).into_owned();
    }
    match call {
        Call::Build => Ok(()),
        Call::Check(form) => {
            let response = send(session, request.query("check", "1"), source, "", None).await?;
            check::show(response.lines(), form, file_name(matches), &text).await
        }
        Call::Ask(what, form) => {
            let response = send(session, request.query("call", what), source, "", None).await?;
            check::show_answer(response.lines(), form).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_from_files_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "hidden").unwrap();
        let headers = secrets(&[format!("id=a,src={}", path.display())]).unwrap();
        assert_eq!(headers, ["YQ==:aGlkZGVu"]);
        for bad in [
            "src=/x",
            "id=a,foo=b",
            "id=a,src=/x,env=Y",
            "id=a,env=HULL_NO_SUCH_VARIABLE",
            "a",
        ] {
            assert!(secrets(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
