//! Tables for a terminal: columns as wide as their widest cell, counted as a terminal does, and
//! colours by the line. Pure.

use unicode_width::UnicodeWidthStr;

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The cells of the columns.
    pub cells: Vec<String>,
    /// Text after the last column, not aligned.
    pub note: String,
    /// Its colour.
    pub paint: Paint,
}

/// The colour of a line, where colours are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// None.
    Plain,
    /// For the headings.
    Bold,
    /// For a state that passes by itself, or that may be of interest.
    Yellow,
    /// For a state that needs action.
    Red,
}

/// The lines below each other; a column that has nothing but its heading takes no
/// room. The first line is the headings.
pub fn table(lines: &[Line], colours: bool) -> String {
    let columns = lines.iter().map(|line| line.cells.len()).max().unwrap_or(0);
    let cell = |line: &Line, nth: usize| line.cells.get(nth).map_or("", String::as_str).to_owned();
    let used = |nth: &usize| lines.iter().skip(1).any(|line| !cell(line, *nth).is_empty());
    let width = |nth: usize| lines.iter().map(|line| cell(line, nth).width()).max().unwrap_or(0);
    let columns: Vec<(usize, usize)> =
        (0..columns).filter(used).map(|nth| (nth, width(nth))).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (nth, width) in &columns {
            let cell = cell(line, *nth);
            let room = width.saturating_sub(cell.width()) + 2;
            row.push_str(&cell);
            row.extend(std::iter::repeat_n(' ', room));
        }
        row.push_str(&line.note);
        text.push_str(&painted(row.trim_end(), if colours { line.paint } else { Paint::Plain }));
        text.push('\n');
    }
    text
}

/// Text from outside, with control characters escaped: a terminal must not obey it. Quotes stay as
/// nginx writes them.
pub fn escaped(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        match c {
            '"' | '\'' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

fn painted(line: &str, paint: Paint) -> String {
    let code = match paint {
        Paint::Plain => return line.to_owned(),
        Paint::Bold => 1,
        Paint::Yellow => 33,
        Paint::Red => 31,
    };
    format!("\u{1b}[{code}m{line}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(cells: &[&str], note: &str, paint: Paint) -> Line {
        let cells = cells.iter().map(|cell| (*cell).to_owned()).collect();
        Line { cells, note: note.to_owned(), paint }
    }

    #[test]
    fn columns_are_as_wide_as_a_terminal_shows_them() {
        let lines = [
            line(&["NAME", "ZONE", "STATE"], "", Paint::Bold),
            line(&["東京-1", "", "ok"], "", Paint::Plain),
            line(&["zürich-22", "", ""], "gone", Paint::Red),
        ];
        assert_eq!(
            table(&lines, false),
            "NAME       STATE\n東京-1     ok\nzürich-22         gone\n"
        );
        let painted = table(&lines, true);
        assert!(painted.starts_with("\u{1b}[1mNAME       STATE\u{1b}[0m\n東"), "{painted}");
        assert!(painted.ends_with("\u{1b}[31mzürich-22         gone\u{1b}[0m\n"), "{painted}");
    }

    #[test]
    fn nothing_breaks_out() {
        assert_eq!(escaped("a\u{1b}[31m\nb\u{202e}"), "a\\u{1b}[31m\\nb\\u{202e}");
        assert_eq!(escaped("unknown \"x\""), "unknown \"x\"");
    }
}
