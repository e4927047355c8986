//! A build's query, headers and body. What is not supported is an error that names it, never ignored.

use super::agents::{Awaited, WithAgents};
use super::elsewhere::{CacheArchive, Elsewhere, Sent};
use super::kept::Keep;
use super::parameters::{
    agents, allowances, credentials, extra_hosts, inline_cache, inquiry, json, limits, secrets,
    shell_on_failure, tag,
};
use super::status;
use crate::http::{BodyReader, Error, Pieces, Query};
use crate::wire;
use api_types as types;
use builder::fetch::Fetcher;
use builder::{
    Allowances, Attestations, CacheSource, CacheTarget, Context, Ignore, Inquiry, LayoutImage,
    NamedContext, Request, STAGES_AT_ONCE_MAX, Told,
};
use engine::Engine;
use engine::images::registry::Credentials;
use engine::model::{Limits, NetworkMode};
use http::HeaderMap;
use oci::Reference;
use oci::image::Platform;
use rustix::fs::{Mode, OFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Files that a client is told of, of those that are the largest in an image.
const LARGEST_MAX: usize = 100;
/// Parameters of which any but the default is not supported: the name, what it is, and what counts as the default.
const REFUSED: [(&str, &str, &[&str]); 4] = [
    ("squash", "squashing layers", &["0", "false"]),
    ("outputs", "an output of BuildKit", &[]),
    ("session", "a session of BuildKit", &[]),
    ("isolation", "an isolation", &["default"]),
];

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) quiet: bool,
    pub(crate) events: bool,
    /// The Dockerfile is to be checked, and nothing built.
    pub(crate) check: bool,
    /// What is asked of it, and nothing built.
    pub(crate) inquiry: Option<Inquiry>,
    pub(crate) tags: Vec<Reference>,
    dockerfile: String,
    /// Where the context is, if not in the body.
    remote: Option<String>,
    /// The body has parts: the context is one of them.
    parts: bool,
    named: Named,
    target: Option<String>,
    build_args: BTreeMap<String, Option<String>>,
    labels: BTreeMap<String, String>,
    platforms: Vec<Platform>,
    elsewhere: Elsewhere,
    attestations: Attestations,
    network: NetworkMode,
    allowances: Allowances,
    extra_hosts: Vec<String>,
    shm_bytes: u64,
    limits: Limits,
    cgroup_parent: Option<String>,
    no_cache: bool,
    no_cache_stages: Vec<String>,
    /// Images of the engine whose caches may be used.
    cache_from: Vec<CacheSource>,
    cache_to: Vec<CacheTarget>,
    pull: bool,
    explain: bool,
    shell_on_failure: bool,
    /// The names of the client's SSH agents.
    agents: BTreeSet<String>,
    largest: usize,
    secrets: BTreeMap<String, Vec<u8>>,
    credentials: BTreeMap<String, Credentials>,
}

/// Where a build takes place.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) handle: &'a Handle,
    /// Where the client is told of it.
    pub(crate) pieces: &'a Pieces,
    pub(crate) awaited: Awaited,
    /// What is sent of the context is kept.
    pub(crate) keep: Option<Keep>,
}

impl Surroundings<'_> {
    fn client(&self, told: Told, agents: BTreeSet<String>) -> WithAgents {
        WithAgents {
            told,
            agents,
            awaited: self.awaited.clone(),
            pieces: self.pieces.clone(),
            handle: self.handle.clone(),
        }
    }
}

impl Wish {
    pub(crate) fn read(query: &Query, headers: &HeaderMap) -> Result<Self, Error> {
        refuse(query)?;
        let mut build_args: BTreeMap<String, Option<String>> = json(query, "buildargs")?;
        let cache_to = inline_cache(&mut build_args)?;
        let cache_from: Vec<String> = json(query, "cachefrom")?;
        let tags = query.all("t").iter().filter(|text| !text.is_empty());
        let platforms = query.get("platform").unwrap_or_default().split(',');
        let platforms: Result<Vec<Platform>, _> = { platforms }
            .filter(|text| !text.is_empty())
            .map(str::parse)
            .collect();
        let mut attestations = Attestations::default();
        for (kind, text) in json::<BTreeMap<String, String>>(query, "attests")? {
            attestations
                .add(&kind, &text)
                .map_err(|error| status(&error))?;
        }
        let layout = query.get("layout");
        if let Some(other) = layout.filter(|layout| *layout != "parts") {
            return Err(Error::bad_request(format!(
                "unknown layout of the body: {other:?}"
            )));
        }
        Ok(Self {
            quiet: query.flag("q"),
            events: query.flag("events"),
            check: query.flag("check"),
            inquiry: inquiry(query)?,
            tags: tags.map(|text| tag(text)).collect::<Result<_, _>>()?,
            dockerfile: query.get("dockerfile").unwrap_or("Dockerfile").to_owned(),
            remote: query.get("remote").map(str::to_owned),
            parts: layout.is_some(),
            named: Named {
                images: json(query, "namedimages")?,
                layouts: json(query, "namedlayouts")?,
                addresses: json(query, "namedaddresses")?,
            },
            target: query.get("target").map(str::to_owned),
            build_args,
            labels: json(query, "labels")?,
            platforms: platforms.map_err(|error| Error::bad_request(error.to_string()))?,
            elsewhere: Elsewhere {
                outputs: json(query, "exports")?,
                cache_imports: json(query, "cacheimports")?,
                cache_exports: json(query, "cacheexports")?,
            },
            attestations,
            network: wire::create::network_mode(query.get("networkmode").unwrap_or_default()),
            allowances: allowances(query)?,
            extra_hosts: extra_hosts(query)?,
            shm_bytes: match query.number::<u64>("shmsize")? {
                None | Some(0) => wire::create::SHM_BYTES,
                Some(bytes) => bytes,
            },
            limits: limits(query)?,
            cgroup_parent: query.get("cgroupparent").map(str::to_owned),
            no_cache: query.flag("nocache"),
            no_cache_stages: json(query, "nocachefilter")?,
            cache_from: cache_from.into_iter().map(CacheSource::Image).collect(),
            cache_to,
            pull: query.flag("pull"),
            explain: query.flag("explain"),
            shell_on_failure: shell_on_failure(query)?,
            agents: agents(query)?,
            largest: query
                .number::<usize>("largest")?
                .unwrap_or(0)
                .min(LARGEST_MAX),
            secrets: secrets(headers)?,
            credentials: credentials(headers)?,
        })
    }

    /// Whether the client may be asked for something before the build begins: its answer must have begun by then.
    pub(crate) fn is_asked_meanwhile(&self) -> bool {
        let fetches = self.remote.is_some() || !self.named.addresses.is_empty();
        fetches && !self.agents.is_empty()
    }

    /// Reads the body, or what is elsewhere.
    pub(crate) fn into_request(
        self,
        surroundings: Surroundings<'_>,
        body: BodyReader,
        stop: watch::Receiver<bool>,
    ) -> Result<(Request, Option<CacheArchive>), Error> {
        let pieces = surroundings.pieces;
        let told = Told {
            secrets: self.secrets,
            credentials: self.credentials,
        };
        let client = surroundings.client(told, self.agents);
        let fetcher = Fetcher {
            engine: surroundings.engine,
            handle: surroundings.handle,
            client: &client,
            stop: &stop,
        };
        let name = self.dockerfile;
        let Files {
            context,
            dockerfile,
            ignore,
            named,
            layouts,
            caches,
        } = Files::receive(
            &fetcher,
            body,
            self.remote.as_deref(),
            (self.parts, surroundings.keep),
            &name,
        )?;
        let contexts = self.named.contexts(&fetcher, named, layouts)?;
        // The classic text is of one step after another.
        let stages_at_once = if self.events { STAGES_AT_ONCE_MAX } else { 1 };
        let build_args =
            { self.build_args.into_iter() }.filter_map(|(name, value)| Some((name, value?)));
        let elsewhere = self.elsewhere;
        let failed = |error: builder::Error| status(&error);
        let outputs = elsewhere.outputs(self.tags, pieces).map_err(failed)?;
        let (cache_to, archive) = elsewhere.targets(pieces).map_err(failed)?;
        let request = Request {
            dockerfile_name: name,
            dockerfile,
            context,
            ignore,
            contexts,
            target: self.target,
            build_args: build_args.collect(),
            labels: self.labels,
            platforms: self.platforms,
            index: false,
            attestations: self.attestations,
            network: self.network,
            allowances: self.allowances,
            extra_hosts: self.extra_hosts,
            shm_bytes: self.shm_bytes,
            limits: self.limits,
            cgroup_parent: self.cgroup_parent,
            no_cache: self.no_cache,
            no_cache_stages: self.no_cache_stages,
            pull: self.pull,
            cache_from: chain(self.cache_from, elsewhere.sources(&caches).map_err(failed)?),
            cache_to: chain(self.cache_to, cache_to),
            explain: self.explain,
            shell_on_failure: self.shell_on_failure,
            largest: self.largest,
            client: Box::new(client),
            outputs,
            stages_at_once,
            stop,
        };
        Ok((request, archive))
    }
}

/// Named contexts that are no files of the client.
#[derive(Debug)]
struct Named {
    images: BTreeMap<String, String>,
    /// Images that the client sends, by their manifests.
    layouts: BTreeMap<String, String>,
    addresses: BTreeMap<String, String>,
}

impl Named {
    fn contexts(
        self,
        fetcher: &Fetcher<'_>,
        files: BTreeMap<String, Context>,
        mut sent: BTreeMap<String, Context>,
    ) -> Result<BTreeMap<String, NamedContext>, Error> {
        let images = { self.images.into_iter() }.map(|(name, it)| (name, NamedContext::Image(it)));
        let files = { files.into_iter() }.map(|(name, files)| (name, NamedContext::Files(files)));
        let mut contexts: BTreeMap<String, NamedContext> = images.chain(files).collect();
        for (name, digest) in self.layouts {
            let missing = || Error::bad_request(format!("the layout {name} was not sent"));
            let blobs = Box::new(Sent(sent.remove(&name).ok_or_else(missing)?));
            let wrong = |_| Error::bad_request(format!("{digest:?} is no digest"));
            let manifest = digest.parse().map_err(wrong)?;
            let layout = LayoutImage {
                name: name.clone(),
                blobs,
                manifest,
            };
            contexts.insert(name, NamedContext::Layout(layout));
        }
        for (name, address) in self.addresses {
            match fetcher.context(&address).map_err(|error| status(&error))? {
                (files, None) => contexts.insert(name, NamedContext::Files(files)),
                (_, Some(_)) => {
                    return Err(Error::bad_request(format!(
                        "the named context {name}={address} is neither a repository nor an archive"
                    )));
                }
            };
        }
        Ok(contexts)
    }
}

/// What a build is made of.
struct Files {
    context: Context,
    dockerfile: Vec<u8>,
    ignore: Ignore,
    named: BTreeMap<String, Context>,
    /// Images of the client.
    layouts: BTreeMap<String, Context>,
    /// Caches of the client, by number.
    caches: BTreeMap<String, Context>,
}

impl Files {
    /// Of an address, or of the body; the Dockerfile is one that can be read.
    fn receive(
        fetcher: &Fetcher<'_>,
        body: BodyReader,
        remote: Option<&str>,
        (is_parts, keep): (bool, Option<Keep>),
        name: &str,
    ) -> Result<Self, Error> {
        let fetched = remote.map(|address| fetcher.context(address)).transpose();
        let fetched = fetched.map_err(|error| status(&error))?;
        let unpack = || {
            let unpacked = Context::unpack(fetcher.engine.images(), body);
            unpacked.map_err(|error| status(&error))
        };
        let files = match (fetched, is_parts) {
            (None, false) => Self::of_context(unpack()?, name, None)?,
            (None, true) => {
                let parts = unpack()?;
                let own = Self::of_archive(fetcher, &parts, name)?;
                let mut files = Self::of_parts(&parts, own)?;
                if let Some(keep) = keep {
                    files.context = keep.fill(fetcher.engine, &parts, files.context)?;
                }
                files
            }
            (Some((context, text)), false) => Self::of_context(context, name, text)?,
            (Some((context, text)), true) => {
                let parts = unpack()?;
                // One that is sent counts before what is at the address.
                let sent = read_dockerfile(&parts, types::PART_DOCKERFILE)?;
                let own = Self::of_context(context, name, sent.or(text))?;
                Self::of_parts(&parts, Some(own))?
            }
        };
        builder::language::parse(name, &files.dockerfile)
            .map_err(|error| Error::bad_request(error.to_string()))?;
        Ok(files)
    }

    /// Of a context with its Dockerfile in it, unless that came by itself.
    fn of_context(context: Context, name: &str, fetched: Option<Vec<u8>>) -> Result<Self, Error> {
        let dockerfile = match fetched {
            Some(text) => text,
            None => dockerfile(&context, name)?,
        };
        let ignore = context.apply_ignore(name);
        Ok(Self {
            ignore: ignore.map_err(|error| status(&error))?,
            context,
            dockerfile,
            named: BTreeMap::new(),
            layouts: BTreeMap::new(),
            caches: BTreeMap::new(),
        })
    }

    /// Of an archive among parts, where there is one.
    fn of_archive(
        fetcher: &Fetcher<'_>,
        parts: &Context,
        name: &str,
    ) -> Result<Option<Self>, Error> {
        let path = Path::new("/").join(types::PART_ARCHIVE);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(archive) = parts.root().open_at(&path, flags, Mode::empty()) else {
            return Ok(None);
        };
        let context = Context::unpack(fetcher.engine.images(), File::from(archive));
        let context = context.map_err(|error| status(&error))?;
        Self::of_context(context, name, None).map(Some)
    }

    /// Of a body of parts, whose client has applied what is ignored; `elsewhere` is what it has not sent.
    fn of_parts(parts: &Context, elsewhere: Option<Self>) -> Result<Self, Error> {
        let split = |below: &str| {
            let split = parts.split(types::PART_CONTEXT, below);
            split.map_err(|error| status(&error))
        };
        let (context, named) = split(types::PART_NAMED)?;
        let own = match elsewhere {
            Some(own) => own,
            None => {
                let ignore = parts.ignore(types::PART_IGNORE);
                Self {
                    context,
                    dockerfile: dockerfile(parts, types::PART_DOCKERFILE)?,
                    ignore: ignore.map_err(|error| status(&error))?.unwrap_or_default(),
                    named: BTreeMap::new(),
                    layouts: BTreeMap::new(),
                    caches: BTreeMap::new(),
                }
            }
        };
        Ok(Self {
            named,
            layouts: split(types::PART_LAYOUTS)?.1,
            caches: split(types::PART_CACHES)?.1,
            ..own
        })
    }
}

fn read_dockerfile(context: &Context, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let read = context.read(Path::new(name), builder::language::DOCKERFILE_BYTES_MAX);
    read.map_err(|error| status(&error))
}

fn dockerfile(context: &Context, name: &str) -> Result<Vec<u8>, Error> {
    let found = read_dockerfile(context, name)?;
    found.ok_or_else(|| Error::bad_request(format!("Cannot locate specified Dockerfile: {name}")))
}

fn refuse(query: &Query) -> Result<(), Error> {
    for (name, what, defaults) in REFUSED {
        if query
            .get(name)
            .is_some_and(|value| !defaults.contains(&value))
        {
            return Err(Error::unsupported(what));
        }
    }
    match query.get("version") {
        None | Some("1") => {}
        Some(other) => {
            return Err(Error::bad_request(format!(
                "invalid version of the builder: {other}"
            )));
        }
    }
    // `rm` and `forcerm` ask what to do with a build's containers: none is ever left.
    Ok(())
}

/// Both lists, one behind the other.
fn chain<T>(mut first: Vec<T>, then: Vec<T>) -> Vec<T> {
    first.extend(then);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Wish, Error> {
        Wish::read(&Query::parse(query), &HeaderMap::new())
    }

    #[test]
    fn parameters_are_read_as_dockers_client_sends_them() {
        let wish = read(
            "t=a&t=b%3A1&buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D&labels=%7B%7D&cachefrom=null&rm=1\
             &extrahosts=a%3A1.2.3.4%2Cb%3A%3A%3A1&memory=1048576&ulimits=null&version=1&shmsize=0&networkmode=default",
        )
        .unwrap();
        let tags: Vec<String> = wish.tags.iter().map(Reference::familiar).collect();
        assert_eq!(tags, ["a:latest", "b:1"]);
        assert_eq!(wish.build_args["A"].as_deref(), Some("1"));
        assert_eq!(wish.build_args["B"], None);
        assert_eq!(wish.extra_hosts, ["a:1.2.3.4", "b:::1"]);
        assert_eq!(wish.limits.memory_bytes, Some(1 << 20));
        assert_eq!(
            (wish.dockerfile.as_str(), wish.shm_bytes),
            ("Dockerfile", wire::create::SHM_BYTES)
        );
    }

    #[test]
    fn what_is_not_supported_is_told() {
        for (query, expected) in [
            ("version=3", "version of the builder"),
            ("squash=1", "squashing"),
            ("t=A%20b", "invalid argument"),
            ("labels=x", "labels"),
            ("extrahosts=x", "add-host"),
            ("layout=other", "layout"),
            ("platform=!", "platform"),
        ] {
            let error = read(query).unwrap_err();
            assert!(
                error.message.contains(expected),
                "{query}: {}",
                error.message
            );
        }
    }
}
