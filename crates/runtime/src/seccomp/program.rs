//! The assembler of filter programs: intervals of call numbers become a search tree, conditions become comparisons.
//!
//! Classic BPF jumps forward only, and by at most 255 instructions when conditional. So a program is written from its end to
//! its beginning: where a jump goes is known when it is written, answers and conditions that several calls share are written
//! once, and a longer way takes one unconditional jump more. Arguments have 64 bits and the machine 32: each comparison looks
//! at the high half first.

use super::Call;
use oci::runtime::SeccompOperator;
use std::collections::BTreeMap;
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

/// A place in a program: how many instructions there are from it to the end.
type Label = usize;

/// How far a conditional jump goes, less one: another instruction may come between.
const NEAR: usize = 254;

/// A program being written, the last instruction first.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    backwards: Vec<Instruction>,
    /// Where an answer is given.
    answers: BTreeMap<u32, Label>,
    /// Where conditional rules begin.
    conditionals: Vec<(Vec<Rule>, Label)>,
    sections: Vec<(u32, Label)>,
}

impl Assembler {
    /// Adds the calls of one architecture: intervals of numbers, each with its first.
    pub(super) fn architecture(&mut self, audit: u32, intervals: &[(u32, Call)], default: Answer) {
        let tree = self.search(intervals, default);
        if tree != self.here() {
            self.jump(tree);
        }
        let section = self.push(plain(LOAD, NUMBER));
        self.sections.push((audit, section));
    }

    /// The program.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        let mut next = self.answer(Answer::KILL_PROCESS);
        for (audit, section) in std::mem::take(&mut self.sections).into_iter().rev() {
            next = self.branch(IF_EQUAL, audit, section, next);
        }
        if next != self.here() {
            self.jump(next);
        }
        self.push(plain(LOAD, ARCHITECTURE));
        self.backwards.reverse();
        self.backwards
    }

    /// The place of the instruction written last.
    fn here(&self) -> Label {
        self.backwards.len()
    }

    fn push(&mut self, instruction: Instruction) -> Label {
        self.backwards.push(instruction);
        self.here()
    }

    fn jump(&mut self, to: Label) -> Label {
        let distance = u32::try_from(self.here() - to).expect("a program is shorter than that");
        self.push(plain(JUMP, distance))
    }

    /// A place from which one gets to `to`, within a conditional jump's reach.
    fn near(&mut self, to: Label) -> Label {
        if self.here() - to <= NEAR {
            to
        } else {
            self.jump(to)
        }
    }

    fn branch(&mut self, code: u16, value: u32, yes: Label, no: Label) -> Label {
        let (yes, no) = (self.near(yes), self.near(no));
        let distance = |to| u8::try_from(self.here() - to).expect("both are near");
        self.push(Instruction {
            code,
            if_true: distance(yes),
            if_false: distance(no),
            value,
        })
    }

    fn answer(&mut self, Answer(value): Answer) -> Label {
        let known = self.answers.get(&value).copied();
        if let Some(label) = known.filter(|label| self.here() - label < NEAR) {
            return label;
        }
        let label = self.push(plain(RETURN, value));
        self.answers.insert(value, label);
        label
    }

    fn search(&mut self, intervals: &[(u32, Call)], default: Answer) -> Label {
        if let [(_, call)] = intervals {
            return match call {
                Call::Plain(answer) => self.answer(*answer),
                Call::Rules(rules) => self.conditional(rules, default),
            };
        }
        let (low, high) = intervals.split_at(intervals.len() / 2);
        let first = high[0].0;
        let high = self.search(high, default);
        let low = self.search(low, default);
        self.branch(IF_GREATER_OR_EQUAL, first, high, low)
    }

    fn conditional(&mut self, rules: &[Rule], default: Answer) -> Label {
        let known = self.conditionals.iter().find(|(known, _)| known == rules);
        if let Some((_, label)) = known {
            return *label;
        }
        let mut next = self.answer(default);
        for rule in rules.iter().rev() {
            let mut holds = self.answer(rule.answer);
            for condition in rule.conditions.iter().rev() {
                holds = self.compare(condition, holds, next);
            }
            next = holds;
        }
        self.conditionals.push((rules.to_vec(), next));
        next
    }

    fn compare(&mut self, condition: &Condition, yes: Label, no: Label) -> Label {
        use SeccompOperator::{
            Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual,
        };
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
        match operator {
            Equal | MaskedEqual => self.branch(IF_EQUAL, low, yes, no),
            NotEqual => self.branch(IF_EQUAL, low, no, yes),
            Greater => self.branch(IF_GREATER, low, yes, no),
            GreaterOrEqual => self.branch(IF_GREATER_OR_EQUAL, low, yes, no),
            Less => self.branch(IF_GREATER_OR_EQUAL, low, no, yes),
            LessOrEqual => self.branch(IF_GREATER, low, no, yes),
        };
        let low = self.load(offset, mask_low);
        if !wide {
            return low;
        }
        match operator {
            Equal | MaskedEqual => self.branch(IF_EQUAL, high, low, no),
            NotEqual => self.branch(IF_EQUAL, high, low, yes),
            Greater | GreaterOrEqual => {
                let equal = self.branch(IF_EQUAL, high, low, no);
                self.branch(IF_GREATER, high, yes, equal)
            }
            Less | LessOrEqual => {
                let equal = self.branch(IF_EQUAL, high, low, yes);
                self.branch(IF_GREATER, high, no, equal)
            }
        };
        self.load(offset + 4, mask_high)
    }

    /// Loads the masked half of an argument for the comparison written last.
    fn load(&mut self, offset: u32, mask: u32) -> Label {
        if mask != u32::MAX {
            self.push(plain(AND, mask));
        }
        self.push(plain(LOAD, offset))
    }
}

fn plain(code: u16, value: u32) -> Instruction {
    Instruction {
        code,
        if_true: 0,
        if_false: 0,
        value,
    }
}

fn halves(value: u64) -> (u32, u32) {
    let low = u32::try_from(value & u64::from(u32::MAX)).expect("masked to 32 bits");
    let high = u32::try_from(value >> 32).expect("shifted to 32 bits");
    (high, low)
}
