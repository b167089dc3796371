//! Columns for people: headers in capitals, three spaces between columns, no lines.

use std::fmt;

use crate::text::one_line;

pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { header: header.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| one_line(cell)).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || std::iter::once(&self.header).chain(&self.rows);
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = all().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in all() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}   "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Names and values, one pair a line; pairs without a value are left out.
pub fn pairs(rows: &[(&str, String)]) -> String {
    let shown = || rows.iter().filter(|(_, value)| !value.is_empty());
    let width = shown().map(|(name, _)| name.len() + 1).max().unwrap_or(0);
    shown()
        .map(|(name, value)| format!("{:width$} {}\n", format!("{name}:"), one_line(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let mut table = Table::new(["ID", "NAME"]);
        table.row(["abc".to_owned(), "ünïcode".to_owned()]);
        table.row(["a".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "ID    NAME\nabc   ünïcode\na\n");
    }

    #[test]
    fn pairs_leave_out_what_is_empty() {
        let text = pairs(&[("id", "1".into()), ("user", String::new()), ("image", "w\n".into())]);
        assert_eq!(text, "id:    1\nimage: w\n");
    }
}
