//! Medians, ratios, and their table, JSON and chart.

use crate::rows::{self, Row};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// What one row took on one file system.
#[derive(Default)]
pub struct Figures {
    /// Each run.
    pub seconds: Vec<f64>,
    /// Why it could not be run.
    pub failed: Option<String>,
}

/// One line of the table.
struct Line {
    row: &'static str,
    label: &'static str,
    reach: Option<(f64, f64)>,
    pinned: bool,
    cells: Vec<(String, Figures)>,
}

/// Everything that was measured.
pub struct Report {
    lines: Vec<Line>,
    /// File systems that could not be mounted, and why.
    pub skipped: Vec<(String, String)>,
}

fn median(seconds: &[f64]) -> Option<f64> {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[len / 2]),
        len => Some(f64::midpoint(sorted[len / 2 - 1], sorted[len / 2])),
    }
}

impl Line {
    fn native(&self) -> Option<f64> {
        self.cells.iter().find(|(name, _)| name == "native").and_then(|(_, figures)| median(&figures.seconds))
    }

    fn ratio(&self, figures: &Figures) -> Option<f64> {
        Some(median(&figures.seconds)? / self.native()?)
    }

    fn reach_of(&self, subject: &str) -> Option<f64> {
        match subject {
            "mementofs-passthrough" => self.reach.map(|(passthrough, _)| passthrough),
            "mementofs-cached" => self.reach.map(|(_, cached)| cached),
            _ => None,
        }
    }
}

impl Report {
    /// Starts empty.
    pub fn new() -> Self {
        Self { lines: Vec::new(), skipped: Vec::new() }
    }

    /// Adds a line and says it.
    pub fn add(&mut self, row: &Row, pinned: bool, cells: Vec<(String, Figures)>) {
        let line = Line { row: row.name, label: row.label, reach: row.reach, pinned, cells };
        eprintln!("{}", markdown(&line));
        self.lines.push(line);
    }

    /// Returns the table: native in milliseconds, all others as ratios to it.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let Some(first) = self.lines.first() else { return text };
        let names: Vec<&str> = first.cells.iter().map(|(name, _)| name.as_str()).collect();
        let _ = writeln!(text, "| workload | placed | {} |", names.join(" | "));
        let _ = writeln!(text, "|---|---|{}", "---|".repeat(names.len()));
        self.lines.iter().for_each(|line| text.push_str(&(markdown(line) + "\n")));
        text.push_str("\nnative: median in ms; others: ratio of medians to native; in brackets what is to be reached\n");
        for (name, why) in &self.skipped {
            let _ = writeln!(text, "skipped: {name}: {why}");
        }
        for line in &self.lines {
            for (name, figures) in &line.cells {
                if let Some(why) = &figures.failed {
                    let _ = writeln!(text, "failed: {name}, {}: {why}", line.row);
                }
            }
        }
        text
    }

    /// Returns everything as JSON.
    pub fn json(&self) -> String {
        let cell = |line: &Line, name: &str, figures: &Figures| {
            json!({
                "subject": name, "seconds": figures.seconds, "median": median(&figures.seconds),
                "ratio": line.ratio(figures), "reach": line.reach_of(name), "failed": figures.failed,
            })
        };
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                let cells: Vec<Value> = line.cells.iter().map(|(name, figures)| cell(line, name, figures)).collect();
                json!({ "row": line.row, "label": line.label, "pinned": line.pinned, "cells": cells })
            })
            .collect();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        json!({
            "bench": "workloads", "kernel": kernel.trim(), "processors": processors, "load_at_the_end": load.trim(),
            "lines": lines, "skipped": self.skipped,
        })
        .to_string()
    }

    /// Returns a chart of the ratios, on a logarithmic scale.
    pub fn chart(&self) -> String {
        const COLOURS: [&str; 8] = ["#888888", "#4c78a8", "#f58518", "#e45756", "#b279a2", "#9d755d", "#54a24b", "#2f6b2a"];
        const BAR: f64 = 7.0;
        const LEFT: f64 = 300.0;
        const DECADE: f64 = 260.0;
        let mut body = String::new();
        let mut y = 60.0;
        for line in &self.lines {
            let place = if line.pinned { " (one CPU)" } else { "" };
            let _ = writeln!(body, r#"<text x="{}" y="{}" text-anchor="end">{}{place}</text>"#, LEFT - 8.0, y + 12.0, line.label);
            for (at, (name, figures)) in line.cells.iter().enumerate().filter(|(_, (name, _))| name != "native") {
                let Some(ratio) = line.ratio(figures) else { continue };
                let width = (ratio.max(0.5).log10() + 0.31) * DECADE;
                let colour = COLOURS[at % COLOURS.len()];
                let _ = writeln!(
                    body,
                    r#"<rect x="{LEFT}" y="{y}" width="{width:.1}" height="{BAR}" fill="{colour}"><title>{name}: {ratio:.2}</title></rect>"#
                );
                y += BAR;
            }
            y += 10.0;
        }
        let mut head = String::new();
        for ratio in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0] {
            let x = LEFT + (f64::log10(ratio) + 0.31) * DECADE;
            let _ = writeln!(head, r##"<line x1="{x:.0}" y1="50" x2="{x:.0}" y2="{y:.0}" stroke="#dddddd"/>"##);
            let _ = writeln!(head, r#"<text x="{x:.0}" y="46" text-anchor="middle">{ratio}</text>"#);
        }
        if let Some(line) = self.lines.first() {
            for (at, (name, _)) in line.cells.iter().enumerate().filter(|(_, (name, _))| name != "native") {
                let x = 10.0 + at as f64 * 130.0;
                let colour = COLOURS[at % COLOURS.len()];
                let _ = writeln!(
                    head,
                    r#"<rect x="{x}" y="8" width="10" height="10" fill="{colour}"/><text x="{}" y="17">{name}</text>"#,
                    x + 14.0
                );
            }
        }
        let height = y + 20.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1100\" height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"32\">time as a ratio to native</text>\n{head}{body}</svg>\n"
        )
    }

    /// Compares with the ratios recorded in `file` on one CPU, where they are the same from run to run; more than twice one of
    /// them fails.
    pub fn judge(&self, file: &Path) -> bool {
        const WORSE_MAX: f64 = 2.0;
        let text = std::fs::read_to_string(file).expect("the recorded ratios can be read");
        let recorded: Value = serde_json::from_str(&text).expect("the recorded ratios are JSON");
        let mut good = true;
        for line in self.lines.iter().filter(|line| line.pinned) {
            for (name, figures) in &line.cells {
                let Some(known) = recorded[name][line.row].as_f64() else { continue };
                let ratio = line.ratio(figures);
                if ratio.is_none_or(|ratio| ratio > known * WORSE_MAX) {
                    let found = ratio.map_or("nothing".to_owned(), |ratio| format!("{ratio:.2}"));
                    eprintln!("{name}, {}: {found}, and {known:.2} was recorded", line.row);
                    good = false;
                }
            }
        }
        good
    }
}

fn markdown(line: &Line) -> String {
    let mut text = format!("| {} | {} |", line.label, if line.pinned { "one CPU" } else { "free" });
    for (name, figures) in &line.cells {
        let cell = match (name.as_str(), line.ratio(figures), line.native()) {
            (_, None, _) | (_, _, None) => "-".to_owned(),
            ("native", _, Some(native)) => format!("{:.1} ms", native * 1e3),
            (_, Some(ratio), _) => match line.reach_of(name) {
                Some(reach) => format!("{ratio:.2} ({reach})"),
                None => format!("{ratio:.2}"),
            },
        };
        let _ = write!(text, " {cell} |");
    }
    debug_assert!(rows::find(line.row).is_some());
    text
}
