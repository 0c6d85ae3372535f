//! What ordinary work costs on mementofs and its peers, as a ratio to the native file system beneath them.
//!
//! `scripts/bench` runs it. Every workload runs on every file system in turn, several times over, and the table shows
//! medians and ratios. `workloads client ROW DIRECTORY ASSETS` runs one workload once, in a directory of one's choice, and
//! prints the seconds: that is what is timed here too, and what a profiler can look at.

mod assets;
mod micro;
mod options;
mod programs;
mod report;
mod rows;
mod subjects;

use options::Options;
use report::{Figures, Report};
use rows::Row;
use std::path::Path;
use std::process::Command;
use subjects::{Ground, Subject};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [first, name, directory, assets] = &arguments[..]
        && first == "client"
    {
        let row = rows::find(name).unwrap_or_else(|| panic!("there is no row {name}"));
        println!("{}", (row.run)(Path::new(directory), Path::new(assets)).as_secs_f64());
        return;
    }
    if let [first, directory] = &arguments[..]
        && first == "assets"
    {
        return assets::make(Path::new(directory));
    }
    let options = match Options::parse(&arguments) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            std::process::exit(2);
        }
    };
    if options.list {
        rows::ROWS.iter().for_each(|row| println!("{:22} {}", row.name, row.label));
        return;
    }
    let report = measure(&options);
    let text = report.table();
    print!("{text}");
    std::fs::create_dir_all(&options.results).expect("the folder for results can be made");
    let into = |name: &str| options.results.join(name);
    std::fs::write(into("workloads.md"), &text).expect("the table can be written");
    std::fs::write(into("workloads.json"), report.json()).expect("the JSON file can be written");
    std::fs::write(into("workloads.svg"), report.chart()).expect("the chart can be written");
    eprintln!("results are in {}", options.results.display());
    if let Some(recorded) = &options.judge
        && !report.judge(recorded)
    {
        std::process::exit(1);
    }
}

/// Runs every chosen row on every chosen file system, interleaved.
fn measure(options: &Options) -> Report {
    let ground = Ground::prepare();
    assets::make(&ground.assets());
    let mut report = Report::new();
    let (subjects, missing) = ground.mount(&options.subjects);
    for (name, why) in missing {
        eprintln!("skipped: {name}: {why}");
        report.skipped.push((name, why));
    }
    for row in rows::ROWS.iter().filter(|row| options.wants(row)) {
        for pinned in options.pinning() {
            measure_row(row, pinned, options, &ground, &subjects, &mut report);
        }
    }
    report
}

fn measure_row(row: &Row, pinned: bool, options: &Options, ground: &Ground, subjects: &[Subject], report: &mut Report) {
    let mut figures: Vec<Figures> = subjects.iter().map(|_| Figures::default()).collect();
    subjects.iter().for_each(|subject| subject.pin(pinned));
    for round in 0..options.rounds {
        for (subject, figures) in subjects.iter().zip(&mut figures) {
            if figures.failed.is_some() {
                continue;
            }
            let directory = subject.top.join(format!("{}-{round}-{pinned}", row.name));
            match one_run(row, &directory, &ground.assets(), pinned) {
                Ok(seconds) => figures.seconds.push(seconds),
                Err(why) => {
                    eprintln!("{} cannot do {}: {why}", subject.name, row.name);
                    figures.failed = Some(why);
                }
            }
            let _ = std::fs::remove_dir_all(&directory);
        }
    }
    let names = subjects.iter().map(|subject| subject.name.clone());
    report.add(row, pinned, names.zip(figures).collect());
}

/// A workload that takes longer than this has failed.
const SECONDS_MAX: u32 = 300;

fn one_run(row: &Row, directory: &Path, assets: &Path, pinned: bool) -> Result<f64, String> {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new("timeout");
    command.arg(SECONDS_MAX.to_string());
    if pinned {
        command.args(["taskset", "-c", subjects::PINNED_CPU]);
    }
    let output = command.arg(program).args(["client", row.name]).args([directory, assets]).output();
    let output = output.map_err(|err| err.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    match (output.status.success(), text.trim().parse()) {
        (true, Ok(seconds)) => Ok(seconds),
        _ => {
            let message = String::from_utf8_lossy(&output.stderr);
            let line = message.lines().find(|line| line.contains("panicked") || line.contains("error")).unwrap_or("");
            let detail = message.lines().skip_while(|line| !line.contains("panicked")).nth(1).unwrap_or("");
            Err(format!("{} {line} {detail}", output.status).trim().to_owned())
        }
    }
}
