//! Tables for people.

use std::fmt;

/// Columns as wide as what is in them; text to the left, numbers to the right.
///
/// ```
/// let mut table = nf_framework::Table::new(&["port", "received", "bytes"]);
/// table.row(["net_null0", "7", "1.2M"].map(str::to_owned));
/// table.row(["net_null1", "1234", "-"].map(str::to_owned));
/// assert_eq!(
///     table.to_string(),
///     "\
/// port       received  bytes
/// net_null0         7   1.2M
/// net_null1      1234      -
///
/// "
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
    /// By column, once lines have been taken out.
    taken: Option<Vec<Column>>,
}

/// How a column is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Column {
    width: usize,
    is_numbers: bool,
}

impl Table {
    /// An empty one. Units stand in the heads.
    #[must_use]
    pub fn new(heads: &[&str]) -> Self {
        Self { heads: heads.iter().map(|&head| head.to_owned()).collect(), rows: Vec::new(), taken: None }
    }

    /// One more row; cells that the heads do not reach have none, and cells that it does not have are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes the rows out, as lines under those that were taken before: the heads come with the first ones, and
    /// columns never become narrower. So a table of any length is shown a part at a time.
    pub fn take_lines(&mut self) -> Vec<String> {
        let columns = self.columns();
        let heads = self.taken.is_none().then_some(&self.heads);
        let lines = heads.into_iter().chain(&self.rows).map(|row| line(row, &columns)).collect();
        self.rows.clear();
        self.taken = Some(columns);
        lines
    }

    fn columns(&self) -> Vec<Column> {
        let count = self.rows.iter().chain([&self.heads]).map(Vec::len).max().unwrap_or(0);
        (0..count).map(|index| self.column(index)).collect()
    }

    fn column(&self, index: usize) -> Column {
        let cells = || self.rows.iter().filter_map(|row| row.get(index));
        let before = self.taken.as_ref().map(|columns| columns.get(index).copied().unwrap_or_default());
        let widths = cells().chain(self.heads.get(index)).map(|cell| cell.chars().count());
        Column {
            width: widths.chain(before.map(|column| column.width)).max().unwrap_or(0),
            is_numbers: before.map_or_else(|| index > 0 && cells().all(|cell| is_number(cell)), |was| was.is_numbers),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns();
        for row in [&self.heads].into_iter().chain(&self.rows) {
            writeln!(f, "{}", line(row, &columns))?;
        }
        writeln!(f)
    }
}

fn line(row: &[String], columns: &[Column]) -> String {
    let mut line = String::new();
    for (cell, column) in row.iter().zip(columns) {
        let width = column.width;
        line += &if column.is_numbers { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
        line += "  ";
    }
    line.truncate(line.trim_end().len());
    line
}

/// Digits, also with a sign, a point, and a unit of one character behind them; or a dash where there is none.
fn is_number(cell: &str) -> bool {
    let digits = cell.strip_suffix(['k', 'M', 'G', 'T', '%']).unwrap_or(cell);
    digits.chars().all(|c| c.is_ascii_digit() || c == '-' || c == '.') && digits.matches('.').count() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_addresses_to_the_left() {
        let mut table = Table::new(&["a", "address", "share", "rate", "name"]);
        table.row(["1", "10.0.0.1", "5.5%", "12k", "é"].map(str::to_owned));
        table.row(["20", "10.0.0.20", "-", "1.5M"].map(str::to_owned));
        let expected = "\
a   address    share  rate  name
1   10.0.0.1    5.5%   12k  é
20  10.0.0.20      -  1.5M

";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_long_table_is_taken_a_part_at_a_time() {
        let mut table = Table::new(&["name", "n"]);
        assert!(table.is_empty());
        table.row(["a", "10"].map(str::to_owned));
        assert_eq!(table.take_lines(), ["name   n", "a     10"]);
        table.row(["b", "7"].map(str::to_owned));
        table.row(["longer", "100"].map(str::to_owned));
        assert_eq!(table.take_lines(), ["b         7", "longer  100"]);
        assert!(table.is_empty());
        assert_eq!(table.take_lines(), [""; 0]);
    }
}
