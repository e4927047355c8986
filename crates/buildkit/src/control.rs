//! The builds that go on, and how a client brings one about.
//!
//! A client first asks for a build without a frontend (Control.Solve), which waits; over the gateway it then asks for what is to
//! be built (LLBBridge.Solve), which gets the Dockerfile and gives a reference; it returns that (LLBBridge.Return), and the first
//! call builds it. A frontend may also be named in the first call.
//!
//! Source: moby/buildkit `client/solve.go`, `client/build.go`, `frontend/gateway/grpcclient`, `control/gateway`.

use crate::caches::Caches;
use crate::grpc::{Call, Code, Status, serve};
use crate::messages::{
    Exporter, GatewayReference, GatewayResult, GatewaySolveRequest, GatewaySolveResponse,
    ReturnRequest, SolveRequest,
};
use crate::output;
pub use crate::session::Announced;
use crate::session::Sessions;
use crate::solve::{Job, Prepared};
use crate::vertex::Teller;
use builder::Allowances;
use bytes::Bytes;
use engine::Engine;
use http::HeaderMap;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

/// Builds at the same time.
const BUILDS_MAX: usize = 256;
/// References of one build: what a client has asked for over the gateway, and may return.
const REFERENCES_MAX: usize = 64;
/// How long a call of the gateway, or one for the status, waits for its build: clients make these calls at the same time.
const BUILD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a build that has ended is known to a client that asks for its status, or steers it.
const ENDED_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a build's name.
const ID_BYTES_MAX: usize = 256;

/// Which build a call of the gateway is about.
const HEADER_BUILD: &str = "buildkit-controlapi-buildid";
/// The language that is built.
const FRONTEND: &str = "dockerfile.v0";

/// The builds and sessions of an engine.
#[derive(Debug, Clone)]
pub struct BuildKit(Arc<State>);

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) engine: Engine,
    sessions: Sessions,
    builds: Mutex<HashMap<String, Arc<Build>>>,
    changed: Notify,
}

/// A build that goes on, or waits to be told what to build.
#[derive(Debug)]
pub(crate) struct Build {
    id: String,
    session: String,
    allowances: Allowances,
    teller: Arc<Teller>,
    stop: watch::Sender<bool>,
    gateway: Mutex<Gateway>,
}

/// Where comes what the client returns.
type Returned = oneshot::Receiver<Result<Option<Prepared>, Status>>;

/// What the client has done over the gateway.
#[derive(Debug)]
struct Gateway {
    prepared: HashMap<String, Prepared>,
    /// Taken by what the client returns.
    returned: Option<oneshot::Sender<Result<Option<Prepared>, Status>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks here guard is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BuildKit {
    /// For the builds of an engine.
    pub fn new(engine: Engine) -> Self {
        Self(Arc::new(State {
            engine,
            sessions: Sessions::default(),
            builds: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.0
    }

    /// What a client says of the session it opens, for [`BuildKit::session`].
    ///
    /// # Errors
    /// A sentence on what is missing.
    pub fn announced(headers: &HeaderMap) -> Result<Announced, String> {
        Sessions::announced(headers)
    }

    /// Keeps a session on the connection of `POST /session`, until that ends. `owner` is whose it is: what comes of it is kept for
    /// the next build of the same user.
    pub async fn session<I>(&self, announced: Announced, owner: Option<String>, connection: I)
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        self.0.sessions.keep(announced, owner, connection).await;
    }

    /// Builds what a request of its own asks for, and calls `told` with each `moby.buildkit.v1.StatusResponse`. Gives what became
    /// of it, by name; dropping the future ends the build.
    ///
    /// # Errors
    /// A sentence for the client.
    pub async fn build<F>(
        &self,
        asked: Asked,
        mut told: impl FnMut(Bytes) -> F,
    ) -> Result<BTreeMap<String, String>, String>
    where
        F: Future<Output = ()>,
    {
        let id = asked.build.clone();
        let outputs = asked.outputs.into_iter();
        let request = SolveRequest {
            build: asked.build,
            session: asked.session,
            frontend: FRONTEND.to_owned(),
            attributes: asked.attributes,
            exporters: outputs
                .map(|Output { kind, attributes }| Exporter { kind, attributes })
                .collect(),
            ..SolveRequest::default()
        };
        let told = async {
            // A build that is refused tells nothing.
            let Ok(mut messages) = self.0.status(&id).await else {
                return;
            };
            while let Some(Ok(message)) = messages.recv().await {
                told(crate::grpc::unframed(message)).await;
            }
        };
        let (solved, ()) = tokio::join!(self.0.solve(request), told);
        solved.map_err(|status| status.message)
    }

    /// Ends a build. False: there is none of that name.
    pub fn cancel(&self, build: &str) -> bool {
        let build = self.0.builds().get(build).cloned();
        build.is_some_and(|build| {
            build.stop.send_replace(true);
            true
        })
    }

    /// Serves the connection of `POST /grpc`, until that ends.
    pub async fn control<I>(&self, connection: I)
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        serve(connection, Arc::new(self.clone())).await;
    }
}

/// A build that is asked for by a request of its own, as clients did before they had the gateway.
#[derive(Debug, Default)]
pub struct Asked {
    /// What the client calls the build.
    pub build: String,
    /// The name of its session.
    pub session: String,
    /// The attributes of the Dockerfile frontend.
    pub attributes: BTreeMap<String, String>,
    /// Where the result goes.
    pub outputs: Vec<Output>,
}

/// An output as clients ask for it.
#[derive(Debug)]
pub struct Output {
    /// `moby`, `local`, `tar`.
    pub kind: String,
    /// What is to be known of it.
    pub attributes: BTreeMap<String, String>,
}

impl State {
    fn builds(&self) -> MutexGuard<'_, HashMap<String, Arc<Build>>> {
        lock(&self.builds)
    }

    /// A build by its name. It may be about to begin.
    async fn build(&self, id: &str) -> Result<Arc<Build>, Status> {
        let found = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(build) = self.builds().get(id).cloned() {
                    return build;
                }
                changed.await;
            }
        };
        let found = tokio::time::timeout(BUILD_TIMEOUT, found).await;
        found.map_err(|_| Status::new(Code::NotFound, format!("no such build {id}")))
    }

    /// The build that a call of the gateway is about.
    pub(crate) async fn steered(&self, call: &Call) -> Result<Arc<Build>, Status> {
        let id = call.headers.get(HEADER_BUILD);
        let id = id.and_then(|id| id.to_str().ok());
        let missing = || Status::new(Code::InvalidArgument, "the call names no build");
        let build = self.build(id.ok_or_else(missing)?).await?;
        // The session of one that has ended may be gone, and nobody is to wait for that.
        let has_ended = *build.stop.borrow();
        match has_ended {
            true => Err(Status::new(Code::Cancelled, "the build has ended")),
            false => Ok(build),
        }
    }

    /// Begins a build; it ends with the value that comes with it. What the client returns over the gateway can come as soon as
    /// the build is known.
    fn begin(
        self: &Arc<Self>,
        request: &SolveRequest,
    ) -> Result<(Arc<Build>, Begun, Returned), Status> {
        let (sender, returned) = oneshot::channel();
        let build = Arc::new(Build {
            id: request.build.clone(),
            session: request.session.clone(),
            allowances: allowances(request)?,
            teller: Arc::new(Teller::new()),
            stop: watch::Sender::new(false),
            gateway: Mutex::new(Gateway {
                prepared: HashMap::new(),
                returned: Some(sender),
            }),
        });
        let refuse = |text: &str| Err(Status::new(Code::InvalidArgument, text));
        if build.id.is_empty() || build.id.len() > ID_BYTES_MAX {
            return refuse("a build has a name");
        }
        let mut builds = self.builds();
        if builds.contains_key(&build.id) {
            return refuse("a build of that name goes on");
        }
        if builds.len() >= BUILDS_MAX {
            let text = format!("more than {BUILDS_MAX} builds at once");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        builds.insert(build.id.clone(), Arc::clone(&build));
        drop(builds);
        self.changed.notify_waiters();
        let begun = Begun {
            state: Arc::clone(self),
            build: Arc::clone(&build),
        };
        Ok((build, begun, returned))
    }

    /// Control.Solve: the whole build.
    pub(crate) async fn solve(
        self: &Arc<Self>,
        request: SolveRequest,
    ) -> Result<BTreeMap<String, String>, Status> {
        let (build, _begun, returned) = self.begin(&request)?;
        refuse(&request)?;
        let targets = output::targets(&exporters(&request));
        let targets = targets.map_err(|error| crate::failure::status(&error, None))?;
        let caches = Caches::read(request.cache.as_ref());
        let caches = caches.map_err(|error| crate::failure::status(&error, None))?;
        let prepared = match request.frontend.as_str() {
            "" => self.steer(&build, returned).await?,
            FRONTEND => Some(self.prepare(&build, request.attributes).await?),
            other => return Err(other_frontend(other)),
        };
        // A client that only wants to know something returns nothing.
        let Some(prepared) = prepared else {
            return Ok(BTreeMap::new());
        };
        if prepared.inquiry().is_some() {
            let text = "asking without the gateway is not supported yet";
            return Err(Status::new(Code::Unimplemented, text));
        }
        let job = self.job(&build).await?;
        self.work(&build, move || job.build(prepared, targets, caches))
            .await
    }

    /// Waits for what the client returns over the gateway.
    async fn steer(&self, build: &Build, returned: Returned) -> Result<Option<Prepared>, Status> {
        let session = self.sessions.get(&build.session).await?;
        tokio::select! {
            returned = returned => returned.unwrap_or_else(|_| Err(gone())),
            () = session.gone() => Err(gone()),
        }
    }

    async fn job(&self, build: &Build) -> Result<Job, Status> {
        Ok(Job {
            engine: self.engine.clone(),
            handle: Handle::current(),
            id: build.id.clone(),
            allowances: build.allowances,
            session: Arc::new(self.sessions.get(&build.session).await?),
            teller: Arc::clone(&build.teller),
            stop: build.stop.subscribe(),
        })
    }

    async fn prepare(
        &self,
        build: &Build,
        attributes: BTreeMap<String, String>,
    ) -> Result<Prepared, Status> {
        let job = self.job(build).await?;
        self.work(build, move || job.prepare(&attributes)).await
    }

    /// Does something on a thread of its own, no longer than the session is there.
    async fn work<T: Send + 'static>(
        &self,
        build: &Build,
        work: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let session = self.sessions.get(&build.session).await?;
        let working = spawn_blocking(work);
        tokio::select! {
            done = working => done.unwrap_or_else(|error| {
                let text = format!("the build's thread failed: {error}");
                Err(Status::new(Code::Internal, text))
            }),
            // Dropping what this call holds stops the thread.
            () = session.gone() => Err(gone()),
        }
    }

    /// LLBBridge.Solve: what is to be built.
    pub(crate) async fn gateway_solve(
        &self,
        build: &Build,
        request: GatewaySolveRequest,
    ) -> Result<GatewaySolveResponse, Status> {
        let defined = request.definition.is_some_and(|it| !it.def.is_empty());
        refuse_graphs(defined || !request.inputs.is_empty())?;
        if request.frontend != FRONTEND {
            return Err(other_frontend(&request.frontend));
        }
        let prepared = self.prepare(build, request.attributes).await?;
        if let Some(inquiry) = prepared.inquiry() {
            let job = self.job(build).await?;
            let answer = self.work(build, move || job.answer(prepared, inquiry));
            return Ok(GatewaySolveResponse {
                result: Some(GatewayResult {
                    metadata: answer.await?,
                    ..GatewayResult::default()
                }),
            });
        }
        let id = engine::random_id();
        let id = id.map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        let references = &mut lock(&build.gateway).prepared;
        if references.len() >= REFERENCES_MAX {
            let text = format!("a build has at most {REFERENCES_MAX} references");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        references.insert(id.clone(), prepared);
        Ok(GatewaySolveResponse {
            result: Some(GatewayResult {
                reference: Some(GatewayReference { id }),
                ..GatewayResult::default()
            }),
        })
    }

    /// Control.Status: what a build tells.
    pub(crate) async fn status(
        &self,
        id: &str,
    ) -> Result<mpsc::Receiver<Result<Bytes, Status>>, Status> {
        let build = self.build(id).await?;
        let told = build.teller.listen();
        told.ok_or_else(|| Status::new(Code::InvalidArgument, "somebody listens to the build"))
    }
}

fn gone() -> Status {
    Status::new(Code::Cancelled, "the client's session is gone")
}

fn other_frontend(name: &str) -> Status {
    let text = format!("the frontend {name:?} is not supported yet: it is {FRONTEND}");
    Status::new(Code::Unimplemented, text)
}

fn refuse_graphs(given: bool) -> Result<(), Status> {
    match given {
        true => Err(Status::new(
            Code::Unimplemented,
            "building a graph of LLB is not supported yet: only Dockerfiles are built",
        )),
        false => Ok(()),
    }
}

/// Refuses what a request asks for and does not get.
fn refuse(request: &SolveRequest) -> Result<(), Status> {
    let defined = request
        .definition
        .as_ref()
        .is_some_and(|it| !it.def.is_empty());
    refuse_graphs(defined || !request.inputs.is_empty())?;
    let unsupported = |what: String| {
        let text = format!("{what} is not supported yet");
        Err(Status::new(Code::Unimplemented, text))
    };
    let mut caches = request.cache.iter();
    if caches.any(|cache| !cache.old_export.is_empty() || !cache.old_imports.is_empty()) {
        return unsupported("a cache as clients before BuildKit 0.4 name it".to_owned());
    }
    if request.source_policy.is_some() {
        return unsupported("a policy of sources".to_owned());
    }
    Ok(())
}

/// What a client lets a Dockerfile ask for.
fn allowances(request: &SolveRequest) -> Result<Allowances, Status> {
    let allowances = Allowances::read(request.entitlements.iter().map(String::as_str));
    allowances.map_err(|error| crate::failure::status(&error, None))
}

/// The outputs; older clients have one in other fields.
fn exporters(request: &SolveRequest) -> Vec<Exporter> {
    match (request.exporters.is_empty(), request.exporter.is_empty()) {
        (true, false) => vec![Exporter {
            kind: request.exporter.clone(),
            attributes: request.exporter_attributes.clone(),
        }],
        _ => request.exporters.clone(),
    }
}

impl Build {
    /// LLBBridge.Return: the client has what it wants.
    pub(crate) fn take_returned(&self, request: ReturnRequest) -> Result<(), Status> {
        let mut gateway = lock(&self.gateway);
        let result = match (request.error, request.result) {
            (Some(error), _) => Err(Status::from_message(error)),
            (
                None,
                Some(GatewayResult {
                    references: Some(_),
                    ..
                }),
            ) => Err(Status::new(
                Code::Unimplemented,
                "a result of several platforms is not supported yet",
            )),
            (None, result) => {
                let id = result
                    .and_then(|result| result.reference)
                    .unwrap_or_default()
                    .id;
                match gateway.prepared.remove(&id) {
                    None if !id.is_empty() => {
                        Err(Status::new(Code::NotFound, "there is no such reference"))
                    }
                    prepared => Ok(prepared),
                }
            }
        };
        let returned = gateway.returned.take();
        let returned = returned.ok_or_else(|| {
            Status::new(
                Code::InvalidArgument,
                "nobody waits for a result of this build",
            )
        })?;
        // Whoever waited may be gone, and the build with it.
        let _ = returned.send(result);
        Ok(())
    }
}

/// Ends a build when its call ends, however that is.
struct Begun {
    state: Arc<State>,
    build: Arc<Build>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.build.stop.send_replace(true);
        self.build.teller.close();
        lock(&self.build.gateway).prepared.clear();
        let (state, build) = (Arc::clone(&self.state), Arc::clone(&self.build));
        // A client that asks at the same time as it builds may be late; one whose build was refused at once would wait in vain.
        tokio::spawn(async move {
            tokio::time::sleep(ENDED_TIMEOUT).await;
            state.builds().remove(&build.id);
        });
    }
}
