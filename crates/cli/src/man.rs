//! Manual pages of the command line, one for each command, in the language of man(7).
//!
//! Everything comes from [`crate::pages`]; what the program's own page says beyond that is in `hull.1.txt` beside this file.

use crate::help;
use crate::pages::{Choice, Page};

/// The section of commands, in man-pages(7).
const SECTION: u8 = 1;
/// When what is written here by hand was last changed, as man(7) wants it.
const CHANGED: &str = "2026-11-21";
/// The width of lines, which are filled anew when they are shown.
const LINE_CHARACTERS_MAX: usize = 78;
/// What the program's own page says of the environment and of files.
const PROGRAM_TAIL: &str = include_str!("hull.1.txt");

/// A page's file, and what is in it.
#[derive(Debug)]
pub(crate) struct Manual {
    /// `hull-network-create.1`.
    pub(crate) file: String,
    pub(crate) content: Content,
}

/// What a page's file is.
#[derive(Debug)]
pub(crate) enum Content {
    Text(String),
    /// A symbolic link to the page of the same command's shorter name.
    Link(String),
}

/// The manual of each page.
pub(crate) fn all(pages: &[Page]) -> Vec<Manual> {
    pages.iter().map(|page| manual(page, pages)).collect()
}

/// `hull-network-create`.
fn title(path: &str) -> String {
    match path {
        "" => "hull".to_owned(),
        path => format!("hull-{}", path.replace(' ', "-")),
    }
}

fn manual(page: &Page, pages: &[Page]) -> Manual {
    let file = format!("{}.{SECTION}", title(&page.path));
    // The short name has the page; `container run` is the same command as `run`.
    let main = page
        .aliases
        .iter()
        .min_by_key(|alias| alias.split(' ').count());
    let main = main.filter(|main| {
        { pages.iter() }.any(|other| other.path == **main && !other.hidden) && **main != page.path
    });
    let content = match main {
        Some(main) if page.hidden || page.path.contains(' ') => {
            Content::Link(format!("{}.{SECTION}", title(main)))
        }
        _ => Content::Text(render(page, pages)),
    };
    Manual { file, content }
}

fn render(page: &Page, pages: &[Page]) -> String {
    let title = title(&page.path);
    let words = match page.path.as_str() {
        "" => "hull".to_owned(),
        path => format!("hull {path}"),
    };
    let mut text = format!(
        ".\\\" Made of the program's own table of commands and flags.\n.TH {} {SECTION} {CHANGED} \"hull {}\" \"hull\"\n",
        title.to_uppercase(),
        env!("CARGO_PKG_VERSION")
    );
    let about = paragraph(&page.about);
    let own = escape(&title);
    text.push_str(&format!(".SH NAME\n{own} \\- {}\n", escape(&page.about)));
    text.push_str(&format!(
        ".SH SYNOPSIS\n.B {}\n{}\n",
        escape(&words),
        escape(&page.usage)
    ));
    text.push_str(&format!(".SH DESCRIPTION\n{about}\n"));
    if page.aliases.len() > 1 {
        let names: Vec<String> = { page.aliases.iter() }
            .map(|alias| format!("\\fBhull {}\\fP", escape(alias)))
            .collect();
        text.push_str(&format!(".PP\nIts names are {}.\n", names.join(", ")));
    }
    if !page.commands.is_empty() {
        text.push_str(".SH COMMANDS\n");
        for (name, about) in &page.commands {
            text.push_str(&format!(".TP\n.B {}\n{}\n", escape(name), paragraph(about)));
        }
    }
    options(&mut text, page);
    if page.path.is_empty() {
        text.push_str(PROGRAM_TAIL);
    }
    see_also(&mut text, page, pages);
    text
}

fn options(text: &mut String, page: &Page) {
    let mut shown: Vec<&Choice> = page.options.iter().filter(|flag| !flag.hidden).collect();
    shown.sort_by(|a, b| a.long.cmp(&b.long));
    if shown.is_empty() {
        return;
    }
    text.push_str(".SH OPTIONS\n");
    for flag in shown {
        let short = { flag.short }.map_or(String::new(), |short| format!("\\fB\\-{short}\\fP, "));
        let value = match flag.value.as_str() {
            "" => String::new(),
            value => format!(" \\fI{}\\fP", escape(value)),
        };
        let long = escape(&flag.long);
        text.push_str(&format!(
            ".TP\n{short}\\fB\\-\\-{long}\\fP{value}\n{}\n",
            paragraph(&flag.help)
        ));
    }
}

/// The group's page, and those of the commands below.
fn see_also(text: &mut String, page: &Page, pages: &[Page]) {
    let mut others = Vec::new();
    if !page.path.is_empty() {
        others.push(String::new());
        if let Some((group, _)) = page.path.rsplit_once(' ') {
            others.push(group.to_owned());
        }
    }
    let below = page
        .commands
        .iter()
        .map(|(name, _)| match page.path.as_str() {
            "" => name.clone(),
            path => format!("{path} {name}"),
        });
    others.extend(below.filter(|path| pages.iter().any(|other| other.path == *path)));
    let others: Vec<String> = { others.iter() }
        .map(|path| format!(".BR {} ({SECTION})", escape(&title(path))))
        .collect();
    text.push_str(&format!(".SH SEE ALSO\n{}\n", others.join(" ,\n")));
}

/// A sentence, in lines that are not long.
fn paragraph(text: &str) -> String {
    let end = if text.ends_with('.') { "" } else { "." };
    let lines = help::wrap(&format!("{text}{end}"), LINE_CHARACTERS_MAX);
    let lines: Vec<String> = lines.iter().map(|line| escape(line)).collect();
    lines.join("\n")
}

/// Text as roff(7) prints it: backslashes and dashes are themselves, and no line is a request.
fn escape(text: &str) -> String {
    let plain = text.replace('\\', "\\e").replace('-', "\\-");
    match plain.starts_with(['.', '\'']) {
        true => format!("\\&{plain}"),
        false => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manuals() -> Vec<Manual> {
        all(&crate::pages::all(Vec::new()))
    }

    #[test]
    fn every_command_has_a_page_and_those_that_lead_elsewhere_arrive() {
        let manuals = manuals();
        let found = |file: &str| {
            let found = manuals.iter().find(|manual| manual.file == file);
            &found.unwrap_or_else(|| panic!("{file}")).content
        };
        let text = |file: &str| match found(file) {
            Content::Text(text) => text.clone(),
            Content::Link(target) => panic!("{file} leads to {target}"),
        };
        for manual in &manuals {
            if let Content::Link(target) = &manual.content {
                text(target);
            }
        }
        let link = |file: &str| match found(file) {
            Content::Link(target) => target.clone(),
            Content::Text(_) => panic!("{file} is no link"),
        };
        assert_eq!(link("hull-container-run.1"), "hull-run.1");
        assert_eq!(link("hull-network-list.1"), "hull-network-ls.1");
        assert!(text("hull-run.1").contains(".TP\n\\fB\\-e\\fP, \\fB\\-\\-env\\fP \\fIlist\\fP\n"));
        assert!(text("hull.1").contains("DOCKER_HOST"));
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(escape(".so x\\y-z"), "\\&.so x\\ey\\-z");
    }
}
