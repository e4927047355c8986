//! Lists of things, as tables, as JSON lines, or through the user's template.

use crate::error::{Error, Result};
use crate::go::tabwriter;
use crate::go::template::{Row, Template, unescape};

/// Docker's tables: no column narrower, and so many spaces between two.
const COLUMN_WIDTH_MIN: usize = 10;
const COLUMN_PADDING: usize = 3;

/// What a kind of list can show, and what it shows when not told.
pub(crate) struct Columns {
    /// The table's template, without the word `table`.
    pub(crate) table: &'static str,
    /// Field to title.
    pub(crate) titles: &'static [(&'static str, &'static str)],
}

/// A list in the format it is asked for.
pub(crate) struct List {
    /// The titles, where it is a table.
    header: Option<String>,
    template: Template,
}

impl Columns {
    /// Renders all rows in `format`, as [`Self::list`] reads it.
    pub(crate) fn render(
        &self,
        format: &str,
        rows: impl IntoIterator<Item = Row>,
    ) -> Result<String> {
        self.list(format)?.render(rows)
    }

    /// Reads a format: empty or `table` for the table, `table TEMPLATE`, `json`, or a template.
    pub(crate) fn list(&self, format: &str) -> Result<List> {
        let (table, template) = match format {
            "" | "table" => (true, self.table),
            "json" => (false, "{{json .}}"),
            _ => match format.strip_prefix("table") {
                Some(template) => (true, template),
                None => (false, format),
            },
        };
        let template = unescape(template.trim_matches(' '));
        let mut header = None;
        if table {
            let titles = self
                .titles
                .iter()
                .fold(Row::default(), |row, (field, title)| row.set(field, *title));
            let of_titles = Template::parse_header(&template).map_err(Error::Template)?;
            // A template that fails on titles shows none, as in Docker.
            header = Some(of_titles.render_row(titles).unwrap_or_default());
        }
        let template = Template::parse(&template).map_err(Error::Template)?;
        Ok(List { header, template })
    }
}

impl List {
    /// A row to fill in, which takes what the format shows.
    pub(crate) fn row(&self) -> Row {
        self.template.row()
    }

    /// Renders all rows.
    pub(crate) fn render(self, rows: impl IntoIterator<Item = Row>) -> Result<String> {
        let is_table = self.header.is_some();
        let mut text = String::new();
        if let Some(header) = self.header {
            text = header + "\n";
        }
        for row in rows {
            text.push_str(&self.template.render_row(row).map_err(Error::Template)?);
            text.push('\n');
        }
        Ok(if is_table { align(&text) } else { text })
    }
}

/// Lays out lines of tab-separated cells as Docker's tables are.
pub(crate) fn align(text: &str) -> String {
    tabwriter::align(text, COLUMN_WIDTH_MIN, COLUMN_PADDING)
}

/// The first twelve digits of an id, without its algorithm.
pub(crate) fn short_id(id: &str) -> &str {
    const SHORT_ID_DIGITS: usize = 12;
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.get(..SHORT_ID_DIGITS).unwrap_or(hex)
}

/// The text, or its beginning and an ellipsis, in at most `width` characters.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars()
        .take(width.saturating_sub(1))
        .chain(['\u{2026}'])
        .collect()
}

/// `true` or `false`, as Docker's rows have it.
pub(crate) fn yes_no(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: Columns = Columns {
        table: "{{.ID}}\t{{.Name}}",
        titles: &[("ID", "THE ID"), ("Name", "NAME")],
    };

    fn rows() -> Vec<Row> {
        vec![
            Row::default().set("ID", "1").set("Name", "a"),
            Row::default().set("ID", "2").set("Name", ""),
        ]
    }

    #[test]
    fn every_form_of_a_list() {
        for (format, expected) in [
            ("", "THE ID    NAME\n1         a\n2         \n"),
            ("table", "THE ID    NAME\n1         a\n2         \n"),
            (
                r"table {{.Name}}\t{{.ID}}",
                "NAME      THE ID\na         1\n          2\n",
            ),
            (
                "json",
                "{\"ID\":\"1\",\"Name\":\"a\"}\n{\"ID\":\"2\",\"Name\":\"\"}\n",
            ),
            (r"{{.ID}}\n{{upper .Name}}", "1\nA\n2\n\n"),
        ] {
            assert_eq!(
                COLUMNS.render(format, rows()).unwrap(),
                expected,
                "{format}"
            );
        }
        assert!(COLUMNS.render("{{.Nope}}", rows()).is_err());
        assert!(COLUMNS.render("{{.ID", []).is_err());
        assert_eq!(COLUMNS.render("", []).unwrap(), "THE ID    NAME\n");
    }

    #[test]
    fn what_a_format_does_not_show_is_not_made() {
        let list = COLUMNS.list("table {{.Name}}").unwrap();
        let id = || -> &str { panic!("nobody asked for it") };
        let row = list.row().set_with("ID", id).set("Name", "a");
        assert_eq!(list.render([row]).unwrap(), "NAME\na\n");
        // A template that is more than fields may have any.
        let list = COLUMNS.list("{{json .}}").unwrap();
        let row = list.row().set_with("ID", || "1").set("Name", "a");
        let text = list.render([row]).unwrap();
        assert_eq!(text, "{\"ID\":\"1\",\"Name\":\"a\"}\n");
        // An unknown field is an error as of a row that has all.
        let list = COLUMNS.list("{{.Nope}}").unwrap();
        let row = list.row().set("Name", "a");
        assert!(list.render([row]).is_err());
    }

    #[test]
    fn ids_and_texts_are_shortened() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("<missing>"), "<missing>");
        assert_eq!(ellipsis("0123456789", 10), "0123456789");
        assert_eq!(ellipsis("0123456789x", 10), "012345678\u{2026}");
    }
}
