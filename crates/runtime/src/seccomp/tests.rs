//! The program is run on an interpreter as the kernel would, and compared with what the rules mean.

use super::numbers::{NUMBERS, row};
use super::*;
use proptest::prelude::*;
use std::path::PathBuf;

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;

fn profile(default_action: SeccompAction, syscalls: Vec<SyscallRule>) -> Seccomp {
    Seccomp {
        default_action,
        default_errno_ret: None,
        architectures: Vec::new(),
        flags: Vec::new(),
        listener_path: None,
        listener_metadata: None,
        syscalls,
    }
}

fn rule(names: &[&str], action: SeccompAction, args: Vec<SyscallArgument>) -> SyscallRule {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    SyscallRule {
        names,
        action,
        errno_ret: None,
        args,
    }
}

fn argument(index: u32, op: SeccompOperator, value: u64, value_two: u64) -> SyscallArgument {
    SyscallArgument {
        index,
        value,
        value_two,
        op,
    }
}

fn run(program: &[Instruction], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut accumulator = 0_u32;
    let mut next = 0;
    loop {
        let Instruction {
            code,
            if_true,
            if_false,
            value,
        } = program[next];
        next += 1;
        let mut branch =
            |condition| next += usize::from(if condition { if_true } else { if_false });
        match code {
            0x20 => {
                accumulator = match value {
                    0 => number,
                    4 => audit,
                    offset => {
                        let argument = arguments[usize::try_from(offset - 16).unwrap() / 8];
                        let half = if offset % 8 == 0 {
                            argument
                        } else {
                            argument >> 32
                        };
                        u32::try_from(half & 0xffff_ffff).unwrap()
                    }
                }
            }
            0x54 => accumulator &= value,
            0x05 => next += usize::try_from(value).unwrap(),
            0x15 => branch(accumulator == value),
            0x25 => branch(accumulator > value),
            0x35 => branch(accumulator >= value),
            0x06 => return value,
            _ => panic!("{code:#x}"),
        }
    }
}

fn compile(seccomp: &Seccomp) -> Vec<Instruction> {
    Filter::compile(seccomp).unwrap().program
}

#[test]
fn every_call_of_a_list_gets_its_answer_and_no_other() {
    let names = ["read", "write", "close", "execve", "openat", "clone3"];
    let program = compile(&profile(
        SeccompAction::Errno,
        vec![rule(&names, SeccompAction::Allow, vec![])],
    ));
    let numbers: Vec<_> = names
        .iter()
        .map(|name| number(row(name), Column::X86_64).unwrap())
        .collect();
    for call in 0..600 {
        let expected = match call {
            call if numbers.contains(&call) => ALLOW,
            // clone3 is the highest named.
            436.. => ENOSYS,
            _ => EPERM,
        };
        assert_eq!(run(&program, X86_64, call, [0; 6]), expected, "{call}");
    }
}

#[test]
fn an_architecture_not_listed_is_killed_and_so_is_x32() {
    let seccomp = profile(
        SeccompAction::Allow,
        vec![rule(&["ptrace"], SeccompAction::Errno, vec![])],
    );
    let program = compile(&seccomp);
    assert_eq!(run(&program, X86, 26, [0; 6]), KILL);
    assert_eq!(run(&program, X86_64, X32_BIT | 101, [0; 6]), KILL);
    assert_eq!(run(&program, X86_64, 101, [0; 6]), EPERM);
}

#[test]
fn each_architecture_has_its_own_numbers() {
    let mut seccomp = profile(
        SeccompAction::Allow,
        vec![rule(&["ptrace"], SeccompAction::Errno, vec![])],
    );
    seccomp.architectures = ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]
        .map(str::to_owned)
        .to_vec();
    let program = compile(&seccomp);
    assert_eq!(run(&program, X86, 26, [0; 6]), EPERM);
    assert_eq!(run(&program, X86, 101, [0; 6]), ALLOW);
    assert_eq!(run(&program, X86_64, X32_BIT | 521, [0; 6]), EPERM);
    assert_eq!(run(&program, X86_64, X32_BIT | 101, [0; 6]), ALLOW);
    assert_eq!(run(&program, X86_64, 521, [0; 6]), ALLOW);
}

#[test]
fn calls_made_through_others_get_the_same_answer() {
    let alg = argument(0, SeccompOperator::Equal, 38, 0);
    let mut seccomp = profile(
        SeccompAction::Allow,
        vec![
            rule(&["socket", "shmget", "semop"], SeccompAction::Errno, vec![]),
            rule(&["connect"], SeccompAction::Errno, vec![alg]),
        ],
    );
    seccomp.architectures = vec!["SCMP_ARCH_X86".into()];
    let program = compile(&seccomp);
    let ask = |number, first| run(&program, X86, number, [first, 0, 0, 0, 0, 0]);
    for (number, first, expected) in [
        (359, 2, EPERM),
        (102, 1, EPERM),
        // Its conditions cannot be looked at.
        (102, 3, ALLOW),
        (102, 2, ALLOW),
        (395, 0, EPERM),
        (117, 23, EPERM),
        (117, 23 | 1 << 16, EPERM),
        (117, 1, EPERM),
        (117, 2, ALLOW),
    ] {
        assert_eq!(ask(number, first), expected, "{number} {first}");
    }
    assert_eq!(run(&program, X86_64, 102, [1, 0, 0, 0, 0, 0]), ALLOW);
    // Who names the shared call has decided for all that it does.
    seccomp
        .syscalls
        .push(rule(&["socketcall"], SeccompAction::KillProcess, vec![]));
    let program = compile(&seccomp);
    assert_eq!(run(&program, X86, 102, [1, 0, 0, 0, 0, 0]), KILL);
    assert_eq!(run(&program, X86, 102, [2, 0, 0, 0, 0, 0]), KILL);
}

#[test]
fn an_unconditional_rule_wins_wherever_it_stands() {
    let conditional = rule(
        &["socket"],
        SeccompAction::Kill,
        vec![argument(0, SeccompOperator::Equal, 38, 0)],
    );
    let plain = rule(&["socket"], SeccompAction::Allow, vec![]);
    for rules in [
        vec![conditional.clone(), plain.clone()],
        vec![plain, conditional],
    ] {
        let program = compile(&profile(SeccompAction::Errno, rules));
        assert_eq!(run(&program, X86_64, 41, [38, 0, 0, 0, 0, 0]), ALLOW);
    }
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let args = vec![
        argument(0, SeccompOperator::Equal, 1, 0),
        argument(0, SeccompOperator::Equal, 2, 0),
    ];
    let program = compile(&profile(
        SeccompAction::Errno,
        vec![rule(&["socket"], SeccompAction::Allow, args)],
    ));
    let answers = [1, 2, 3].map(|domain| run(&program, X86_64, 41, [domain, 0, 0, 0, 0, 0]));
    assert_eq!(answers, [ALLOW, ALLOW, EPERM]);
}

#[test]
fn a_32_bit_argument_has_no_high_half() {
    let args = vec![argument(0, SeccompOperator::Equal, u64::MAX, 0)];
    let mut seccomp = profile(
        SeccompAction::Errno,
        vec![rule(&["personality"], SeccompAction::Allow, args)],
    );
    seccomp.architectures = vec!["SCMP_ARCH_X86".into()];
    let program = compile(&seccomp);
    let arguments = [0xffff_ffff, 0, 0, 0, 0, 0];
    assert_eq!(run(&program, X86, 136, arguments), ALLOW);
    assert_eq!(run(&program, X86_64, 135, arguments), EPERM);
}

#[test]
fn mistakes_are_refused() {
    let mut unknown = profile(SeccompAction::Allow, vec![]);
    unknown.architectures = vec!["SCMP_ARCH_ABACUS".into()];
    let mut flag = profile(SeccompAction::Allow, vec![]);
    flag.flags = vec!["SECCOMP_FILTER_FLAG_X".into()];
    let sixth = argument(6, SeccompOperator::Equal, 1, 0);
    let mut notify = profile(
        SeccompAction::Allow,
        vec![rule(&["sendmsg"], SeccompAction::Notify, vec![])],
    );
    notify.listener_path = Some(PathBuf::from("/run/x"));
    let mut errno = rule(&["read"], SeccompAction::Errno, vec![]);
    errno.errno_ret = Some(5000);
    for bad in [
        unknown,
        flag,
        notify,
        profile(SeccompAction::Notify, vec![]),
        profile(
            SeccompAction::Allow,
            vec![rule(&["read"], SeccompAction::Notify, vec![])],
        ),
        profile(
            SeccompAction::Allow,
            vec![rule(&["read"], SeccompAction::Kill, vec![sixth])],
        ),
        profile(SeccompAction::Allow, vec![errno]),
    ] {
        assert!(Filter::compile(&bad).is_err(), "{bad:?}");
    }
}

const OPERATORS: [SeccompOperator; 7] = [
    SeccompOperator::NotEqual,
    SeccompOperator::Less,
    SeccompOperator::LessOrEqual,
    SeccompOperator::Equal,
    SeccompOperator::GreaterOrEqual,
    SeccompOperator::Greater,
    SeccompOperator::MaskedEqual,
];

fn holds(condition: &SyscallArgument, arguments: [u64; 6]) -> bool {
    let argument = arguments[usize::try_from(condition.index).unwrap()];
    match condition.op {
        SeccompOperator::NotEqual => argument != condition.value,
        SeccompOperator::Less => argument < condition.value,
        SeccompOperator::LessOrEqual => argument <= condition.value,
        SeccompOperator::Equal => argument == condition.value,
        SeccompOperator::GreaterOrEqual => argument >= condition.value,
        SeccompOperator::Greater => argument > condition.value,
        SeccompOperator::MaskedEqual => argument & condition.value == condition.value_two,
    }
}

/// Values whose halves differ, agree and lie beside each other.
fn word() -> impl Strategy<Value = u64> {
    let half = prop_oneof![0..3_u64, Just(0xffff_ffff), Just(0x8000_0000)];
    (half.clone(), half).prop_map(|(high, low)| high << 32 | low)
}

/// Answers to every call there is, as one rule each, in an order that makes short intervals.
fn assorted(answers: &[usize]) -> Seccomp {
    const ACTIONS: [SeccompAction; 4] = [
        SeccompAction::Allow,
        SeccompAction::Errno,
        SeccompAction::KillThread,
        SeccompAction::Trap,
    ];
    let rules = NUMBERS.iter().zip(answers.iter().cycle());
    let rules = rules.map(|((name, _), answer)| rule(&[*name], ACTIONS[*answer], vec![]));
    let mut seccomp = profile(SeccompAction::Log, rules.collect());
    seccomp.architectures = ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]
        .map(str::to_owned)
        .to_vec();
    seccomp
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn long_programs_find_every_call(answers in proptest::collection::vec(0..4_usize, 1..64)) {
        let seccomp = assorted(&answers);
        let program = compile(&seccomp);
        for (column, audit, marker) in [
            (Column::X86_64, X86_64, 0),
            (Column::X32, X86_64, X32_BIT),
            (Column::X86, X86, 0),
        ] {
            for (rule, (_, row)) in seccomp.syscalls.iter().zip(&NUMBERS) {
                let Some(number) = number(row, column) else { continue };
                let expected = answer(rule.action, None).unwrap().0;
                prop_assert_eq!(run(&program, audit, marker | number, [0; 6]), expected);
            }
        }
    }

    #[test]
    fn conditions_mean_what_they_say(
        conditions in proptest::collection::vec((0..7_usize, word(), word()), 1..6),
        arguments in proptest::array::uniform6(word()),
    ) {
        let args: Vec<_> = conditions.into_iter().enumerate()
            .map(|(index, (op, value, value_two))| {
                argument(u32::try_from(index).unwrap(), OPERATORS[op], value, value_two)
            })
            .collect();
        let all = args.iter().all(|condition| holds(condition, arguments));
        let rules = vec![rule(&["ioctl"], SeccompAction::Allow, args)];
        let program = compile(&profile(SeccompAction::Errno, rules));
        let expected = if all { ALLOW } else { EPERM };
        prop_assert_eq!(run(&program, X86_64, 16, arguments), expected);
    }
}
