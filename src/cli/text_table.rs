//! Tables for people: aligned columns, which fit to the terminal.

use std::fmt::Display;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, TableStyle, Width};

use otproxy_protocol::printable::Printable;

/// The width that a column of words is cut down to at the least.
const NARROWEST: u16 = 6;

/// A table that is being filled.
#[derive(Debug)]
pub(super) struct TextTable(Table);

impl TextTable {
    /// Returns a table with these headings. A heading that begins with `>` is over numbers, which are aligned to the right
    /// and never cut.
    pub(super) fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self::with_gap(headings, 2)
    }

    /// Returns a table with these headings and least widths, which keep its columns in place while it is drawn again.
    pub(super) fn with_widths<const N: usize>(columns: [(&str, u16); N]) -> Self {
        let mut new = Self::with_gap(columns.map(|(heading, _)| heading), 1);
        for (column, (_, width)) in new.0.column_iter_mut().zip(columns) {
            let width = width.saturating_add(column.padding_width());
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
        new
    }

    fn with_gap<const N: usize>(headings: [&str; N], gap: u16) -> Self {
        let mut table = Table::new();
        table.load_style(TableStyle::new()).set_truncation_indicator("..");
        // A cell is cut where its column ends, and at no space before: it has one line.
        table.set_delimiter('\n');
        table.set_header(line(headings.map(|heading| heading.strip_prefix('>').unwrap_or(heading))));
        for (column, heading) in table.column_iter_mut().zip(headings) {
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
            column.set_padding((if column.index == 0 { 0 } else { gap }, 0));
        }
        Self(table)
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.add_row(line(cells));
    }

    /// Returns the text. If it would be wider than `width`, the widest columns of words are cut.
    pub(super) fn text(mut self, width: Option<usize>) -> String {
        if let Some(width) = width {
            let contents = self.0.column_max_content_widths();
            for (column, content) in self.0.column_iter_mut().zip(contents) {
                if column.constraint().is_none() {
                    let least = content.min(NARROWEST).saturating_add(column.padding_width());
                    column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
                }
            }
            self.0.set_content_arrangement(ContentArrangement::Dynamic);
            self.0.set_width(u16::try_from(width).unwrap_or(u16::MAX));
        }
        self.0.trim_fmt() + "\n"
    }
}

/// Returns a count with what is counted, in the singular or in the plural.
pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn line<const N: usize>(cells: [impl Display; N]) -> Row {
    let mut row = Row::from(cells.map(Printable));
    row.max_height(1);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TextTable {
        let mut table = TextTable::new(["NAME", ">COUNT", "WHAT"]);
        table.row(["a".to_owned(), "1 000".to_owned(), "something that is long".to_owned()]);
        table.row(["longer".to_owned(), "7".to_owned(), String::new()]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        let text = "NAME    COUNT  WHAT\na       1 000  something that is long\nlonger      7\n";
        assert_eq!(table().text(None), text);
        assert_eq!(table().text(Some(200)), text);
    }

    #[test]
    fn it_fits_to_the_terminal() {
        let text = table().text(Some(30));
        assert_eq!(text, "NAME    COUNT  WHAT\na       1 000  something tha..\nlonger      7\n");
        // Where it is too narrow for anything, numbers are whole.
        assert!(table().text(Some(1)).contains("1 000  some.."));
    }

    #[test]
    fn a_cell_is_one_line_of_text() {
        let mut table = TextTable::new(["NAME", "WHAT"]);
        table.row(["a\nb".to_owned(), "\x1b[2J\u{9b}m".to_owned()]);
        assert_eq!(table.text(None), "NAME  WHAT\na\\nb  \\u{1b}[2J\\u{9b}m\n");
    }

    #[test]
    fn columns_have_a_least_width() {
        let mut table = TextTable::with_widths([("", 8), (">sent", 6)]);
        table.row(["to players".to_owned(), "7".to_owned()]);
        assert_eq!(table.text(None), "             sent\nto players      7\n");
    }
}
