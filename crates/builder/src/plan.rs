//! Which stages a target needs, and how many steps that is. Pure.

use crate::error::{Error, Result};
use crate::language::{Dockerfile, Instruction, Mount, Step, Transfer};
use std::collections::BTreeSet;

/// The base of stages that begin with nothing, whatever stages are called.
const SCRATCH: &str = "scratch";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The stages by number, ascending; each needs only earlier ones. The last is the target.
    pub(crate) stages: Vec<usize>,
    /// Steps of those, FROM included.
    pub(crate) steps: usize,
}

/// What a name after FROM or `--from` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A stage by number.
    Stage(usize),
    /// Something outside: a named context or an image.
    Outside(String),
}

/// What names a stage, which says how it can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namer {
    /// FROM: its name in lower case.
    From,
    /// COPY: its name in any case, or its number.
    Copy,
    /// A mount, or the client: its name in any case.
    Other,
}

impl Namer {
    /// The stage that is meant, of those before `before`.
    fn find(self, file: &Dockerfile, name: &str, before: usize) -> Option<usize> {
        match (self, name.parse::<usize>()) {
            (Self::From, _) => file.stage(name, before),
            (Self::Copy, Ok(number)) => Some(number).filter(|number| *number < before),
            _ => file.stage(&name.to_ascii_lowercase(), before),
        }
    }
}

/// What the FROM of stage `at` names. A stage may be called as the image that it stands on.
pub(crate) fn base(file: &Dockerfile, name: &str, at: usize) -> Result<Origin> {
    let is_own = file.stages[at].from.name.as_deref() == Some(name);
    match file.stage(name, at) {
        None if is_own || name == SCRATCH => Ok(Origin::Outside(name.to_owned())),
        _ => origin(file, Namer::From, name, at),
    }
}

/// What a name means to stage `at`. Names of later stages are mistakes, and no images.
pub(crate) fn origin(file: &Dockerfile, namer: Namer, name: &str, at: usize) -> Result<Origin> {
    if let Some(stage) = namer.find(file, name, at) {
        return Ok(Origin::Stage(stage));
    }
    if namer.find(file, name, file.stages.len()).is_some() {
        return Err(Error::Invalid(format!(
            "stage {name:?} is used before it is defined: a stage can only use earlier ones"
        )));
    }
    Ok(Origin::Outside(name.to_owned()))
}

/// Plans a target; the last stage without one.
///
/// `base` gives what a stage's FROM names, its variables replaced.
pub(crate) fn plan(file: &Dockerfile, bases: &[String], target: Option<&str>) -> Result<Plan> {
    let target = match target {
        None => file.stages.len() - 1,
        Some(name) => Namer::Other
            .find(file, name, file.stages.len())
            .ok_or_else(|| {
                Error::NotFound(format!("failed to reach build target {name} in Dockerfile"))
            })?,
    };
    let mut needed = BTreeSet::from([target]);
    for at in (0..=target).rev() {
        if !needed.contains(&at) {
            continue;
        }
        let mut origins = vec![base(file, &bases[at], at)?];
        for step in &file.stages[at].steps {
            for (namer, name) in uses(step)? {
                origins.push(origin(file, namer, &name, at)?);
            }
        }
        needed.extend(origins.into_iter().filter_map(|origin| match origin {
            Origin::Stage(stage) => Some(stage),
            Origin::Outside(_) => None,
        }));
    }
    let stages: Vec<usize> = needed.into_iter().collect();
    let steps = stages
        .iter()
        .map(|at| 1 + file.stages[*at].steps.len())
        .sum();
    Ok(Plan { stages, steps })
}

/// The names that a step takes files from.
pub(crate) fn uses(step: &Step) -> Result<Vec<(Namer, String)>> {
    match &step.instruction {
        Instruction::Copy(Transfer { from, .. }) => {
            let from = from.iter().cloned();
            Ok(from.map(|from| (Namer::Copy, from)).collect())
        }
        Instruction::Run(run) => { run.mounts.iter() }
            .filter_map(|text| from_of(text).transpose())
            .map(|from| Ok((Namer::Other, from?)))
            .collect(),
        _ => Ok(Vec::new()),
    }
}

/// The origin that a mount names. It counts before anything has a value, so that it cannot have variables.
fn from_of(text: &str) -> Result<Option<String>> {
    if !text.contains('$') {
        let mount = Mount::parse(text).map_err(Error::Invalid)?;
        return Ok(mount.from().map(str::to_owned));
    }
    let from = text
        .split(',')
        .find_map(|field| field.trim().strip_prefix("from="));
    match from {
        Some(from) if from.contains('$') => Err(Error::Invalid(format!(
            "'from' of a mount doesn't support variable expansion: {from:?}"
        ))),
        from => Ok(from.map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::parse;

    fn planned(text: &str, target: Option<&str>) -> Result<Plan> {
        let file = parse("Dockerfile", text.as_bytes()).unwrap();
        let bases: Vec<_> = file
            .stages
            .iter()
            .map(|stage| stage.from.image.clone())
            .collect();
        plan(&file, &bases, target)
    }

    const FILE: &str = "FROM x AS a\nRUN 1\nFROM x AS b\nRUN 2\nFROM b AS c\nCOPY --from=0 y z\n\
                        FROM c AS d\nRUN --mount=from=b,target=/$t 3\nFROM x AS unused\nFROM d";

    #[test]
    fn unused_stages_are_skipped() {
        let plan = |target| planned(FILE, target).unwrap();
        assert_eq!(
            plan(None),
            Plan {
                stages: vec![0, 1, 2, 3, 5],
                steps: 9
            }
        );
        assert_eq!(
            plan(Some("b")),
            Plan {
                stages: vec![1],
                steps: 2
            }
        );
        assert_eq!(plan(Some("UNUSED")).stages, [4]);
        for none in ["none", "0"] {
            assert!(matches!(planned(FILE, Some(none)), Err(Error::NotFound(_))));
        }
    }

    #[test]
    fn who_names_a_stage_says_how_it_is_called() {
        let stages = |text: &str| {
            planned(&format!("FROM x AS a\n{text}"), None)
                .unwrap()
                .stages
        };
        for stage in [
            "FROM a",
            "FROM x\nCOPY --from=A b c",
            "FROM x\nCOPY --from=0 b c",
        ] {
            assert_eq!(stages(stage), [0, 1], "{stage}");
        }
        assert_eq!(stages("FROM x\nRUN --mount=from=A,target=/t y"), [0, 1]);
        for image in ["FROM A", "FROM 0", "FROM x\nRUN --mount=from=0,target=/t y"] {
            assert_eq!(stages(image), [1], "{image}");
        }
    }

    #[test]
    fn stages_form_no_cycle() {
        for cycle in [
            "FROM b AS a\nFROM a AS b",
            "FROM x AS a\nCOPY --from=a y z",
            "FROM x AS a\nRUN --mount=from=b,target=/t y\nFROM a AS b",
        ] {
            let error = planned(cycle, None).unwrap_err();
            assert!(
                error.to_string().contains("before it is defined"),
                "{cycle}: {error}"
            );
        }
        planned("FROM x\nRUN --mount=from=$a,target=/t y", None).unwrap_err();
        for fine in [
            "FROM alpine AS Alpine",
            "FROM scratch AS a\nFROM a AS scratch",
        ] {
            planned(fine, None).unwrap();
        }
    }
}
