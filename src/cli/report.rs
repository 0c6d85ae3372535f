//! What commands print for people.

use crate::control::in_a_line;
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// Hex digits of an id that people see.
const ID_DIGITS: usize = 12;

/// Prints text on standard output. A reader that went away is no failure.
pub fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// Says whether standard output is for eyes.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Returns the start of an id.
pub fn short(id: &Value) -> &str {
    id.as_str().map_or("-", |id| id.get(..ID_DIGITS).unwrap_or(id))
}

/// Returns changed paths, a line each, renames with both names.
pub fn changes(changes: &Value) -> String {
    let line = |change: &Value| {
        let (letter, path) = (change["letter"].as_str().unwrap_or("?"), change["path"].as_str().unwrap_or("?"));
        let line = match change["from"].as_str() {
            Some(from) => format!("{letter} {from} -> {path}"),
            None => format!("{letter} {path}"),
        };
        format!("{}\n", coloured(&line, letter))
    };
    changes.as_array().into_iter().flatten().map(line).collect()
}

fn coloured(line: &str, letter: &str) -> String {
    let code = match letter {
        "A" => "32",
        "D" => "31",
        "R" => "36",
        _ => "33",
    };
    if is_terminal() { format!("\x1b[{code}m{line}\x1b[0m") } else { line.to_owned() }
}

/// Returns checkpoints, a line each.
pub fn log(checkpoints: &Value) -> String {
    let line = |row: &Value| {
        let name = row["name"].as_str().map(|name| format!(" [{name}]")).unwrap_or_default();
        let kind = match row["kind"].as_str() {
            Some("manual") | None => String::new(),
            Some(kind) => format!(" ({kind})"),
        };
        let message = in_a_line(row["message"].as_str().unwrap_or_default());
        let line = format!(
            "{} {} {:>5} changed{name}{kind} {message}",
            short(&row["id"]),
            row["time"].as_str().unwrap_or("-"),
            row["files_changed"]
        );
        format!("{}\n", line.trim_end())
    };
    checkpoints.as_array().into_iter().flatten().map(line).collect()
}

/// Returns a checkpoint in full.
pub fn show(row: &Value) -> String {
    let mut text = format!("checkpoint {}\n", row["id"].as_str().unwrap_or("-"));
    for (label, key) in [("parent", "parent"), ("name", "name"), ("branch", "branch"), ("time", "time"), ("kind", "kind")] {
        if let Some(value) = row[key].as_str() {
            text += &format!("{label:<10} {value}\n");
        }
    }
    for name in row["names"].as_array().into_iter().flatten().skip(1) {
        text += &format!("{:<10} {}\n", "name", name.as_str().unwrap_or("-"));
    }
    let author = &row["author"];
    text += &format!(
        "{:<10} uid {} {} (pid {})\n",
        "author",
        author["uid"],
        author["command"].as_str().unwrap_or("-"),
        author["pid"]
    );
    for (system, id) in row["links"].as_object().into_iter().flatten() {
        text += &format!("{:<10} {system}:{}\n", "link", id.as_str().unwrap_or("-"));
    }
    if row["meta"].as_object().is_some_and(|meta| !meta.is_empty()) {
        text += &format!("{:<10} {}\n", "meta", row["meta"]);
    }
    if let Some(message) = row["message"].as_str().filter(|message| !message.is_empty()) {
        text += &format!("\n    {}\n", message.replace('\n', "\n    "));
    }
    text + "\n" + &changes(&row["changes"])
}

/// Returns `key value` lines.
pub fn pairs(value: &Value) -> String {
    let line = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key:<24} {text}\n"),
        Value::Number(number) if key.ends_with("bytes") => format!("{key:<24} {}\n", size(number.as_u64().unwrap_or(0))),
        value => format!("{key:<24} {value}\n"),
    };
    // That it went well is for programs.
    value.as_object().into_iter().flatten().filter(|(key, _)| *key != "ok").map(line).collect()
}

/// Returns a number of bytes as people read it.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!((size(17).as_str(), size(1536).as_str(), size(5 << 30).as_str()), ("17 B", "1.5 KiB", "5.0 GiB"));
    }

    #[test]
    fn a_rename_shows_both_names() {
        let change = serde_json::json!([{ "letter": "R", "path": "b", "from": "a" }]);
        assert_eq!(changes(&change), "R a -> b\n");
    }
}
