//! Keeps the house as it is drawn in docs/architecture.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules each module may use.
const ARROWS: [(&str, &[&str]); 11] = [
    ("sys", &[]),
    ("object", &[]),
    ("watchdog", &["sys"]),
    ("store", &["object", "sys"]),
    ("tree", &["object"]),
    ("history", &["object"]),
    ("repository", &["history", "tree", "store", "object", "sys"]),
    ("workspace", &["repository", "history", "tree", "store", "object", "sys", "watchdog"]),
    ("control", &["workspace", "repository", "history", "tree", "object"]),
    ("fuse", &["control", "workspace", "repository", "history", "store", "tree", "object", "sys", "watchdog"]),
    ("cli", &["fuse", "control", "workspace", "repository", "history", "store", "tree", "object", "sys", "watchdog"]),
];
/// A longer file holds a second noun.
const LINES_MAX: usize = 500;

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Returns the text of every source file without comments, by module.
fn modules() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_string_lossy();
        let text = fs::read_to_string(&path).unwrap();
        let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
        modules.entry(first.trim_end_matches(".rs").to_owned()).or_default().push((relative.to_owned(), code.join("\n")));
    }
    modules
}

/// Returns the modules that a text names after `crate::`, also in lists.
fn used(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for part in code.split("crate::").skip(1) {
        let words = match part.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or("").split(',').map(str::trim).collect(),
            None => vec![part],
        };
        for word in words {
            names.insert(word.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect());
        }
    }
    names
}

#[test]
fn calls_go_down() {
    let modules = modules();
    for (module, allowed) in ARROWS {
        for (path, code) in modules.get(module).unwrap_or_else(|| panic!("there is no module {module}")) {
            for name in used(code) {
                let known = ARROWS.iter().any(|(other, _)| *other == name);
                assert!(!known || name == module || allowed.contains(&name.as_str()), "{} uses {name}", path.display());
            }
        }
    }
}

#[test]
fn every_module_is_drawn() {
    for module in modules().keys().filter(|module| !["lib", "main"].contains(&module.as_str())) {
        assert!(ARROWS.iter().any(|(known, _)| known == module), "{module} is not in the drawing");
    }
}

#[test]
fn unsafe_code_lives_in_sys() {
    for (module, files) in modules() {
        for (path, code) in files {
            let word = ["un", "safe"].concat();
            let found = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|token| token == word);
            assert!(module == "sys" || !found, "{} holds {word} code", path.display());
        }
    }
}

#[test]
fn outside_crates_are_at_home_in_one_place() {
    let homes = [
        ("rusqlite", "history"),
        ("fuser", "fuse"),
        ("sha2", "object"),
        ("clap", "cli"),
        ("zstd", "store"),
        ("fastcdc", "store"),
        ("tokio", "cli"),
    ];
    for (module, files) in modules() {
        for (path, code) in files {
            for (name, home) in homes {
                let used = code.contains(&format!("use {name}::")) || code.contains(&format!(" {name}::"));
                assert!(!used || module == home, "{} uses {name}, which is at home in {home}", path.display());
            }
        }
    }
}

#[test]
fn no_file_outgrows_its_noun() {
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn every_test_that_the_semantics_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let semantics = fs::read_to_string(root.join("docs/semantics.md")).unwrap();
    let mut tests = String::new();
    for path in sources(&root.join("tests")).into_iter().chain(sources(&root.join("src"))) {
        tests += &fs::read_to_string(path).unwrap();
    }
    let mut named = 0;
    for word in semantics.split('`').skip(1).step_by(2) {
        if let Some((_, name)) = word.rsplit_once("::").filter(|(_, name)| !name.is_empty() && !name.contains(['(', ' '])) {
            assert!(tests.contains(&format!("fn {name}(")), "docs/semantics.md names {word}, which does not exist");
            named += 1;
        }
    }
    assert!(named > 20, "only {named} tests are named");
}
