//! Columns as Go's `text/tabwriter` lays them out, which is what `docker ps | awk` was written for.
//!
//! A cell ends at a tab; what follows a line's last tab is no cell. A column is a run of lines that have a cell there, and
//! is as wide as its widest cell plus the padding.

/// Lays out tab-separated lines. Widths count characters, as Go's do.
pub(crate) fn align(text: &str, min_width: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text
        .split('\n')
        .map(|line| line.split('\t').collect())
        .collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut line = 0;
        while line < lines.len() {
            let end = (line..lines.len())
                .find(|line| widths[*line].len() <= column)
                .unwrap_or(lines.len());
            let widest = lines[line..end]
                .iter()
                .map(|cells| cells[column].chars().count() + padding)
                .max();
            let width = widest.unwrap_or(0).max(min_width);
            widths[line..end]
                .iter_mut()
                .for_each(|widths| widths[column] = width);
            line = end + 1;
        }
    }
    let mut out = String::new();
    for (index, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        for (cell, width) in cells.iter().zip(widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(
                ' ',
                width.saturating_sub(cell.chars().count()),
            ));
        }
        out.push_str(cells[cells.len() - 1]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(
            align(
                "NAME\tID\tX\nlong-name-here\t1\t\nb\t\u{e4}\u{f6}\tz\n",
                10,
                3
            ),
            "NAME             ID        X\nlong-name-here   1         \nb                \u{e4}\u{f6}        z\n"
        );
    }

    #[test]
    fn a_line_without_the_column_ends_it() {
        assert_eq!(
            align("a\tb\tc\nx\nlonger\ty\n", 2, 1),
            "a b c\nx\nlonger y\n"
        );
        assert_eq!(align("", 10, 3), "");
        assert_eq!(align("one\n", 10, 3), "one\n");
    }
}
