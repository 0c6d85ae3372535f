//! What the workloads work on: made by this program, the same every time, so that figures of different machines compare.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The archive of a source tree of 5,000 files.
pub const TREE: &str = "tree.tar";
/// A crate without dependencies.
pub const CRATE: &str = "crate";
/// Packages for npm.
pub const PACKAGES: &str = "packages";

const TREE_FILES: usize = 5000;
const MODULES: usize = 40;
const NPM_PACKAGES: usize = 50;
const NPM_FILES: usize = 100;

/// Makes everything in the directory `top`.
pub fn make(top: &Path) {
    fs::create_dir_all(top).expect("a directory for assets");
    tree(top);
    a_crate(&top.join(CRATE));
    packages(&top.join(PACKAGES));
}

fn done(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(status.expect("the program starts").success(), "{command:?}");
}

/// A generator whose numbers look random.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }
}

const WORDS: [&str; 16] = [
    "let ",
    "fn ",
    "value",
    "index",
    " = ",
    "return ",
    "(",
    ")",
    "{\n",
    "}\n",
    "buffer",
    "length",
    " + ",
    "; ",
    "match ",
    "// a note\n",
];

fn text(bytes: usize, numbers: &mut Numbers) -> String {
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        match numbers.below(5) {
            0 => {
                let _ = write!(text, "{:x}", numbers.next() >> 40);
            }
            _ => text.push_str(WORDS[numbers.below(16) as usize]),
        }
    }
    text
}

/// Source files, most of them of a few KiB and some large: 11 KiB on average, as in a tree of real sources.
fn tree(top: &Path) {
    let mut numbers = Numbers(11);
    let source = top.join("tree");
    for at in 0..TREE_FILES {
        let directory = source.join(format!("part{}/module{}", at % 20, at / 20 % 20));
        fs::create_dir_all(&directory).expect("a directory");
        let bytes = match numbers.below(100) {
            0 => 200_000,
            1..=10 => 30_000,
            _ => 500 + numbers.below(13_000) as usize,
        };
        let mut text = text(bytes, &mut numbers);
        if at % 100 == 0 {
            text.push_str("a needle in a haystack\n");
        }
        fs::write(directory.join(format!("file{at}.rs")), text).expect("a file");
    }
    done(Command::new("tar").arg("-cf").arg(top.join(TREE)).arg("-C").arg(&source).arg("."));
    fs::remove_dir_all(source).expect("the tree is in the archive now");
}

fn a_crate(top: &Path) {
    fs::create_dir_all(top.join("src")).expect("a directory");
    let manifest = "[package]\nname = \"sample\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[workspace]\n";
    fs::write(top.join("Cargo.toml"), manifest).expect("a manifest");
    let mut main = String::new();
    for module in 0..MODULES {
        let _ = writeln!(main, "mod m{module};");
        fs::write(top.join(format!("src/m{module}.rs")), source_of(module)).expect("a module");
    }
    main.push_str("fn main() {\n");
    (0..MODULES).for_each(|module| main.push_str(&format!("    println!(\"{{}}\", m{module}::total(3));\n")));
    main.push_str("}\n");
    fs::write(top.join("src/main.rs"), main).expect("a program");
}

fn source_of(module: usize) -> String {
    let mut source = String::from("use std::collections::BTreeMap;\n");
    for at in 0..12 {
        let _ = writeln!(
            source,
            "#[derive(Debug, Clone, PartialEq)]\npub struct Item{at} {{ pub name: String, pub count: u64, pub map: BTreeMap<u64, String> }}\n\
             pub fn make{at}(seed: u64) -> Item{at} {{\n    let mut map = BTreeMap::new();\n    for n in 0..seed {{ map.insert(n, format!(\"{{n}}-{module}\")); }}\n    \
             Item{at} {{ name: format!(\"item {{seed}}\"), count: seed + {at}, map }}\n}}\n\
             pub fn sum{at}(items: &[Item{at}]) -> u64 {{ items.iter().map(|item| item.count + item.map.len() as u64).sum() }}"
        );
    }
    source.push_str("pub fn total(seed: u64) -> u64 {\n    let mut total = 0;\n");
    (0..12).for_each(|at| source.push_str(&format!("    total += sum{at}(&[make{at}(seed), make{at}(seed + 1)]);\n")));
    source.push_str("    total\n}\n");
    source
}

fn packages(top: &Path) {
    let mut numbers = Numbers(23);
    fs::create_dir_all(top).expect("a directory");
    let mut dependencies = serde_json::Map::new();
    for package in 0..NPM_PACKAGES {
        let name = format!("sample-{package}");
        let source = top.join("package");
        fs::create_dir_all(source.join("lib/inner")).expect("a directory");
        let manifest = serde_json::json!({ "name": name, "version": "1.0.0", "main": "lib/f0.js" });
        fs::write(source.join("package.json"), manifest.to_string()).expect("a manifest");
        for at in 1..NPM_FILES {
            let inner = if at % 3 == 0 { "inner/" } else { "" };
            let bytes = 300 + numbers.below(6000) as usize;
            fs::write(source.join(format!("lib/{inner}f{at}.js")), text(bytes, &mut numbers)).expect("a file");
        }
        let archive = top.join(format!("{name}.tgz"));
        done(Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(top).arg("package"));
        fs::remove_dir_all(&source).expect("the package is in its archive now");
        dependencies.insert(name, format!("file:{}", archive.display()).into());
    }
    let manifest = serde_json::json!({ "name": "sample", "version": "1.0.0", "dependencies": dependencies });
    fs::write(top.join("package.json"), manifest.to_string()).expect("a manifest");
}
