//! The rules, one by one, on Dockerfiles of a few lines.

use super::*;
use crate::language::parse;

/// What is found, as `RULE LINE`, with the details after it.
fn found_with(text: &str, build_args: &[(&str, &str)], ignore: &str) -> Vec<Finding> {
    let file = parse("Dockerfile", text.as_bytes()).unwrap();
    let build_args = { build_args.iter() }
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let known = BTreeMap::from([("TARGETPLATFORM".to_owned(), "linux/amd64".to_owned())]);
    let image = |name: &str| match name {
        "unknown" => None,
        name => Some(BaseImage {
            env: vec!["FOO=1".to_owned()],
            has_shell: name == "shell",
            platform: if name == "arm" {
                "linux/arm64"
            } else {
                "linux/amd64"
            }
            .parse()
            .unwrap(),
        }),
    };
    let stages: Vec<usize> = (0..file.stages.len()).collect();
    let global = Scope::global(&file, &build_args, &known).unwrap();
    let bases = file.stages.iter();
    let bases: Vec<String> = bases
        .map(|stage| global.word(&stage.from.image, &[]).unwrap())
        .collect();
    let world = World {
        build_args: &build_args,
        known: &known,
        global: &global,
        bases: &bases,
        platform: &"linux/amd64".parse().unwrap(),
        ignore: &Ignore::parse(ignore).unwrap(),
        stages: &stages,
        image: &image,
    };
    check(&file, &file.directives.check, &world)
}

fn found(text: &str) -> Vec<String> {
    found_with(text, &[], "")
        .iter()
        .map(Finding::short)
        .collect()
}

#[track_caller]
fn clean(text: &str) {
    assert_eq!(found(text), Vec::<String>::new(), "{text}");
}

#[track_caller]
fn one(text: &str, expected: &str) {
    assert_eq!(found(text), [expected], "{text}");
}

#[test]
fn from_lines() {
    one(
        "FROM a AS Base",
        "StageNameCasing: Stage name 'Base' should be lowercase (line 1)",
    );
    one(
        "FROM a as base",
        "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
    );
    clean("from a as base\nrun x");
    one(
        "FROM a AS x\nFROM b AS x",
        "DuplicateStageName: Duplicate stage name \"x\", stage names should be unique (line 2)",
    );
    one(
        "FROM a AS scratch",
        "ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 1)",
    );
    one(
        "ARG VERSION=1\nFROM a$VERSIO",
        "UndefinedArgInFrom: FROM argument 'VERSIO' is not declared (did you mean VERSION?) (line 2)",
    );
    one(
        "ARG VERSION\nFROM a:$VERSION",
        "InvalidDefaultArgInFrom: Default value for ARG a:$VERSION results in empty or invalid base image name (line 2)",
    );
    clean("ARG VERSION\nFROM a:${VERSION:-1}");
    one(
        "FROM --platform=$TARGETPLATFORM a",
        "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)",
    );
    one(
        "FROM --platform=linux/amd64 a",
        "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\" (line 1)",
    );
    clean("FROM --platform=linux/amd64 a AS build-amd64");
    one(
        "FROM arm",
        "InvalidBaseImagePlatform: Base image arm was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build (line 1)",
    );
}

#[test]
fn how_instructions_are_written() {
    one(
        "FROM a\nRUN x \\\n\n y",
        "NoEmptyContinuation: Empty continuation line (line 4)",
    );
    one(
        "FROM a\nrun x\nRUN y",
        "ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 2)",
    );
    one(
        "from a\nrun x\nRuN y",
        "ConsistentInstructionCasing: Command 'RuN' should match the case of the command majority (lowercase) (line 3)",
    );
    one(
        "FROM a\nENV x y",
        "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
    );
    one(
        "FROM a\nMAINTAINER me",
        "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
    );
}

#[test]
fn commands() {
    let json = |line: u32| {
        format!(
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line {line})"
        )
    };
    one("FROM a\nCMD run me", &json(2));
    clean("FROM a\nSHELL [\"/bin/bash\", \"-c\"]\nCMD run me");
    clean("FROM shell\nCMD run me");
    clean("FROM a\nCMD [\"run\"]\nHEALTHCHECK CMD ask me");
    // It is the earlier one that has no effect.
    one(
        "FROM a\nCMD [\"x\"]\nRUN y\nCMD [\"z\"]",
        "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
    );
    clean("FROM a AS b\nCMD [\"x\"]\nFROM b\nCMD [\"z\"]");
}

#[test]
fn variables() {
    one(
        "FROM a\nENV BAR=2\nWORKDIR /$BAZ",
        "UndefinedVar: Usage of undefined variable '$BAZ' (did you mean $BAR?) (line 3)",
    );
    clean("FROM a\nARG X\nLABEL a=$X b=$FOO c=$PATH");
    clean("FROM a\nARG TARGETPLATFORM\nRUN $Y\nCMD [\"$Z\"]");
    // What is not known of the base image may be set there.
    clean("FROM unknown\nWORKDIR /$BAZ");
    one(
        "FROM scratch\nCOPY <<A /x\n'$B'\nA",
        "UndefinedVar: Usage of undefined variable '$B' (line 2)",
    );
    clean("FROM scratch\nCOPY <<'A' /x\n$B\nA");
    clean("ARG G=1\nFROM a AS b\nARG G\nENV H=$G\nFROM b\nLABEL x=$H");
    one(
        "FROM a\nARG DB_PASSWORD",
        "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"DB_PASSWORD\") (line 2)",
    );
    clean("FROM a\nENV KEYBOARD=1 PASSWORD_FILE=/x PUBLIC_KEY=y");
    one(
        "FROM a\nWORKDIR app",
        "WorkdirRelativePath: Relative workdir \"app\" can have unexpected results if the base image changes (line 2)",
    );
    clean("FROM a\nWORKDIR /app\nWORKDIR more");
}

#[test]
fn ports() {
    one(
        "FROM a\nEXPOSE 80/TCP 81/udp",
        "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)",
    );
    one(
        "FROM a\nEXPOSE 127.0.0.1:80:80",
        "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80' (line 2)",
    );
}

#[test]
fn files_that_are_left_out() {
    let text = "FROM a\nCOPY ./x/y b /\nADD https://x/z /\nCOPY --from=b x /\nCOPY . /";
    let found = found_with(text, &[], "x\nz");
    let short: Vec<String> = found.iter().map(Finding::short).collect();
    let expected = "CopyIgnoredFile: Attempting to Copy file \"x/y\" that is excluded by .dockerignore (line 2)";
    assert_eq!(short, [expected]);
    assert!(found_with(text, &[], "x\n!x/y").is_empty());
}

#[test]
fn rules_are_left_out_and_asked_for() {
    clean("# check=skip=StageNameCasing,FromAsCasing\nFROM a as B");
    clean("# check=skip=all\nFROM a as B");
    one(
        "FROM a\n# check=skip=WorkdirRelativePath\nWORKDIR x\nMAINTAINER y",
        "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 4)",
    );
    clean("FROM a\n# nothing of it\nARG X");
    let text = "# check=experimental=all\n\nFROM a\n# nothing of it\nARG X\n# Y is why\nARG Y";
    one(
        text,
        "InvalidDefinitionDescription: Comment for ARG should follow the format: `# X <description>` (line 5)",
    );
}

#[test]
fn places_are_whole_instructions() {
    let found = found_with("FROM a\nCMD x \\\n y \\\n z", &[], "");
    assert_eq!((found[0].first_line, found[0].last_line), (2, 4));
}

#[test]
fn the_clients_arguments_count() {
    let text = "ARG VERSION=1\nFROM a:$VERSION\nARG X\nWORKDIR $X";
    assert_eq!(found_with(text, &[("X", "/abs")], "").len(), 0);
    assert_eq!(found_with(text, &[("X", "rel")], "").len(), 1);
}
