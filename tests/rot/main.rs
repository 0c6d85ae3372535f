//! Bits rot everywhere in a store: what is handed out afterwards is right, or an error, or fsck says so. Never a panic.
//!
//! MEMENTOFS_ROT_FLIPS says how many damages to try (default 400), MEMENTOFS_ROT_SEED which. `scripts/campaigns/rot` runs many.

mod damage;
mod look;
mod store;

use damage::{Damage, Random, damage};
use look::{Difference, compare, live, shown_in};
use mementofs::object::ObjectId;
use mementofs::repository::{Check, Finding, Repository, Verified, repair};
use mementofs::workspace::{Branches, Workspace, found_branches, inspect};
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use store::Original;

/// What a check said.
#[derive(Debug, Default)]
struct Said {
    findings: Vec<Finding>,
    notes: Vec<String>,
    refused: Option<String>,
}

impl Said {
    fn anything(&self) -> bool {
        !self.findings.is_empty() || !self.notes.is_empty() || self.refused.is_some()
    }

    /// Says whether the object that an error names is reported.
    fn tells_of(&self, error: &str) -> bool {
        self.findings.iter().filter_map(|finding| finding.object).any(|id| error.contains(&id.to_hex()))
    }
}

fn check(path: &Path) -> Said {
    let quiet = |_: &str, _, _| {};
    match Repository::open_as_is(path) {
        Err(err) => Said { refused: Some(err.to_string()), ..Said::default() },
        Ok(repository) => said_of(repository.verify(&Check { read_data: true, progress: &quiet }), &repository),
    }
}

fn said_of(found: Verified, repository: &Repository) -> Said {
    let inspected = inspect(repository);
    let mut said = Said { findings: found.findings, notes: found.notes, refused: None };
    said.findings.extend(inspected.findings);
    said.notes.extend(inspected.notes);
    said
}

/// Opens the store as a mount does and looks at everything. Returns what is wrong with what it shows.
fn look(path: &Path, original: &Original, damage: &Damage, said: &Said, repaired: bool, restore: bool) -> Vec<String> {
    let opened = Repository::open(path).map_err(|err| err.to_string());
    let opened = opened.and_then(|repository| {
        let branches = Branches::new(repository);
        branches.open("main").map(|workspace| (branches, workspace)).map_err(|err| err.to_string())
    });
    let (_branches, workspace) = match opened {
        Ok(workspace) => workspace,
        // Where not one state of the branch can be read, there is nothing to stand on, and the repair says so.
        Err(err) if said.tells_of(&err) => return Vec::new(),
        Err(err) if repaired => return vec![format!("does not open after the repair: {err}")],
        Err(_) => return Vec::new(), // It says why.
    };
    let repository = workspace.repository().clone();
    let mut wrong = Vec::new();
    if repaired && repository.branch("aside").is_err() {
        wrong.push("a branch is missing after the repair".to_owned());
    }
    let was = |path: &[u8], digest| original.versions.get(path).is_some_and(|versions| versions.contains(&digest));
    let of_live = compare(&original.live, &live(&workspace, None), &was);
    let mut checkpoints = Vec::new();
    match repository.history().checkpoints() {
        Err(err) if repaired => wrong.push(format!("the checkpoints cannot be listed after the repair: {err}")),
        Err(_) => {}
        Ok(rows) => {
            for row in rows {
                let Some((known, truth)) = original.checkpoints.get(&row.id) else {
                    if !said.anything() {
                        wrong.push(format!("checkpoint {} was never taken", row.id));
                    }
                    continue;
                };
                let links = repository.history().links_of(&row.id).unwrap_or_default();
                let changes = repository.history().recorded_changes(&row.id).map_or(0, |changes| changes.len());
                let seen = store::Known { name: row.name, message: row.message, meta: row.meta, links, changes };
                if seen != *known && (repaired || said.findings.is_empty()) {
                    wrong.push(format!("checkpoint {} says {seen:?} and not {known:?}", row.id));
                }
                checkpoints.push(row.id);
                let shown = compare(truth, &shown_in(&repository, &row.root_tree), &|_, _| false);
                wrong.extend(judge(&format!("checkpoint {}", row.id), &shown, said, damage, false));
            }
            if checkpoints.len() < original.checkpoints.len() && (repaired || !said.anything()) {
                wrong.push(format!("{} checkpoints of {}", checkpoints.len(), original.checkpoints.len()));
            }
        }
    }
    let detected = said.anything() || repository.trouble().is_some();
    wrong.extend(judge("the live tree", &of_live, said, damage, detected));
    let errors = !of_live.errors.is_empty();
    if errors && repository.trouble().is_none() {
        wrong.push(format!("a read failed and nothing was noted: {:?}", of_live.errors));
    }
    if repaired
        && !damage.class.starts_with("journal")
        && damage.class != "staging file"
        && !of_live.older.is_empty()
        && said.findings.is_empty()
    {
        wrong.push(format!("after the repair the live tree lacks {:?}", of_live.older));
    }
    if restore && let Some(id) = checkpoints.first() {
        wrong.extend(restored(&workspace, original, id));
    }
    wrong
}

/// What is shown is right, or an error that fsck knows of, or, in the live tree, an older version when damage was noticed.
fn judge(place: &str, difference: &Difference, said: &Said, damage: &Damage, may_be_older: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    // Nothing protects bytes of a file that is written in place, until they are sealed (docs/durability.md).
    let unprotected = |text: &&String| damage.class == "staging file" && text.starts_with("late/staged");
    wrong.extend(
        difference.wrong.iter().filter(|text| !unprotected(text)).map(|text| format!("{place} shows wrong bytes: {text}")),
    );
    let known = said.anything();
    if !difference.older.is_empty() && !may_be_older && !known && damage.class != "staging file" {
        wrong.push(format!("{place} lacks {:?}, and nobody says so", difference.older));
    }
    for error in &difference.errors {
        let database = said.findings.iter().any(|finding| finding.about == "database");
        if !known || (said.refused.is_none() && !said.tells_of(error) && !database) {
            wrong.push(format!("{place} fails at {error}, and fsck does not say so"));
        }
    }
    wrong
}

fn restored(workspace: &Workspace, original: &Original, id: &ObjectId) -> Vec<String> {
    let truth = &original.checkpoints[id].1;
    if workspace.restore(id, None, false, &store::author()).is_err() {
        return Vec::new(); // What is damaged cannot be restored, or what is there not be saved first.
    }
    let seen = live(workspace, None);
    let mut wrong = compare_content(truth, &seen);
    wrong.truncate(3);
    wrong
}

/// Compares contents alone: the two ways of looking describe attributes differently.
fn compare_content(truth: &look::Picture, seen: &look::Picture) -> Vec<String> {
    let content = |shown: &look::Shown| match shown {
        look::Shown::File { digest, .. } => Some(*digest),
        look::Shown::Error(_) => None,
    };
    let mut wrong = Vec::new();
    for (path, shown) in seen {
        let expected = truth.get(path).map(content);
        if content(shown).is_some_and(|digest| expected != Some(Some(digest))) {
            wrong.push(format!("restored, {} is not as in the checkpoint", String::from_utf8_lossy(path)));
        }
    }
    wrong
}

/// Repairs the store; returns what is left, and what is wrong with that.
fn repaired(path: &Path, wrong: &mut Vec<String>) -> Said {
    let quiet = |_: &str, _, _| {};
    let done = repair(path, &|| found_branches(path), &Check { read_data: true, progress: &quiet });
    let left = match done {
        Ok(done) => done.left,
        Err(err) => {
            let refused = err.to_string();
            if !refused.contains("cannot be used as a store") {
                wrong.push(format!("the repair failed: {refused}"));
            }
            return Said { refused: Some(refused), ..Said::default() };
        }
    };
    let unexpected = left.findings.iter().filter(|finding| finding.about != "object");
    wrong.extend(unexpected.map(|finding| format!("after the repair: {}: {}", finding.about, finding.sentence)));
    Said { findings: left.findings, notes: left.notes, refused: None }
}

fn cycle(path: &Path, original: &Original, damage: &Damage, random: &mut Random, verdict: &mut &'static str) -> Vec<String> {
    let said = check(path);
    *verdict = if said.anything() { "reported" } else { "harmless" };
    let mut wrong = Vec::new();
    if random.below(5) == 0 {
        let left = repaired(path, &mut wrong);
        if left.refused.is_none() {
            let mut left = left;
            left.notes.extend(said.notes); // What a journal lost it has lost.
            left.notes.extend(
                said.findings.iter().filter(|finding| finding.about == "journal").map(|finding| finding.sentence.clone()),
            );
            wrong.extend(look(path, original, damage, &left, true, random.below(2) == 0));
        }
    } else {
        wrong.extend(look(path, original, damage, &said, false, random.below(4) == 0));
    }
    wrong
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn rotten_bits_are_noticed_or_harmless() {
    let (flips, seed) = (number("MEMENTOFS_ROT_FLIPS", 400), number("MEMENTOFS_ROT_SEED", 1));
    println!("seed {seed}");
    let temp = tempfile::Builder::new().prefix("mementofs-rot-").tempdir().unwrap();
    let originals = [store::build(temp.path(), true), store::build(temp.path(), false)];
    let classes: Vec<_> = originals.iter().map(|original| damage::classes(original, temp.path())).collect();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let path = temp.path().join("rotten");
    let mut tally: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut violations = 0;
    for (original, classes) in originals.iter().zip(&classes) {
        store::copy(&original.path, &path);
        let said = check(&path);
        assert!(!said.anything(), "a whole store is clean: {said:?}");
        let damage = Damage { class: "nothing", what: String::new(), cut: false };
        assert_eq!(look(&path, original, &damage, &said, false, true), [""; 0], "{:?}", classes.keys());
        fs::remove_dir_all(&path).unwrap();
    }
    for flip in 0..flips {
        let at = (flip % 2) as usize;
        let (original, classes) = (&originals[at], &classes[at]);
        let class = *classes.keys().nth((flip / 2) as usize % classes.len()).unwrap();
        store::copy(&original.path, &path);
        let done = damage(&path, class, &classes[class], &mut random);
        let mut verdict = "panicked";
        let outcome = catch_unwind(AssertUnwindSafe(|| cycle(&path, original, &done, &mut random, &mut verdict)));
        let wrong = outcome.unwrap_or_else(|_| vec!["a panic".to_owned()]);
        *tally.entry((class, verdict)).or_default() += 1;
        if !wrong.is_empty() {
            violations += 1;
            println!("flip {flip}: {}{}", done.what, if done.cut { ", the end of it" } else { "" });
            wrong.iter().take(5).for_each(|sentence| println!("    {sentence}"));
        }
        fs::remove_dir_all(&path).unwrap();
        if (flip + 1) % 500 == 0 {
            println!("{} done, {violations} violations", flip + 1);
        }
    }
    for ((class, verdict), count) in &tally {
        println!("{class:<18} {verdict:<9} {count}");
    }
    println!("{flips} cycles, {violations} violations");
    assert_eq!(violations, 0);
}
