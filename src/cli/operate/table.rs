//! Tables of aligned columns, fitted to the terminal.

/// The width to which a column is cut, at least.
const NARROWEST: usize = 6;
/// The gap between two columns.
const GAP: &str = "  ";

/// The side to which a column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The side of words.
    Left,
    /// The side of numbers.
    Right,
}

/// A table that is being filled.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Makes a table with these headings; a heading that begins with `>` is of numbers.
    pub fn new(headings: &[&'static str]) -> Self {
        let column = |heading: &&'static str| match heading.strip_prefix('>') {
            Some(heading) => (heading, Side::Right),
            None => (*heading, Side::Left),
        };
        Self { columns: headings.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Formats the table. If it is wider than `width`, the widest columns of words are cut.
    pub fn text(&self, width: Option<usize>) -> String {
        let length = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = self.columns.iter().map(|(heading, _)| length(heading)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(length(cell));
            }
        }
        if let Some(most) = width {
            self.cut(&mut widths, most);
        }
        let headings: Vec<_> = self.columns.iter().map(|(heading, _)| heading.to_string()).collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let cells = row.iter().zip(&self.columns).zip(&widths).map(|((cell, (_, side)), width)| {
                let cell = shortened(cell, *width);
                match side {
                    Side::Left => format!("{cell:<width$}"),
                    Side::Right => format!("{cell:>width$}"),
                }
            });
            let line = cells.collect::<Vec<_>>().join(GAP);
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Cuts the widest columns of words, until all fit or none can be cut any further.
    fn cut(&self, widths: &mut [usize], most: usize) {
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > most {
            let words = widths.iter_mut().zip(&self.columns).filter(|(_, (_, side))| *side == Side::Left);
            match words.map(|(width, _)| width).max().filter(|width| **width > NARROWEST) {
                Some(widest) => *widest -= 1,
                None => break,
            }
        }
    }
}

/// Shortens `text` to `width` characters. It cuts the end, which people need least.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(2)).chain("..".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", ">COUNT", "WHAT"]);
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
        // Numbers stay whole even if the table does not fit.
        assert!(table().text(Some(1)).contains("1 000  some.."));
    }
}
