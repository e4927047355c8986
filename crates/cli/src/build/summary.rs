//! What is said when a build has ended: its layers with their bytes, the largest files of the image, steps and seconds; what had
//! better be written otherwise.

use crate::go::units;
use api_types::{BuildEvent, BuildFinding};
use std::collections::BTreeMap;
use std::time::Instant;

/// What had better be written otherwise, a line each.
pub(super) fn findings(found: &[BuildFinding]) -> String {
    let heading = match found.len() {
        0 => return String::new(),
        1 => "1 warning found".to_owned(),
        count => format!("{count} warnings found"),
    };
    let line = |finding: &BuildFinding| {
        let BuildFinding {
            rule,
            detail,
            first_line,
            ..
        } = finding;
        format!(" - {rule}: {detail} (line {first_line})\n")
    };
    let lines: String = found.iter().map(line).collect();
    format!("\n {heading} (--check shows the lines):\n{lines}")
}

/// What is said when all is built.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// The first lines of steps that go on.
    texts: BTreeMap<usize, String>,
    /// Layers: what made them, and their bytes.
    layers: Vec<(String, u64)>,
    text: String,
}

impl Summary {
    pub(super) fn began(&mut self, step: usize, text: &str) {
        let first = text.lines().next().unwrap_or_default();
        self.texts.insert(step, first.to_owned());
    }

    pub(super) fn ended(&mut self, step: usize, layer_bytes: Option<u64>) {
        if let (Some(text), Some(bytes)) = (self.texts.remove(&step), layer_bytes) {
            self.layers.push((text, bytes));
        }
    }

    /// Takes the event that ends a build.
    pub(super) fn built(&mut self, event: &BuildEvent, begun: Instant) {
        let BuildEvent::Built {
            id,
            manifest: _,
            tags,
            steps,
            cached,
            largest,
        } = event
        else {
            return;
        };
        let seconds = begun.elapsed().as_secs_f64();
        let names = match tags.as_slice() {
            [] => String::new(),
            tags => format!(" as {}", tags.join(", ")),
        };
        let id = if id.is_empty() { "it" } else { id };
        self.text = format!(
            "{}{}built {id}{names}: {steps} steps, {cached} cached, {seconds:.1}s\n",
            sizes("layers", &self.layers),
            sizes("largest in the image", largest),
        );
    }

    /// What is to be said; nothing before that event.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Things with their sizes, below a heading.
fn sizes(heading: &str, all: &[(String, u64)]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let line = |(what, bytes): &(String, u64)| {
        #[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
        let bytes = *bytes as f64;
        // A name in an image may have any characters.
        let what: String = what.chars().filter(|it| !it.is_control()).collect();
        format!(" {:>9}  {what}\n", units::human_size(bytes))
    };
    let lines: String = all.iter().map(line).collect();
    format!("{heading}:\n{lines}")
}
