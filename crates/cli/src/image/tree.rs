//! `hull images --tree`: names with what there is of them for each platform, in the columns of Docker's client.
//!
//! On a terminal the columns that do not fit are left out.

use crate::error::Result;
use crate::format::short_id;
use crate::go::units;
use crate::output;
use crate::stdio;
use api_types::{ImageSummary, ManifestSummary, Platform};

/// Columns that Docker counts for a branch: its bytes.
const BRANCH_COLUMNS: usize = "└─ ".len();
/// Blanks between columns.
const SPACING: usize = 3;
/// No name's column is narrower, as long as another column can go.
const NAME_COLUMNS_MIN: usize = 12;
/// Columns where nothing is known of the terminal.
const COLUMNS: usize = 80;
const COLUMNS_MIN: usize = 20;
/// The columns after the first: the title, the width, and whether it ends at the right.
const TITLES: [(&str, usize, bool); 4] = [
    ("ID", 12, false),
    ("DISK USAGE", 10, true),
    ("CONTENT SIZE", 12, true),
    ("EXTRA", 5, false),
];
/// What an image without a name is called.
const UNTAGGED: &str = "<untagged>";

const HEADING: &str = "\u{1b}[39m\u{1b}[1m";
const NAME: &str = "\u{1b}[34m\u{1b}[1m";
const FAINT: &str = "\u{1b}[39m\u{1b}[2m";
const CHIP: &str = "\u{1b}[38;5;0m\u{1b}[48;5;14m";
const INFO: &str = "\u{1b}[96m";
const RESET: &str = "\u{1b}[0m";

/// Shows images; `all`: those without a name, too.
pub(super) fn show(images: Vec<ImageSummary>, all: bool) -> Result<()> {
    let is_terminal = stdio::is_terminal();
    let columns = match stdio::size() {
        [_, 0] => COLUMNS,
        [_, columns] => usize::try_from(columns).unwrap_or(COLUMNS),
    };
    let has_colors = is_terminal && output::wants_colors();
    let mut nodes: Vec<Node> = { images.into_iter() }
        .map(Node::of)
        .filter(|node| all || !node.names.is_empty())
        .collect();
    nodes.sort_by_key(|node| std::cmp::Reverse(node.created));
    output::print(&text(&nodes, columns.max(COLUMNS_MIN), has_colors))
}

/// An image with its platforms.
struct Node {
    names: Vec<String>,
    created: i64,
    cells: Cells,
    children: Vec<(String, Cells)>,
}

/// What is told of it.
struct Cells {
    id: String,
    bytes: i64,
    content_bytes: i64,
    is_used: bool,
    is_available: bool,
}

impl Node {
    fn of(image: ImageSummary) -> Self {
        let manifests = image.manifests.iter();
        let children = manifests.filter_map(|manifest| {
            let image = manifest.image_data.as_ref()?;
            let is_image = manifest.kind == "image";
            let child = || (platform(&image.platform), Cells::of(manifest));
            is_image.then(child)
        });
        let children: Vec<(String, Cells)> = children.collect();
        Self {
            created: image.created,
            cells: Cells {
                bytes: image.size,
                content_bytes: children.iter().map(|(_, it)| it.content_bytes).sum(),
                is_used: image.containers > 0 || children.iter().any(|(_, it)| it.is_used),
                is_available: true,
                id: image.id,
            },
            names: { image.repo_tags.into_iter() }
                .filter(|name| !name.starts_with("<none>"))
                .collect(),
            children,
        }
    }
}

impl Cells {
    fn of(manifest: &ManifestSummary) -> Self {
        let users = manifest.image_data.as_ref().map(|it| it.containers.len());
        Self {
            id: manifest.id.clone(),
            bytes: manifest.size.total,
            content_bytes: manifest.size.content,
            is_used: users.is_some_and(|users| users > 0),
            is_available: manifest.available,
        }
    }
}

fn platform(platform: &Platform) -> String {
    let parts = [&platform.os, &platform.architecture, &platform.variant];
    let parts: Vec<&str> = { parts.into_iter().map(String::as_str) }
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("/")
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn size(bytes: i64) -> String {
    units::human_size_precision(bytes as f64, 3)
}

/// Where things go.
struct Layout {
    name_columns: usize,
    /// How many of [`TITLES`] fit.
    shown: usize,
    has_colors: bool,
}

impl Layout {
    fn paint(&self, color: &str, text: &str) -> String {
        match self.has_colors {
            true => format!("{color}{text}{RESET}"),
            false => text.to_owned(),
        }
    }

    /// A text in its column, or as much of it as fits.
    fn cell(&self, text: &str, columns: usize, at_right: bool, color: &str) -> String {
        let length = text.chars().count();
        if length > columns {
            let kept: String = text.chars().take(columns - 1).collect();
            return self.paint(color, &format!("{kept}\u{2026}"));
        }
        let blank = " ".repeat(columns - length);
        match at_right {
            true => blank + &self.paint(color, text),
            false => self.paint(color, text) + &blank,
        }
    }

    fn cells(&self, cells: &Cells) -> String {
        let color = if cells.is_available { "" } else { FAINT };
        let texts = [
            short_id(&cells.id).to_owned(),
            size(cells.bytes),
            size(cells.content_bytes),
        ];
        let mut line = String::new();
        for (text, (_, columns, at_right)) in texts.iter().zip(&TITLES).take(self.shown) {
            let cell = match color {
                "" => Self::plain(text, *columns, *at_right),
                color => self.cell(text, *columns, *at_right, color),
            };
            line.push_str(&" ".repeat(SPACING));
            line.push_str(&cell);
        }
        if self.shown == TITLES.len() {
            let chip = match (cells.is_used, self.has_colors) {
                (false, _) => "     ".to_owned(),
                (true, false) => "U    ".to_owned(),
                (true, true) => format!("{CHIP} U {RESET}  "),
            };
            line.push_str(&" ".repeat(SPACING));
            line.push_str(&chip);
        }
        line
    }

    fn plain(text: &str, columns: usize, at_right: bool) -> String {
        match at_right {
            true => format!("{text:>columns$}"),
            false => format!("{text:<columns$}"),
        }
    }
}

fn text(nodes: &[Node], columns: usize, has_colors: bool) -> String {
    let mut left = columns;
    let mut shown = 0;
    for (_, width, _) in TITLES {
        match left.checked_sub(width + SPACING) {
            Some(rest) if rest >= NAME_COLUMNS_MIN => left = rest,
            _ => break,
        }
        shown += 1;
    }
    let names = nodes.iter().flat_map(|node| &node.names);
    let names = names.map(|name| name.chars().count());
    let platforms = { nodes.iter() }
        .flat_map(|node| &node.children)
        .map(|(platform, _)| platform.chars().count() + BRANCH_COLUMNS);
    let widest = names.chain(platforms).chain([UNTAGGED.len()]).max();
    let layout = Layout {
        name_columns: left.min(widest.unwrap_or_default()),
        shown,
        has_colors,
    };
    let mut text = legend(columns, has_colors);
    text.push_str(&layout.cell("IMAGE", layout.name_columns, false, HEADING));
    for (title, columns, at_right) in &TITLES[..shown] {
        text.push_str(&" ".repeat(SPACING));
        text.push_str(&layout.cell(title, *columns, *at_right, HEADING));
    }
    text.push('\n');
    for (at, node) in nodes.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        add(&mut text, &layout, node);
    }
    text
}

/// What the marks mean, at the right.
fn legend(columns: usize, has_colors: bool) -> String {
    match has_colors {
        false => format!("{:>columns$}\n\n", "Info ->  U In Use "),
        true => {
            let blank = " ".repeat(columns.saturating_sub(21));
            format!("{blank}i {INFO}Info \u{2192} {RESET} {CHIP} U {RESET} In Use \n\n")
        }
    }
}

fn add(text: &mut String, layout: &Layout, node: &Node) {
    let (last, others) = match node.names.split_last() {
        Some((last, others)) => (last.as_str(), others),
        None => (UNTAGGED, &[][..]),
    };
    for name in others {
        text.push_str(&layout.paint(NAME, name));
        text.push('\n');
    }
    text.push_str(&layout.cell(last, layout.name_columns, false, NAME));
    text.push_str(&layout.cells(&node.cells));
    text.push('\n');
    for (at, (platform, cells)) in node.children.iter().enumerate() {
        let branch = if at + 1 == node.children.len() {
            "└─"
        } else {
            "├─"
        };
        let color = if cells.is_available {
            "\u{1b}[39m"
        } else {
            FAINT
        };
        let name = format!("{branch} {platform}");
        text.push_str(&layout.cell(&name, layout.name_columns, false, color));
        text.push_str(&layout.cells(cells));
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(id: &str, is_used: bool) -> Cells {
        Cells {
            id: format!("sha256:{}", id.repeat(64)),
            bytes: 4_500_000,
            content_bytes: 2_000_000,
            is_used,
            is_available: true,
        }
    }

    fn nodes() -> Vec<Node> {
        let child = |platform: &str, id, is_used| (platform.to_owned(), cells(id, is_used));
        vec![
            Node {
                names: vec![
                    "r.example/team/a-long-name:1".to_owned(),
                    "b:latest".to_owned(),
                ],
                created: 2,
                cells: cells("a", true),
                children: vec![
                    child("linux/amd64", "c", true),
                    child("linux/arm64/v8", "e", false),
                ],
            },
            Node {
                names: Vec::new(),
                created: 1,
                cells: cells("1", false),
                children: Vec::new(),
            },
        ]
    }

    #[test]
    fn a_tree_has_dockers_columns() {
        let expected = "                                                              Info ->  U In Use \n\
             \n\
             IMAGE                          ID             DISK USAGE   CONTENT SIZE   EXTRA\n\
             r.example/team/a-long-name:1\n\
             b:latest                       aaaaaaaaaaaa        4.5MB            2MB   U    \n\
             ├─ linux/amd64                 cccccccccccc        4.5MB            2MB   U    \n\
             └─ linux/arm64/v8              eeeeeeeeeeee        4.5MB            2MB        \n\
             \n\
             <untagged>                     111111111111        4.5MB            2MB        \n";
        assert_eq!(text(&nodes(), 80, false), expected);
    }

    #[test]
    fn columns_that_do_not_fit_are_left_out() {
        let titles = |columns: usize| {
            let text = text(&nodes(), columns, false);
            text.lines().nth(2).unwrap().split_whitespace().count()
        };
        // Each title is a word or two.
        assert_eq!([100, 60, 45, 30, 20].map(titles), [7, 6, 4, 2, 1]);
        let narrow = text(&nodes(), 30, false);
        assert!(
            narrow.contains("└─ linux/arm64…   eeeeeeeeeeee\n"),
            "{narrow}"
        );
        let colored = text(&nodes(), 80, true);
        assert!(
            colored.contains("\u{1b}[34m\u{1b}[1mb:latest\u{1b}[0m"),
            "{colored}"
        );
        assert!(
            colored.contains("\u{1b}[48;5;14m U \u{1b}[0m  \n"),
            "{colored}"
        );
    }
}
