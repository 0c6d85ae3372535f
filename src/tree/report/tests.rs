use super::super::MemoryNodes;
use super::super::testing::TestState;
use super::*;
use proptest::prelude::*;

fn lines_of(nodes: &MemoryNodes, old: &Root, new: &Root) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let line = |change: PathChange| match &change.kind {
        ChangeKind::Renamed { from } => format!("R {} < {}", text(&change.path), text(from)),
        ChangeKind::Mode => format!("mode {}", text(&change.path)),
        kind => format!("{} {}", kind.letter(), text(&change.path)),
    };
    report(nodes, old, new).unwrap().into_iter().map(line).collect()
}

type Steps = fn(&mut TestState);

/// Each case starts from these paths, `d/one` and `linked` being one inode.
const PATHS: [&str; 6] = ["a/b/file", "a/x", "d/one", "d/two", "e/f/g/deep", "file"];

const CASES: &[(&str, Steps, &[&str])] = &[
    ("nothing", |_| (), &[]),
    ("write", |s| s.write("a/x", "new"), &["M a/x"]),
    ("touch", |s| s.touch("a/x"), &["M a/x"]),
    ("change time only", |s| s.inode("a/x").ctime.secs += 9, &[]),
    ("mode", |s| s.chmod("a/x", 0o600), &["mode a/x"]),
    ("mode of a directory", |s| s.chmod("a", 0o700), &["mode a"]),
    ("directory time only", |s| s.touch("a"), &["M a"]),
    (
        "directory time and a change inside",
        |s| {
            s.touch("a");
            s.write("a/x", "new")
        },
        &["M a", "M a/x"],
    ),
    (
        "top time only",
        |s| {
            s.directory("t");
            s.remove("t")
        },
        &["M ."],
    ),
    ("add file", |s| s.write("a/new", ""), &["A a/new"]),
    (
        "add directory",
        |s| {
            s.directory("n");
            s.write("n/1", "");
            s.directory("n/2")
        },
        &["A n", "A n/1", "A n/2"],
    ),
    ("delete file", |s| s.remove("a/x"), &["D a/x"]),
    ("delete directory", |s| s.remove("a"), &["D a", "D a/b", "D a/b/file", "D a/x"]),
    ("rename file", |s| s.rename("a/x", "y"), &["R y < a/x"]),
    (
        "rename and write",
        |s| {
            s.rename("a/x", "y");
            s.write("y", "new")
        },
        &["R y < a/x"],
    ),
    ("rename directory", |s| s.rename("a", "z"), &["R z < a"]),
    (
        "rename directory and change below",
        |s| {
            s.rename("a", "z");
            s.write("z/x", "new");
            s.write("z/b/more", "");
            s.remove("z/b/file");
        },
        &["D a/b/file", "R z < a", "A z/b/more", "M z/x"],
    ),
    (
        "rename directory and a file inside",
        |s| {
            s.rename("a", "z");
            s.rename("z/x", "z/b/y")
        },
        &["R z < a", "R z/b/y < a/x"],
    ),
    (
        "move out of a deleted directory",
        |s| {
            s.rename("e/f/g", "g");
            s.remove("e")
        },
        &["D e", "D e/f", "R g < e/f/g"],
    ),
    (
        "move into a new directory",
        |s| {
            s.directory("n");
            s.rename("a", "n/a")
        },
        &["A n", "R n/a < a"],
    ),
    (
        "swap directories",
        |s| {
            s.rename("a", "t");
            s.rename("d", "a");
            s.rename("t", "d");
            s.remove("d/x");
            s.write("a/new", "");
        },
        &["R a < d", "A a/new", "D a/x", "R d < a"],
    ),
    ("replace by rename", |s| s.rename("file", "a/x"), &["R a/x < file"]),
    (
        "replace by a new file",
        |s| {
            s.write("a/t", "new");
            s.rename("a/t", "a/x")
        },
        &["M a/x"],
    ),
    (
        "replace by a new equal file",
        |s| {
            let (node, mtime) = (s.inode("a/x").node.clone(), s.inode("a/x").mtime);
            s.write("a/t", "");
            let inode = s.inode("a/t");
            (inode.node, inode.mtime, inode.atime) = (node, mtime, mtime);
            s.rename("a/t", "a/x");
        },
        &[],
    ),
    (
        "move away and write anew",
        |s| {
            s.rename("file", "file~");
            s.write("file", "new")
        },
        &["M file", "R file~ < file"],
    ),
    (
        "directory made anew",
        |s| {
            s.remove("a");
            s.directory("a");
            s.write("a/x", "new");
            s.write("a/y", "")
        },
        &["D a/b", "D a/b/file", "M a/x", "A a/y"],
    ),
    (
        "directory moved away and made anew",
        |s| {
            s.rename("a", "z");
            s.directory("a");
            s.write("a/x", "new");
            s.write("a/y", "")
        },
        &["M a/x", "A a/y", "R z < a"],
    ),
    (
        "directory replaced by another",
        |s| {
            s.remove("d");
            s.rename("a", "d")
        },
        &["R d < a", "D d/one", "D d/two"],
    ),
    (
        "directory replaced by another with a name of its own",
        |s| {
            s.write("a/one", "");
            s.remove("d");
            s.rename("a", "d")
        },
        &["R d < a", "M d/one", "D d/two"],
    ),
    (
        "file becomes directory",
        |s| {
            s.remove("file");
            s.directory("file");
            s.write("file/x", "")
        },
        &["T file", "A file/x"],
    ),
    (
        "directory becomes link",
        |s| {
            s.remove("a");
            s.symlink("a", "d")
        },
        &["T a", "D a/b", "D a/b/file", "D a/x"],
    ),
    ("add hard link", |s| s.link("a/x", "second"), &["A second"]),
    ("add third name", |s| s.link("linked", "a/third"), &["A a/third"]),
    (
        "add hard link and write",
        |s| {
            s.link("a/x", "second");
            s.write("a/x", "new")
        },
        &["M a/x", "A second"],
    ),
    ("write to a hard link", |s| s.write("linked", "new"), &["M d/one", "M linked"]),
    ("mode of a hard link", |s| s.chmod("linked", 0o600), &["mode d/one", "mode linked"]),
    (
        "write to a hard link and rename a name",
        |s| {
            s.write("linked", "new");
            s.rename("linked", "other")
        },
        &["M d/one", "R other < linked"],
    ),
    (
        "write to a hard link in a moved directory",
        |s| {
            s.write("linked", "new");
            s.rename("d", "a/d")
        },
        &["R a/d < d", "M a/d/one", "M linked"],
    ),
    (
        "third name in a moved directory",
        |s| {
            s.directory("n");
            s.rename("d", "n/d");
            s.link("linked", "third")
        },
        &["A n", "R n/d < d", "A third"],
    ),
    ("remove one name", |s| s.remove("linked"), &["D linked"]),
    ("rename a name", |s| s.rename("d/one", "x"), &["R x < d/one"]),
    (
        "replace a name by a hard link",
        |s| {
            s.remove("file");
            s.link("a/x", "file")
        },
        &["M file"],
    ),
    (
        "move a directory into its own child",
        |s| {
            s.rename("a/b", "b");
            s.rename("a", "b/a")
        },
        &["R b < a/b", "R b/a < a"],
    ),
];

#[test]
fn each_kind_of_change_has_its_lines() {
    for ((title, steps, expected), keeps_links) in CASES.iter().flat_map(|case| [(case, false), (case, true)]) {
        let nodes = MemoryNodes::new();
        let mut state = TestState::with(&PATHS).keeping_links(keeps_links);
        state.link("d/one", "linked");
        let old = state.root(&nodes);
        steps(&mut state);
        assert_eq!(lines_of(&nodes, &old, &state.root(&nodes)), *expected, "{title}");
    }
}

#[test]
fn renaming_a_large_directory_reads_little() {
    let nodes = MemoryNodes::new();
    let mut state = TestState::with(&["big/sub/file"]);
    for n in 0..3000 {
        state.write(&format!("big/{n}"), "");
    }
    let old = state.root(&nodes);
    state.directory("new");
    state.rename("big", "new/big");
    let new = state.root(&nodes);
    let reads = nodes.read_count();
    assert_eq!(lines_of(&nodes, &old, &new), ["A new", "R new/big < big"]);
    assert!(nodes.read_count() - reads < 30, "{} reads", nodes.read_count() - reads);
}

#[test]
fn the_letters_and_words_are_those_of_the_interface() {
    let kinds = [
        (ChangeKind::Added, 'A', "added"),
        (ChangeKind::Modified, 'M', "modified"),
        (ChangeKind::Deleted, 'D', "deleted"),
        (ChangeKind::Renamed { from: Vec::new() }, 'R', "renamed"),
        (ChangeKind::Mode, 'M', "mode"),
        (ChangeKind::Type, 'T', "type"),
    ];
    for (kind, letter, word) in kinds {
        assert_eq!((kind.letter(), kind.as_str()), (letter, word));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn the_lines_explain_every_path(
        before in prop::collection::vec((0usize..7, 0usize..40, 0usize..40), 0..25),
        after in prop::collection::vec((0usize..7, 0usize..40, 0usize..40), 0..12),
        keeps_links: bool,
    ) {
        let nodes = MemoryNodes::new();
        let mut old_state = TestState::with(&PATHS).keeping_links(keeps_links);
        before.iter().for_each(|step| old_state.random(*step));
        let mut new_state = old_state.clone();
        after.iter().for_each(|step| new_state.random(*step));
        let (old, new) = (old_state.root(&nodes), new_state.root(&nodes));
        let lines = report(&nodes, &old, &new).unwrap();
        prop_assert!(lines.is_sorted_by(|a, b| a.path < b.path), "{lines:?}");
        explain(&lines, &old_state, &new_state)?;
        prop_assert_eq!(report(&nodes, &old, &old).unwrap(), vec![]);
    }
}

/// Checks the lines against both states: which paths are there, and what moved along with a directory.
fn explain(lines: &[PathChange], old: &TestState, new: &TestState) -> Result<(), TestCaseError> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let inside = |path: &str, of: &str| path.strip_prefix(of).is_some_and(|rest| rest.starts_with('/'));
    let mut by_path = HashMap::new();
    let (mut targets, mut origins) = (Vec::new(), Vec::new());
    for line in lines {
        let path = text(&line.path);
        let (was, is) = (old.has(&path), new.has(&path));
        match &line.kind {
            ChangeKind::Added => prop_assert!(!was && is, "added {}", path),
            ChangeKind::Deleted => prop_assert!(was && !is, "deleted {}", path),
            ChangeKind::Renamed { from } => {
                prop_assert!(old.has(&text(from)) && is, "renamed {}", path);
                origins.push(text(from));
                targets.push(path.clone());
            }
            _ => prop_assert!(is || path == ".", "changed {}", path),
        }
        by_path.insert(path, line);
    }
    for path in new.paths() {
        let moved = targets.iter().any(|target| inside(&path, target));
        if !old.has(&path) {
            prop_assert!(by_path.contains_key(&path) || moved, "{} came without a line", path);
        } else if !old.is_directory(&path) && !new.is_directory(&path) {
            let (was, is) = (old.clone().inode(&path).clone(), new.clone().inode(&path).clone());
            let listed = by_path.contains_key(&path);
            prop_assert!(compare(&was, &is).is_none() || listed || moved, "{} changed without a line", path);
            prop_assert!(compare(&was, &is).is_some() || was.identity != is.identity || moved || !listed, "{} has a line", path);
        }
    }
    for path in old.paths() {
        let moved = origins.iter().any(|origin| *origin == path || inside(&path, origin));
        prop_assert!(new.has(&path) || by_path.contains_key(&path) || moved, "{} went without a line", path);
    }
    Ok(())
}
