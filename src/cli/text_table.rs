//! Tables for people: aligned columns, which fit to the terminal.
//!
//! Nothing is ever cut: an address or a reason without its end is of no use. If a table is wider than the terminal, the
//! columns that matter least are left out, and lists take several lines.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, TableStyle, Width};

use otproxy_protocol::printable::Printable;

/// A space at which a cell is not broken.
pub(super) const NO_BREAK: char = '\u{a0}';

/// A table that is being filled.
#[derive(Debug)]
pub(super) struct TextTable {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    gap: u16,
}

#[derive(Debug)]
struct Column {
    heading: &'static str,
    kind: ColumnKind,
    /// The width that it has at the least.
    least: u16,
    /// The place in the order in which columns are left out; `None` if it never is.
    leaves: Option<usize>,
}

/// The contents of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ColumnKind {
    /// Words, in one line unless the table is too wide without all columns that may be left out.
    Words,
    /// Numbers, aligned to the right, in one line.
    Numbers,
    /// Lists, which may take several lines.
    Lists,
}

impl TextTable {
    /// Returns a table with these headings. One that begins with `>` is over numbers, one that begins with `~` over lists.
    pub(super) fn new<const N: usize>(headings: [&'static str; N]) -> Self {
        Self { columns: headings.map(|heading| Column::new(heading, 0)).into(), rows: Vec::new(), gap: 2 }
    }

    /// Returns a table with these headings and least widths, which keep its columns in place while it is drawn again.
    pub(super) fn with_widths<const N: usize>(columns: [(&'static str, u16); N]) -> Self {
        let columns = columns.map(|(heading, least)| Column::new(heading, least));
        Self { columns: columns.into(), rows: Vec::new(), gap: 1 }
    }

    /// Has columns left out, in this order, where the table is wider than the terminal.
    pub(super) fn leaving_out<const N: usize>(mut self, headings: [&str; N]) -> Self {
        for column in &mut self.columns {
            column.leaves = headings.iter().position(|heading| *heading == column.heading);
        }
        self
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| Printable(cell).to_string()).into());
    }

    /// Returns the text, which fits to `width` if that can be done without cutting anything. The last line says what was
    /// left out for that.
    pub(super) fn text(self, width: Option<usize>) -> String {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let mut left_out = Vec::new();
        if let Some(width) = width {
            while self.narrowest(&shown) > width {
                let leaves = |place: &usize| self.columns.get(*place).and_then(|column| column.leaves);
                let next = shown.iter().copied().filter(|place| leaves(place).is_some()).min_by_key(leaves);
                let Some(next) = next else { break };
                shown.retain(|place| *place != next);
                left_out.push(next);
            }
        }
        left_out.sort_unstable();
        let headings = left_out.into_iter().filter_map(|place| self.columns.get(place)).map(|column| column.heading);
        let headings: Vec<_> = headings.collect();
        let mut text = self.draw(&shown, width);
        if !headings.is_empty() {
            text.push_str(&format!("Left out here: {}; see --json\n", headings.join(", ")));
        }
        text
    }

    /// Returns the width that these columns need at the least, with lists in as many lines as they have words.
    fn narrowest(&self, shown: &[usize]) -> usize {
        let gaps = usize::from(self.gap) * shown.len().saturating_sub(1);
        gaps + shown.iter().map(|place| self.width(*place, ColumnKind::Lists)).sum::<usize>()
    }

    /// Returns the width that a column needs at the least, if those of a `kind` are broken between their words.
    fn width(&self, place: usize, kind: ColumnKind) -> usize {
        let Some(column) = self.columns.get(place) else { return 0 };
        let cells = self.rows.iter().filter_map(|row| row.get(place)).map(String::as_str).chain([column.heading]);
        let breaks = column.kind == kind;
        let parts = cells.flat_map(|cell| cell.split(move |c| breaks && c == ' '));
        parts.map(columns_of).max().unwrap_or(0).max(column.least.into())
    }

    fn draw(&self, shown: &[usize], width: Option<usize>) -> String {
        let line = |cells: Vec<&str>| Row::from(cells);
        let pick = |place: &usize| self.columns.get(*place);
        let mut table = Table::new();
        table.load_style(TableStyle::new());
        table.set_header(line(shown.iter().filter_map(pick).map(|column| column.heading).collect()));
        for row in &self.rows {
            table.add_row(line(shown.iter().filter_map(|place| row.get(*place)).map(String::as_str).collect()));
        }
        let fits = width.is_none_or(|width| self.narrowest(shown) <= width);
        // Where even that is too wide, words are broken too.
        let broken = if fits { ColumnKind::Lists } else { ColumnKind::Words };
        for (column, (place, known)) in table.column_iter_mut().zip(shown.iter().filter_map(|p| Some((p, pick(p)?)))) {
            let padding = if column.index == 0 { 0 } else { self.gap };
            column.set_padding((padding, 0));
            if known.kind == ColumnKind::Numbers {
                column.set_cell_alignment(CellAlignment::Right);
            }
            let breaks = known.kind == ColumnKind::Lists || known.kind == broken;
            let least = match (breaks, width) {
                (true, Some(_)) => u16::try_from(self.width(*place, known.kind)).unwrap_or(u16::MAX),
                _ if known.least > 0 => known.least,
                _ => {
                    column.set_constraint(ColumnConstraint::ContentWidth);
                    continue;
                }
            };
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least.saturating_add(padding))));
        }
        if let Some(width) = width {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
        }
        table.trim_fmt().replace(NO_BREAK, " ") + "\n"
    }
}

impl Column {
    fn new(heading: &'static str, least: u16) -> Self {
        let (kind, heading) = match (heading.strip_prefix('>'), heading.strip_prefix('~')) {
            (Some(heading), _) => (ColumnKind::Numbers, heading),
            (_, Some(heading)) => (ColumnKind::Lists, heading),
            _ => (ColumnKind::Words, heading),
        };
        Self { heading, kind, least, leaves: None }
    }
}

/// Returns the columns of a terminal that a text takes at the most.
fn columns_of(text: &str) -> usize {
    text.chars().map(|c| if u32::from(c) < 0x1100 { 1 } else { 2 }).sum()
}

/// Returns a count with what is counted, in the singular or in the plural.
pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TextTable {
        let mut table = TextTable::new(["NAME", "KIND", ">COUNT", "~WHAT"]).leaving_out(["KIND", "COUNT"]);
        let what = "reason 1\u{a0}000, address [2001:db8::7]:7171";
        table.row(["a".to_owned(), "forward".to_owned(), "1 000".to_owned(), what.to_owned()]);
        table.row(["longer".to_owned(), "relay".to_owned(), "7".to_owned(), String::new()]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        let text = "NAME    KIND     COUNT  WHAT\n\
                    a       forward  1 000  reason 1 000, address [2001:db8::7]:7171\n\
                    longer  relay        7\n";
        assert_eq!(table().text(None), text);
        assert_eq!(table().text(Some(200)), text);
    }

    #[test]
    fn lists_take_several_lines_and_then_columns_are_left_out() {
        assert_eq!(
            table().text(Some(55)),
            "NAME    KIND     COUNT  WHAT\n\
             a       forward  1 000  reason 1 000, address\n\
             \x20                       [2001:db8::7]:7171\n\
             longer  relay        7\n"
        );
        assert_eq!(
            table().text(Some(36)),
            "NAME    COUNT  WHAT\n\
             a       1 000  reason 1 000, address\n\
             \x20              [2001:db8::7]:7171\n\
             longer      7\n\
             Left out here: KIND; see --json\n"
        );
    }

    #[test]
    fn nothing_is_cut_however_narrow_it_is() {
        for width in 1..100 {
            let text = table().text(Some(width));
            for word in ["longer", "reason", "1 000", "[2001:db8::7]:7171"] {
                assert!(text.contains(word), "{width}: {text}");
            }
            let widest = text.lines().filter(|line| !line.starts_with("Left out")).map(str::len).max().unwrap();
            assert!(widest <= width.max("longer  [2001:db8::7]:7171".len()), "{width}: {text}");
        }
    }

    #[test]
    fn words_are_broken_where_nothing_is_left_to_leave_out() {
        let mut table = TextTable::new(["NAME", "STATE"]);
        table.row(["fra1 (revoked)".to_owned(), "not ready".to_owned()]);
        assert_eq!(table.text(Some(16)), "NAME       STATE\nfra1       not\n(revoked)  ready\n");
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
