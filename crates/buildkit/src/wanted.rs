//! Which files of the context a Dockerfile can use, so that the client sends no others.
//!
//! Invariant: what cannot be known before the build, such as a path with variables, makes everything wanted.

use builder::SCAN_CONTEXT;
use builder::language::{Dockerfile, Instruction, Mount, MountKind, Step, Transfer, parse_trigger};

/// What is wanted of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// No file.
    Nothing,
    /// What is at these paths, which may be patterns.
    Paths(Vec<String>),
    /// All of it.
    Everything,
}

/// What the steps of all stages take from the context.
pub(crate) fn of_context(file: &Dockerfile) -> Wanted {
    let steps = file.stages.iter().flat_map(|stage| &stage.steps);
    let declared = steps.filter_map(|step| match &step.instruction {
        Instruction::Arg(declared) => Some(declared),
        _ => None,
    });
    // Who scans the context for an SBOM scans all of it.
    if { declared.flatten().chain(file.arguments()) }.any(|arg| arg.name == SCAN_CONTEXT) {
        return Wanted::Everything;
    }
    let mut paths = Vec::new();
    let steps = file.stages.iter().flat_map(|stage| &stage.steps);
    // A trigger is a step of the stages on top. One that is none fails there.
    let triggers = steps.clone().filter_map(|step| match &step.instruction {
        Instruction::Onbuild(text) => parse_trigger(text, step.position).ok(),
        _ => None,
    });
    let triggers: Vec<Step> = triggers.collect();
    for step in steps.chain(&triggers) {
        match &step.instruction {
            Instruction::Copy(transfer) | Instruction::Add(transfer) if transfer.from.is_none() => {
                paths.extend(sources(transfer));
            }
            Instruction::Run(run) => paths.extend(run.mounts.iter().filter_map(|text| mount(text))),
            _ => {}
        }
    }
    paths.sort();
    paths.dedup();
    if paths.iter().any(|path| path.is_empty()) {
        return Wanted::Everything;
    }
    match paths.is_empty() {
        true => Wanted::Nothing,
        false => Wanted::Paths(paths),
    }
}

fn sources(transfer: &Transfer) -> impl Iterator<Item = String> {
    { transfer.sources.iter() }
        .filter(|source| !source.contains("://") && !source.starts_with("git@"))
        .map(|source| path(source, transfer.parents))
}

/// The path that a mount shows, where that is of the context.
fn mount(text: &str) -> Option<String> {
    if text.contains('$') {
        return (!text.contains("from=")).then(String::new);
    }
    match Mount::parse(text).ok()?.kind {
        MountKind::Bind {
            from: None, source, ..
        } => Some(path(&source, false)),
        _ => None,
    }
}

/// A path as the client finds it; empty is everything. It knows patterns within a name, and nothing that spans several.
fn path(source: &str, parents: bool) -> String {
    // Words may be quoted; the rest of what an expansion does needs one of these.
    if source.contains(['$', '\\', '"', '\'']) {
        return String::new();
    }
    let mut names: Vec<&str> = Vec::new();
    for name in source.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name if name.contains("**") || parents && name.contains(['*', '?', '[']) => break,
            name => names.push(name),
        }
    }
    names.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use builder::language::parse;

    fn wanted(steps: &str) -> Wanted {
        let text = format!("FROM x AS a\n{steps}\n");
        of_context(&parse("Dockerfile", text.as_bytes()).unwrap())
    }

    #[test]
    fn only_what_is_used_is_wanted() {
        let paths = |steps: &str| match wanted(steps) {
            Wanted::Paths(paths) => paths,
            other => panic!("{steps}: {other:?}"),
        };
        assert_eq!(
            paths("COPY a ./b/ /c/../d *.txt /t/"),
            ["*.txt", "a", "b", "d"]
        );
        assert_eq!(paths("RUN --mount=target=/t,source=s true"), ["s"]);
        assert_eq!(paths("COPY --parents src/**/a lib/*/b /t/"), ["lib", "src"]);
        assert_eq!(
            paths("COPY a /\nCOPY --from=a b /\nADD http://x/y /z"),
            ["a"]
        );
        assert_eq!(paths("ONBUILD COPY a /\nONBUILD RUN x"), ["a"]);
        for steps in [
            "RUN a",
            "COPY --from=x a b",
            "RUN --mount=type=cache,target=/c b",
        ] {
            assert_eq!(wanted(steps), Wanted::Nothing, "{steps}");
        }
    }

    #[test]
    fn what_is_not_known_is_everything() {
        for steps in [
            "COPY . /",
            "COPY / /",
            "COPY a\nARG v\nCOPY $v /x",
            "COPY [\"a b$v\", \"/x\"]",
            "RUN --mount=target=/t true",
            "RUN --mount=target=$t,source=a true",
            "COPY **/a /x/",
            "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true",
        ] {
            let steps = steps.replace("COPY a\n", "COPY a /\n");
            assert_eq!(wanted(&steps), Wanted::Everything, "{steps}");
        }
    }
}
