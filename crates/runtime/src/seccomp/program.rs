//! The assembler of filter programs: intervals of call numbers become a search tree, conditions become comparisons.
//!
//! Classic BPF jumps forward only, and by at most 255 instructions when conditional, so that a longer way takes one
//! unconditional jump more. Arguments have 64 bits and the machine 32: each comparison looks at the high half first.

use super::Call;
use oci::runtime::SeccompOperator;
use sys::seccomp::Instruction;

/// What a filter returns: `SECCOMP_RET_…` and its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer(pub(super) u32);

impl Answer {
    pub(super) const KILL_PROCESS: Self = Self(libc::SECCOMP_RET_KILL_PROCESS);

    /// `errno` has 16 bits at most.
    pub(super) fn errno(errno: u32) -> Self {
        Self(libc::SECCOMP_RET_ERRNO | errno)
    }
}

/// One comparison of a masked argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) index: u8,
    pub(super) mask: u64,
    pub(super) value: u64,
    pub(super) operator: SeccompOperator,
    /// Whether the architecture's arguments have a high half.
    pub(super) wide: bool,
}

/// An answer when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) answer: Answer,
}

/// The offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

// Operations of classic BPF (linux/bpf_common.h).
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where a comparison goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Next,
    Holds,
    Fails,
}

/// A program being written.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    sections: Vec<(u32, Vec<Instruction>)>,
}

impl Assembler {
    /// Adds the calls of one architecture: intervals of numbers, each with its first.
    pub(super) fn architecture(&mut self, audit: u32, intervals: &[(u32, Call)], default: Answer) {
        let mut section = vec![plain(LOAD, NUMBER)];
        section.extend(search(intervals, default));
        self.sections.push((audit, section));
    }

    /// The program.
    pub(super) fn finish(self) -> Vec<Instruction> {
        let mut program = vec![plain(LOAD, ARCHITECTURE)];
        for (audit, section) in self.sections {
            program.extend(branch(IF_EQUAL, audit, section));
        }
        program.push(plain(RETURN, Answer::KILL_PROCESS.0));
        program
    }
}

/// `body`, skipped unless the condition holds.
fn branch(code: u16, value: u32, body: Vec<Instruction>) -> Vec<Instruction> {
    let mut instructions = match u8::try_from(body.len()) {
        Ok(length) => vec![Instruction {
            code,
            if_true: 0,
            if_false: length,
            value,
        }],
        Err(_) => vec![
            Instruction {
                code,
                if_true: 1,
                if_false: 0,
                value,
            },
            jump(body.len()),
        ],
    };
    instructions.extend(body);
    instructions
}

fn search(intervals: &[(u32, Call)], default: Answer) -> Vec<Instruction> {
    if let [(_, call)] = intervals {
        return match call {
            Call::Plain(answer) => vec![plain(RETURN, answer.0)],
            Call::Rules(rules) => conditional(rules, default),
        };
    }
    let (low, high) = intervals.split_at(intervals.len() / 2);
    let mut instructions = branch(IF_GREATER_OR_EQUAL, high[0].0, search(high, default));
    instructions.extend(search(low, default));
    instructions
}

fn conditional(rules: &[Rule], default: Answer) -> Vec<Instruction> {
    let mut instructions = Vec::new();
    for rule in rules {
        // From the last condition to the first: each must know how far it is to the rule's end.
        let mut body = vec![plain(RETURN, rule.answer.0)];
        for condition in rule.conditions.iter().rev() {
            let mut new = compare(condition, body.len());
            new.append(&mut body);
            body = new;
        }
        instructions.extend(body);
    }
    instructions.push(plain(RETURN, default.0));
    instructions
}

/// A comparison that goes on behind itself when it holds, and else skips `rest` instructions more.
fn compare(condition: &Condition, rest: usize) -> Vec<Instruction> {
    use SeccompOperator::{
        Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual,
    };
    use Way::{Fails, Holds, Next};
    let Condition {
        index,
        mask,
        value,
        operator,
        wide,
    } = *condition;
    let (mask_high, mask_low) = halves(mask);
    let (high, low) = halves(value);
    let offset = ARGUMENTS + 8 * u32::from(index);
    let mut steps: Vec<(Instruction, Way, Way)> = Vec::new();
    let mut step = |code, value, yes, no| steps.push((plain(code, value), yes, no));
    if wide {
        step(LOAD, offset + 4, Next, Next);
        if mask_high != u32::MAX {
            step(AND, mask_high, Next, Next);
        }
        match operator {
            Equal | MaskedEqual => step(IF_EQUAL, high, Next, Fails),
            NotEqual => step(IF_EQUAL, high, Next, Holds),
            Greater | GreaterOrEqual => {
                step(IF_GREATER, high, Holds, Next);
                step(IF_EQUAL, high, Next, Fails);
            }
            Less | LessOrEqual => {
                step(IF_GREATER, high, Fails, Next);
                step(IF_EQUAL, high, Next, Holds);
            }
        }
    }
    step(LOAD, offset, Next, Next);
    if mask_low != u32::MAX {
        step(AND, mask_low, Next, Next);
    }
    match operator {
        Equal | MaskedEqual => step(IF_EQUAL, low, Holds, Fails),
        NotEqual => step(IF_EQUAL, low, Fails, Holds),
        Greater => step(IF_GREATER, low, Holds, Fails),
        GreaterOrEqual => step(IF_GREATER_OR_EQUAL, low, Holds, Fails),
        Less => step(IF_GREATER_OR_EQUAL, low, Fails, Holds),
        LessOrEqual => step(IF_GREATER, low, Fails, Holds),
    }
    resolve(&steps, rest)
}

fn resolve(steps: &[(Instruction, Way, Way)], rest: usize) -> Vec<Instruction> {
    let distance = |from: usize, way: Way| {
        let skipped = match way {
            Way::Next => 0,
            Way::Holds => steps.len() - 1 - from,
            Way::Fails => steps.len() - 1 - from + rest,
        };
        u8::try_from(skipped).expect("six conditions of at most eight instructions and a return")
    };
    let resolved = steps
        .iter()
        .enumerate()
        .map(|(from, &(instruction, yes, no))| Instruction {
            if_true: distance(from, yes),
            if_false: distance(from, no),
            ..instruction
        });
    resolved.collect()
}

fn plain(code: u16, value: u32) -> Instruction {
    Instruction {
        code,
        if_true: 0,
        if_false: 0,
        value,
    }
}

fn jump(length: usize) -> Instruction {
    plain(
        JUMP,
        u32::try_from(length).expect("a section is shorter than any number of calls"),
    )
}

fn halves(value: u64) -> (u32, u32) {
    let low = u32::try_from(value & u64::from(u32::MAX)).expect("masked to 32 bits");
    let high = u32::try_from(value >> 32).expect("shifted to 32 bits");
    (high, low)
}
