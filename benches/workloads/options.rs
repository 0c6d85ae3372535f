//! What the command line asks for.

use crate::rows::Row;
use std::path::PathBuf;

/// What is to be measured, and how.
pub struct Options {
    /// Names of rows; all when empty.
    rows: Vec<String>,
    /// File systems by name.
    pub subjects: Vec<String>,
    /// Runs of each row on each file system.
    pub rounds: usize,
    pinned: bool,
    unpinned: bool,
    quick: bool,
    /// Where table, JSON and chart go.
    pub results: PathBuf,
    /// Recorded ratios to compare with.
    pub judge: Option<PathBuf>,
    /// Only say which rows there are.
    pub list: bool,
}

const ALL: [&str; 8] =
    ["native", "overlayfs", "fuse-overlayfs", "bindfs", "branchfs", "agentvfs", "mementofs-cached", "mementofs-passthrough"];

impl Options {
    /// Reads the arguments.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            rows: Vec::new(),
            subjects: ALL.map(str::to_owned).to_vec(),
            rounds: 5,
            pinned: true,
            unpinned: true,
            quick: false,
            results: "target/bench".into(),
            judge: None,
            list: false,
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().cloned().ok_or(format!("{argument} takes a value"));
            match argument.as_str() {
                "--rows" => options.rows = words(&value()?),
                "--on" => options.subjects = words(&value()?),
                "--rounds" => options.rounds = value()?.parse().map_err(|_| "--rounds takes a number".to_owned())?,
                "--pinned" => (options.pinned, options.unpinned) = (true, false),
                "--unpinned" => (options.pinned, options.unpinned) = (false, true),
                "--results" => options.results = value()?.into(),
                "--judge" => options.judge = Some(value()?.into()),
                "--list" => options.list = true,
                "--quick" => {
                    options.quick = true;
                    options.rounds = 3;
                    options.pinned = false;
                    options.subjects = ["native", "mementofs-cached", "mementofs-passthrough"].map(str::to_owned).to_vec();
                }
                other => return Err(format!("unknown argument {other}")),
            }
        }
        if !options.subjects.iter().any(|name| name == "native") {
            options.subjects.insert(0, "native".to_owned()); // Everything is compared with it.
        }
        Ok(options)
    }

    /// Says whether a row is to be run.
    pub fn wants(&self, row: &Row) -> bool {
        match self.rows.is_empty() {
            true => !self.quick || row.quick,
            false => self.rows.iter().any(|name| row.name == name),
        }
    }

    /// Returns the ways of placing client and daemon on processors that are to be measured.
    pub fn pinning(&self) -> impl Iterator<Item = bool> {
        [(false, self.unpinned), (true, self.pinned)].into_iter().filter_map(|(pinned, wanted)| wanted.then_some(pinned))
    }
}

fn words(list: &str) -> Vec<String> {
    list.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}
