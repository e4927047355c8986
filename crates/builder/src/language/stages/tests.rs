//! The language as whole Dockerfiles: what is read, and what is refused where.

use super::*;
use crate::language::{Command, HealthTest, Run, RunNetwork};
use proptest::prelude::*;

fn dockerfile(text: &str) -> Dockerfile {
    parse("Dockerfile", text.as_bytes()).unwrap()
}

/// The only instruction after a FROM.
fn one(text: &str) -> Instruction {
    let mut dockerfile = dockerfile(&format!("FROM x\n{text}"));
    assert_eq!(dockerfile.stages[0].steps.len(), 1, "{text}");
    dockerfile.stages[0].steps.remove(0).instruction
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn run(text: &str) -> Run {
    match one(text) {
        Instruction::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

#[test]
fn stages_have_names() {
    let file = dockerfile(
        "ARG V=1\nFROM --platform=$BUILDPLATFORM a:$V AS Build\nRUN x\nfrom build\nFROM scratch as last\n",
    );
    assert_eq!(
        file.arguments().next().unwrap().default.as_deref(),
        Some("1")
    );
    assert_eq!(file.stages.len(), 3);
    assert_eq!(
        file.stages[0].from.platform.as_deref(),
        Some("$BUILDPLATFORM")
    );
    assert_eq!(file.stages[0].from.name.as_deref(), Some("build"));
    assert_eq!(file.stage("build", 3), Some(0));
    assert_eq!(file.stage("last", 3), Some(2));
    assert_eq!(file.stage("last", 2), None);
    assert_eq!(file.stage("BUILD", 3), None);
}

#[test]
fn commands_are_shell_or_exec() {
    assert_eq!(
        run("RUN a  'b' \\\n c").command,
        Command::Shell("a  'b'  c".to_owned())
    );
    assert_eq!(
        run("RUN [\"a\", \"b c\"]").command,
        Command::Exec(words(&["a", "b c"]))
    );
    assert_eq!(
        run("RUN [ -f x ] && y").command,
        Command::Shell("[ -f x ] && y".to_owned())
    );
    assert_eq!(one("CMD"), Instruction::Cmd(Command::Shell(String::new())));
    assert_eq!(
        one("ENTRYPOINT []"),
        Instruction::Entrypoint(Command::Exec(Vec::new()))
    );
    assert_eq!(
        one("cmd a"),
        Instruction::Cmd(Command::Shell("a".to_owned()))
    );
    assert_eq!(
        one("SHELL [\"/bin/bash\", \"-c\"]"),
        Instruction::Shell(words(&["/bin/bash", "-c"]))
    );
    let run = run("RUN --mount=type=cache,target=/c --network=none --mount=target=/s make");
    assert_eq!(run.mounts, ["type=cache,target=/c", "target=/s"]);
    assert_eq!(run.network, RunNetwork::None);
}

#[test]
fn here_documents_belong_to_their_instruction() {
    let run = run("RUN python3 <<EOF > /x\nprint('$a')\nEOF");
    assert_eq!(run.command, Command::Shell("python3 <<EOF > /x".to_owned()));
    assert_eq!(run.documents[0].content, "print('$a')\n");
    let Instruction::Copy(copy) = one("COPY <<a <<-'b' x /dst/\n1\na\n\t2\nb") else {
        panic!()
    };
    assert_eq!(copy.sources, ["x"]);
    assert_eq!(copy.documents.len(), 2);
    assert!(copy.documents[0].expand && !copy.documents[1].expand);
    assert_eq!(
        one("ONBUILD RUN <<E\nx\nE"),
        Instruction::Onbuild("RUN <<E\nx\nE".to_owned())
    );
}

#[test]
fn pairs_have_two_forms() {
    let pairs = |text: &str| match one(text) {
        Instruction::Env(pairs) | Instruction::Label(pairs) => pairs
            .into_iter()
            .map(|pair| (pair.name, pair.value))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        pairs("ENV a=1 b=\"x y\" c=d\\ e"),
        [pair("a", "1"), pair("b", "\"x y\""), pair("c", "d\\ e")]
    );
    assert_eq!(pairs("ENV a b  c=d"), [pair("a", "b  c=d")]);
    assert_eq!(pairs("LABEL \"a b\"=c"), [pair("\"a b\"", "c")]);
    assert_eq!(pairs("ENV a="), [pair("a", "")]);
}

#[test]
fn arguments_may_be_several() {
    let Instruction::Arg(arguments) = one("ARG a b=1 c=\"x y\"") else {
        panic!()
    };
    let defaults: Vec<_> = arguments.iter().map(|a| a.default.as_deref()).collect();
    assert_eq!(defaults, [None, Some("1"), Some("\"x y\"")]);
}

#[test]
fn transfers_have_their_flags() {
    let Instruction::Copy(copy) = one(
        "COPY --from=0 --chown=a:b --chmod=u+x --link --parents --exclude=*.o --exclude=b a c d/",
    ) else {
        panic!()
    };
    assert_eq!(copy.from.as_deref(), Some("0"));
    assert_eq!(copy.sources, ["a", "c"]);
    assert_eq!(copy.excludes, ["*.o", "b"]);
    assert!(copy.link && copy.parents);
    let Instruction::Add(add) = one("ADD --checksum=sha256:0 --unpack=false http://x /y") else {
        panic!()
    };
    assert_eq!(
        (add.unpack, add.checksum.as_deref()),
        (Some(false), Some("sha256:0"))
    );
    let Instruction::Copy(copy) = one("COPY [\"a b\", \"c d\"]") else {
        panic!()
    };
    assert_eq!(
        (copy.sources, copy.target),
        (words(&["a b"]), "c d".to_owned())
    );
}

#[test]
fn health_checks_have_times() {
    let Instruction::Healthcheck(health) =
        one("HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f x")
    else {
        panic!()
    };
    assert_eq!((health.interval_ns, health.retries), (90_000_000_000, 3));
    assert_eq!(
        health.test,
        HealthTest::Command(Command::Shell("curl -f x".to_owned()))
    );
    let Instruction::Healthcheck(health) = one("HEALTHCHECK none") else {
        panic!()
    };
    assert_eq!(health.test, HealthTest::None);
}

#[test]
fn the_rest_is_words() {
    assert_eq!(
        one("EXPOSE 80 90/udp $p"),
        Instruction::Expose(words(&["80", "90/udp", "$p"]))
    );
    assert_eq!(
        one("VOLUME [\"/a b\"]"),
        Instruction::Volume(words(&["/a b"]))
    );
    assert_eq!(
        one("VOLUME /a /b"),
        Instruction::Volume(words(&["/a", "/b"]))
    );
    assert_eq!(one("USER a:b"), Instruction::User("a:b".to_owned()));
    assert_eq!(one("WORKDIR /a b"), Instruction::Workdir("/a b".to_owned()));
    assert_eq!(
        one("STOPSIGNAL SIGINT"),
        Instruction::Stopsignal("SIGINT".to_owned())
    );
    assert_eq!(
        one("MAINTAINER a <b>"),
        Instruction::Maintainer("a <b>".to_owned())
    );
    assert_eq!(
        one("ONBUILD run x"),
        Instruction::Onbuild("run x".to_owned())
    );
}

#[test]
fn escapes_may_be_backticks() {
    let file = dockerfile("# escape=`\nFROM x\nRUN a `\n b\nCOPY a c:\\\n");
    assert_eq!(file.stages[0].steps[0].text, "RUN a  b");
    assert_eq!(file.stages[0].steps[1].text, "COPY a c:\\");
}

#[test]
fn mistakes_say_where_and_what() {
    for (text, line, column, expected) in [
        ("", 1, 1, "file with no instructions"),
        ("# only\n", 1, 1, "file with no instructions"),
        ("ARG a\n", 1, 1, "there is no FROM"),
        ("RUN x\nFROM a", 1, 1, "only ARG may be before FROM"),
        ("FROM a\nCPOY . /", 2, 1, "unknown instruction: CPOY"),
        ("FROM", 1, 1, "one or three arguments"),
        ("FROM a b", 1, 6, "one or three arguments"),
        ("FROM a AS 1b", 1, 6, "invalid name for build stage"),
        ("FROM a\nRUN", 2, 1, "RUN requires at least one argument"),
        ("FROM a\nCOPY a", 2, 6, "at least two arguments"),
        ("FROM a\n  COPY --form=b a b", 2, 8, "unknown flag: --form"),
        ("FROM a\nCOPY --from=$b a b", 2, 16, "variable expansion"),
        ("FROM a\nCOPY a <<E\nE", 2, 6, "heredoc as a destination"),
        ("FROM a\nENV b", 2, 5, "two arguments"),
        ("FROM a\nENV b=c d", 2, 5, "can't find ="),
        ("FROM a\nENV =c", 2, 5, "can not be blank"),
        ("FROM a\nARG =c", 2, 5, "can not be blank"),
        ("FROM a\nSHELL /bin/sh", 2, 7, "JSON"),
        ("FROM a\nCMD [1]", 2, 5, "strings only"),
        ("FROM a\nONBUILD ONBUILD RUN x", 2, 9, "ONBUILD ONBUILD"),
        ("FROM a\nONBUILD FROM x", 2, 9, "isn't allowed"),
        ("FROM a\nONBUILD foo", 2, 9, "unknown instruction: FOO"),
        ("FROM a\nHEALTHCHECK CMD", 2, 13, "Missing command"),
        (
            "FROM a\nHEALTHCHECK --interval=x CMD a",
            2,
            1,
            "no duration",
        ),
        ("FROM a\nHEALTHCHECK run a", 2, 13, "Unknown type"),
        (
            "FROM a\nRUN --mount=type=foo,target=/x a",
            2,
            5,
            "unsupported mount type",
        ),
        ("FROM a\nRUN --network=foo a", 2, 1, "invalid network mode"),
        ("FROM a\nRUN --security=foo a", 2, 1, "security mode"),
        ("FROM a\nSTOPSIGNAL a b", 2, 12, "exactly one"),
        ("FROM a\nVOLUME [\"\"]", 2, 8, "empty string"),
        ("FROM a\nRUN <<E\nx", 2, 1, "unterminated heredoc"),
        (
            "FROM a\nRUN x \\\n  y\nFOO",
            4,
            1,
            "unknown instruction: FOO",
        ),
        ("# escape=x\nFROM a", 1, 1, "invalid escape token"),
    ] {
        let error = parse("Dockerfile", text.as_bytes()).unwrap_err();
        assert!(error.message.contains(expected), "{text:?}: {error}");
        assert_eq!(
            error.position,
            Position { line, column },
            "{text:?}: {error}"
        );
    }
}

#[test]
fn words_that_are_nearly_right_are_guessed_and_files_have_limits() {
    let error = parse("D", b"FROM a\nENTRYPONT x").unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean ENTRYPOINT?"));
    parse("D", &vec![b'#'; DOCKERFILE_BYTES_MAX + 1]).unwrap_err();
    let many = format!(
        "FROM a\n{}",
        "USER x\n".repeat(crate::language::INSTRUCTIONS_MAX)
    );
    parse("D", many.as_bytes()).unwrap_err();
}

#[test]
fn triggers_are_single_instructions() {
    let position = Position { line: 3, column: 1 };
    let step = parse_trigger("RUN <<E\nx\nE", position).unwrap();
    assert_eq!(step.position, position);
    assert!(matches!(step.instruction, Instruction::Run(run) if run.documents.len() == 1));
    for bad in ["", "FROM x", "ONBUILD RUN x", "RUN x\nRUN y", "FOO"] {
        parse_trigger(bad, position).unwrap_err();
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "((FROM|RUN|COPY|ENV|ARG|ONBUILD|HEALTHCHECK|#)? ?[a-z=<\\-\\\\\"'\\[\\]\n ]{0,12}\n?){0,8}") {
        if let Err(error) = parse("Dockerfile", text.as_bytes()) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn what_is_no_text_is_replaced_where_that_does_no_harm() {
    let file = parse(
        "D",
        b"# \xff\nFROM a\nLABEL a=\xff\xfe\nCOPY <<A /x\n\xff\nA\n",
    )
    .unwrap();
    let texts = file.stages[0].steps.iter().map(|step| step.text.as_str());
    assert!(texts.eq(["LABEL a=\u{fffd}\u{fffd}", "COPY <<A /x"]));
    for (text, line) in [
        (&b"FROM a\nRUN a \\\n \xff"[..], 3),
        (b"FROM a\nRUN [\"\xff\"]", 2),
        (b"FROM a\nRUN <<A\na\n\xff\nA", 4),
        (b"FROM a\nCOPY <<'A' /x\n\xff\nA", 3),
    ] {
        assert_eq!(parse("D", text).unwrap_err().position.line, line);
    }
    // One that is meant is like any other sign.
    parse("D", "FROM a\nRUN \u{fffd}".as_bytes()).unwrap();
    parse("D", b"FROM a\nRUN a \\\n# \xff\n b").unwrap();
}
