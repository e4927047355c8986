//! `hull build`.

use super::check;
use super::context::{Ignored, Parts, ignore};
use super::display::{self, Outcome, Show};
use super::output::Output;
use crate::app::{Arity, Command};
use crate::error::{Error, IoContext, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::image::load::Blocking;
use crate::output;
use crate::parse::{address, device, keyvalue, platform};
use crate::progress::To;
use crate::registry::{credentials, push};
use crate::session::Session;
use api_types::{BUILD_EVENTS, HEADER_SECRETS, SECRETS_BYTES_MAX, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::{Request, Response};
use patterns::Ignore;
use std::collections::BTreeMap;
use std::io::{Cursor, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

/// Bytes of a Dockerfile.
const DOCKERFILE_BYTES_MAX: u64 = 4 << 20;
/// Bytes by which an archive is told from a Dockerfile.
const MAGIC_BYTES: u64 = 512;

const WHAT: &[Flag] = &[
    Flag::list("build-arg", "Set a variable of the build"),
    Flag::list(
        "build-context",
        "Further files or images by name (name=path, name=docker-image://ref)",
    ),
    Flag::text(
        "file",
        "Dockerfile (default: Dockerfile in the context), or - for standard input",
    )
    .short('f'),
    Flag::text(
        "call",
        "What to do: build, or check (check,format=json) the Dockerfile alone",
    )
    .default("build"),
    Flag::bool("check", "Check the Dockerfile alone, as --call check does"),
    Flag::list("label", "Label of the image").check(keyvalue::check_label),
    Flag::text("platform", "Platform to build for"),
    Flag::list(
        "secret",
        "File or variable for RUN --mount=type=secret (id=name[,src=path|env=name])",
    ),
    Flag::list("tag", "Name of the image (name[:tag])").short('t'),
    Flag::text("target", "Stage to build"),
];
const HOW: &[Flag] = &[
    Flag::list("add-host", "Host name for commands (host:address)"),
    Flag::text("cgroup-parent", "Cgroup above those of commands"),
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
    Flag::list(
        "no-cache-filter",
        "Take nothing from the cache in these stages",
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
    Flag::text("iidfile", "Write the image's ID to this file"),
    Flag::bool("load", "Keep the image in the engine, which is always done"),
    Flag::list(
        "output",
        "What to make of the image (type=docker|tar|local,dest=path)",
    )
    .short('o'),
    Flag::text(
        "progress",
        "How to show the build (auto, plain, quiet, rawjson)",
    )
    .default("auto"),
    Flag::bool("push", "Push the image to its registry"),
    Flag::bool("quiet", "Print the image's ID alone").short('q'),
];
/// Docker's flags that have no counterpart here yet.
const MISSING: &[Flag] = &[
    Flag::list("allow", "Allow something privileged (not supported yet)"),
    Flag::list("annotation", "Annotation of the image (not supported yet)"),
    Flag::list("attest", "Attestation of the image (not supported yet)"),
    Flag::list("cache-from", "Cache to read (not supported yet)"),
    Flag::list("cache-to", "Cache to write (not supported yet)"),
    Flag::bool("compress", "Compress the context (not supported yet)"),
    Flag::text("metadata-file", "Write what was built (not supported yet)"),
    Flag::text("provenance", "Attest how it was built (not supported yet)"),
    Flag::text("sbom", "Attest what is in it (not supported yet)"),
    Flag::bool("squash", "Make one layer of all (not supported yet)"),
    Flag::list("ssh", "Agent for RUN --mount=type=ssh (not supported yet)"),
];

pub(crate) const BUILD: Command = Command {
    usage: "[OPTIONS] PATH | URL | -",
    about: "Build an image from a Dockerfile",
    aliases: &["image build", "builder build", "build"],
    flags: &[WHAT, HOW, LIMITS, RESULT, MISSING],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    refuse(matches)?;
    let call = Call::read(matches)?;
    let outputs = matches
        .list("output")
        .iter()
        .map(|text| Output::parse(text));
    let outputs = outputs.collect::<Result<Vec<_>>>()?;
    let show = show(matches)?;
    let request = request(matches)?;
    let client = session.client().await?;
    let version: Version = client.json(&Request::get(&["version"])).await?;
    let knows = |detail: &str| {
        version
            .components
            .iter()
            .any(|part| part.details.contains_key(detail))
    };
    if !knows(BUILD_EVENTS) {
        return Err(Error::msg(
            "the engine does not build in a way that this client knows: it is another engine than hull's",
        ));
    }
    if let Call::Check(form) = call {
        return check(session, request, matches, form).await;
    }
    let response = send(session, request, source(matches)?).await?;
    let Outcome { id } = display::show(response.lines(), show).await?;
    if let Some(path) = matches.get("iidfile") {
        std::fs::write(path, &id).during(|| format!("write {path}"))?;
    }
    for output in &outputs {
        output.write(session, &id, matches.list("tag")).await?;
    }
    if matches.on("push") {
        push_all(session, matches).await?;
    }
    match show {
        Show::Nothing => output::line(&id),
        Show::Plain | Show::Raw => Ok(()),
    }
}

/// What a build is asked for.
enum Call {
    Build,
    Check(check::Form),
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
            other => Err(Error::msg(format!(
                "--call {other} is not supported yet: it is build or check"
            ))),
        }
    }
}

/// The Dockerfile as it is called in messages.
fn file_name(matches: &Matches) -> &str {
    let file = matches.get("file").filter(|file| !file.is_empty());
    file.unwrap_or("Dockerfile")
}

fn refuse(matches: &Matches) -> Result<()> {
    match MISSING.iter().find(|flag| matches.given(flag.long)) {
        Some(flag) => Err(Error::msg(format!("--{} is not supported yet", flag.long))),
        None => Ok(()),
    }
}

fn show(matches: &Matches) -> Result<Show> {
    if matches.on("quiet") {
        return Ok(Show::Nothing);
    }
    match matches.text("progress") {
        "" | "auto" | "plain" => Ok(Show::Plain),
        "rawjson" => Ok(Show::Raw),
        "quiet" => Ok(Show::Nothing),
        "tty" => Err(Error::msg("--progress tty is not supported yet")),
        other => Err(Error::msg(format!("invalid progress mode {other:?}"))),
    }
}

/// Everything but the body.
fn request(matches: &Matches) -> Result<Request> {
    let text = |flag: &str| {
        matches
            .get(flag)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let number = |value: Option<i64>| value.map(|value| value.to_string());
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
    let named = named_images(matches.list("build-context"));
    let mut request = Request::post(&["build"])
        .query("events", "1")
        .query(
            "buildargs",
            document(serde_json::json!(build_args(matches.list("build-arg")))),
        )
        .query(
            "labels",
            document(serde_json::json!(keyvalue::map(matches.list("label")))),
        )
        .query(
            "nocachefilter",
            document(serde_json::json!(matches.list("no-cache-filter"))),
        )
        .query("dockerfile", file_name(matches))
        .query("namedimages", document(serde_json::json!(named)))
        .query("ulimits", document(serde_json::json!(ulimits)))
        .query("rm", if matches.on_unless("rm") { "1" } else { "0" })
        .query_flag("nocache", matches.on("no-cache"))
        .query_flag("pull", matches.on("pull"))
        .query_flag("explain", matches.on("explain"))
        .query_some("target", text("target"))
        .query_some("platform", platform::normal(matches.text("platform"))?)
        .query_some("networkmode", text("network"))
        .query_some("cgroupparent", text("cgroup-parent"))
        .query_some("shmsize", number(matches.bytes("shm-size")))
        .query_some("memory", number(matches.bytes("memory")))
        .query_some("memswap", number(matches.bytes("memory-swap")))
        .query_some("cpuperiod", number(matches.int("cpu-period")))
        .query_some("cpuquota", number(matches.int("cpu-quota")))
        .query_some("cpushares", number(matches.int("cpu-shares")))
        .query_some("cpusetcpus", text("cpuset-cpus"))
        .query_some("cpusetmems", text("cpuset-mems"));
    for tag in matches.list("tag") {
        request = request.query("t", tag);
    }
    for host in hosts {
        request = request.query("extrahosts", host);
    }
    match secrets(matches.list("secret"))? {
        Some(header) => Ok(request.header(HEADER_SECRETS, header)),
        None => Ok(request),
    }
}

/// Values of the environment where only a name is given; without one there, none.
fn build_args(values: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.clone(), std::env::var(text).ok()?)),
    };
    values.iter().filter_map(pair).collect()
}

const IMAGE: &str = "docker-image://";

fn named_images(contexts: &[String]) -> BTreeMap<String, String> {
    let image = |text: &String| {
        let (name, value) = text.split_once('=')?;
        Some((name.to_owned(), value.strip_prefix(IMAGE)?.to_owned()))
    };
    contexts.iter().filter_map(image).collect()
}

fn named_directories(contexts: &[String]) -> Result<Vec<(String, PathBuf, Ignore)>> {
    let mut named = Vec::new();
    for text in contexts {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::msg(format!(
                "invalid --build-context {text:?}: it is name=path or name=docker-image://image"
            )));
        };
        if value.starts_with(IMAGE) {
            continue;
        }
        if value.contains("://") || value.starts_with("target:") || value.starts_with("git@") {
            return Err(Error::msg(format!(
                "--build-context {text}: only directories and docker-image:// are supported yet"
            )));
        }
        if name.contains('/') || name.starts_with('.') {
            return Err(Error::msg(format!(
                "--build-context {text}: {name:?} is no name of a context"
            )));
        }
        let path = PathBuf::from(value);
        let ignored = ignore(&path, None)?;
        named.push((name.to_owned(), path, ignored.rules));
    }
    Ok(named)
}

/// `id=name,src=path` or `id=name,env=NAME`, as the header takes them.
fn secrets(values: &[String]) -> Result<Option<String>> {
    if values.is_empty() {
        return Ok(None);
    }
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
    let header = BASE64.encode(serde_json::json!(all).to_string());
    match header.len() <= SECRETS_BYTES_MAX {
        true => Ok(Some(header)),
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

/// What a build is made of.
enum Source {
    /// An archive from standard input, which has begun with these bytes.
    Archive(Vec<u8>, std::io::Stdin),
    /// Something that the engine fetches.
    Address(String),
    Parts(Parts),
}

fn source(matches: &Matches) -> Result<Source> {
    let file = matches.get("file").filter(|file| !file.is_empty());
    let named = named_directories(matches.list("build-context"))?;
    let is_address = |text: &str| {
        text.contains("://")
            || text.starts_with("git@")
            || (text.starts_with("github.com/") && !Path::new(text).exists())
    };
    let parts = match (matches.args[0].as_str(), file) {
        ("-", Some("-")) => {
            return Err(Error::msg(
                "invalid argument: can't use stdin for both build context and dockerfile",
            ));
        }
        ("-", _) => match standard_input()? {
            (start, input) if is_archive(&start) => {
                if !named.is_empty() {
                    return Err(Error::msg(
                        "--build-context together with a context from standard input is not supported yet",
                    ));
                }
                return Ok(Source::Archive(start, input));
            }
            (start, input) => Parts {
                dockerfile: read_dockerfile(Cursor::new(start).chain(input))?,
                context: None,
                ignored: Ignored::default(),
                named,
            },
        },
        (address, _) if is_address(address) => return Ok(Source::Address(address.to_owned())),
        (directory, Some("-")) => {
            let directory = context_directory(directory)?;
            Parts {
                ignored: ignore(&directory, None)?,
                dockerfile: read_dockerfile(std::io::stdin())?,
                context: Some(directory),
                named,
            }
        }
        (directory, file) => {
            let directory = context_directory(directory)?;
            let path = file.map_or_else(|| directory.join("Dockerfile"), PathBuf::from);
            let opened =
                std::fs::File::open(&path).during(|| format!("open {}", path.display()))?;
            Parts {
                ignored: ignore(&directory, Some(&path))?,
                dockerfile: read_dockerfile(opened)?,
                context: Some(directory),
                named,
            }
        }
    };
    Ok(Source::Parts(parts))
}

/// Sends the request with its body.
async fn send(session: &Session, request: Request, source: Source) -> Result<Response> {
    const TYPE: &str = "application/x-tar";
    let client = session.client().await?;
    let parts = match source {
        Source::Archive(start, input) => {
            let whole = Cursor::new(start).chain(input);
            return Ok(client.upload(&request, TYPE, Blocking(whole)).await?);
        }
        // The engine says what it can fetch.
        Source::Address(address) => {
            return Ok(client.send(&request.query("remote", address)).await?);
        }
        Source::Parts(parts) => parts,
    };
    let text = String::from_utf8_lossy(&parts.dockerfile);
    let request = credentials::authorized_for(session, request, &text)?;
    let tar = parts.stream()?;
    let failure = tar.failure();
    let result = client
        .upload(&request.query("layout", "parts"), TYPE, tar)
        .await;
    failure.or(result)
}

/// Has the Dockerfile checked; no files are sent for that.
async fn check(
    session: &Session,
    request: Request,
    matches: &Matches,
    form: check::Form,
) -> Result<()> {
    let mut source = source(matches)?;
    let mut text = String::new();
    if let Source::Parts(parts) = &mut source {
        parts.context = None;
        parts.named.clear();
        text = String::from_utf8_lossy(&parts.dockerfile).into_owned();
    }
    let response = send(session, request.query("check", "1"), source).await?;
    check::show(response.lines(), form, file_name(matches), &text).await
}

/// What standard input begins with, and the rest of it.
fn standard_input() -> Result<(Vec<u8>, std::io::Stdin)> {
    let mut input = std::io::stdin();
    if input.is_terminal() {
        output::complain("reading a Dockerfile or a tar archive from standard input");
    }
    let mut start = Vec::new();
    let read = input.by_ref().take(MAGIC_BYTES).read_to_end(&mut start);
    read.during(|| "read standard input")?;
    Ok((start, input))
}

fn context_directory(path: &str) -> Result<PathBuf> {
    let path = Path::new(path);
    match path.is_dir() {
        true => Ok(path.to_owned()),
        false => Err(Error::msg(format!(
            "unable to prepare context: path {:?} not found, or no directory",
            path.display().to_string()
        ))),
    }
}

fn read_dockerfile(reader: impl std::io::Read) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = reader.take(DOCKERFILE_BYTES_MAX + 1).read_to_end(&mut text);
    read.during(|| "read the Dockerfile")?;
    match text.len() as u64 <= DOCKERFILE_BYTES_MAX {
        true => Ok(text),
        false => Err(Error::msg(format!(
            "the Dockerfile has more than {DOCKERFILE_BYTES_MAX} bytes"
        ))),
    }
}

/// Whether bytes begin a tar archive, or something compressed.
fn is_archive(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar")
        || start.starts_with(&[0x1f, 0x8b])
        || start.starts_with(b"BZh")
        || start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0])
        || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

async fn push_all(session: &Session, matches: &Matches) -> Result<()> {
    if matches.list("tag").is_empty() {
        return Err(Error::msg("--push needs a name: give one with --tag"));
    }
    for tag in matches.list("tag") {
        let to = if matches.on("quiet") {
            To::Nowhere
        } else {
            To::Stderr
        };
        push::push(session, tag, to).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_from_files_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "hidden").unwrap();
        let header = secrets(&[format!("id=a,src={}", path.display())])
            .unwrap()
            .unwrap();
        let document = BASE64.decode(header).unwrap();
        assert_eq!(String::from_utf8(document).unwrap(), "{\"a\":\"aGlkZGVu\"}");
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

    #[test]
    fn archives_are_told_from_dockerfiles() {
        assert!(!is_archive(b"FROM x"));
        assert!(is_archive(&[0x1f, 0x8b, 8]));
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&tar));
    }
}
