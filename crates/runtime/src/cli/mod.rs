//! The runtime's command line: runc's words, flags and output, so that its callers need not know the difference.
//!
//! The table below is all that is understood, and what help prints. A flag that is known and not supported says so.
//! Source: runc(8).

mod arguments;
mod checkpointing;
mod executing;
mod foreground;
mod inspect;
mod lifecycle;
mod log;
mod resources;
mod streams;

use crate::cgroup::CgroupManager;
use crate::error::{Doing, Error, Result};
use crate::state::Store;
use arguments::{Arguments, Flag, switch, valued};
use log::Log;
use rustix::process::geteuid;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use sys::Context;

/// The exit code of an invocation that failed.
const FAILED: u8 = 1;
/// The exit code of `exec` when the process could not be executed.
const EXEC_FAILED: u8 = 255;

/// What a command works with.
#[derive(Debug)]
struct Invocation {
    store: Store,
    cgroup_manager: CgroupManager,
    /// The program for checkpoint and restore, when it is not the usual one.
    criu: Option<String>,
    /// Whether a cgroup that may not be made is done without.
    rootless: bool,
    log: Log,
    arguments: Arguments,
    /// Behind the words, where another program's words may follow.
    rest: Vec<String>,
}

/// A command.
#[derive(Debug)]
struct Command {
    name: &'static str,
    help: &'static str,
    words: &'static str,
    flags: &'static [Flag],
    /// Whether what follows the first word is another program's.
    foreign: bool,
    run: fn(&Invocation) -> Result<u8>,
}

const GLOBAL: [Flag; 10] = [
    valued("root", "", "path", "directory of the containers' state"),
    valued(
        "log",
        "",
        "path",
        "file to log to, instead of standard error",
    ),
    valued("log-format", "", "text|json", "format of the log"),
    valued(
        "rootless",
        "",
        "auto|true|false",
        "do without a cgroup where none may be made; auto for ordinary users and in user namespaces",
    ),
    valued(
        "criu",
        "",
        "path",
        "the program for checkpoint and restore, else criu",
    ),
    switch("debug", "", "log what is asked for, too"),
    switch(
        "systemd-cgroup",
        "",
        "let systemd make cgroups; cgroupsPath then is slice:prefix:name",
    ),
    valued(
        "cgroup-manager",
        "",
        "cgroupfs|systemd|disabled",
        "who makes cgroups",
    ),
    switch("version", "v", "print the version"),
    switch("help", "h", "print this"),
];

const BUNDLE: Flag = valued(
    "bundle",
    "b",
    "path",
    "the bundle's directory, else the working directory",
);
const CONSOLE: Flag = valued(
    "console-socket",
    "",
    "path",
    "unix socket to send the terminal's master to",
);
const PIDFD: Flag = valued(
    "pidfd-socket",
    "",
    "path",
    "unix socket to send init's pidfd to",
);
const PID_FILE: Flag = valued("pid-file", "", "path", "file to write init's process id to");
const NO_PIVOT: Flag = switch(
    "no-pivot",
    "",
    "enter the root by chroot, which is less safe, on a host that runs from a ramdisk",
);
const CONFIG: Flag = valued(
    "config",
    "f",
    "name",
    "file with the configuration, instead of config.json in the bundle",
);
const NO_KEYRING: Flag = switch("no-new-keyring", "", "keep the caller's session keyring");
const PRESERVE: Flag = valued(
    "preserve-fds",
    "",
    "count",
    "descriptors from 3 on that the process inherits",
);
const NO_SUBREAPER: Flag = switch(
    "no-subreaper",
    "",
    "no reaper of the container's orphans outside of it: there never is one",
);
const DETACH: Flag = switch("detach", "d", "do not wait for the process");

const COMMANDS: &[Command] = &[
    Command {
        name: "create",
        help: "create a container",
        words: "<id>",
        flags: &[
            BUNDLE,
            CONFIG,
            CONSOLE,
            PIDFD,
            PID_FILE,
            NO_PIVOT,
            NO_KEYRING,
            PRESERVE,
            NO_SUBREAPER,
        ],
        foreign: false,
        run: lifecycle::create,
    },
    Command {
        name: "start",
        help: "execute a created container's process",
        words: "<id>",
        flags: &[],
        foreign: false,
        run: lifecycle::start,
    },
    Command {
        name: "run",
        help: "create and start a container, wait for it and delete it",
        words: "<id>",
        flags: &[
            BUNDLE,
            CONFIG,
            CONSOLE,
            PIDFD,
            PID_FILE,
            NO_PIVOT,
            NO_KEYRING,
            PRESERVE,
            DETACH,
            switch("keep", "", "do not delete the container"),
            NO_SUBREAPER,
        ],
        foreign: false,
        run: lifecycle::run,
    },
    Command {
        name: "kill",
        help: "send a signal, SIGTERM by default, to a container's init",
        words: "<id> [signal]",
        flags: &[switch("all", "a", "to all of its processes")],
        foreign: false,
        run: lifecycle::kill,
    },
    Command {
        name: "delete",
        help: "delete a stopped container",
        words: "<id>",
        flags: &[switch(
            "force",
            "f",
            "kill it first; fine if it does not exist",
        )],
        foreign: false,
        run: lifecycle::delete,
    },
    Command {
        name: "exec",
        help: "execute a process in a container",
        words: "<id> [command...]",
        flags: &executing::FLAGS,
        foreign: true,
        run: executing::exec,
    },
    Command {
        name: "state",
        help: "print a container's state",
        words: "<id>",
        flags: &[],
        foreign: false,
        run: inspect::state,
    },
    Command {
        name: "list",
        help: "list containers",
        words: "",
        flags: &[
            valued("format", "f", "table|json", "output format"),
            switch("quiet", "q", "ids only"),
        ],
        foreign: false,
        run: inspect::list,
    },
    Command {
        name: "ps",
        help: "list a container's processes",
        words: "<id>",
        flags: &[valued("format", "f", "table|json", "output format")],
        foreign: false,
        run: inspect::ps,
    },
    Command {
        name: "pause",
        help: "freeze a container's processes",
        words: "<id>",
        flags: &[],
        foreign: false,
        run: resources::pause,
    },
    Command {
        name: "resume",
        help: "let them go on",
        words: "<id>",
        flags: &[],
        foreign: false,
        run: resources::resume,
    },
    Command {
        name: "update",
        help: "change a container's limits",
        words: "<id>",
        flags: &resources::UPDATE_FLAGS,
        foreign: false,
        run: resources::update,
    },
    Command {
        name: "events",
        help: "print a container's usage and its running out of memory",
        words: "<id>",
        flags: &[
            valued("interval", "", "5s", "time between two prints of the usage"),
            switch("stats", "", "print the usage once"),
        ],
        foreign: false,
        run: resources::events,
    },
    Command {
        name: "spec",
        help: "write a configuration to start from",
        words: "",
        flags: &[BUNDLE, switch("rootless", "", "for an ordinary user")],
        foreign: false,
        run: inspect::spec,
    },
    Command {
        name: "features",
        help: "print what this runtime can do",
        words: "",
        flags: &[],
        foreign: false,
        run: inspect::features,
    },
    Command {
        name: "checkpoint",
        help: "make images of a container, by criu",
        words: "<id>",
        flags: &checkpointing::CHECKPOINT_FLAGS,
        foreign: false,
        run: checkpointing::checkpoint,
    },
    Command {
        name: "restore",
        help: "make a container of images, by criu",
        words: "<id>",
        flags: &checkpointing::RESTORE_FLAGS,
        foreign: false,
        run: checkpointing::restore,
    },
];

/// Runs the command line given without the program's own name.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut log = Log::default();
    let mut failed = FAILED;
    match dispatch(arguments, &mut log, &mut failed) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&error.chain());
            ExitCode::from(failed)
        }
    }
}

fn dispatch(
    arguments: impl Iterator<Item = OsString>,
    log: &mut Log,
    failed: &mut u8,
) -> Result<u8> {
    let mut arguments = arguments.fuse();
    let (global, rest) = Arguments::parse(&mut arguments, &GLOBAL, true)?;
    log.path = global
        .value("log")
        .filter(|path| !path.is_empty())
        .map(str::to_owned);
    log.json = match global.value("log-format") {
        None | Some("text" | "") => false,
        Some("json") => true,
        Some(other) => return Err(Error::invalid(format!("invalid log format {other:?}"))),
    };
    if global.has("version") {
        let spec = oci::runtime::VERSION;
        print(&format!(
            "hull-runtime version {}\nspec: {spec}\n",
            env!("CARGO_PKG_VERSION")
        ))?;
        return Ok(0);
    }
    let Some(name) = global.words.first().filter(|_| !global.has("help")) else {
        print(&help())?;
        return Ok(0);
    };
    if matches!(name.as_str(), "help" | "h") {
        print(&match rest.first() {
            Some(name) => usage(find(name)?),
            None => help(),
        })?;
        return Ok(0);
    }
    let command = find(name)?;
    if global.has("debug") {
        log.debug(&format!(
            "hull-runtime {}, as user {}: {name} {rest:?}",
            env!("CARGO_PKG_VERSION"),
            geteuid().as_raw()
        ));
    }
    if command.name == "exec" {
        *failed = EXEC_FAILED;
    }
    let mut flags = command.flags.to_vec();
    flags.push(switch("help", "h", "print this"));
    let rest = rest.into_iter().map(OsString::from);
    let (arguments, rest) = Arguments::parse(rest, &flags, command.foreign)?;
    if arguments.has("help") {
        print(&usage(command))?;
        return Ok(0);
    }
    let store = Store::new(global.value("root"));
    let mut invocation = Invocation {
        store,
        cgroup_manager: cgroup_manager(&global)?,
        criu: global.value("criu").map(str::to_owned),
        rootless: rootless(&global)?,
        log: log.clone(),
        arguments,
        rest,
    };
    if !command.foreign {
        invocation.arguments.words.append(&mut invocation.rest);
        let most = command.words.split_whitespace().count();
        if invocation.arguments.words.len() > most {
            return Err(Error::invalid(format!(
                "{name} takes {most} arguments at most"
            )));
        }
    }
    (command.run)(&invocation)
}

fn rootless(global: &Arguments) -> Result<bool> {
    match global.value("rootless") {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        None | Some("auto" | "") => Ok(!geteuid().is_root() || in_user_namespace()?),
        Some(other) => Err(Error::invalid(format!(
            "invalid value {other:?} for -rootless"
        ))),
    }
}

/// Whether the ids seen are not all of the machine's.
fn in_user_namespace() -> Result<bool> {
    const ALL: [&str; 3] = ["0", "0", "4294967295"];
    let map = std::fs::read_to_string("/proc/self/uid_map")
        .call(|| "read(\"/proc/self/uid_map\")")
        .doing("looking at the user namespace")?;
    Ok(!map.split_whitespace().eq(ALL))
}

fn cgroup_manager(global: &Arguments) -> Result<CgroupManager> {
    match global.value("cgroup-manager") {
        _ if global.has("systemd-cgroup") => Ok(CgroupManager::Systemd),
        None | Some("cgroupfs") => Ok(CgroupManager::Direct),
        Some("systemd") => Ok(CgroupManager::Systemd),
        Some("disabled") => Ok(CgroupManager::Disabled),
        Some(other) => Err(Error::invalid(format!("no cgroup manager {other:?}"))),
    }
}

fn find(name: &str) -> Result<&'static Command> {
    let command = COMMANDS.iter().find(|command| command.name == name);
    command.ok_or_else(|| Error::invalid(format!("unknown command {name:?}")))
}

impl Invocation {
    /// The id every command but a few is about.
    fn id(&self) -> Result<&str> {
        let first = self.arguments.words.first();
        first
            .map(String::as_str)
            .ok_or_else(|| Error::invalid("a container id is missing"))
    }
}

/// Prints to standard output.
fn print(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .call(|| "write(1)")
        .doing("printing")
}

fn help() -> String {
    let mut text = "usage: hull-runtime [global flags] <command> [flags] [words]\n\n".to_owned();
    for Command { name, help, .. } in COMMANDS {
        text.push_str(&format!("  {name:12}{help}\n"));
    }
    text.push_str("\nglobal flags:\n");
    text.push_str(&flag_lines(&GLOBAL));
    text
}

fn usage(command: &Command) -> String {
    let Command {
        name,
        help,
        words,
        flags,
        ..
    } = command;
    format!(
        "usage: hull-runtime {name} [flags] {words}\n\n{help}\n\n{}",
        flag_lines(flags)
    )
}

fn flag_lines(flags: &[Flag]) -> String {
    let mut text = String::new();
    for Flag {
        name,
        short,
        value,
        help,
    } in flags
    {
        let short = if short.is_empty() {
            String::new()
        } else {
            format!(", -{short}")
        };
        let names = format!("--{name}{short} {value}");
        text.push_str(&format!("  {names:34}{help}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_of_a_command_is_there_twice() {
        for command in COMMANDS {
            let mut names: Vec<_> = command.flags.iter().map(|flag| flag.name).collect();
            names.extend(
                command
                    .flags
                    .iter()
                    .map(|flag| flag.short)
                    .filter(|name| !name.is_empty()),
            );
            names.sort_unstable();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all, "{}", command.name);
        }
    }
}
