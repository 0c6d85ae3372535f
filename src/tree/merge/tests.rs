//! Merges of small states, told by paths and contents.

use super::*;
use crate::object::{Content, Entry, EntryKind, ObjectId, TreeItem};
use crate::tree::testing::TestState;
use crate::tree::{MemoryNodes, find, join_all, link_entry, list, report, walk};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;

/// Contents by id, so that they can be read back: text is everything that has no `#`.
#[derive(Default)]
struct Texts {
    known: Mutex<HashMap<ObjectId, String>>,
    favour: Option<MergePolicy>,
}

impl Texts {
    fn learn(&self, text: &str) {
        self.known.lock().unwrap().insert(ObjectId::of(text.as_bytes()), text.to_owned());
    }

    fn read(&self, node: &Node) -> String {
        let Node::File { content, .. } = node else { panic!("not a file") };
        content.object().and_then(|id| self.known.lock().unwrap().get(&id).cloned()).unwrap_or_default()
    }
}

impl ContentMerger for Texts {
    fn merge(&self, base: Option<&Node>, ours: &Node, theirs: &Node) -> Result<MergedContent, TreeError> {
        let texts = [base.map(|base| self.read(base)).unwrap_or_default(), self.read(ours), self.read(theirs)];
        if texts.iter().any(|text| text.contains('#')) {
            return Ok(MergedContent::Binary);
        }
        let favour = match self.favour {
            Some(MergePolicy::Ours) => Favour::Ours,
            Some(MergePolicy::Theirs) => Favour::Theirs,
            _ => Favour::Markers("ours", "theirs"),
        };
        let [base, ours, theirs] = texts.each_ref().map(|text| text.as_bytes());
        let merged = merge_text(base, ours, theirs, favour);
        let text = String::from_utf8(merged.bytes).unwrap();
        self.learn(&text);
        let size_bytes = text.len() as u64;
        let content = Content::Blob(ObjectId::of(text.as_bytes()));
        Ok(MergedContent::Text { node: Node::File { size_bytes, data_bytes: size_bytes, content }, conflicts: merged.conflicts })
    }
}

struct Bench {
    nodes: MemoryNodes,
    texts: Texts,
    policy: MergePolicy,
    base: Root,
}

/// What a state shows: by path the kind and what it holds, and for hard links which path is the first of them.
type Shown = BTreeMap<String, String>;

impl Bench {
    /// Makes a bench whose base state has these paths, each file holding its path; returns two states to change.
    fn new(paths: &[&str]) -> (Self, TestState, TestState) {
        let (bench, ours, theirs) = Self::of(TestState::with(paths));
        paths.iter().for_each(|path| bench.texts.learn(path));
        (bench, ours, theirs)
    }

    fn of(state: TestState) -> (Self, TestState, TestState) {
        let nodes = MemoryNodes::new();
        let base = state.root(&nodes);
        let bench = Self { nodes, texts: Texts::default(), policy: MergePolicy::Markers, base };
        (bench, state.clone().apart(10_000), state.apart(20_000))
    }

    fn with(mut self, policy: MergePolicy) -> Self {
        self.policy = policy;
        self.texts.favour = Some(policy);
        self
    }

    fn write(&self, state: &mut TestState, path: &str, text: &str) {
        self.texts.learn(text);
        state.write(path, text);
    }

    fn merge(&self, ours: &TestState, theirs: &TestState) -> (Root, Vec<(String, &'static str)>) {
        for path in ours.paths().iter().chain(&theirs.paths()) {
            self.texts.learn(path);
        }
        let (ours, theirs) = (ours.root(&self.nodes), theirs.root(&self.nodes));
        let mut next = 30_000;
        let mut fresh = || {
            next += 1;
            next
        };
        let now = Timestamp { secs: 1_000_000, nanos: 0 };
        let rules = MergeRules { policy: self.policy, labels: ("ours", "theirs"), now, content: &self.texts };
        let merged = merge(&self.nodes, (&self.base, &ours, &theirs), &rules, &mut fresh).unwrap();
        check(&self.nodes, &merged.root);
        let conflicts = merged.conflicts.iter();
        let said = conflicts.map(|found| (String::from_utf8(found.path.clone()).unwrap(), found.kind.as_str())).collect();
        (merged.root, said)
    }

    fn shown(&self, root: &Root) -> Shown {
        let mut shown = Shown::new();
        let mut first: HashMap<u64, String> = HashMap::new();
        walk(&self.nodes, root, &mut |path, item| {
            let text = String::from_utf8(join_all(path)).unwrap();
            let entry = find(&self.nodes, root, path)?.unwrap();
            let what = match &entry.node {
                Node::File { content, .. } => content.object().map_or_else(String::new, |id| {
                    self.texts.known.lock().unwrap().get(&id).cloned().unwrap_or_else(|| format!("{id}"))
                }),
                Node::Symlink(to) => format!("-> {}", String::from_utf8_lossy(to)),
                Node::Directory { .. } => "/".to_owned(),
                _ => "?".to_owned(),
            };
            let group = if let (TreeItem::Link(identity), true) = (item, entry.nlink > 1) {
                format!(" = {}", first.entry(*identity).or_insert_with(|| text.clone()))
            } else {
                String::new()
            };
            shown.insert(text, format!("{what}{group}"));
            Ok(())
        })
        .unwrap();
        shown
    }

    fn result(&self, ours: &TestState, theirs: &TestState) -> (Vec<String>, Vec<(String, &'static str)>) {
        let (root, conflicts) = self.merge(ours, theirs);
        (self.shown(&root).into_iter().map(|(path, what)| format!("{path}: {what}")).collect(), conflicts)
    }
}

/// Checks that a state is whole: identities once, links counted, flags and numbers of links true.
fn check(nodes: &MemoryNodes, root: &Root) {
    let mut identities = HashSet::new();
    let mut links: HashMap<u64, u32> = HashMap::new();
    let mut directories: Vec<Entry> = vec![root.directory.clone()];
    walk(nodes, root, &mut |_, item| {
        match item {
            TreeItem::Entry(entry) => {
                assert!(identities.insert(entry.identity), "identity {} is there twice", entry.identity);
                if entry.node.kind() == EntryKind::Directory {
                    directories.push(entry.clone());
                } else {
                    assert_eq!(entry.nlink, 1, "{entry:?}");
                }
            }
            TreeItem::Link(identity) => *links.entry(*identity).or_default() += 1,
        }
        Ok(())
    })
    .unwrap();
    for (identity, names) in &links {
        assert!(!identities.contains(identity));
        assert_eq!(link_entry(nodes, root, *identity).unwrap().expect("described").nlink, *names, "inode {identity}");
    }
    let described = list(nodes, root.links, 0).count();
    assert_eq!(described, links.len(), "nothing is described that has no name");
    for directory in directories {
        let Node::Directory { tree, has_links } = directory.node else { unreachable!() };
        let items: Vec<_> = list(nodes, tree, 0).map(|found| found.unwrap().1).collect();
        assert_eq!(has_links, items.iter().any(TreeItem::has_links));
        let below =
            items.iter().filter(|item| matches!(item, TreeItem::Entry(entry) if entry.node.kind() == EntryKind::Directory));
        assert_eq!(directory.nlink as usize, 2 + below.count(), "directory {}", directory.identity);
    }
}

/// Returns the files of a state, without its directories: those with one name, and those with several.
fn identities(nodes: &MemoryNodes, root: &Root) -> (HashSet<u64>, HashSet<u64>) {
    let (mut single, mut linked) = (HashSet::new(), HashSet::new());
    walk(nodes, root, &mut |_, item| {
        match item {
            TreeItem::Entry(entry) if entry.node.kind() == EntryKind::Directory => {}
            TreeItem::Entry(entry) => drop(single.insert(entry.identity)),
            TreeItem::Link(identity) => drop(linked.insert(*identity)),
        }
        Ok(())
    })
    .unwrap();
    (single, linked)
}

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

fn operations() -> impl Strategy<Value = Vec<(usize, usize, usize)>> {
    prop::collection::vec((0usize..7, 0usize..40, 0usize..400), 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_two_states_merge_into_a_whole_one(
        before in operations(), ours_ops in operations(), theirs_ops in operations(), keeps in any::<bool>(), policy in 0usize..3
    ) {
        let mut state = TestState::with(&["p/q/r", "p/s", "q", "r/s"]).keeping_links(keeps);
        before.into_iter().for_each(|operation| state.random(operation));
        let (bench, mut ours, mut theirs) = Bench::of(state);
        let bench = bench.with([MergePolicy::Markers, MergePolicy::Ours, MergePolicy::Theirs][policy]);
        ours_ops.into_iter().for_each(|operation| ours.random(operation));
        theirs_ops.into_iter().for_each(|operation| theirs.random(operation));
        let (merged, conflicts) = bench.merge(&ours, &theirs);
        let (back, _) = bench.merge(&theirs, &ours);
        if conflicts.is_empty() {
            prop_assert_eq!(bench.shown(&merged).into_keys().collect::<Vec<_>>(), bench.shown(&back).into_keys().collect::<Vec<_>>());
        }
        if bench.policy == MergePolicy::Markers {
            // What neither deleted is there. Of several names each side may have taken another.
            let of = |root: &Root| identities(&bench.nodes, root);
            let (base, ours, theirs) = (of(&bench.base), of(&ours.root(&bench.nodes)), of(&theirs.root(&bench.nodes)));
            for result in [&merged, &back] {
                let (single, linked) = of(result);
                let in_both = ours.0.intersection(&theirs.0).filter(|id| !base.1.contains(id));
                let lost: Vec<_> = in_both.filter(|id| !single.contains(id) && !linked.contains(id)).collect();
                prop_assert!(lost.is_empty(), "nobody deleted {:?}: {:?}", lost, bench.shown(result));
            }
        }
        // What one side alone changed is in the result as that side has it.
        let (ours, theirs) = (ours.root(&bench.nodes), theirs.root(&bench.nodes));
        let changed = |side: &Root| -> BTreeMap<Vec<u8>, ()> {
            let lines = report(&bench.nodes, &bench.base, side).unwrap();
            lines.into_iter().flat_map(|line| match line.kind {
                crate::tree::ChangeKind::Renamed { from } => vec![(line.path, ()), (from, ())],
                _ => vec![(line.path, ())],
            }).collect()
        };
        if conflicts.is_empty() && changed(&ours).is_empty() {
            let shown = |root: &Root| bench.shown(root).into_iter().map(|(path, what)| (path, what.split(" = ").next().unwrap().to_owned())).collect::<Vec<_>>();
            prop_assert_eq!(shown(&merged), shown(&theirs));
        }
    }

    #[test]
    fn with_one_side_unchanged_the_other_is_the_result(before in operations(), after in operations()) {
        let mut state = TestState::with(&["p/q/r", "p/s", "q"]);
        before.into_iter().for_each(|operation| state.random(operation));
        let (bench, untouched, mut theirs) = Bench::of(state);
        after.into_iter().for_each(|operation| theirs.random(operation));
        let root = theirs.root(&bench.nodes);
        prop_assert_eq!(bench.merge(&untouched, &theirs).0, root.clone());
        prop_assert_eq!(bench.merge(&theirs, &untouched).0, root);
    }

    #[test]
    fn changes_of_a_side_arrive_when_the_other_made_one_elsewhere(before in operations(), after in operations()) {
        let mut state = TestState::with(&["p/q/r", "p/s", "q"]);
        before.into_iter().for_each(|operation| state.random(operation));
        let (bench, mut ours, mut theirs) = Bench::of(state);
        ours.write("only ours", "only ours");
        after.into_iter().for_each(|operation| theirs.random(operation));
        let (merged, conflicts) = bench.merge(&ours, &theirs);
        prop_assert_eq!(conflicts, []);
        let mut expected = bench.shown(&theirs.root(&bench.nodes));
        expected.insert("only ours".into(), "only ours".into());
        prop_assert_eq!(bench.shown(&merged), expected);
    }
}
