//! One build: the Dockerfile and the contexts from the client's session, the engine's own builder, the output.
//!
//! Everything here blocks, on a thread of its own.

use crate::asked::{Archive, SessionClient};
use crate::attributes::{Attributes, Inquiry};
use crate::caches::Caches;
use crate::failure::{self, Source};
use crate::files::{Transfer, Wanted};
use crate::grpc::Status;
use crate::inquiry::{self, Answer};
use crate::messages::{SourceInfo, Timestamp};
use crate::output;
use crate::session::Session;
use crate::steps::Steps;
use crate::store::ClientStore;
use crate::vertex::{Part, Teller, Vertex};
use crate::wanted::{self, Wanted as Used};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use builder::fetch::Fetcher;
use builder::language::{self, DOCKERFILE_BYTES_MAX, Dockerfile};
use builder::{
    Allowances, Base, Context, Error, Filling, LayoutImage, NamedContext, OutputWish, Request,
    Result, STAGES_AT_ONCE_MAX,
};
use engine::Engine;
use engine::model::Limits;
use http::{HeaderMap, HeaderName, HeaderValue};
use patterns::{IGNORE_BYTES_MAX, Ignore};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sys::root::Root;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// What became of an image: the digests of its manifest and configuration, and the manifest's descriptor.
const DIGEST: &str = "containerimage.digest";
const CONFIG_DIGEST: &str = "containerimage.config.digest";
const DESCRIPTOR: &str = "containerimage.descriptor";
const PULL: &str = "/moby.upload.v1.Upload/Pull";
const HEADER_PATH: HeaderName = HeaderName::from_static("urlpath");
/// Addresses of archives that the client has at hand, such as its standard input.
const UPLOADS: &str = "http://buildkit-session/";
/// How often the progress of a transfer is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// A build that a client has asked for.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) engine: Engine,
    pub(crate) handle: Handle,
    /// What the client calls the build.
    pub(crate) id: String,
    /// What the Dockerfile may ask for.
    pub(crate) allowances: Allowances,
    pub(crate) session: Arc<Session>,
    pub(crate) teller: Arc<Teller>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// A build whose Dockerfile is there, and can be read.
#[derive(Debug)]
pub(crate) struct Prepared {
    attributes: Attributes,
    text: Vec<u8>,
    file: Dockerfile,
    /// The `.dockerignore`, where it belongs to the Dockerfile.
    ignore: Option<Vec<u8>>,
    /// The context, where it came as an archive.
    uploaded: Option<Context>,
}

impl Prepared {
    /// What is asked of it, in the place of building it.
    pub(crate) fn inquiry(&self) -> Option<Inquiry> {
        self.attributes.inquiry
    }
}

impl Job {
    fn transfer(&self) -> Transfer<'_> {
        Transfer {
            handle: &self.handle,
            session: &self.session,
            stop: &self.stop,
        }
    }

    /// Gets the Dockerfile.
    ///
    /// # Errors
    /// Attributes that are not supported, no Dockerfile, one with mistakes: as the client is told.
    pub(crate) fn prepare(
        &self,
        given: &BTreeMap<String, String>,
    ) -> std::result::Result<Prepared, Status> {
        let whole = |error: Error| failure::status(&error, None);
        let attributes = Attributes::read(given).map_err(whole)?;
        let name = attributes.filename.clone();
        let vertex = self.begin(&format!("[internal] load build definition from {name}"));
        let got = self.definition(&vertex, attributes);
        if let Err(error) = &got {
            self.teller.fail(&vertex, &failure::sentence(error));
        }
        let (attributes, text, ignore, uploaded) = got.map_err(whole)?;
        self.teller.end(&vertex, false);
        let parsed = language::parse(&name, &text).map_err(Error::Language);
        let file = parsed.map_err(|error| {
            let source = Source {
                name: &name,
                text: &text,
                escape: '\\',
            };
            failure::status(&error, Some(&source))
        })?;
        Ok(Prepared {
            attributes,
            text,
            file,
            ignore,
            uploaded,
        })
    }

    /// Builds, and gives the result to whom it is for. What the client is told of it, by name.
    ///
    /// # Errors
    /// As the client is told.
    pub(crate) fn build(
        &self,
        prepared: Prepared,
        targets: Vec<OutputWish>,
        caches: Caches,
    ) -> std::result::Result<BTreeMap<String, String>, Status> {
        let (name, text) = (prepared.attributes.filename.clone(), prepared.text.clone());
        let escape = prepared.file.directives.escape;
        let source = SourceInfo {
            filename: name.clone(),
            text: text.clone(),
            language: "Dockerfile".to_owned(),
        };
        let title = output::title(&targets);
        let names = targets.iter().flat_map(OutputWish::names);
        let names: Vec<String> = names
            .map(|name| crate::steps::normal(&name.familiar()))
            .collect();
        let steps = Steps::new(&self.teller, &self.id, &prepared.file, source, title);
        let built = self
            .request(prepared, targets, caches)
            .and_then(|request| builder::build(&self.engine, &self.handle, &request, &steps));
        let built = built.map_err(|error| {
            steps.fail(failure::place(&error), &failure::sentence(&error));
            let source = Source {
                name: &name,
                text: &text,
                escape,
            };
            failure::status(&error, Some(&source))
        })?;
        let mut told = BTreeMap::new();
        if let Some(manifest) = &built.cache {
            let json = serde_json::to_string(manifest).expect("it has only strings as keys");
            told.insert("cache.manifest".to_owned(), json);
        }
        let mut parts = Vec::new();
        if let Some(id) = built.made.id {
            parts = vec!["exporting layers".to_owned(), format!("writing image {id}")];
            parts.extend(names.iter().map(|name| format!("naming to {name}")));
            told.insert(DIGEST.to_owned(), id.to_string());
            told.insert(CONFIG_DIGEST.to_owned(), id.to_string());
        }
        if let Some((manifest, config)) = &built.made.manifest {
            parts.push(format!("exporting manifest {}", manifest.digest));
            let json = serde_json::to_vec(manifest).expect("it has only strings as keys");
            told.insert(DIGEST.to_owned(), manifest.digest.to_string());
            told.insert(CONFIG_DIGEST.to_owned(), config.to_string());
            told.insert(DESCRIPTOR.to_owned(), BASE64.encode(json));
        }
        steps.finish(&parts);
        if !names.is_empty() {
            told.insert("image.name".to_owned(), names.join(","));
        }
        Ok(told)
    }

    /// Answers what is asked of a Dockerfile that is not to be built.
    ///
    /// # Errors
    /// As the client is told.
    pub(crate) fn answer(
        &self,
        prepared: Prepared,
        inquiry: Inquiry,
    ) -> std::result::Result<Answer, Status> {
        let answer = self
            .request(prepared, Vec::new(), Caches::default())
            .and_then(|request| match inquiry {
                Inquiry::Lint => {
                    let found = builder::check(&self.engine, &request)?;
                    Ok(inquiry::lint(&request, &found))
                }
                Inquiry::Of(asked) => Ok(inquiry::told(&builder::inquire(&request, asked)?)),
            });
        answer.map_err(|error| failure::status(&error, None))
    }

    fn begin(&self, name: &str) -> Vertex {
        let vertex = Vertex::begin(&format!("{} {name}", self.id), name);
        self.teller.begin(&vertex);
        vertex
    }

    /// The Dockerfile, its own `.dockerignore`, and the context if it is an archive or elsewhere.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn definition(
        &self,
        vertex: &Vertex,
        attributes: Attributes,
    ) -> Result<(Attributes, Vec<u8>, Option<Vec<u8>>, Option<Context>)> {
        let (uploaded, fetched) = match &attributes.context {
            None => (None, None),
            Some(address) => {
                let (context, dockerfile) = self.elsewhere(address)?;
                (Some(context), dockerfile)
            }
        };
        if let Some(text) = fetched {
            return Ok((attributes, text, None, uploaded));
        }
        let name = &attributes.filename;
        let own = format!("{name}.dockerignore");
        let directory = Context::empty(self.engine.images())?;
        let source = match &uploaded {
            // Where the context comes as an archive, the Dockerfile is in it, unless it is said to be elsewhere.
            Some(context) if !attributes.has_dockerfile => context,
            _ => {
                let wanted = Wanted {
                    directory: attributes.dockerfile_directory.clone(),
                    follow: vec![name.clone(), own.clone()],
                    exclude: Vec::new(),
                };
                let tree = directory.root();
                self.receive(vertex, "transferring dockerfile:", &wanted, (tree, None))?;
                &directory
            }
        };
        let text = source.read(Path::new(name), DOCKERFILE_BYTES_MAX)?;
        let text = text.ok_or_else(|| {
            let text = format!("failed to read dockerfile: open {name}: no such file or directory");
            Error::NotFound(text)
        })?;
        let ignore = source.read(Path::new(&own), IGNORE_BYTES_MAX)?;
        Ok((attributes, text, ignore, uploaded))
    }

    fn receive(
        &self,
        vertex: &Vertex,
        name: &str,
        wanted: &Wanted,
        to: (&Root, Option<&mut Filling>),
    ) -> Result<()> {
        let started = Timestamp::now();
        let mut told = Instant::now();
        let mut all = 0;
        let part = |bytes, is_done| Part {
            name,
            bytes,
            started,
            is_done,
        };
        self.transfer().receive(wanted, to, &mut |bytes| {
            all = bytes;
            if told.elapsed() >= PROGRESS_INTERVAL {
                told = Instant::now();
                self.teller.part(vertex, &part(bytes, false));
            }
        })?;
        self.teller.part(vertex, &part(all, true));
        Ok(())
    }

    /// A context that is not the client's directory, and the Dockerfile if that is all there is.
    fn elsewhere(&self, address: &str) -> Result<(Context, Option<Vec<u8>>)> {
        if let Some(name) = address.strip_prefix(UPLOADS) {
            return Ok((self.upload(address, name)?, None));
        }
        let fetcher = Fetcher {
            engine: &self.engine,
            handle: &self.handle,
            client: &self.client(),
            stop: &self.stop,
        };
        fetcher.context(address)
    }

    /// One of the client's stores of blobs.
    pub(crate) fn store(&self, id: String) -> ClientStore {
        ClientStore {
            handle: self.handle.clone(),
            session: Arc::clone(&self.session),
            stop: self.stop.clone(),
            id,
        }
    }

    fn client(&self) -> SessionClient {
        SessionClient {
            handle: self.handle.clone(),
            session: Arc::clone(&self.session),
            stop: self.stop.clone(),
        }
    }

    /// An archive that the client has at hand.
    fn upload(&self, address: &str, name: &str) -> Result<Context> {
        let path = HeaderValue::try_from(format!("/{name}"));
        let path = path.map_err(|_| Error::Invalid(format!("invalid context: {address:?}")))?;
        let headers = HeaderMap::from_iter([(HEADER_PATH, path)]);
        let call = self.session.open(PULL, headers);
        let mut call =
            call.ok_or_else(|| Error::Client("the client sends no archive".to_owned()))?;
        call.finish();
        let archive = Archive::new(self.transfer(), call);
        Context::unpack(self.engine.images(), archive)
    }

    /// Everything that the builder wants to know.
    fn request(
        &self,
        prepared: Prepared,
        targets: Vec<OutputWish>,
        mut caches: Caches,
    ) -> Result<Request> {
        let is_built = prepared.attributes.inquiry.is_none();
        let (context, ignore) = self.context(&prepared)?;
        let attributes = prepared.attributes;
        caches.add(attributes.cache_from, attributes.inline_cache)?;
        let (cache_from, cache_to) = caches.open(self)?;
        let mut contexts = BTreeMap::new();
        for (name, value) in &attributes.contexts {
            contexts.insert(name.clone(), self.named(name, value, is_built)?);
        }
        let outputs = targets.into_iter().enumerate();
        let outputs = outputs.map(|(number, it)| output::output(it, number, |id| self.store(id)));
        Ok(Request {
            dockerfile_name: attributes.filename,
            dockerfile: prepared.text,
            context,
            ignore,
            contexts,
            target: attributes.target,
            build_args: attributes.build_args,
            labels: attributes.labels,
            platforms: attributes.platforms,
            index: attributes.index,
            attestations: attributes.attestations,
            network: attributes.network,
            allowances: self.allowances,
            extra_hosts: attributes.extra_hosts,
            shm_bytes: attributes.shm_bytes,
            limits: Limits {
                ulimits: attributes.ulimits,
                ..Limits::default()
            },
            cgroup_parent: attributes.cgroup_parent,
            no_cache: attributes.no_cache,
            no_cache_stages: attributes.no_cache_stages,
            pull: attributes.pull,
            cache_from,
            cache_to,
            explain: false,
            shell_on_failure: false,
            largest: 0,
            client: Box::new(self.client()),
            outputs: outputs.collect(),
            stages_at_once: STAGES_AT_ONCE_MAX,
            stop: self.stop.clone(),
        })
    }

    /// The files of the context that the Dockerfile can use, and what is left out of them.
    fn context(&self, prepared: &Prepared) -> Result<(Context, Ignore)> {
        let attributes = &prepared.attributes;
        if let Some(context) = &prepared.uploaded {
            let ignore = context.apply_ignore(&attributes.filename)?;
            return Ok((context.clone(), ignore));
        }
        let empty = || Context::empty(self.engine.images());
        let used = match self.may_have_triggers(prepared) {
            true => Used::Everything,
            false => wanted::of_context(&prepared.file),
        };
        let follow = match used {
            Used::Nothing => return Ok((empty()?, Ignore::default())),
            Used::Everything => Vec::new(),
            Used::Paths(paths) => paths,
        };
        let directory = &attributes.context_directory;
        let ignore = match &prepared.ignore {
            Some(bytes) => Some(bytes.clone()),
            None => self.ignore("[internal] load .dockerignore", directory)?,
        };
        let ignore = parsed(ignore)?;
        let wanted = Wanted {
            directory: directory.clone(),
            follow,
            exclude: ignore.rules().collect(),
        };
        let context = match attributes.inquiry {
            None => self.files("[internal] load build context", &wanted)?,
            Some(_) => empty()?,
        };
        Ok((context, ignore))
    }

    /// The files of a directory of the client, of which only those come that have changed since the last build.
    fn files(&self, title: &str, wanted: &Wanted) -> Result<Context> {
        let name = self.session.context_name(&wanted.directory);
        let filling = name.map(|name| Filling::begin(&self.engine, name, Base::Anything));
        let Some(mut filling) = filling.transpose()?.flatten() else {
            let context = Context::empty(self.engine.images())?;
            self.load(title, wanted, (context.root(), None))?;
            return Ok(context);
        };
        let tree = filling.tree();
        self.load(title, wanted, (&tree, Some(&mut filling)))?;
        Ok(filling.finish())
    }

    fn load(&self, name: &str, wanted: &Wanted, to: (&Root, Option<&mut Filling>)) -> Result<()> {
        let vertex = self.begin(name);
        match self.receive(&vertex, "transferring context:", wanted, to) {
            Ok(()) => {
                self.teller.end(&vertex, false);
                Ok(())
            }
            Err(error) => {
                self.teller.fail(&vertex, &failure::sentence(&error));
                Err(error)
            }
        }
    }

    /// The `.dockerignore` of a directory of the client.
    fn ignore(&self, name: &str, directory: &str) -> Result<Option<Vec<u8>>> {
        let file = ".dockerignore";
        let wanted = Wanted {
            directory: directory.to_owned(),
            follow: vec![file.to_owned()],
            exclude: Vec::new(),
        };
        let own = Context::empty(self.engine.images())?;
        self.load(name, &wanted, (own.root(), None))?;
        own.read(Path::new(file), IGNORE_BYTES_MAX)
    }

    /// Whether a base image may have instructions of its own, which may use any file.
    fn may_have_triggers(&self, prepared: &Prepared) -> bool {
        let file = &prepared.file;
        let stages = file.stages.iter().enumerate();
        let mut outside = stages
            .filter(|(at, stage)| file.stage(&stage.from.image, *at).is_none())
            .map(|(_, stage)| stage.from.image.as_str())
            .filter(|image| *image != "scratch");
        outside.any(|image| {
            let named = prepared.attributes.contexts.get(image);
            let image = named
                .and_then(|value| value.strip_prefix(IMAGES))
                .unwrap_or(image);
            let known = self.engine.images().get(image);
            // One that is still to be pulled may have some.
            known.map_or(true, |image| !image.config.config.on_build.is_empty())
        })
    }

    /// An image in one of the client's stores: `//store[:tag]@digest`.
    fn layout(&self, name: &str, text: &str) -> Result<LayoutImage> {
        let invalid = || {
            Error::Invalid(format!(
                "the named context {name}={LAYOUTS}{text} is no store with a digest"
            ))
        };
        let text = text.trim_start_matches('/');
        let (store, digest) = text.split_once('@').ok_or_else(invalid)?;
        let store = store.split(':').next().unwrap_or_default();
        Ok(LayoutImage {
            name: name.to_owned(),
            blobs: Box::new(self.store(format!("oci:{store}"))),
            manifest: digest.parse().map_err(|_| invalid())?,
        })
    }

    /// A named context, with its files where something is built.
    fn named(&self, name: &str, value: &str, is_built: bool) -> Result<NamedContext> {
        if let Some(image) = value.strip_prefix(IMAGES) {
            return Ok(NamedContext::Image(image.to_owned()));
        }
        if let Some(layout) = value.strip_prefix(LAYOUTS) {
            return Ok(NamedContext::Layout(self.layout(name, layout)?));
        }
        if !is_built {
            return Ok(NamedContext::Files(Context::empty(self.engine.images())?));
        }
        let Some(directory) = value.strip_prefix("local:") else {
            // The text of a Dockerfile is of no use as a context.
            return match self.elsewhere(value)? {
                (context, None) => Ok(NamedContext::Files(context)),
                (_, Some(_)) => Err(Error::Invalid(format!(
                    "the named context {name}={value} is neither a repository nor an archive"
                ))),
            };
        };
        let title = format!("[context {name}] load .dockerignore");
        let ignore = parsed(self.ignore(&title, directory)?)?;
        let wanted = Wanted {
            directory: directory.to_owned(),
            follow: Vec::new(),
            exclude: ignore.rules().collect(),
        };
        let title = format!("[context {name}] load from client");
        self.files(&title, &wanted).map(NamedContext::Files)
    }
}

const IMAGES: &str = "docker-image://";
const LAYOUTS: &str = "oci-layout:";

/// What a `.dockerignore` says.
fn parsed(ignore: Option<Vec<u8>>) -> Result<Ignore> {
    let wrong = |error: String| Error::Invalid(format!(".dockerignore: {error}"));
    let text = String::from_utf8(ignore.unwrap_or_default());
    let text = text.map_err(|error| wrong(error.to_string()))?;
    Ignore::parse(&text).map_err(|error| wrong(error.to_string()))
}
