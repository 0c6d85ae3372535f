use super::super::testing::{TestState, names_of};
use super::super::{MemoryNodes, find, link_entry, report, walk};
use super::*;
use crate::object::Content;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

const NOW: Timestamp = Timestamp { secs: 1_000_000, nanos: 0 };
const FIRST_FRESH: u64 = 1 << 40;

fn grafted(nodes: &MemoryNodes, into: &Root, from: &Root, path: &str) -> Root {
    let mut next = FIRST_FRESH;
    let mut fresh = || {
        next += 1;
        next
    };
    graft(nodes, into, from, &names_of(path), NOW, &mut fresh).unwrap()
}

fn entry(nodes: &MemoryNodes, root: &Root, path: &str) -> Entry {
    find(nodes, root, &names_of(path)).unwrap().unwrap_or_else(|| panic!("no {path}"))
}

fn content(nodes: &MemoryNodes, root: &Root, path: &str) -> Option<Content> {
    match find(nodes, root, &names_of(path)).unwrap()?.node {
        Node::File { content, .. } => Some(content),
        _ => None,
    }
}

/// Checks what must hold in any state: identities once, link counts true, marks true, no stale link.
fn check(nodes: &MemoryNodes, root: &Root) {
    let mut plain = HashMap::new();
    let mut links: BTreeMap<u64, u32> = BTreeMap::new();
    let mut children: BTreeMap<Vec<Name>, (u32, bool)> = BTreeMap::from([(Vec::new(), (2, false))]);
    let mut directories = vec![(Vec::new(), root.directory.clone())];
    plain.insert(1, Vec::new());
    walk(nodes, root, &mut |path, item| {
        let parent = children.get_mut(&path[..path.len() - 1]).unwrap();
        parent.0 += u32::from(as_directory(item).is_some());
        parent.1 |= item.has_links();
        if let Some(directory) = as_directory(item) {
            children.insert(path.to_vec(), (2, false));
            directories.push((path.to_vec(), directory.clone()));
        }
        match item {
            TreeItem::Link(identity) => *links.entry(*identity).or_default() += 1,
            TreeItem::Entry(entry) => {
                let before = plain.insert(entry.identity, path.to_vec());
                assert!(before.is_none(), "{:x} is at {path:?} and {before:?}", entry.identity);
            }
        }
        Ok(())
    })
    .unwrap();
    for (path, directory) in directories {
        let (nlink, has_links) = children[&path];
        assert_eq!(directory.nlink, nlink, "{path:?}");
        assert!(matches!(directory.node, Node::Directory { has_links: marked, .. } if marked == has_links), "{path:?}");
    }
    for (identity, names) in &links {
        assert!(!plain.contains_key(identity), "{identity:x} is linked and plain");
        assert_eq!(link_entry(nodes, root, *identity).unwrap().unwrap().nlink, *names);
    }
    assert_eq!(super::super::count(nodes, root.links).unwrap(), links.len() as u64);
}

/// What a person sees below a path: everything but identities, link counts and change times.
fn seen(nodes: &MemoryNodes, root: &Root, path: &str) -> BTreeMap<Vec<u8>, Entry> {
    let mut seen = BTreeMap::new();
    walk(nodes, root, &mut |at, _| {
        let text = join_all(at);
        let inside = text.strip_prefix(path.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        if inside {
            let mut entry = find(nodes, root, at)?.unwrap();
            (entry.identity, entry.nlink, entry.ctime) = (0, 0, NOW);
            if matches!(entry.node, Node::Directory { .. }) {
                entry.node = Node::Directory { tree: None, has_links: false };
            }
            seen.insert(text, entry);
        }
        Ok(())
    })
    .unwrap();
    seen
}

#[test]
fn a_deleted_file_comes_back_and_its_directory_shows_it() {
    let nodes = MemoryNodes::new();
    let mut state = TestState::with(&["a/file", "a/other"]);
    let from = state.root(&nodes);
    state.remove("a/file");
    state.write("a/other", "new");
    let into = state.root(&nodes);
    let result = grafted(&nodes, &into, &from, "a/file");
    assert_eq!(entry(&nodes, &result, "a/file"), entry(&nodes, &from, "a/file"));
    assert_eq!(entry(&nodes, &result, "a/other"), entry(&nodes, &into, "a/other"));
    assert_eq!(entry(&nodes, &result, "a").mtime, NOW);
    assert_eq!(result.directory.mtime, into.directory.mtime);
    check(&nodes, &result);
}

#[test]
fn an_absence_is_restored_too() {
    let nodes = MemoryNodes::new();
    let mut state = TestState::with(&["a/file"]);
    let from = state.root(&nodes);
    state.directory("a/new");
    state.write("a/new/file", "");
    state.link("a/file", "a/new/second");
    let result = grafted(&nodes, &state.root(&nodes), &from, "a/new");
    assert_eq!(find_item(&nodes, &result, &names_of("a/new")).unwrap(), None);
    assert_eq!((entry(&nodes, &result, "a").nlink, entry(&nodes, &result, "a/file").nlink), (2, 1));
    check(&nodes, &result);
    assert_eq!(grafted(&nodes, &result, &from, "nowhere/at/all"), result);
}

#[test]
fn missing_parents_come_without_their_other_names() {
    let nodes = MemoryNodes::new();
    let mut state = TestState::with(&["a/b/file", "a/b/other", "a/x"]);
    state.chmod("a", 0o700);
    let from = state.root(&nodes);
    state.remove("a");
    let result = grafted(&nodes, &state.root(&nodes), &from, "a/b/file");
    assert_eq!(seen(&nodes, &result, "a").len(), 3);
    assert_eq!(entry(&nodes, &result, "a").mode, 0o700);
    assert_eq!(entry(&nodes, &result, "a").mtime, entry(&nodes, &from, "a").mtime);
    assert_eq!(result.directory.mtime, NOW);
    check(&nodes, &result);
}

#[test]
fn a_path_through_a_file_is_refused() {
    let nodes = MemoryNodes::new();
    let mut state = TestState::with(&["a/file"]);
    let from = state.root(&nodes);
    state.remove("a");
    state.write("a", "now a file");
    let into = state.root(&nodes);
    let refused = graft(&nodes, &into, &from, &names_of("a/file"), NOW, &mut || FIRST_FRESH);
    assert!(matches!(refused, Err(TreeError::NotADirectory { path }) if path == b"a"));
    assert_eq!(grafted(&nodes, &into, &from, "a/absent"), into);
}

#[test]
fn what_was_renamed_meanwhile_comes_back_as_a_copy() {
    let nodes = MemoryNodes::new();
    let mut state = TestState::with(&["a/b/file", "a/other"]);
    let from = state.root(&nodes);
    state.rename("a/b", "moved");
    state.rename("a/other", "moved/other");
    let into = state.root(&nodes);
    let result = grafted(&nodes, &into, &from, "a");
    check(&nodes, &result);
    assert_eq!(seen(&nodes, &result, "a"), seen(&nodes, &from, "a"));
    assert_eq!(entry(&nodes, &result, "moved/file").identity, entry(&nodes, &from, "a/b/file").identity);
    assert_eq!(entry(&nodes, &result, "a").identity, entry(&nodes, &from, "a").identity);
    for path in ["a/b", "a/b/file", "a/other"] {
        assert!(entry(&nodes, &result, path).identity > FIRST_FRESH, "{path}");
    }
}

#[test]
fn a_parent_that_was_renamed_meanwhile_comes_back_as_another() {
    let nodes = MemoryNodes::new();
    let mut state = TestState::with(&["a/file", "a/other"]);
    let from = state.root(&nodes);
    state.rename("a", "b");
    let result = grafted(&nodes, &state.root(&nodes), &from, "a/file");
    assert!(entry(&nodes, &result, "a").identity > FIRST_FRESH);
    assert!(entry(&nodes, &result, "a/file").identity > FIRST_FRESH);
    check(&nodes, &result);
}

#[test]
fn a_hard_link_that_did_not_change_stays_one() {
    let nodes = MemoryNodes::new();
    let mut state = TestState::with(&["a/one", "b"]);
    state.link("a/one", "two");
    state.link("a/one", "three");
    let from = state.root(&nodes);
    state.remove("a/one");
    let result = grafted(&nodes, &state.root(&nodes), &from, "a");
    check(&nodes, &result);
    assert_eq!(entry(&nodes, &result, "a/one").identity, entry(&nodes, &result, "two").identity);
    assert_eq!(entry(&nodes, &result, "two").nlink, 3);
}

#[test]
fn a_hard_link_that_changed_becomes_independent_of_names_outside() {
    let nodes = MemoryNodes::new();
    let mut state = TestState::with(&["a/one", "b"]);
    state.link("a/one", "a/two");
    state.link("a/one", "outside");
    let from = state.root(&nodes);
    state.write("outside", "new");
    let into = state.root(&nodes);
    let result = grafted(&nodes, &into, &from, "a");
    check(&nodes, &result);
    assert_eq!(content(&nodes, &result, "outside"), content(&nodes, &into, "outside"));
    assert_eq!(content(&nodes, &result, "a/one"), content(&nodes, &from, "a/one"));
    assert_eq!(entry(&nodes, &result, "a/one").identity, entry(&nodes, &result, "a/two").identity);
    assert_eq!((entry(&nodes, &result, "a/one").nlink, entry(&nodes, &result, "outside").nlink), (2, 1));
    let alone = grafted(&nodes, &into, &from, "outside");
    check(&nodes, &alone);
    assert_eq!(content(&nodes, &alone, "outside"), content(&nodes, &from, "outside"));
    assert_eq!(content(&nodes, &alone, "a/one"), content(&nodes, &into, "a/one"));
}

#[test]
fn a_renamed_file_that_once_had_two_names_comes_back_as_a_copy() {
    let nodes = MemoryNodes::new();
    let mut state = TestState::with(&["a"]).keeping_links(true);
    state.link("a", "second");
    state.remove("second");
    let from = state.root(&nodes);
    state.rename("a", "b");
    let result = grafted(&nodes, &state.root(&nodes), &from, "a");
    check(&nodes, &result);
    assert_ne!(entry(&nodes, &result, "a").identity, entry(&nodes, &result, "b").identity);
}

#[test]
fn a_hard_link_with_all_its_names_inside_is_restored_in_place() {
    let nodes = MemoryNodes::new();
    let mut state = TestState::with(&["a/one", "b"]);
    state.link("a/one", "a/two");
    let from = state.root(&nodes);
    state.write("a/two", "new");
    let result = grafted(&nodes, &state.root(&nodes), &from, "a");
    check(&nodes, &result);
    assert_eq!(entry(&nodes, &result, "a/one"), entry(&nodes, &from, "a/one"));
}

#[test]
fn a_file_that_got_a_second_name_meanwhile_keeps_it() {
    let nodes = MemoryNodes::new();
    let mut state = TestState::with(&["a", "b"]);
    let from = state.root(&nodes);
    state.link("a", "second");
    let into = state.root(&nodes);
    assert_eq!(grafted(&nodes, &into, &from, "a"), into);
    state.write("a", "new");
    let result = grafted(&nodes, &state.root(&nodes), &from, "a");
    check(&nodes, &result);
    assert_eq!(content(&nodes, &result, "a"), content(&nodes, &from, "a"));
    assert_ne!(entry(&nodes, &result, "a").identity, entry(&nodes, &result, "second").identity);
}

#[test]
fn ten_thousand_levels_are_grafted_and_reported() {
    let nodes = MemoryNodes::new();
    let deep = |content: &str| {
        let mut root = TestState::default().root(&nodes);
        let mut item = super::super::testing::file(2, content);
        for level in (0..10_000u64).rev() {
            let edit = [(super::super::testing::name("d"), Some(item))];
            let tree = update(&nodes, None, &edit).unwrap().tree;
            let identity = if level == 0 { 1 } else { 100 + level };
            root.directory = Entry { identity, nlink: 2, node: Node::Directory { tree, has_links: false }, ..root.directory };
            item = TreeItem::Entry(root.directory.clone());
        }
        root
    };
    let (from, into, empty) = (deep("old"), deep("new"), TestState::default().root(&nodes));
    let path = vec![super::super::testing::name("d"); 10_000];
    let lines = report(&nodes, &from, &into).unwrap();
    assert_eq!((lines.len(), lines[0].path.len()), (1, 19_999));
    let mut fresh = || FIRST_FRESH;
    assert_eq!(graft(&nodes, &into, &from, &path, NOW, &mut fresh).unwrap(), from);
    let made = graft(&nodes, &empty, &from, &path, NOW, &mut fresh).unwrap();
    assert_eq!(find(&nodes, &made, &path).unwrap(), find(&nodes, &from, &path).unwrap());
    assert_eq!(grafted(&nodes, &into, &from, "d").tree(), from.tree());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_graft_brings_the_path_and_leaves_the_rest(
        before in prop::collection::vec((0usize..7, 0usize..40, 0usize..40), 0..20),
        after in prop::collection::vec((0usize..7, 0usize..40, 0usize..40), 0..12),
        pick in 0usize..60,
        reverse: bool,
        keeps_links: bool,
    ) {
        let nodes = MemoryNodes::new();
        let mut old = TestState::with(&["a/b/file", "a/x", "d/one", "d/two", "e/f/g/deep", "file"]).keeping_links(keeps_links);
        old.link("d/one", "linked");
        old.link("a/x", "d/x");
        before.iter().for_each(|step| old.random(*step));
        let mut new = old.clone();
        after.iter().for_each(|step| new.random(*step));
        let (from, into) = if reverse { (&new, &old) } else { (&old, &new) };
        let mut paths = [from.paths(), into.paths()].concat();
        paths.sort();
        let Some(path) = paths.iter().cycle().nth(pick) else { return Ok(()) };
        let (from_root, into_root) = (from.root(&nodes), into.root(&nodes));
        check(&nodes, &from_root);
        let mut next = FIRST_FRESH;
        let mut fresh = || { next += 1; next };
        let result = match graft(&nodes, &into_root, &from_root, &names_of(path), NOW, &mut fresh) {
            Err(TreeError::NotADirectory { path: blocked }) => {
                let blocked = String::from_utf8(blocked).unwrap();
                prop_assert!(into.has(&blocked) && !into.is_directory(&blocked) && from.has(path));
                return Ok(());
            }
            result => result.unwrap(),
        };
        check(&nodes, &result);
        prop_assert_eq!(seen(&nodes, &result, path), seen(&nodes, &from_root, path));
        for line in report(&nodes, &into_root, &result).unwrap() {
            let line_path = String::from_utf8(line.path).unwrap();
            let inside = line_path == *path || line_path.starts_with(&format!("{path}/"));
            let on_the_way = line_path == "." || path.starts_with(&format!("{line_path}/"));
            prop_assert!(inside || on_the_way, "{} changed by a graft of {}", line_path, path);
        }
    }
}
