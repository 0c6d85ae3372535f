//! Merges of small states, told by paths and contents.

mod bench;
mod property;

use super::*;
use crate::tree::testing::TestState;
use crate::tree::{find, report};
use bench::Bench;
use std::collections::HashMap;

#[test]
fn changes_of_different_files_are_all_there() {
    let (bench, mut ours, mut theirs) = Bench::new(&["a", "b", "c", "d/e", "d/f"]);
    bench.write(&mut ours, "a", "ours");
    ours.remove("b");
    ours.write("d/new", "new");
    bench.write(&mut theirs, "c", "theirs");
    theirs.remove("d/e");
    theirs.chmod("d/f", 0o600);
    theirs.directory("d/dir");
    let (shown, conflicts) = bench.result(&ours, &theirs);
    assert_eq!(conflicts, []);
    assert!(shown.contains(&"a: ours".to_owned()) && shown.contains(&"c: theirs".to_owned()), "{shown:?}");
    assert!(!shown.iter().any(|line| line.starts_with("b:") || line.starts_with("d/e:")), "{shown:?}");
    assert!(shown.iter().any(|line| line.starts_with("d/new:")) && shown.iter().any(|line| line.starts_with("d/dir:")));
}

#[test]
fn a_rename_carries_what_the_other_side_changed() {
    let (bench, mut ours, mut theirs) = Bench::new(&["a", "d/e", "d/f"]);
    ours.rename("a", "b");
    ours.rename("d", "moved");
    bench.write(&mut theirs, "a", "changed");
    bench.write(&mut theirs, "d/e", "changed");
    theirs.write("d/new", "d/new");
    for (ours, theirs) in [(&ours, &theirs), (&theirs, &ours)] {
        let (shown, conflicts) = bench.result(ours, theirs);
        assert_eq!(conflicts, []);
        assert_eq!(shown, ["b: changed", "moved: /", "moved/e: changed", "moved/f: d/f", "moved/new: d/new"]);
    }
}

#[test]
fn a_file_replaced_by_a_new_one_of_its_name_is_the_same_by_path() {
    let mut base = TestState::default();
    base.write("a", "1\n2\n3\n4\n5\n");
    let (bench, mut ours, mut theirs) = Bench::of(base);
    bench.texts.learn("1\n2\n3\n4\n5\n");
    bench.write(&mut ours, "a", "one\n2\n3\n4\n5\n");
    bench.write(&mut theirs, "a.new", "1\n2\n3\n4\nfive\n");
    theirs.rename("a.new", "a");
    for (ours, theirs) in [(&ours, &theirs), (&theirs, &ours)] {
        let (shown, conflicts) = bench.result(ours, theirs);
        assert_eq!((shown, conflicts), (vec!["a: one\n2\n3\n4\nfive\n".to_owned()], vec![]));
    }
}

#[test]
fn what_both_sides_changed_is_a_conflict_and_the_policy_decides() {
    let sides = |policy| {
        let (bench, mut ours, mut theirs) = Bench::new(&["a", "b", "c", "d"]);
        let bench = bench.with(policy);
        bench.write(&mut ours, "a", "ours\n");
        bench.write(&mut theirs, "a", "theirs\n");
        bench.write(&mut ours, "b", "#ours");
        bench.write(&mut theirs, "b", "#theirs");
        ours.chmod("c", 0o600);
        theirs.chmod("c", 0o755);
        ours.remove("d");
        bench.write(&mut theirs, "d", "kept");
        let (root, conflicts) = bench.merge(&ours, &theirs);
        let mode = find(&bench.nodes, &root, &crate::tree::testing::names_of("c")).unwrap().unwrap().mode;
        let kinds: Vec<_> = conflicts.into_iter().map(|(path, kind)| format!("{path} {kind}")).collect();
        assert_eq!(kinds, ["a content", "b binary", "c mode", "d modify/delete"]);
        let shown = bench.shown(&root);
        (shown["a"].clone(), shown["b"].clone(), mode, shown.get("d").cloned())
    };
    let markers = "<<<<<<< ours\nours\n=======\ntheirs\n>>>>>>> theirs\n";
    assert_eq!(sides(MergePolicy::Markers), (markers.into(), "#ours".into(), 0o600, Some("kept".into())));
    assert_eq!(sides(MergePolicy::Ours), ("ours\n".into(), "#ours".into(), 0o600, None));
    assert_eq!(sides(MergePolicy::Theirs), ("theirs\n".into(), "#theirs".into(), 0o755, Some("kept".into())));
}

#[test]
fn a_deletion_of_what_the_other_side_changed_keeps_the_change_and_its_directory() {
    let (bench, mut ours, mut theirs) = Bench::new(&["d/e/file", "d/e/other", "d/x"]);
    ours.remove("d");
    bench.write(&mut theirs, "d/e/file", "changed");
    theirs.directory("d/e/new");
    for (ours, theirs) in [(&ours, &theirs), (&theirs, &ours)] {
        let (shown, conflicts) = bench.result(ours, theirs);
        assert_eq!(shown, ["d: /", "d/e: /", "d/e/file: changed", "d/e/new: /"]);
        assert_eq!(conflicts, [("d/e/file".to_owned(), "modify/delete")]);
    }
}

#[test]
fn both_renaming_one_file_keeps_one_name() {
    for (policy, kept) in [(MergePolicy::Markers, "b"), (MergePolicy::Theirs, "c")] {
        let (bench, mut ours, mut theirs) = Bench::new(&["a", "d/e"]);
        let bench = bench.with(policy);
        ours.rename("a", "b");
        theirs.rename("a", "c");
        ours.rename("d", "D1");
        theirs.rename("d", "D2");
        bench.write(&mut theirs, "D2/e", "changed");
        let (shown, conflicts) = bench.result(&ours, &theirs);
        let directory = if kept == "b" { "D1" } else { "D2" };
        assert!(shown.contains(&format!("{kept}: a")) && shown.len() == 3, "{shown:?}");
        assert!(shown.contains(&format!("{directory}/e: changed")), "{shown:?}");
        assert!(conflicts.iter().all(|(_, kind)| *kind == "rename/rename") && conflicts.len() == 2, "{conflicts:?}");
    }
}

#[test]
fn two_things_of_one_name_are_both_kept() {
    let (bench, mut ours, mut theirs) = Bench::new(&["a", "b"]);
    ours.rename("a", "x");
    theirs.rename("b", "x");
    let (shown, conflicts) = bench.result(&ours, &theirs);
    assert_eq!(shown, ["x: a", "x~theirs: b"]);
    assert_eq!(conflicts, [("x".to_owned(), "path")]);
    let (bench, mut ours, mut theirs) = Bench::new(&["a"]);
    bench.write(&mut ours, "x", "file");
    theirs.directory("x");
    theirs.write("x/y", "x/y");
    let (shown, conflicts) = bench.result(&ours, &theirs);
    assert_eq!(shown, ["a: a", "x: file", "x~theirs: /", "x~theirs/y: x/y"]);
    assert_eq!(conflicts, [("x".to_owned(), "path")]);
    let (shown, _) = bench.with(MergePolicy::Theirs).result(&ours, &theirs);
    assert_eq!(shown, ["a: a", "x: /", "x/y: x/y", "x~ours: file"]);
}

#[test]
fn hard_links_stay_links_and_their_content_is_merged_once() {
    let mut state = TestState::with(&["a", "other"]);
    state.link("a", "b");
    let (bench, mut ours, mut theirs) = Bench::of(state);
    ours.link("a", "c");
    ours.link("other", "third");
    bench.write(&mut theirs, "b", "changed");
    bench.write(&mut theirs, "other", "new");
    theirs.remove("a");
    for (ours, theirs) in [(&ours, &theirs), (&theirs, &ours)] {
        let (shown, conflicts) = bench.result(ours, theirs);
        assert_eq!(conflicts, []);
        let mut groups: HashMap<&str, Vec<&str>> = HashMap::new();
        for line in &shown {
            let (path, what) = line.split_once(": ").unwrap();
            groups.entry(what).or_default().push(path);
        }
        let mut groups: Vec<Vec<&str>> = groups.into_values().collect();
        groups.iter_mut().for_each(|group| group.sort());
        groups.sort();
        assert_eq!(groups, [vec!["b", "c"], vec!["other", "third"]], "{shown:?}");
        assert!(shown.iter().any(|line| line.starts_with("b: changed = ")), "{shown:?}");
    }
}

#[test]
fn directories_moved_into_each_other_stay_apart() {
    let (bench, mut ours, mut theirs) = Bench::new(&["p/file", "q/file"]);
    ours.rename("p", "q/p");
    theirs.rename("q", "p/q");
    let (shown, conflicts) = bench.result(&ours, &theirs);
    assert_eq!(shown, ["q: /", "q/file: q/file", "q/p: /", "q/p/file: p/file"]);
    assert_eq!(conflicts, [("q".to_owned(), "directory cycle")]);
}

#[test]
fn both_making_the_same_is_no_conflict() {
    let (bench, mut ours, mut theirs) = Bench::new(&["a"]);
    for state in [&mut ours, &mut theirs] {
        state.directory("new");
        state.write("new/file", "same");
        state.symlink("new/link", "file");
        state.remove("a");
    }
    theirs.write("new/more", "more");
    let (shown, conflicts) = bench.result(&ours, &theirs);
    assert_eq!(conflicts, []);
    assert_eq!(shown.len(), 4, "{shown:?}");
}

#[test]
fn a_merge_reads_what_the_sides_changed() {
    let paths: Vec<String> = (0..3000).map(|at| format!("d{}/f{at}", at % 60)).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let (bench, mut ours, mut theirs) = Bench::new(&paths);
    bench.write(&mut ours, "d1/f1", "ours");
    bench.write(&mut theirs, "d2/f2", "theirs");
    let (ours, theirs) = (ours.root(&bench.nodes), theirs.root(&bench.nodes));
    let rules =
        MergeRules { policy: MergePolicy::Markers, labels: ("ours", "theirs"), now: Timestamp::default(), content: &bench.texts };
    let reads = bench.nodes.read_count();
    let merged = merge(&bench.nodes, (&bench.base, &ours, &theirs), &rules, &mut || 0).unwrap();
    let reads = bench.nodes.read_count() - reads;
    assert!(reads < 60, "{reads} nodes read");
    assert_eq!(report(&bench.nodes, &bench.base, &merged.root).unwrap().len(), 2);
}

/// Found by `any_two_states_merge_into_a_whole_one`: what theirs had moved there went with what it had deleted.
#[test]
fn a_directory_stays_where_another_that_theirs_deleted_had_been_moved() {
    for (policy, kept) in [(MergePolicy::Theirs, "new/file: r/file"), (MergePolicy::Ours, "new/x: d/x")] {
        let (bench, mut ours, mut theirs) = Bench::new(&["r/file", "d/x", "other"]);
        let bench = bench.with(policy);
        ours.rename("d", "new");
        theirs.remove("d");
        theirs.rename("r", "new");
        for (one, other) in [(&ours, &theirs), (&theirs, &ours)] {
            let (shown, conflicts) = bench.result(one, other);
            assert!(shown.iter().any(|line| line.ends_with("/file: r/file")), "{policy:?}: {shown:?}");
            assert!(conflicts.contains(&("new".to_owned(), "rename/delete")), "{conflicts:?}");
        }
        let (shown, _) = bench.result(&ours, &theirs);
        assert!(shown.contains(&kept.to_owned()), "{policy:?}: {shown:?}");
    }
}

/// Found likewise: the names of a file came back over a directory that theirs had moved there.
#[test]
fn names_that_come_back_take_nobodys_place() {
    for policy in [MergePolicy::Markers, MergePolicy::Ours, MergePolicy::Theirs] {
        let mut state = TestState::with(&["q/s", "r/file"]);
        state.link("q/s", "q/r");
        let (bench, mut ours, mut theirs) = Bench::of(state);
        let bench = bench.with(policy);
        ours.remove("q/s");
        theirs.remove("q/r");
        theirs.rename("r", "q/r");
        for (one, other) in [(&ours, &theirs), (&theirs, &ours)] {
            let (shown, _) = bench.result(one, other);
            assert!(shown.iter().any(|line| line.contains("/file: ")), "{policy:?}: {shown:?}");
        }
    }
}

/// Found likewise: the second of theirs was taken for the same file, and was gone without a word.
#[test]
fn one_new_file_of_two_names_is_not_two_new_files_of_the_other_side() {
    let (bench, mut ours, mut theirs) = Bench::new(&["a"]);
    bench.write(&mut ours, "s", "ours");
    ours.link("s", "p");
    bench.write(&mut theirs, "s", "theirs s");
    bench.write(&mut theirs, "p", "theirs p");
    for (one, other) in [(&ours, &theirs), (&theirs, &ours)] {
        let (shown, conflicts) = bench.result(one, other);
        assert!(shown.iter().any(|line| line.contains("theirs p")) && !conflicts.is_empty(), "{shown:?} {conflicts:?}");
    }
}
