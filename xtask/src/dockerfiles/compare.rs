//! Two images, entry by entry: what one has and the other has not, or has otherwise.

use super::image::{self, Image, Node, Tree};
use serde_json::Value;
use std::collections::BTreeSet;

/// Differences of one kind that are told.
const TOLD_MAX: usize = 12;

/// What differs by nature: files by how their path begins or ends, and why that is so.
const NOT_COMPARED: [(&str, &str); 9] = [
    ("var/log/", "dpkg and apt write when they did what"),
    (
        "var/cache/ldconfig/aux-cache",
        "has the times and inodes of libraries",
    ),
    ("var/cache/apt/", "maps of what was downloaded, with times"),
    ("var/lib/apt/lists/", "the mirror's answer of that minute"),
    ("etc/resolv.conf", "the engine's, which is mounted over it"),
    (
        "root/.npm/",
        "times of downloads, and logs named after them",
    ),
    ("root/.cargo/", "times of downloads"),
    (".pyc", "has the time of its source"),
    ("/.crates2.json", "has the time of an installation"),
];

/// What times are compared by, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// When this run began: what a build has made has no time that is known.
    pub(super) started_s: i64,
    /// SOURCE_DATE_EPOCH. No file is younger here; Docker's wants `rewrite-timestamp` for that.
    pub(super) epoch_s: Option<i64>,
}

/// All differences between what is expected and what was made, in words.
pub(super) fn compare(expected: &Image, made: &Image, times: Times) -> Vec<String> {
    let (of_expected, of_made) = (effects(expected), effects(made));
    let (mut steps, mut made_steps) = (history(expected, &of_expected), history(made, &of_made));
    let mut found = config(&expected.config, &made.config);
    found.extend(histories(&steps, &made_steps));
    for all in [&mut steps, &mut made_steps] {
        all.retain(|step| step["empty_layer"] != true);
    }
    let steps = steps
        .iter()
        .map(|step| step["created_by"].as_str().unwrap_or_default());
    found.extend(layers(steps, &of_expected, &of_made, times));
    let told = |difference| format!("the files: {difference}");
    let files = |image: &Image| {
        let mut files = Tree::new();
        for layer in &image.layers {
            image::stack(&mut files, &layer.entries);
        }
        files
    };
    found.extend(
        trees(&files(expected), &files(made), None)
            .into_iter()
            .map(told),
    );
    found
}

/// What differs from a list of all files that the upper layers have, one a line: path, type flag, mode, owner, link.
pub(super) fn with_list(list: &str, made: &Image) -> Vec<String> {
    let lines = list
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let expected: BTreeSet<String> = lines.map(str::to_owned).collect();
    let upper = made.layers.iter().skip(1).flat_map(|layer| &layer.entries);
    let told = upper
        .filter(|(path, _)| !path.is_empty())
        .map(|(path, node)| {
            let field = |name: &str| node.told.get(name).map_or("-", String::as_str).to_owned();
            let fields = ["kind", "mode", "owner", "link"].map(field);
            format!("{path} {}", fields.join(" "))
        });
    let made: BTreeSet<String> = told.collect();
    let missing = expected
        .difference(&made)
        .map(|line| format!("missing: {line}"));
    let more = made
        .difference(&expected)
        .map(|line| format!("too many: {line}"));
    missing.chain(more).collect()
}

/// The configurations, without the times of their making.
fn config(expected: &Value, made: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["architecture", "os", "variant", "author"] {
        values(name, &expected[name], &made[name], &mut found);
    }
    let keys = |config: &Value| -> BTreeSet<String> {
        let fields = config["config"].as_object().into_iter().flatten();
        fields.map(|(name, _)| name.clone()).collect()
    };
    for name in &keys(expected) | &keys(made) {
        let (expected, made) = (&expected["config"][&name], &made["config"][&name]);
        values(&name, expected, made, &mut found);
    }
    found
}

fn histories(expected: &[Value], made: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    if expected.len() != made.len() {
        let text = format!(
            "history: {} entries instead of {}",
            made.len(),
            expected.len()
        );
        found.push(text);
    }
    for (at, (expected, made)) in expected.iter().zip(made).enumerate() {
        for name in ["created_by", "comment", "empty_layer", "author"] {
            let place = format!("history {at} {name}");
            values(&place, &expected[name], &made[name], &mut found);
        }
    }
    found
}

/// The steps. One whose layer has no effect is without a layer here, as in Docker's classic builder; all are told as that.
fn history(image: &Image, effects: &[Tree]) -> Vec<Value> {
    let mut steps = image.config["history"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut effects = effects.iter();
    for step in steps.iter_mut().filter(|step| step["empty_layer"] != true) {
        if effects.next().is_some_and(Tree::is_empty) {
            step["empty_layer"] = Value::Bool(true);
        }
    }
    steps
}

/// What each layer changes. Directories that it only repeats are left out: mounting leaves them in Docker's, and the root is in some
/// and not in others.
fn effects(image: &Image) -> Vec<Tree> {
    let mut below = Tree::new();
    let mut effects = Vec::new();
    for layer in &image.layers {
        let repeats = |path: &String, node: &Node| {
            path.is_empty() || below.get(path).is_some_and(|other| other.told == node.told)
        };
        let layer = &layer.entries;
        let kept = layer
            .iter()
            .filter(|(path, node)| node.told["kind"] != "5" || !repeats(path, node));
        let kept: Tree = kept
            .map(|(path, node)| (path.clone(), node.clone()))
            .collect();
        effects.push(kept);
        image::stack(&mut below, layer);
    }
    effects
}

fn values(name: &str, expected: &Value, made: &Value, found: &mut Vec<String>) {
    if !is_nothing(expected) || !is_nothing(made) {
        let differs = expected != made;
        found.extend(differs.then(|| format!("{name}: {made} instead of {expected}")));
    }
}

/// What Go leaves out of a document and what it writes as empty are the same.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

fn layers<'s>(
    steps: impl Iterator<Item = &'s str>,
    expected: &[Tree],
    made: &[Tree],
    times: Times,
) -> Vec<String> {
    let full = |all: &&Tree| !all.is_empty();
    let (expected, made) = (expected.iter().filter(full), made.iter().filter(full));
    let mut found = Vec::new();
    let (expected_count, made_count) = (expected.clone().count(), made.clone().count());
    if expected_count != made_count {
        found.push(format!(
            "{made_count} layers with files instead of {expected_count}"
        ));
    }
    for (step, (expected, made)) in steps.zip(expected.zip(made)) {
        // What a command writes has the time of that minute.
        let times = Some(times).filter(|_| step.starts_with("COPY") || step.starts_with("ADD"));
        let step: String = step.chars().take(60).collect();
        let told = |difference| format!("layer ({step}): {difference}");
        found.extend(trees(expected, made, times).into_iter().map(told));
    }
    found
}

fn trees(expected: &Tree, made: &Tree, times: Option<Times>) -> Vec<String> {
    let mut found = Vec::new();
    let paths: BTreeSet<&String> = expected.keys().chain(made.keys()).collect();
    for path in paths
        .into_iter()
        .filter(|path| !path.is_empty() && is_compared(path))
    {
        match (expected.get(path), made.get(path)) {
            // All of a whiteout is its name.
            (Some(_), Some(_)) if image::hides(path).is_some() => {}
            (Some(expected), Some(made)) => found.extend(nodes(path, expected, made, times)),
            (Some(expected), None) => {
                found.push(format!("{path:?} is missing: {:?}", expected.told))
            }
            (None, Some(made)) => found.push(format!("{path:?} is too many: {:?}", made.told)),
            (None, None) => {}
        }
    }
    if found.len() > TOLD_MAX {
        let more = found.len() - TOLD_MAX;
        found.truncate(TOLD_MAX);
        found.push(format!("and {more} more"));
    }
    found
}

fn is_compared(path: &str) -> bool {
    { NOT_COMPARED.iter() }.all(|(part, _)| !path.starts_with(part) && !path.ends_with(part))
}

fn nodes(path: &str, expected: &Node, made: &Node, times: Option<Times>) -> Vec<String> {
    let names: BTreeSet<&str> = expected
        .told
        .keys()
        .chain(made.told.keys())
        .copied()
        .collect();
    let mut found = Vec::new();
    for name in names {
        let (expected, made) = (expected.told.get(name), made.told.get(name));
        if expected != made {
            found.push(format!("{path:?} {name}: {made:?} instead of {expected:?}"));
        }
    }
    // A directory on the way has the time of its making, which changes when something is put into it.
    let Some(times) = times.filter(|_| expected.told["kind"] != "5") else {
        return found;
    };
    let wanted_s = times
        .epoch_s
        .map_or(expected.mtime_s, |epoch| expected.mtime_s.min(epoch));
    let is_known = expected.mtime_s < times.started_s || times.epoch_s.is_some();
    if is_known && wanted_s != made.mtime_s {
        found.push(format!(
            "{path:?} mtime: {} instead of {wanted_s}",
            made.mtime_s
        ));
    }
    found
}
