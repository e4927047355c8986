//! Checks of FROM lines.

use super::{Lint, Place, Rule, World, expanded, meant};
use crate::language::{Dockerfile, Stage};
use crate::scope::Scope;
use oci::Reference;
use oci::image::Platform;
use std::collections::{BTreeMap, BTreeSet};

/// Names that mean something else in FROM and `--from`.
const RESERVED: [&str; 2] = ["context", "scratch"];

pub(super) fn check(lint: &mut Lint<'_>, file: &Dockerfile, world: &World<'_>) {
    let escape = file.directives.escape;
    // Where a default cannot be replaced, none has a value.
    let defaults = Scope::global(file, &BTreeMap::new(), world.known)
        .unwrap_or_else(|_| Scope::known(file, world.known));
    let mut names = BTreeSet::new();
    for stage in &file.stages {
        let place = Place::from(stage);
        casing(lint, stage, place);
        if let Some(name) = &stage.from.name {
            if RESERVED.contains(&name.as_str()) {
                let detail =
                    format!("Stage name should not use the same name as reserved stage {name:?}");
                lint.say(Rule::ReservedStageName, place, detail);
            }
            if !names.insert(name) {
                let detail = format!("Duplicate stage name {name:?}, stage names should be unique");
                lint.say(Rule::DuplicateStageName, place, detail);
            }
        }
        let image = &stage.from.image;
        undeclared(lint, file, world, place, image);
        let (base, _) = expanded(image, escape, &|name| defaults.get(name, &[]));
        // A name without variables is not made by defaults.
        let valid = base.is_none_or(|base| base.parse::<Reference>().is_ok());
        if image.contains('$') && !valid {
            let detail = format!(
                "Default value for ARG {image} results in empty or invalid base image name"
            );
            lint.say(Rule::InvalidDefaultArgInFrom, place, detail);
        }
        if let Some(platform) = &stage.from.platform {
            undeclared(lint, file, world, place, platform);
            platform_flag(lint, stage, place, platform);
        }
    }
}

fn casing(lint: &mut Lint<'_>, stage: &Stage, place: Place<'_>) {
    let mut words = stage.text.split_whitespace();
    let from = words.next().unwrap_or_default();
    let mut words = words.filter(|word| !word.starts_with("--")).skip(1);
    let (Some(r#as), Some(name)) = (words.next(), words.next()) else {
        return;
    };
    if name != name.to_ascii_lowercase() {
        let detail = format!("Stage name '{name}' should be lowercase");
        lint.say(Rule::StageNameCasing, place, detail);
    }
    // A FROM of mixed case is at odds with another rule.
    let fits = match from {
        from if from == from.to_ascii_lowercase() => r#as == r#as.to_ascii_lowercase(),
        from if from == from.to_ascii_uppercase() => r#as == r#as.to_ascii_uppercase(),
        _ => true,
    };
    if !fits {
        let detail = format!("'{as}' and '{from}' keywords' casing do not match");
        lint.say(Rule::FromAsCasing, place, detail);
    }
}

fn undeclared(
    lint: &mut Lint<'_>,
    file: &Dockerfile,
    world: &World<'_>,
    place: Place<'_>,
    text: &str,
) {
    let declared = || {
        let declared = file.arguments().map(|argument| argument.name.as_str());
        declared.chain(world.known.keys().map(String::as_str))
    };
    let get = |name: &str| world.global.get(name, &[]);
    let (_, missing) = expanded(text, file.directives.escape, &get);
    for name in missing {
        // What has a default needs no declaration.
        let has_default = [":-", "-"].map(|operator| format!("${{{name}{operator}"));
        if has_default.iter().any(|start| text.contains(start)) {
            continue;
        }
        if !declared().any(|known| known == name) {
            let hint = meant(&name, declared());
            let detail = format!("FROM argument '{name}' is not declared{hint}");
            lint.say(Rule::UndefinedArgInFrom, place, detail);
        }
    }
}

fn platform_flag(lint: &mut Lint<'_>, stage: &Stage, place: Place<'_>, platform: &str) {
    let is_target = platform == "$TARGETPLATFORM" || { platform.strip_prefix("${TARGETPLATFORM") }
        .is_some_and(|rest| rest.starts_with([':', '-', '}']) && rest.ends_with('}'));
    if is_target {
        let detail = format!(
            "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
        );
        return lint.say(Rule::RedundantTargetPlatform, place, detail);
    }
    let Ok(parsed) = platform.parse::<Platform>() else {
        return;
    };
    let name = stage.from.name.as_deref().unwrap_or_default();
    let is_named = name.contains(&parsed.os) || name.contains(&parsed.architecture);
    if !platform.contains('$') && !is_named {
        let detail = format!("FROM --platform flag should not use constant value {platform:?}");
        lint.say(Rule::FromPlatformFlagConstDisallowed, place, detail);
    }
}
