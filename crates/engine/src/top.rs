//! `top`: the processes of a container as ps(1) lists them, read from proc(5).
//!
//! Docker runs the host's `ps` with whatever arguments; here `-ef`, `aux` and `-o column,…` are understood, and anything
//! else is an error that says so.

use crate::Engine;
use crate::error::{Error, Kind, Result};
use shim::protocol::{Reply, Request};
use std::time::Duration;

/// Clock ticks per second in `/proc/<pid>/stat`: fixed in the kernel's interface.
const TICKS_PER_S: u64 = 100;

/// A table of processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The columns' names.
    pub titles: Vec<String>,
    /// A row per process.
    pub rows: Vec<Vec<String>>,
}

/// A column: what `-o` calls it, its title, how it is made.
struct Column {
    name: &'static str,
    title: &'static str,
    value: fn(&Process) -> String,
}

/// What is known of a process.
#[derive(Debug, Default)]
struct Process {
    pid: i32,
    ppid: i32,
    uid: u32,
    state: char,
    terminal: i32,
    ticks: u64,
    started_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
    nice: i64,
    comm: String,
    command: String,
    uptime_ticks: u64,
    memory_bytes: u64,
}

const COLUMNS: [Column; 17] = [
    Column {
        name: "user",
        title: "USER",
        value: |p| user(p.uid),
    },
    Column {
        name: "uid",
        title: "UID",
        value: |p| p.uid.to_string(),
    },
    Column {
        name: "pid",
        title: "PID",
        value: |p| p.pid.to_string(),
    },
    Column {
        name: "ppid",
        title: "PPID",
        value: |p| p.ppid.to_string(),
    },
    Column {
        name: "c",
        title: "C",
        value: |p| (cpu_tenths(p) / 10).to_string(),
    },
    Column {
        name: "%cpu",
        title: "%CPU",
        value: |p| tenths(cpu_tenths(p)),
    },
    Column {
        name: "%mem",
        title: "%MEM",
        value: |p| tenths(resident(p).saturating_mul(1000) / p.memory_bytes.max(1)),
    },
    Column {
        name: "vsz",
        title: "VSZ",
        value: |p| (p.virtual_bytes >> 10).to_string(),
    },
    Column {
        name: "rss",
        title: "RSS",
        value: |p| (resident(p) >> 10).to_string(),
    },
    Column {
        name: "tty",
        title: "TTY",
        value: terminal,
    },
    Column {
        name: "stat",
        title: "STAT",
        value: |p| p.state.to_string(),
    },
    Column {
        name: "stime",
        title: "STIME",
        value: started,
    },
    Column {
        name: "start",
        title: "START",
        value: started,
    },
    Column {
        name: "time",
        title: "TIME",
        value: cpu_time,
    },
    Column {
        name: "ni",
        title: "NI",
        value: |p| p.nice.to_string(),
    },
    Column {
        name: "comm",
        title: "COMMAND",
        value: |p| p.comm.clone(),
    },
    Column {
        name: "cmd",
        title: "CMD",
        value: |p| p.command.clone(),
    },
];

/// Other names of columns.
const ALIASES: [(&str, &str); 6] = [
    ("args", "cmd"),
    ("command", "cmd"),
    ("ucmd", "comm"),
    ("pcpu", "%cpu"),
    ("pmem", "%mem"),
    ("s", "stat"),
];

impl Engine {
    /// The processes of a running container.
    ///
    /// # Errors
    /// No such container, not running, arguments that are not understood.
    pub async fn top(&self, key: &str, arguments: &str) -> Result<Table> {
        let columns = columns(arguments)?;
        let container = self.0.registry.find(key)?;
        let pids = match container.running_link()?.ask(Request::Processes).await? {
            Reply::Processes { pids } => pids,
            other => {
                return Err(Error::new(
                    Kind::System,
                    format!("the container's shim answered something else: {other:?}"),
                ));
            }
        };
        self.container_event(&container, "top", []);
        // A process may end while it is looked at.
        let processes = pids.into_iter().filter_map(read);
        let row = |process: Process| columns.iter().map(|(_, value)| value(&process)).collect();
        let titles = columns
            .iter()
            .map(|(title, _)| (*title).to_owned())
            .collect();
        Ok(Table {
            titles,
            rows: processes.map(row).collect(),
        })
    }
}

type Selected = Vec<(&'static str, fn(&Process) -> String)>;

fn columns(arguments: &str) -> Result<Selected> {
    let names: Vec<&str> = match arguments.trim() {
        "" | "-ef" => {
            let user_column: (&'static str, fn(&Process) -> String) = ("UID", |p| user(p.uid));
            let rest = select(&["pid", "ppid", "c", "stime", "tty", "time", "cmd"])?;
            return Ok(std::iter::once(user_column).chain(rest).collect());
        }
        "aux" | "-aux" => {
            let names = [
                "user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "time", "cmd",
            ];
            let mut selected = select(&names)?;
            if let Some(last) = selected.last_mut() {
                last.0 = "COMMAND";
            }
            return Ok(selected);
        }
        other => {
            let list = other
                .strip_prefix("-eo")
                .or_else(|| other.strip_prefix("-o"))
                .or_else(|| other.strip_prefix("o "));
            let list = list.ok_or_else(|| {
                Error::unsupported(format!(
                    "ps arguments {other:?} are not supported: use -ef, aux, or -o column,column"
                ))
            })?;
            list.split([',', ' '])
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .collect()
        }
    };
    select(&names)
}

fn select(names: &[&str]) -> Result<Selected> {
    let find = |name: &&str| {
        let canonical = ALIASES
            .iter()
            .find(|(alias, _)| alias == name)
            .map_or(*name, |(_, column)| *column);
        let column = COLUMNS.iter().find(|column| column.name == canonical);
        column
            .map(|column| (column.title, column.value))
            .ok_or_else(|| {
                let known: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
                Error::unsupported(format!(
                    "ps column {name:?} is not supported: there are {}",
                    known.join(", ")
                ))
            })
    };
    names.iter().map(find).collect()
}

/// A user's number: names of the host mean nothing in a container.
fn user(uid: u32) -> String {
    if uid == 0 {
        "root".to_owned()
    } else {
        uid.to_string()
    }
}

fn tenths(value: u64) -> String {
    format!("{}.{}", value / 10, value % 10)
}

/// CPU use over the process's life in tenths of a percent.
fn cpu_tenths(process: &Process) -> u64 {
    let lived = process
        .uptime_ticks
        .saturating_sub(process.started_ticks)
        .max(1);
    process.ticks.saturating_mul(1000) / lived
}

fn resident(process: &Process) -> u64 {
    process
        .resident_pages
        .saturating_mul(rustix::param::page_size() as u64)
}

fn terminal(process: &Process) -> String {
    const PTS_MAJOR: i32 = 136;
    match (process.terminal >> 8) & 0xfff {
        PTS_MAJOR => format!("pts/{}", process.terminal & 0xff),
        _ => "?".to_owned(),
    }
}

fn started(process: &Process) -> String {
    let ago = process.uptime_ticks.saturating_sub(process.started_ticks) / TICKS_PER_S;
    let started = jiff::Timestamp::now() - Duration::from_secs(ago);
    let local = started.to_zoned(jiff::tz::TimeZone::UTC);
    let format = if ago < 24 * 60 * 60 { "%H:%M" } else { "%b%d" };
    local.strftime(format).to_string()
}

fn cpu_time(process: &Process) -> String {
    let seconds = process.ticks / TICKS_PER_S;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

fn read(pid: i32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut process = parse_stat(&stat)?;
    process.pid = pid;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    process.uid = uid.split_whitespace().nth(1)?.parse().ok()?;
    let words = command
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy);
    process.command = words.collect::<Vec<_>>().join(" ").trim_end().to_owned();
    if process.command.is_empty() {
        process.command = format!("[{}]", process.comm);
    }
    let info = rustix::system::sysinfo();
    process.uptime_ticks = u64::try_from(info.uptime).unwrap_or(0) * TICKS_PER_S;
    process.memory_bytes = info.totalram.saturating_mul(info.mem_unit.into());
    Some(process)
}

/// Reads `/proc/<pid>/stat`. The command name is in parentheses and may contain anything, parentheses included.
fn parse_stat(stat: &str) -> Option<Process> {
    let (head, tail) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    Some(Process {
        comm: head.split_once('(')?.1.to_owned(),
        state: fields.first()?.chars().next()?,
        ppid: fields.get(1)?.parse().ok()?,
        terminal: fields.get(4)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        nice: fields.get(16)?.parse().ok()?,
        started_ticks: number(19)?,
        virtual_bytes: number(20)?,
        resident_pages: number(21)?,
        ..Process::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_may_contain_anything() {
        let stat = "7 (a) b) S 1 7 7 34816 7 0 0 0 0 0 150 50 0 0 20 5 1 0 1000 4096 3 0";
        let process = parse_stat(stat).unwrap();
        assert_eq!(
            (
                process.comm.as_str(),
                process.ppid,
                process.ticks,
                process.nice
            ),
            ("a) b", 1, 200, 5)
        );
        assert_eq!(terminal(&process), "pts/0");
    }

    #[test]
    fn arguments_that_are_not_understood_are_named() {
        assert_eq!(columns("").unwrap()[0].0, "UID");
        assert_eq!(columns("aux").unwrap().last().unwrap().0, "COMMAND");
        assert_eq!(columns("-o pid,comm").unwrap().len(), 2);
        for bad in ["-ZZ", "-o pid,frob", "axjf"] {
            assert!(columns(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn this_process_is_listed() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let process = read(pid).unwrap();
        assert_eq!(process.pid, pid);
        assert!(!process.command.is_empty());
    }
}
