//! What `--help` prints, in Docker's layout.

use crate::app::{Command, Entry};
use crate::flags::{Flag, Kind};

/// The narrowest terminal that text is wrapped for.
const WIDTH_MIN: usize = 40;
/// The width where there is no terminal.
const WIDTH_DEFAULT: usize = 80;

/// The help of one command, called as `path`.
pub(crate) fn command(path: &str, command: &Command) -> String {
    let mut text = format!(
        "\nUsage:  {path}{}\n\n{}\n",
        suffix(command.usage),
        command.about
    );
    if !command.aliases.is_empty() {
        let program = path.split(' ').next().unwrap_or_default();
        let aliases: Vec<String> = command
            .aliases
            .iter()
            .map(|alias| format!("{program} {alias}"))
            .collect();
        text.push_str(&format!("\nAliases:\n  {}\n", aliases.join(", ")));
    }
    let flags: Vec<&Flag> = command
        .flags
        .iter()
        .flat_map(|table| table.iter())
        .collect();
    if flags.iter().any(|flag| !flag.hidden) {
        text.push_str("\nOptions:\n");
        text.push_str(&options(&flags, width()));
    }
    text
}

/// ` usage`, or nothing.
pub(crate) fn suffix(usage: &str) -> String {
    if usage.is_empty() {
        String::new()
    } else {
        format!(" {usage}")
    }
}

/// The help of a group of commands.
pub(crate) fn group(path: &str, about: &str, entries: &[Entry]) -> String {
    format!(
        "\nUsage:  {path} COMMAND\n\n{about}\n\nCommands:\n{}\nRun '{path} COMMAND --help' for more information on a command.\n",
        list(entries)
    )
}

/// The help of the program.
pub(crate) fn program(name: &str, entries: &[Entry], flags: &[Flag]) -> String {
    let (groups, commands): (Vec<Entry>, Vec<Entry>) = entries
        .iter()
        .partition(|entry| matches!(entry, Entry::Group { .. }));
    let flags: Vec<&Flag> = flags.iter().collect();
    format!(
        "\nUsage:  {name} [OPTIONS] COMMAND\n\nA container engine\n\nCommands:\n{}\nManagement Commands:\n{}\nGlobal Options:\n{}\nRun '{name} COMMAND --help' for more information on a command.\n",
        list(&commands),
        list(&groups),
        options(&flags, width())
    )
}

fn list(entries: &[Entry]) -> String {
    let name_width = entries
        .iter()
        .map(|entry| entry.name().len())
        .max()
        .unwrap_or(0)
        .max(11);
    let mut entries: Vec<&Entry> = entries.iter().collect();
    entries.sort_by_key(|entry| entry.name());
    entries
        .iter()
        .map(|entry| format!("  {:name_width$} {}\n", entry.name(), entry.about()))
        .collect()
}

/// One line a flag, sorted, the descriptions in a column of their own and wrapped there.
fn options(flags: &[&Flag], width: usize) -> String {
    let mut flags: Vec<&&Flag> = flags.iter().filter(|flag| !flag.hidden).collect();
    flags.sort_by_key(|flag| flag.long);
    let left: Vec<String> = flags.iter().map(|flag| left(flag)).collect();
    let column = left.iter().map(String::len).max().unwrap_or(0) + 3;
    let mut text = String::new();
    for (flag, left) in flags.iter().zip(left) {
        let lines = wrap(&right(flag), width.saturating_sub(column));
        for (index, line) in lines.iter().enumerate() {
            let left = if index == 0 { left.as_str() } else { "" };
            text.push_str(&format!("{left:column$}{line}\n"));
        }
    }
    text
}

fn left(flag: &Flag) -> String {
    let names = match flag.short {
        Some(short) => format!("  -{short}, --{}", flag.long),
        None => format!("      --{}", flag.long),
    };
    format!("{names}{}", suffix(flag.value_name()))
}

/// What a flag does, and its value without it.
pub(crate) fn right(flag: &Flag) -> String {
    match (flag.default, flag.kind) {
        ("", _) => flag.help.to_owned(),
        (default, Kind::Text(_)) => format!("{} (default {default:?})", flag.help),
        (default, _) => format!("{} (default {default})", flag.help),
    }
}

/// Breaks text between words, so that lines have at most `width` characters where words allow.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines
            .last_mut()
            .expect("it begins with one line and none is removed");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines
}

/// The terminal's width, where there is one.
fn width() -> usize {
    let columns =
        rustix::termios::tcgetwinsize(std::io::stdout()).map(|size| usize::from(size.ws_col));
    match columns {
        Ok(columns) if columns > 0 => columns.max(WIDTH_MIN),
        _ => WIDTH_DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_wrap_in_their_column() {
        const FLAGS: [Flag; 3] = [
            Flag::text("name", "one two three").default("x"),
            Flag::bool("all", "four").short('a'),
            Flag::list("gone", "").alias_of("name"),
        ];
        let flags: Vec<&Flag> = FLAGS.iter().collect();
        assert_eq!(
            options(&flags, 34),
            "  -a, --all           four\n      --name string   one two\n                      three\n                      (default\n                      \"x\")\n"
        );
    }
}
