//! A base, and what becomes of it on both sides.

use super::super::*;
use crate::object::{Content, Entry, EntryKind, ObjectId, TreeItem};
use crate::tree::testing::TestState;
use crate::tree::{MemoryNodes, find, join_all, link_entry, list, walk};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;

/// Contents by id, so that they can be read back: text is everything that has no `#`.
#[derive(Default)]
pub struct Texts {
    pub known: Mutex<HashMap<ObjectId, String>>,
    pub favour: Option<MergePolicy>,
}

impl Texts {
    pub fn learn(&self, text: &str) {
        self.known.lock().unwrap().insert(ObjectId::of(text.as_bytes()), text.to_owned());
    }

    pub fn read(&self, node: &Node) -> String {
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

pub struct Bench {
    pub nodes: MemoryNodes,
    pub texts: Texts,
    pub policy: MergePolicy,
    pub base: Root,
}

/// What a state shows: by path the kind and what it holds, and for hard links which path is the first of them.
pub type Shown = BTreeMap<String, String>;

impl Bench {
    /// Makes a bench whose base state has these paths, each file holding its path; returns two states to change.
    pub fn new(paths: &[&str]) -> (Self, TestState, TestState) {
        let (bench, ours, theirs) = Self::of(TestState::with(paths));
        paths.iter().for_each(|path| bench.texts.learn(path));
        (bench, ours, theirs)
    }

    pub fn of(state: TestState) -> (Self, TestState, TestState) {
        let nodes = MemoryNodes::new();
        let base = state.root(&nodes);
        let bench = Self { nodes, texts: Texts::default(), policy: MergePolicy::Markers, base };
        (bench, state.clone().apart(10_000), state.apart(20_000))
    }

    pub fn with(mut self, policy: MergePolicy) -> Self {
        self.policy = policy;
        self.texts.favour = Some(policy);
        self
    }

    pub fn write(&self, state: &mut TestState, path: &str, text: &str) {
        self.texts.learn(text);
        state.write(path, text);
    }

    pub fn merge(&self, ours: &TestState, theirs: &TestState) -> (Root, Vec<(String, &'static str)>) {
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

    pub fn shown(&self, root: &Root) -> Shown {
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

    pub fn result(&self, ours: &TestState, theirs: &TestState) -> (Vec<String>, Vec<(String, &'static str)>) {
        let (root, conflicts) = self.merge(ours, theirs);
        (self.shown(&root).into_iter().map(|(path, what)| format!("{path}: {what}")).collect(), conflicts)
    }
}

/// Checks that a state is whole: identities once, links counted, flags and numbers of links true.
pub fn check(nodes: &MemoryNodes, root: &Root) {
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
pub fn identities(nodes: &MemoryNodes, root: &Root) -> (HashSet<u64>, HashSet<u64>) {
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
