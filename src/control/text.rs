//! State as text: one line a thing, made to be read by people and cut apart by programs.

use crate::history::CommitRow;
use crate::object::Timestamp;
use crate::tree::{ChangeKind, PathChange};
use std::fmt::Write;

/// Returns the line of a change: its letter, a space, the path.
pub fn change_line(change: &PathChange) -> String {
    format!("{} {}", change.kind.letter(), quoted_path(&change.path))
}

/// Returns the lines of `changes`.
pub fn changes_text(changes: &[PathChange]) -> String {
    changes.iter().fold(String::new(), |mut text, change| {
        text.push_str(&change_line(change));
        text.push('\n');
        text
    })
}

/// Returns a path as text. One that is not plain UTF-8 without control characters is quoted as git does it: `"a\tb\377"`.
pub fn quoted_path(path: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(path)
        && !text.chars().any(char::is_control)
        && !text.starts_with('"')
    {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for byte in path {
        match byte {
            b'\n' => quoted.push_str("\\n"),
            b'\t' => quoted.push_str("\\t"),
            b'"' => quoted.push_str("\\\""),
            b'\\' => quoted.push_str("\\\\"),
            0x20..=0x7e => quoted.push(char::from(*byte)),
            _ => {
                let _ = write!(quoted, "\\{byte:03o}"); // Writing into a string cannot fail.
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Undoes [`quoted_path`].
pub fn unquoted_path(text: &[u8]) -> Vec<u8> {
    let Some(quoted) = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")) else { return text.to_vec() };
    let mut path = Vec::new();
    let mut rest = quoted;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'\\' {
            path.push(first);
            continue;
        }
        let code = rest.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match (code, rest.split_first()) {
            (Some(byte), _) => {
                path.push(byte);
                rest = &rest[3..];
            }
            (None, Some((escape, tail))) => {
                path.push(match escape {
                    b'n' => b'\n',
                    b't' => b'\t',
                    other => *other,
                });
                rest = tail;
            }
            (None, None) => {}
        }
    }
    path
}

/// Returns a message as part of one line: what would end the line, or mean something to a terminal, becomes a space.
pub fn in_a_line(message: &str) -> String {
    let breaks = |char: char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}');
    message.chars().map(|char| if breaks(char) { ' ' } else { char }).collect()
}

/// Returns the line of a checkpoint: id, time, name or `-`, message.
pub fn log_line(row: &CommitRow) -> String {
    let name = row.name.as_deref().unwrap_or("-");
    let message = in_a_line(&row.message);
    format!("{} {} {} {}", row.id, iso_time(row.time), name, message).trim_end().to_owned()
}

/// Returns a time as people write it, in UTC to the second.
pub fn iso_time(time: Timestamp) -> String {
    let days = time.secs.div_euclid(86_400);
    let secs = time.secs.rem_euclid(86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", secs / 3600, secs / 60 % 60, secs % 60)
}

/// Returns year, month and day of a count of days since 1970-01-01.
///
/// The algorithm is `civil_from_days` of H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Returns the word of a change in reports.
pub fn change_word(kind: &ChangeKind) -> &'static str {
    kind.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_quoted_and_plain_ones_are_not() {
        assert_eq!(quoted_path("src/größe.rs".as_bytes()), "src/größe.rs");
        assert_eq!(quoted_path(b"a\nb\xff"), r#""a\nb\377""#);
        assert_eq!(quoted_path(b"\"x"), r#""\"x""#);
        for path in [&b"plain"[..], b"a\nb\xff", b"\"x", b"back\\slash\t\x01"] {
            assert_eq!(unquoted_path(quoted_path(path).as_bytes()), path);
        }
    }

    #[test]
    fn a_message_stays_in_its_line_and_says_nothing_to_a_terminal() {
        assert_eq!(in_a_line("one\ntwo\u{2028}three\u{85}\u{1b}[31mred größe"), "one two three  [31mred größe");
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(iso_time(Timestamp { secs: 0, nanos: 5 }), "1970-01-01T00:00:00Z");
        assert_eq!(iso_time(Timestamp { secs: 951_827_696, nanos: 0 }), "2000-02-29T12:34:56Z");
        assert_eq!(iso_time(Timestamp { secs: -1, nanos: 0 }), "1969-12-31T23:59:59Z");
    }
}
