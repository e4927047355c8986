//! Which devices a container may use: the configuration's rules, reduced, as lines for cgroup v1 and as a BPF program for
//! cgroup v2.
//!
//! Invariant: everything is denied before the first rule; for each of read, write and mknod the last rule that matches
//! decides; the devices every container has are always allowed.
//! Source: config-linux.md "Allowed Device list", kernel `Documentation/admin-guide/cgroup-v1/devices.rst`, `security/device_cgroup.c`.

use crate::error::{Error, Result};
use oci::runtime::DeviceRule;
use sys::bpf::Instruction;

/// As many rules as are taken; the BPF program then stays well below the kernel's limit.
const RULES_MAX: usize = 4096;

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    All,
    Block,
    Char,
}

/// A rule, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    allow: bool,
    kind: Kind,
    /// Any when unset.
    major: Option<u32>,
    /// Any when unset.
    minor: Option<u32>,
    access: u8,
}

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const EVERY_ACCESS: u8 = MKNOD | READ | WRITE;

const DENY_EVERYTHING: Rule = Rule {
    allow: false,
    kind: Kind::All,
    major: None,
    minor: None,
    access: EVERY_ACCESS,
};

/// Every node may be made, these may be used: null, zero, full, random, urandom, tty, console, ptmx, the terminals, and
/// tun, which programs that build tunnels make for themselves and no runtime could do without (it takes `CAP_NET_ADMIN`).
const DEFAULTS: [Rule; 12] = [
    allow(Kind::Char, None, None, MKNOD),
    allow(Kind::Block, None, None, MKNOD),
    allow(Kind::Char, Some(1), Some(3), EVERY_ACCESS),
    allow(Kind::Char, Some(1), Some(5), EVERY_ACCESS),
    allow(Kind::Char, Some(1), Some(7), EVERY_ACCESS),
    allow(Kind::Char, Some(1), Some(8), EVERY_ACCESS),
    allow(Kind::Char, Some(1), Some(9), EVERY_ACCESS),
    allow(Kind::Char, Some(5), Some(0), EVERY_ACCESS),
    allow(Kind::Char, Some(5), Some(1), EVERY_ACCESS),
    allow(Kind::Char, Some(5), Some(2), EVERY_ACCESS),
    allow(Kind::Char, Some(136), None, EVERY_ACCESS),
    allow(Kind::Char, Some(10), Some(200), EVERY_ACCESS),
];

const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    Rule {
        allow: true,
        kind,
        major,
        minor,
        access,
    }
}

impl Rule {
    fn parse(rule: &DeviceRule) -> Result<Self> {
        let invalid = |what: &str| Error::invalid(format!("device rule {rule:?}: {what}"));
        let kind = match rule.kind.as_deref() {
            None | Some("" | "a") => Kind::All,
            Some("b") => Kind::Block,
            Some("c" | "u") => Kind::Char,
            Some(_) => return Err(invalid("the type is not a, b or c")),
        };
        let number = |number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => match u32::try_from(number) {
                Ok(number) if number < 1 << 20 => Ok(Some(number)),
                _ => Err(invalid("no such device number")),
            },
        };
        let mut access = 0;
        for letter in rule.access.as_deref().unwrap_or_default().chars() {
            access |= match letter {
                'm' => MKNOD,
                'r' => READ,
                'w' => WRITE,
                _ => return Err(invalid("the access is not of r, w and m")),
            };
        }
        if access == 0 {
            access = EVERY_ACCESS;
        }
        let rule = Self {
            allow: rule.allow,
            kind,
            major: number(rule.major)?,
            minor: number(rule.minor)?,
            access,
        };
        // The kernel's `a` ignores numbers and access; so does everybody who writes it.
        Ok(if kind == Kind::All {
            Self {
                allow: rule.allow,
                ..DENY_EVERYTHING
            }
        } else {
            rule
        })
    }

    /// The rule as a line of `devices.allow` or `devices.deny`, and which of both.
    pub(super) fn v1_line(&self) -> (&'static str, String) {
        let file = if self.allow {
            "devices.allow"
        } else {
            "devices.deny"
        };
        let kind = match self.kind {
            Kind::All => return (file, "a".into()),
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".into(), |number| number.to_string());
        (
            file,
            format!(
                "{kind} {}:{} {}",
                number(self.major),
                number(self.minor),
                self.letters()
            ),
        )
    }

    /// The access as letters.
    fn letters(&self) -> String {
        [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
            .into_iter()
            .filter_map(|(bit, letter)| (self.access & bit != 0).then_some(letter))
            .collect()
    }

    /// Whether it allows.
    pub(super) fn allows(&self) -> bool {
        self.allow
    }
}

/// The rules as pairs of a name and an access that are allowed, all else being denied, in systemd's words; `None` where they
/// cannot be said so.
pub(super) fn allow_list(rules: &[Rule]) -> Option<Vec<(String, String)>> {
    let (first, rest) = rules.split_first()?;
    if first.allow || rest.iter().any(|rule| !rule.allow) {
        return None;
    }
    let entries = rest.iter().map(|rule| {
        let (node, group) = match rule.kind {
            Kind::Block => ("/dev/block/", "block-"),
            Kind::Char => ("/dev/char/", "char-"),
            Kind::All => return None,
        };
        let name = match (rule.major, rule.minor) {
            (Some(major), Some(minor)) => format!("{node}{major}:{minor}"),
            (Some(major), None) => format!("{group}{major}"),
            (None, None) => format!("{group}*"),
            (None, Some(_)) => return None,
        };
        Some((name, rule.letters()))
    });
    entries.collect()
}

/// The rules in force, in order: the first is always about everything.
pub(super) fn rules(configured: &[DeviceRule]) -> Result<Vec<Rule>> {
    if configured.len() > RULES_MAX {
        return Err(Error::invalid(format!(
            "more than {RULES_MAX} device rules"
        )));
    }
    let mut rules = vec![DENY_EVERYTHING];
    for rule in configured {
        let rule = Rule::parse(rule)?;
        if rule.kind == Kind::All {
            rules.clear();
        }
        rules.push(rule);
    }
    rules.extend(DEFAULTS);
    if rules.iter().all(|rule| rule.allow) {
        rules.truncate(1);
    }
    Ok(rules)
}

const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The rules as a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`: its context (in r1) is `{access << 16 | type, major, minor}`.
///
/// Rules are tried from the last to the first. One that allows takes its kinds of access off those still undecided (r3), and
/// none left means yes; one that denies any of those still undecided means no.
pub(super) fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        load_word(TYPE, 0),
        instruction(MOVE, ACCESS | TYPE << 4, 0, 0),
        instruction(AND, TYPE, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 16),
        load_word(MAJOR, 4),
        load_word(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let body = if rule.allow {
            let mask = i32::from(!rule.access & EVERY_ACCESS);
            vec![
                instruction(AND, ACCESS, 0, mask),
                instruction(JUMP_NOT_EQUAL, ACCESS, 2, 0),
                instruction(SET, 0, 0, 1),
                instruction(EXIT, 0, 0, 0),
            ]
        } else {
            vec![
                instruction(JUMP_ANY_BIT, ACCESS, 1, i32::from(rule.access)),
                instruction(JUMP, 0, 2, 0),
                instruction(SET, 0, 0, 0),
                instruction(EXIT, 0, 0, 0),
            ]
        };
        let kind = match rule.kind {
            Kind::All => None,
            Kind::Block => Some(1),
            Kind::Char => Some(2),
        };
        let conditions: Vec<_> = [(TYPE, kind), (MAJOR, rule.major), (MINOR, rule.minor)]
            .into_iter()
            .filter_map(|(register, number)| Some((register, number?.cast_signed())))
            .collect();
        for (index, &(register, number)) in conditions.iter().enumerate() {
            let skipped = conditions.len() - 1 - index + body.len();
            let skipped = i16::try_from(skipped).expect("two conditions and four instructions");
            program.push(instruction(JUMP_NOT_EQUAL, register, skipped, number));
        }
        program.extend(body);
    }
    program.extend([instruction(SET, 0, 0, 0), instruction(EXIT, 0, 0, 0)]);
    program
}

// Operations of eBPF (linux/bpf.h): class | source | operation.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const SET: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP: u8 = 0x05;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_ANY_BIT: u8 = 0x45;
const EXIT: u8 = 0x95;

const fn instruction(code: u8, registers: u8, offset: i16, value: i32) -> Instruction {
    Instruction {
        code,
        registers,
        offset,
        value,
    }
}

const fn load_word(register: u8, offset: i16) -> Instruction {
    const CONTEXT: u8 = 1;
    instruction(LOAD_WORD, register | CONTEXT << 4, offset, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
        DeviceRule {
            allow,
            kind: Some(kind.into()),
            major: Some(major),
            minor: Some(minor),
            access: Some(access.into()),
        }
    }

    /// The last rule wins for each kind of access: the definition the program is measured by.
    fn allowed(rules: &[Rule], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        [MKNOD, READ, WRITE]
            .into_iter()
            .filter(|bit| access & bit != 0)
            .all(|bit| {
                let matching = rules.iter().rev().find(|rule| {
                    (rule.kind == Kind::All || rule.kind == kind)
                        && rule.major.is_none_or(|number| number == major)
                        && rule.minor.is_none_or(|number| number == minor)
                        && rule.access & bit != 0
                });
                matching.is_some_and(|rule| rule.allow)
            })
    }

    /// Runs the program as the kernel would.
    fn run(program: &[Instruction], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let kind = if kind == Kind::Block { 1 } else { 2 };
        let context = [u32::from(access) << 16 | kind, major, minor];
        let mut registers = [0_u32; 11];
        let mut next = 0_usize;
        loop {
            let Instruction {
                code,
                registers: pair,
                offset,
                value,
            } = program[next];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let constant = value.cast_unsigned();
            let mut taken = false;
            match code {
                LOAD_WORD => registers[to] = context[usize::try_from(offset).unwrap() / 4],
                MOVE => registers[to] = registers[from],
                SET => registers[to] = constant,
                AND => registers[to] &= constant,
                SHIFT_RIGHT => registers[to] >>= constant,
                JUMP => taken = true,
                JUMP_NOT_EQUAL => taken = registers[to] != constant,
                JUMP_ANY_BIT => taken = registers[to] & constant != 0,
                EXIT => return registers[0] == 1,
                _ => panic!("{code:#x}"),
            }
            next += 1 + if taken {
                usize::try_from(offset).unwrap()
            } else {
                0
            };
        }
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_rules_do(
            configured in proptest::collection::vec(
                (any::<bool>(), 0..3_usize, -1..4_i64, -1..4_i64, 0..8_u8), 0..8),
            kind in 0..2_usize, major in 0..4_u32, minor in 0..4_u32, access in 1..8_u8,
        ) {
            let configured: Vec<_> = configured.into_iter().map(|(allow, kind, major, minor, access)| {
                let access: String = [(MKNOD, 'm'), (READ, 'r'), (WRITE, 'w')].into_iter()
                    .filter_map(|(bit, letter)| (access & bit != 0).then_some(letter)).collect();
                rule(allow, ["a", "b", "c"][kind], major, minor, &access)
            }).collect();
            let rules = rules(&configured).unwrap();
            let kind = [Kind::Block, Kind::Char][kind];
            prop_assert_eq!(
                run(&program(&rules), kind, major, minor, access),
                allowed(&rules, kind, major, minor, access)
            );
        }
    }

    #[test]
    fn nothing_configured_allows_the_default_devices_only() {
        let rules = rules(&[]).unwrap();
        assert!(allowed(&rules, Kind::Char, 1, 3, READ | WRITE));
        assert!(allowed(&rules, Kind::Block, 8, 0, MKNOD));
        assert!(!allowed(&rules, Kind::Block, 8, 0, READ));
    }

    #[test]
    fn everything_allowed_needs_one_line() {
        let rules = rules(&[
            rule(false, "a", -1, -1, "rwm"),
            rule(true, "a", -1, -1, "rwm"),
        ]);
        let lines: Vec<_> = rules.unwrap().iter().map(Rule::v1_line).collect();
        assert_eq!(lines, [("devices.allow", "a".to_owned())]);
    }

    #[test]
    fn a_line_has_stars_for_any_number() {
        let rule = Rule::parse(&rule(true, "c", 10, -1, "mr")).unwrap();
        assert_eq!(rule.v1_line(), ("devices.allow", "c 10:* rm".to_owned()));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            rule(true, "x", 1, 1, "r"),
            rule(true, "c", -2, 1, "r"),
            rule(true, "c", 1 << 20, 1, "r"),
            rule(true, "c", 1, 1, "rx"),
            rule(true, "c", 1, 1, "r\n a"),
        ] {
            assert!(rules(&[bad]).is_err());
        }
    }
}
