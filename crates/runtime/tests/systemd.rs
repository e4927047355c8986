//! Containers in scopes of systemd: where it is pid 1 with that, else with a stand-in behind the reference implementation of
//! the bus, which refuses what is not D-Bus. The stand-in makes and removes directories as systemd does.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]
#![allow(missing_docs, reason = "what the macro makes of a signal has none")]

mod common;

use common::{Bundle, Outcome, eventually, unified};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use zbus::interface;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{ObjectPath, OwnedValue};

/// Who has the scopes, and the slice that they are in, which is gone when this is dropped.
struct Systemd {
    slice: String,
    /// Unset for the real one.
    stand_in: Option<StandIn>,
}

/// A bus of its own, and the stand-in on it.
struct StandIn {
    daemon: Child,
    address: String,
    seen: Arc<Mutex<Seen>>,
    _connection: zbus::blocking::Connection,
    /// Of its socket.
    _directory: tempfile::TempDir,
}

/// systemd's own errors.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Refusal {
    #[zbus(error)]
    Bus(zbus::Error),
    NoSuchUnit(String),
    UnitExists(String),
}

/// What the stand-in was asked for.
#[derive(Debug, Default)]
struct Seen {
    properties: BTreeMap<String, String>,
    /// Of the scope.
    path: String,
    /// The result of the next job that starts a unit, when it is to fail.
    failure: Option<&'static str>,
    /// Whether units are said to exist until asked to be forgotten.
    failed_unit_exists: bool,
    jobs: u32,
}

impl Systemd {
    fn find() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let real = Path::new("/run/systemd/system").is_dir();
        Self {
            slice: format!("hulltest{}n{number}.slice", std::process::id()),
            stand_in: (!real).then(StandIn::start),
        }
    }

    /// A bundle in a scope of the slice, and the scope's name.
    fn bundle(&self, script: &str) -> (Bundle, String) {
        let mut bundle = Bundle::shell(script);
        let unit = format!("hull-{}.scope", bundle.id);
        bundle.config["linux"]["cgroupsPath"] = json!(format!("{}:hull:{}", self.slice, bundle.id));
        (bundle, unit)
    }

    /// The directories of a scope, or those of the slice, in every hierarchy.
    fn directories(&self, unit: &str) -> Vec<PathBuf> {
        let mount = Path::new("/sys/fs/cgroup");
        let below = std::fs::read_dir(mount).unwrap();
        let mounts = below.map(|entry| entry.unwrap().path());
        std::iter::once(mount.to_owned())
            .chain(mounts)
            .map(|mount| mount.join(&self.slice).join(unit))
            .filter(|path| path.is_dir())
            .collect()
    }

    /// A property of a unit, as `systemctl show` prints it.
    fn property(&self, unit: &str, name: &str) -> String {
        match &self.stand_in {
            None => {
                let show = ["show", "--property", name, "--value", unit];
                let output = Command::new("systemctl").args(show).output().unwrap();
                String::from_utf8(output.stdout).unwrap().trim().to_owned()
            }
            Some(StandIn { seen, .. }) => {
                let seen = seen.lock().unwrap();
                seen.properties.get(name).cloned().unwrap_or_default()
            }
        }
    }

    /// Invokes the runtime with cgroups of systemd. Its output goes to files, which init may hold open.
    fn invoke(&self, bundle: &Bundle, arguments: &[&str]) -> Outcome {
        let mut command = bundle.command(&[&["--systemd-cgroup"], arguments].concat());
        if let Some(StandIn { address, .. }) = &self.stand_in {
            command.env("DBUS_SYSTEM_BUS_ADDRESS", address);
        }
        let [output, errors] = ["output", "errors"].map(|name| bundle.path().join(name));
        let create = |path| std::fs::File::create(path).unwrap();
        command.stdout(create(&output)).stderr(create(&errors));
        Outcome {
            code: command.status().unwrap().code(),
            stdout: std::fs::read_to_string(output).unwrap(),
            stderr: std::fs::read_to_string(errors).unwrap(),
        }
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if self.stand_in.is_none() {
            let stopped = Command::new("systemctl")
                .args(["stop", &self.slice])
                .status();
            assert!(stopped.unwrap().success());
        }
        for directory in self.directories("") {
            // Controllers share directories, by links.
            drop(std::fs::remove_dir(directory));
        }
        assert!(std::thread::panicking() || self.directories("").is_empty());
    }
}

impl StandIn {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut daemon = Command::new("dbus-daemon");
        daemon.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]);
        daemon.arg(format!("--address=unix:dir={}", directory.path().display()));
        let daemon = daemon.stdout(Stdio::piped()).spawn();
        let mut daemon = daemon.expect("dbus-daemon is installed");
        let mut address = String::new();
        let output = daemon.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let manager = Manager { seen: seen.clone() };
        let connection = zbus::blocking::connection::Builder::address(address.as_str())
            .unwrap()
            .name("org.freedesktop.systemd1")
            .unwrap()
            .serve_at("/org/freedesktop/systemd1", manager)
            .unwrap()
            .build()
            .unwrap();
        Self {
            daemon,
            address,
            seen,
            _connection: connection,
            _directory: directory,
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

/// The manager.
struct Manager {
    seen: Arc<Mutex<Seen>>,
}

struct Scope {
    path: String,
}

#[interface(name = "org.freedesktop.systemd1.Scope")]
impl Scope {
    #[zbus(property)]
    fn control_group(&self) -> String {
        self.path.clone()
    }
}

type Properties = Vec<(String, OwnedValue)>;

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    #[zbus(property)]
    fn version(&self) -> String {
        "252.38-1~deb12u1".into()
    }

    async fn start_transient_unit(
        &self,
        name: String,
        mode: String,
        properties: Properties,
        auxiliary: Vec<(String, Properties)>,
        #[zbus(object_server)] server: &zbus::ObjectServer,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<ObjectPath<'static>, Refusal> {
        assert_eq!((mode.as_str(), auxiliary.len()), ("replace", 0));
        if self.seen.lock().unwrap().failed_unit_exists {
            return Err(Refusal::UnitExists(format!(
                "Unit {name} was already loaded"
            )));
        }
        let pids = properties.iter().find(|(name, _)| name == "PIDs");
        let pids: Vec<u32> = pids.unwrap().1.try_clone().unwrap().try_into().unwrap();
        let slice = properties.iter().find(|(name, _)| name == "Slice");
        let slice: String = slice.unwrap().1.try_clone().unwrap().try_into().unwrap();
        self.note(&properties);
        let failure = self.seen.lock().unwrap().failure.take();
        if failure.is_none() {
            let path = format!("/{slice}/{name}");
            for directory in managed(&path) {
                std::fs::create_dir_all(&directory).unwrap();
                for pid in &pids {
                    std::fs::write(directory.join("cgroup.procs"), pid.to_string()).unwrap();
                }
            }
            self.seen.lock().unwrap().path.clone_from(&path);
            server.at(object(&name), Scope { path }).await.unwrap();
        }
        self.job(&name, failure.unwrap_or("done"), &emitter).await
    }

    async fn stop_unit(
        &self,
        name: String,
        mode: String,
        #[zbus(object_server)] server: &zbus::ObjectServer,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<ObjectPath<'static>, Refusal> {
        assert_eq!(mode, "replace");
        let known = server.remove::<Scope, _>(object(&name)).await;
        if known.is_err() {
            return Err(Refusal::NoSuchUnit(format!("Unit {name} not loaded.")));
        }
        let path = self.seen.lock().unwrap().path.clone();
        for directory in managed(&path) {
            let gone = || match std::fs::remove_dir(&directory) {
                Ok(()) => true,
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            };
            assert!(eventually(gone), "{directory:?} is busy");
        }
        self.job(&name, "done", &emitter).await
    }

    fn set_unit_properties(&self, _name: String, runtime: bool, properties: Properties) {
        assert!(runtime);
        self.note(&properties);
    }

    fn reset_failed_unit(&self, name: String) -> Result<(), Refusal> {
        match std::mem::take(&mut self.seen.lock().unwrap().failed_unit_exists) {
            true => Ok(()),
            false => Err(Refusal::NoSuchUnit(format!("Unit {name} not loaded."))),
        }
    }

    /// A job has ended.
    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        number: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

impl Manager {
    fn note(&self, properties: &Properties) {
        let mut seen = self.seen.lock().unwrap();
        for (name, value) in properties {
            seen.properties.insert(name.clone(), shown(value));
        }
    }

    /// Tells of the job's end before its begin, as a fast one may.
    async fn job(
        &self,
        unit: &str,
        result: &str,
        emitter: &SignalEmitter<'_>,
    ) -> Result<ObjectPath<'static>, Refusal> {
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.jobs += 1;
            seen.jobs
        };
        let job = format!("/org/freedesktop/systemd1/job/{number}");
        let job = ObjectPath::try_from(job).unwrap();
        let other = ObjectPath::try_from("/org/freedesktop/systemd1/job/0").unwrap();
        Self::job_removed(emitter, 0, other, "other.service", "failed").await?;
        Self::job_removed(emitter, number, job.clone(), unit, result).await?;
        Ok(job)
    }
}

/// A value as `systemctl show` prints it.
fn shown(value: &OwnedValue) -> String {
    if let Ok(number) = u64::try_from(value) {
        return match number {
            u64::MAX => "infinity".into(),
            number => number.to_string(),
        };
    }
    if let Ok(flag) = bool::try_from(value) {
        return if flag { "yes" } else { "no" }.into();
    }
    match <&str>::try_from(value) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("{value:?}"),
    }
}

/// The path of a unit's object.
fn object(name: &str) -> String {
    let name = name.bytes().map(|byte| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("_{byte:02x}")
        }
    });
    format!(
        "/org/freedesktop/systemd1/unit/{}",
        name.collect::<String>()
    )
}

/// The directories that systemd has for a unit: of v2, or of the v1 controllers that it knows.
fn managed(path: &str) -> Vec<PathBuf> {
    let mount = Path::new("/sys/fs/cgroup");
    let path = path.trim_start_matches('/');
    if unified() {
        return vec![mount.join(path)];
    }
    [
        "systemd",
        "unified",
        "cpu,cpuacct",
        "blkio",
        "memory",
        "devices",
        "pids",
    ]
    .iter()
    .map(|name| mount.join(name))
    .filter(|mount| mount.is_dir())
    .map(|mount| mount.join(path))
    .collect()
}

#[test]
fn a_scope_comes_with_the_container_and_goes_with_it() {
    let systemd = Systemd::find();
    let (mut bundle, unit) = systemd.bundle("exec sleep 60");
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 1});
    bundle.config["annotations"] = json!({"org.systemd.property.TimeoutStopSec": "uint32 7"});
    systemd
        .invoke(&bundle, &["run", "--detach", &bundle.id])
        .ok();
    assert_eq!(systemd.property(&unit, "Slice"), systemd.slice);
    assert_eq!(systemd.property(&unit, "Delegate"), "yes");
    let memory = if unified() {
        "MemoryMax"
    } else {
        "MemoryLimit"
    };
    assert_eq!(systemd.property(&unit, memory), (64 << 20).to_string());
    assert_eq!(systemd.property(&unit, "TasksMax"), "1");
    assert_eq!(systemd.property(&unit, "DevicePolicy"), "strict");
    // Init, and no placeholder beside it.
    let directories = systemd.directories(&unit);
    for directory in &directories {
        let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap();
        assert_eq!(text.trim(), bundle.pid().to_string(), "{directory:?}");
    }
    let file = |name: &str| {
        let files = directories.iter().map(|directory| directory.join(name));
        let found = { files }.find(|file| file.exists()).unwrap();
        std::fs::read_to_string(found).unwrap().trim().to_owned()
    };
    let limit = if unified() {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    assert_eq!(file(limit), (64 << 20).to_string());
    assert_eq!(file("pids.max"), "1");
    let update = [
        "update",
        "--memory",
        "128m",
        "--pids-limit",
        "20",
        &bundle.id,
    ];
    systemd.invoke(&bundle, &update).ok();
    assert_eq!(systemd.property(&unit, memory), (128 << 20).to_string());
    assert_eq!(file(limit), (128 << 20).to_string());
    assert_eq!(file("pids.max"), "20");
    systemd.invoke(&bundle, &["exec", &bundle.id, "true"]).ok();
    systemd
        .invoke(&bundle, &["delete", "--force", &bundle.id])
        .ok();
    assert!(systemd.directories(&unit).is_empty());
}

#[test]
fn what_fails_after_the_scope_was_made_takes_it_away() {
    let systemd = Systemd::find();
    let (mut bundle, unit) = systemd.bundle("true");
    bundle.config["process"]["args"] = json!(["/nonexistent"]);
    let error = systemd.invoke(&bundle, &["run", &bundle.id]).failed();
    assert!(error.contains("/nonexistent"), "{error}");
    assert!(systemd.directories(&unit).is_empty());
}

#[test]
fn a_scope_in_the_foreground_is_gone_at_the_end() {
    let systemd = Systemd::find();
    let (bundle, unit) = systemd.bundle("cat /proc/self/cgroup; exit 5");
    let outcome = systemd.invoke(&bundle, &["run", &bundle.id]);
    assert_eq!(outcome.code, Some(5), "{outcome:?}");
    assert!(systemd.directories(&unit).is_empty());
}

#[test]
fn without_systemd_or_with_another_form_of_path_the_error_says_so() {
    let mut bundle = Bundle::shell("true");
    bundle.config["linux"]["cgroupsPath"] = json!("hulltest.slice:hull:x");
    let mut command = bundle.command(&["--systemd-cgroup", "run", &bundle.id]);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/socket");
    let error = Outcome::from(command.output().unwrap()).failed();
    assert!(
        error.contains("connecting to /nonexistent/socket"),
        "{error}"
    );
    bundle.config["linux"]["cgroupsPath"] = json!("/not/of/systemd");
    let error = bundle
        .invoke(&["--systemd-cgroup", "run", &bundle.id])
        .failed();
    assert!(error.contains("slice:prefix:name"), "{error}");
}

#[test]
fn a_job_that_fails_is_an_error_and_leaves_nothing() {
    let systemd = Systemd::find();
    let Some(StandIn { seen, .. }) = &systemd.stand_in else {
        // The real one cannot be told to fail.
        return;
    };
    let (bundle, unit) = systemd.bundle("true");
    seen.lock().unwrap().failure = Some("failed");
    let error = systemd.invoke(&bundle, &["run", &bundle.id]).failed();
    assert!(
        error.contains(&unit) && error.contains("result is"),
        "{error}"
    );
    assert!(!error.contains("undoing"), "{error}");
}

#[test]
fn what_is_left_of_a_failed_unit_is_asked_to_go() {
    let systemd = Systemd::find();
    let Some(StandIn { seen, .. }) = &systemd.stand_in else {
        // A scope that fails is nothing to be had at will.
        return;
    };
    let (bundle, _) = systemd.bundle("exit 3");
    seen.lock().unwrap().failed_unit_exists = true;
    assert_eq!(systemd.invoke(&bundle, &["run", &bundle.id]).code, Some(3));
}
