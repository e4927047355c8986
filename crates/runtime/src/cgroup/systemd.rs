//! Containers' cgroups as transient scopes of systemd, for hosts where systemd is to be the only one who makes groups.
//!
//! A scope must have a process from its start, and the container's first is born into its cgroup, which must be there by
//! then. So a placeholder, a child that does nothing, starts the scope and ends when init is in it. Controllers that systemd
//! does not manage, and what its properties cannot say, are set as in any other cgroup afterwards: [`Cgroup`] does not
//! distinguish. What can be said is said to systemd too, which would else put its own idea of it back at the next reload.
//!
//! Source: org.freedesktop.systemd1(5), systemd.scope(5), systemd.resource-control(5), and for the form of `cgroupsPath`
//! runc(8) `--systemd-cgroup`.
//!
//! [`Cgroup`]: super::Cgroup

use crate::dbus::{Bus, BusError, Call, Owner, Value, Writer};
use crate::error::{Doing, Error, Result};
use crate::hooks::reap;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, geteuid, pidfd_send_signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;
use sys::Context;
use sys::process::{Child, Spawn, exit, spawn};

/// How long systemd may take for one operation, a reload of its own included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// systemd's limit of a unit's name.
const NAME_BYTES_MAX: usize = 255;

const MANAGER: Call<'_> = Call {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
    signature: "",
};
const JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// A scope, and the slice it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// With its suffix.
    pub(crate) name: String,
    slice: String,
    /// Whether it is the calling user's systemd that has it.
    pub(super) user: bool,
}

impl Unit {
    /// Reads a `cgroupsPath` of the form `slice:prefix:name`; without, the unit is named by the container.
    pub(super) fn parse(path: Option<&str>, id: &str) -> Result<Self> {
        let user = !geteuid().is_root();
        let form = || {
            let path = path.unwrap_or_default();
            Error::invalid(format!(
                "cgroupsPath {path:?} is not of the form slice:prefix:name, as --systemd-cgroup needs it"
            ))
        };
        let [slice, prefix, name] = match path {
            None => ["", "hull", id],
            Some(path) => {
                let parts: Vec<_> = path.split(':').collect();
                parts.try_into().map_err(|_| form())?
            }
        };
        let slice = match (slice, user) {
            ("", false) => "system.slice",
            ("", true) => "user.slice",
            (slice, _) => slice,
        };
        if !is_slice(slice) {
            return Err(Error::invalid(format!(
                "{slice:?} is not the name of a slice"
            )));
        }
        if name.is_empty() {
            return Err(form());
        }
        if name.ends_with(".slice") {
            return Err(Error::unsupported(format!(
                "a container in the slice {name} itself, which systemd puts no processes in"
            )));
        }
        let name = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
            return Err(Error::invalid(format!(
                "{name:?} is not the name of a unit"
            )));
        }
        Ok(Self {
            name,
            slice: slice.to_owned(),
            user,
        })
    }

    /// Starts it with these properties. Its cgroup, without a slash in front, lasts as long as the placeholder or another
    /// process is in it.
    pub(super) fn start(&self, properties: Vec<(String, Value)>) -> Result<(PathBuf, Placeholder)> {
        let placeholder = Placeholder::make()?;
        let pid = placeholder.child.pid.as_raw_nonzero().get();
        let mut all = vec![
            (
                "Description".into(),
                Value::Text(format!("container {}", self.name)),
            ),
            ("Slice".into(), Value::Text(self.slice.clone())),
            ("PIDs".into(), Value::Numbers(vec![pid.cast_unsigned()])),
            ("Delegate".into(), Value::Flag(true)),
            ("DefaultDependencies".into(), Value::Flag(false)),
        ];
        // What is given overrides.
        all.retain(|(name, _)| !properties.iter().any(|(given, _)| given == name));
        all.extend(properties);
        let mut systemd = self.connect()?;
        let started = match systemd.start(&self.name, &all) {
            // What is left of one that failed goes away when asked to.
            Err(BusError::Answer { name, .. }) if name == UNIT_EXISTS => systemd
                .reset(&self.name)
                .and_then(|()| systemd.start(&self.name, &all)),
            result => result,
        };
        let path = started
            .and_then(|result| done(&result))
            .and_then(|()| systemd.cgroup(&self.name));
        match path {
            Ok(path) => Ok((PathBuf::from(path.trim_start_matches('/')), placeholder)),
            Err(error) => {
                let error = Error::bus(format!("starting the unit {}", self.name), error);
                Err(error.undone(self.stop()))
            }
        }
    }

    /// Stops it, with all that may be left in it. One that is gone already counts as stopped.
    pub(super) fn stop(&self) -> Result<()> {
        let mut systemd = self.connect()?;
        let stopped = match systemd.stop(&self.name) {
            Err(BusError::Answer { name, .. }) if name == NO_SUCH_UNIT => return Ok(()),
            result => result.and_then(|result| done(&result)),
        };
        // One that failed stays, unless asked to go; one that did not is gone, and cannot be asked.
        drop(systemd.reset(&self.name));
        stopped.map_err(|error| Error::bus(format!("stopping the unit {}", self.name), error))
    }

    /// Sets properties that can change while it runs.
    pub(super) fn set(&self, properties: &[(String, Value)]) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        let set = self.connect()?.set(&self.name, properties);
        set.map_err(|error| {
            Error::bus(
                format!("setting the properties of the unit {}", self.name),
                error,
            )
        })
    }

    /// Moves a process into it, which the calling user may have no right to do itself from where the process is.
    pub(crate) fn attach(&self, pid: Pid) -> Result<()> {
        let attached = self.connect()?.attach(&self.name, pid);
        attached.map_err(|error| {
            Error::bus(
                format!("moving a process into the unit {}", self.name),
                error,
            )
        })
    }

    /// The version of the systemd that has it, as a number.
    pub(super) fn version(&self) -> Result<u32> {
        let text = self
            .connect()?
            .property(MANAGER.path, MANAGER.interface, "Version");
        let text = text.map_err(|error| Error::bus("asking for systemd's version", error))?;
        let digits = text.trim_start_matches('v');
        let end = digits
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(digits.len());
        digits[..end]
            .parse()
            .map_err(|_| Error::unsupported(format!("systemd of version {text:?}")))
    }

    fn connect(&self) -> Result<Systemd> {
        let owner = if self.user {
            Owner::User
        } else {
            Owner::System
        };
        Systemd::connect(owner).map_err(|error| match error {
            BusError::NoBus(why) => Error::unsupported(format!(
                "--systemd-cgroup: systemd is not to be found: {why}"
            )),
            error => Error::bus("asking systemd for a cgroup", error),
        })
    }
}

fn is_slice(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_.\\@".contains(&byte);
    name.strip_suffix(".slice").is_some_and(|stem| {
        stem == "-"
            || stem
                .split('-')
                .all(|part| !part.is_empty() && part.bytes().all(plain))
    })
}

fn done(result: &str) -> Result<(), BusError> {
    match result {
        "done" | "skipped" => Ok(()),
        other => Err(BusError::Answer {
            name: "org.freedesktop.systemd1.JobFailed".into(),
            text: format!("the job's result is {other:?}"),
        }),
    }
}

/// A connection to systemd's manager.
struct Systemd {
    bus: Bus,
    /// Its name on the bus.
    name: String,
}

impl Systemd {
    fn connect(owner: Owner) -> Result<Self, BusError> {
        let mut bus = Bus::connect(owner, TIMEOUT)?;
        bus.subscribe(JOBS)?;
        let subscribe = Call {
            member: "Subscribe",
            ..MANAGER
        };
        let name = bus.call(subscribe, &Writer::default())?.sender().to_owned();
        Ok(Self { bus, name })
    }

    /// Starts a unit; the result of the job.
    fn start(&mut self, unit: &str, properties: &[(String, Value)]) -> Result<String, BusError> {
        let start = Call {
            member: "StartTransientUnit",
            signature: "ssa(sv)a(sa(sv))",
            ..MANAGER
        };
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        body.properties(properties);
        body.nothing();
        self.job(start, &body)
    }

    fn stop(&mut self, unit: &str) -> Result<String, BusError> {
        let stop = Call {
            member: "StopUnit",
            signature: "ss",
            ..MANAGER
        };
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        self.job(stop, &body)
    }

    fn job(&mut self, call: Call<'_>, body: &Writer) -> Result<String, BusError> {
        let job = self.bus.call(call, body)?.body("o")?.text()?;
        self.bus.await_signal(&self.name, "JobRemoved", |message| {
            let mut body = message.body("uoss")?;
            body.number()?;
            let removed = body.text()?;
            body.text()?;
            let result = body.text()?;
            Ok((removed == job).then_some(result))
        })
    }

    fn reset(&mut self, unit: &str) -> Result<(), BusError> {
        let reset = Call {
            member: "ResetFailedUnit",
            signature: "s",
            ..MANAGER
        };
        let mut body = Writer::default();
        body.text(unit);
        self.bus.call(reset, &body).map(drop)
    }

    fn set(&mut self, unit: &str, properties: &[(String, Value)]) -> Result<(), BusError> {
        let set = Call {
            member: "SetUnitProperties",
            signature: "sba(sv)",
            ..MANAGER
        };
        let mut body = Writer::default();
        body.text(unit);
        // For as long as the machine runs, as the unit itself.
        body.flag(true);
        body.properties(properties);
        self.bus.call(set, &body).map(drop)
    }

    fn attach(&mut self, unit: &str, pid: Pid) -> Result<(), BusError> {
        let attach = Call {
            member: "AttachProcessesToUnit",
            signature: "ssau",
            ..MANAGER
        };
        let mut body = Writer::default();
        body.text(unit);
        // No group below.
        body.text("");
        body.numbers(&[pid.as_raw_nonzero().get().cast_unsigned()]);
        self.bus.call(attach, &body).map(drop)
    }

    /// The cgroup of a scope, from the root of the hierarchies.
    fn cgroup(&mut self, unit: &str) -> Result<String, BusError> {
        let path = format!("/org/freedesktop/systemd1/unit/{}", escaped(unit));
        self.property(&path, "org.freedesktop.systemd1.Scope", "ControlGroup")
    }

    fn property(&mut self, path: &str, interface: &str, name: &str) -> Result<String, BusError> {
        let get = Call {
            path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            signature: "ss",
            ..MANAGER
        };
        let mut body = Writer::default();
        body.text(interface);
        body.text(name);
        self.bus.call(get, &body)?.body("v")?.text_variant()
    }
}

/// A unit's name as part of an object's path (sd_bus_path_encode(3)).
fn escaped(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for (place, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphabetic() || place > 0 && byte.is_ascii_digit();
        if plain {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

/// A child that only is there. It ends with its owner.
#[derive(Debug)]
pub(crate) struct Placeholder {
    child: Child,
}

impl Placeholder {
    fn make() -> Result<Self> {
        let child = spawn(Spawn::default(), idle).doing("starting a placeholder")?;
        Ok(Self { child })
    }
}

fn idle() -> Infallible {
    let set_up = sys::signals::reset().is_ok()
        && set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
    if !set_up {
        exit(1);
    }
    loop {
        // Nothing ends it but a signal; whatever interrupts it does not count.
        let _interrupted = rustix::event::poll(&mut [], None);
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        match pidfd_send_signal(&self.child.pidfd, Signal::KILL).call(|| "pidfd_send_signal") {
            Err(error) if error.errno != Errno::SRCH => {}
            // Nobody else waits for it, so that this cannot fail.
            _ => drop(reap(self.child.pid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_three_parts_is_a_unit() {
        let name = |path| Unit::parse(Some(path), "c").map(|unit| (unit.slice, unit.name));
        let pair = |slice: &str, name: &str| (slice.to_owned(), name.to_owned());
        let system = Unit::parse(None, "c").unwrap();
        assert_eq!(system.name, "hull-c.scope");
        assert_eq!(
            name("machine.slice:libpod:1f").unwrap(),
            pair("machine.slice", "libpod-1f.scope")
        );
        assert_eq!(
            name("kubepods-burstable.slice::x").unwrap(),
            pair("kubepods-burstable.slice", "x.scope")
        );
        assert_eq!(name("-.slice:a:b").unwrap(), pair("-.slice", "a-b.scope"));
        for bad in [
            "/hull/x",
            "a:b",
            "a.slice:b:c:d",
            "a:b:c",
            "a--b.slice:p:c",
            "-a.slice:p:c",
            ".slice:p:c",
            "a/b.slice:p:c",
            "a.slice:p:",
            "a.slice:p:x/y",
            "a.slice:p:x y",
            "a.slice:p:b.slice",
        ] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_escaped_for_paths() {
        assert_eq!(escaped("hull-1.scope"), "hull_2d1_2escope");
        assert_eq!(escaped("1a"), "_31a");
    }

    #[test]
    fn a_placeholder_ends_with_its_owner() {
        let placeholder = Placeholder::make().unwrap();
        let pid = placeholder.child.pid;
        rustix::process::test_kill_process(pid).unwrap();
        drop(placeholder);
        assert_eq!(rustix::process::test_kill_process(pid), Err(Errno::SRCH));
    }
}
