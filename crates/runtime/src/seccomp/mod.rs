//! System call filters: the configuration's rules as a classic BPF program.
//!
//! For each architecture the calls are intervals of numbers with the same answer, found by binary search; the kernel
//! simulates the program for every number when it is loaded and skips it for those that are plainly allowed.
//!
//! Invariants, beyond the specification's text, as the other runtimes have them:
//! - A rule without conditions wins over all others for the same call, the first of several. Else the first rule whose
//!   conditions hold decides, else the default action.
//! - A rule in which two conditions concern the same argument holds when any of its conditions does.
//! - Under a restrictive default action, calls with numbers above all those a profile names fail with `ENOSYS`, so that
//!   programs fall back to the calls the profile's author knew.
//! - A call of an architecture not listed kills the process.
//! - A rule without conditions about a call that x86 also makes through `socketcall` or `ipc` is about that way too.
//!
//! Source: config-linux.md "Seccomp", seccomp(2), kernel `Documentation/userspace-api/seccomp_filter.rst`.

mod multiplexed;
mod numbers;
mod program;

use crate::error::{Doing, Error, Result};
use numbers::{Column, Row, number, rows};
use oci::runtime::{Seccomp, SeccompAction, SeccompOperator, SyscallArgument, SyscallRule};
use program::{Answer, Assembler, Condition, Rule};
use std::os::fd::OwnedFd;
use sys::seccomp::{
    INSTRUCTIONS_MAX, Instruction, SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
};

/// The bit in the number of every x32 call.
const X32_BIT: u32 = 0x4000_0000;

/// The flags known, by the name in a configuration.
pub(crate) const FLAGS: [(&str, libc::c_ulong); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", SECCOMP_FILTER_FLAG_TSYNC),
    ("SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG),
    (
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    ),
    (
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    ),
];

/// The architectures of the specification. Those without a column cannot occur on a machine this runs on, so that nothing
/// need be said of them: their calls are of an architecture not listed.
pub(crate) const ARCHITECTURES: [&str; 23] = [
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

/// A filter ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    program: Vec<Instruction>,
    flags: libc::c_ulong,
}

impl Filter {
    /// Compiles a configuration.
    pub(crate) fn compile(seccomp: &Seccomp) -> Result<Self> {
        let mut flags = 0;
        for name in &seccomp.flags {
            let known = FLAGS.iter().find(|(known, _)| known == name);
            let (_, flag) =
                known.ok_or_else(|| Error::unsupported(format!("seccomp flag {name:?}")))?;
            flags |= flag;
        }
        let notifies = seccomp.default_action == SeccompAction::Notify
            || seccomp
                .syscalls
                .iter()
                .any(|rule| rule.action == SeccompAction::Notify);
        if seccomp.default_action == SeccompAction::Notify {
            return Err(Error::invalid(
                "seccomp: SCMP_ACT_NOTIFY cannot be the default action",
            ));
        }
        if notifies {
            refuse_notify_of_write(seccomp)?;
            if seccomp.listener_path.is_none() {
                return Err(Error::invalid(
                    "seccomp: SCMP_ACT_NOTIFY needs a listenerPath",
                ));
            }
            flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
            if flags & SECCOMP_FILTER_FLAG_TSYNC != 0 {
                // The call can return one of both only.
                flags |= SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
            }
        }
        let program = assemble(seccomp)?;
        if program.len() > INSTRUCTIONS_MAX {
            let length = program.len();
            return Err(Error::unsupported(format!(
                "a seccomp filter of {length} instructions"
            )));
        }
        Ok(Self { program, flags })
    }

    /// Whether loading it gives a notify descriptor.
    pub(crate) fn notifies(&self) -> bool {
        self.flags & SECCOMP_FILTER_FLAG_NEW_LISTENER != 0
    }

    /// Puts the calling thread under the filter, and returns the notify descriptor if there is one.
    pub(crate) fn load(&self) -> Result<Option<OwnedFd>> {
        sys::seccomp::load(&self.program, self.flags).doing("loading the seccomp filter")
    }
}

/// The runtime itself writes its notify descriptor to the listener after the filter is in force.
fn refuse_notify_of_write(seccomp: &Seccomp) -> Result<()> {
    let own = ["sendmsg", "close"];
    let notified = seccomp
        .syscalls
        .iter()
        .filter(|rule| rule.action == SeccompAction::Notify);
    for name in notified.flat_map(|rule| &rule.names) {
        if own.contains(&name.as_str()) {
            return Err(Error::invalid(format!(
                "seccomp: SCMP_ACT_NOTIFY cannot be used for {name}"
            )));
        }
    }
    Ok(())
}

/// `AUDIT_ARCH_…` of linux/audit.h and the columns whose calls come under it: x32 shares that of x86_64.
const AUDIT: [(u32, &[Column]); 5] = [
    (0xc000_003e, &[Column::X86_64, Column::X32]),
    (0x4000_0003, &[Column::X86]),
    (0xc000_00b7, &[Column::Aarch64]),
    (0x4000_0028, &[Column::Arm]),
    (0xc000_00f3, &[Column::Riscv64]),
];

fn assemble(seccomp: &Seccomp) -> Result<Vec<Instruction>> {
    let default = answer(seccomp.default_action, seccomp.default_errno_ret)?;
    let listed = columns(seccomp)?;
    let named: Vec<Vec<&Row>> = { seccomp.syscalls.iter() }
        .map(|rule| rows(&rule.names))
        .collect();
    let mut assembler = Assembler::default();
    for (audit, columns) in AUDIT {
        let here: Vec<_> = columns
            .iter()
            .filter(|column| listed.contains(column))
            .collect();
        if here.is_empty() {
            continue;
        }
        let mut said = Vec::new();
        for &&column in &here {
            collect(seccomp, &named, column, default, &mut said)?;
        }
        let calls = merge(said);
        // Numbers with the x32 bit, on an architecture whose list leaves x32 out.
        let foreign = (columns.contains(&Column::X32) && here.len() == 1).then_some(
            if listed.contains(&Column::X32) {
                0..X32_BIT
            } else {
                X32_BIT..u32::MAX
            },
        );
        let here = here.iter().map(|column| **column).collect::<Vec<_>>();
        let intervals = intervals(&calls, &here, default, foreign, beyond(seccomp, default));
        assembler.architecture(audit, &intervals, default);
    }
    Ok(assembler.finish())
}

/// What is answered to numbers above all those that a profile names.
fn beyond(seccomp: &Seccomp, default: Answer) -> Answer {
    use SeccompAction::{Allow, Log, Notify, Trace};
    match seccomp.default_action {
        Allow | Log | Trace | Notify => default,
        _ => Answer::errno(libc::ENOSYS.cast_unsigned()),
    }
}

/// The architectures a filter is about: those listed, and the machine's own.
fn columns(seccomp: &Seccomp) -> Result<Vec<Column>> {
    let mut columns = vec![native()?];
    for name in &seccomp.architectures {
        let column = match name.as_str() {
            "SCMP_ARCH_X86_64" => Column::X86_64,
            "SCMP_ARCH_X32" => Column::X32,
            "SCMP_ARCH_X86" => Column::X86,
            "SCMP_ARCH_AARCH64" => Column::Aarch64,
            "SCMP_ARCH_ARM" => Column::Arm,
            "SCMP_ARCH_RISCV64" => Column::Riscv64,
            other if ARCHITECTURES.contains(&other) => continue,
            other => {
                return Err(Error::invalid(format!(
                    "unknown seccomp architecture {other:?}"
                )));
            }
        };
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    Ok(columns)
}

fn native() -> Result<Column> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(Column::X86_64),
        "aarch64" => Ok(Column::Aarch64),
        "riscv64" => Ok(Column::Riscv64),
        other => Err(Error::unsupported(format!("seccomp filters on {other}"))),
    }
}

/// Adds what the rules, whose calls are `named`, say of an architecture's calls, by number.
fn collect(
    seccomp: &Seccomp,
    named: &[Vec<&Row>],
    column: Column,
    default: Answer,
    calls: &mut Vec<(u32, Call)>,
) -> Result<()> {
    for (rule, rows) in seccomp.syscalls.iter().zip(named) {
        let answer = answer(rule.action, rule.errno_ret)?;
        if answer == default {
            // Says nothing new; and must not win over a rule that does.
            continue;
        }
        if column == Column::X86 && rule.args.is_empty() {
            collect_parts(rule, answer, calls);
        }
        let alternatives = alternatives(rule, column)?;
        for row in rows {
            let Some(number) = number(row, column) else {
                continue;
            };
            let number = if column == Column::X32 {
                number | X32_BIT
            } else {
                number
            };
            let call = if rule.args.is_empty() {
                Call::Plain(answer)
            } else {
                let rules = alternatives.iter().map(|conditions| Rule {
                    conditions: conditions.clone(),
                    answer,
                });
                Call::Rules(rules.collect())
            };
            calls.push((number, call));
        }
    }
    Ok(())
}

/// Adds what a rule without conditions says of calls made through others.
fn collect_parts(rule: &SyscallRule, answer: Answer, calls: &mut Vec<(u32, Call)>) {
    for part in rule.names.iter().filter_map(|name| multiplexed::part(name)) {
        let rule = Rule {
            conditions: vec![Condition {
                index: 0,
                mask: part.mask,
                value: part.value,
                operator: SeccompOperator::MaskedEqual,
                wide: false,
            }],
            answer,
        };
        calls.push((part.number, Call::Rules(vec![rule])));
    }
}

/// Brings what several rules say of a call together: the first without conditions counts, else all, in their order. The calls
/// are in the order of their numbers then, once each.
fn merge(mut calls: Vec<(u32, Call)>) -> Vec<(u32, Call)> {
    calls.sort_by_key(|(number, _)| *number);
    calls.dedup_by(|(later, more), (number, call)| {
        let same = later == number;
        if same {
            match (call, more) {
                (Call::Plain(_), _) => {}
                (call @ Call::Rules(_), Call::Plain(answer)) => *call = Call::Plain(*answer),
                (Call::Rules(rules), Call::Rules(more)) => rules.append(more),
            }
        }
        same
    });
    calls
}

/// What the rules say of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Plain(Answer),
    Rules(Vec<Rule>),
}

/// The sets of conditions of which one must hold.
fn alternatives(rule: &SyscallRule, column: Column) -> Result<Vec<Vec<Condition>>> {
    let wide = !matches!(column, Column::X86 | Column::Arm);
    let conditions = rule.args.iter().map(|argument| condition(argument, wide));
    let conditions = conditions.collect::<Result<Vec<_>>>()?;
    let mut indices: Vec<_> = rule.args.iter().map(|argument| argument.index).collect();
    indices.sort_unstable();
    let repeated = indices.windows(2).any(|pair| pair[0] == pair[1]);
    Ok(if repeated {
        conditions
            .into_iter()
            .map(|condition| vec![condition])
            .collect()
    } else {
        vec![conditions]
    })
}

fn condition(argument: &SyscallArgument, wide: bool) -> Result<Condition> {
    let index = u8::try_from(argument.index)
        .ok()
        .filter(|&index| index < 6)
        .ok_or_else(|| {
            Error::invalid(format!(
                "seccomp: a call has no argument {}",
                argument.index
            ))
        })?;
    let masked = argument.op == SeccompOperator::MaskedEqual;
    let (mask, value) = if masked {
        (argument.value, argument.value_two)
    } else {
        (u64::MAX, argument.value)
    };
    Ok(Condition {
        index,
        mask,
        value,
        operator: argument.op,
        wide,
    })
}

/// The whole range of numbers as intervals with one answer each: the first number of each, in order.
fn intervals(
    calls: &[(u32, Call)],
    columns: &[Column],
    default: Answer,
    foreign: Option<std::ops::Range<u32>>,
    beyond: Answer,
) -> Vec<(u32, Call)> {
    let mut found: Vec<(u32, Call)> = Vec::new();
    let mut push = |start: u32, call: Call| {
        // What was said of the numbers from here on was a guess.
        found.pop_if(|(last, _)| *last == start);
        if found.last().is_none_or(|(_, before)| *before != call) {
            found.push((start, call));
        }
    };
    push(0, Call::Plain(default));
    for x32 in [false, true] {
        let base = if x32 { X32_BIT } else { 0 };
        let range = base..if x32 { u32::MAX } else { X32_BIT };
        if foreign.as_ref() == Some(&range) {
            push(base, Call::Plain(Answer::KILL_PROCESS));
            continue;
        }
        if x32 && !columns.contains(&Column::X32) {
            continue;
        }
        push(base, Call::Plain(default));
        let first = calls.partition_point(|(number, _)| *number < range.start);
        let end = calls.partition_point(|(number, _)| *number < range.end);
        let calls = &calls[first..end];
        for (number, call) in calls {
            push(*number, call.clone());
            push(number + 1, Call::Plain(default));
        }
        if let Some((last, _)) = calls.last() {
            push(last + 1, Call::Plain(beyond));
        }
    }
    found
}

fn answer(action: SeccompAction, errno: Option<u32>) -> Result<Answer> {
    const ERRNO_MAX: u32 = 4095;
    let errno = errno.unwrap_or(libc::EPERM.cast_unsigned());
    let data = u16::try_from(errno)
        .map_err(|_| Error::invalid(format!("seccomp: {errno} does not fit an action's data")))?;
    Ok(match action {
        SeccompAction::KillProcess => Answer::KILL_PROCESS,
        SeccompAction::KillThread | SeccompAction::Kill => Answer(libc::SECCOMP_RET_KILL_THREAD),
        SeccompAction::Trap => Answer(libc::SECCOMP_RET_TRAP),
        SeccompAction::Errno if errno > ERRNO_MAX => {
            return Err(Error::invalid(format!("seccomp: {errno} is no errno")));
        }
        SeccompAction::Errno => Answer::errno(errno),
        SeccompAction::Trace => Answer(libc::SECCOMP_RET_TRACE | u32::from(data)),
        SeccompAction::Allow => Answer(libc::SECCOMP_RET_ALLOW),
        SeccompAction::Log => Answer(libc::SECCOMP_RET_LOG),
        SeccompAction::Notify => Answer(libc::SECCOMP_RET_USER_NOTIF),
    })
}

#[cfg(test)]
mod tests;
