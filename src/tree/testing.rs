//! A small file tree for tests, on which states are made by ordinary operations.

use super::{NodeSink, update};
use crate::object::{Content, Entry, Name, Node, ObjectId, Root, Timestamp, TreeItem};
use std::collections::{BTreeMap, HashMap, HashSet};

pub(super) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub(super) fn names_of(path: &str) -> Vec<Name> {
    path.split('/').filter(|part| !part.is_empty()).map(name).collect()
}

pub(super) fn file(identity: u64, content: &str) -> TreeItem {
    TreeItem::Entry(entry(identity, file_node(content), Timestamp::default()))
}

fn file_node(content: &str) -> Node {
    let size_bytes = content.len() as u64;
    Node::File { size_bytes, data_bytes: size_bytes, content: Content::Blob(ObjectId::of(content.as_bytes())) }
}

fn entry(identity: u64, node: Node, time: Timestamp) -> Entry {
    Entry { identity, mode: 0o644, uid: 1, gid: 1, nlink: 1, mtime: time, ctime: time, atime: time, xattrs: None, node }
}

/// Names and inodes; every operation takes one second.
#[derive(Clone, Default)]
pub(super) struct TestState {
    names: BTreeMap<String, u64>,
    inodes: HashMap<u64, Entry>,
    top: Timestamp,
    clock: i64,
    last_identity: u64,
    /// Every inode that ever had several names.
    linked: HashSet<u64>,
    keeps_links: bool,
}

impl TestState {
    /// Makes files of these paths, each holding its path.
    pub fn with(paths: &[&str]) -> Self {
        let mut state = Self::default();
        for path in paths {
            let parents: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
            for at in parents {
                if !state.names.contains_key(&path[..at]) {
                    state.directory(&path[..at]);
                }
            }
            state.write(path, path);
        }
        state
    }

    /// Says whether inodes that had several names stay in the link table when one is left.
    pub fn keeping_links(self, keeps_links: bool) -> Self {
        Self { keeps_links, ..self }
    }

    /// Takes identities that no other state of the test takes, as two branches do.
    pub fn apart(self, first: u64) -> Self {
        Self { last_identity: first, ..self }
    }

    fn tick(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp { secs: self.clock, nanos: 0 }
    }

    fn create(&mut self, path: &str, node: Node) {
        let now = self.tick();
        self.last_identity = self.last_identity.max(1) + 1;
        self.inodes.insert(self.last_identity, entry(self.last_identity, node, now));
        self.names.insert(path.into(), self.last_identity);
        self.touch_parent(path, now);
    }

    fn touch_parent(&mut self, path: &str, now: Timestamp) {
        match path.rsplit_once('/') {
            None => self.top = now,
            Some((parent, _)) => {
                let parent = self.inode(parent);
                (parent.mtime, parent.ctime) = (now, now);
            }
        }
    }

    pub fn inode(&mut self, path: &str) -> &mut Entry {
        self.inodes.get_mut(&self.names[path]).unwrap()
    }

    pub fn has(&self, path: &str) -> bool {
        self.names.contains_key(path)
    }

    pub fn paths(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    pub fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.names.get(path).is_some_and(|id| matches!(self.inodes[id].node, Node::Directory { .. }))
    }

    pub fn directory(&mut self, path: &str) {
        self.create(path, Node::Directory { tree: None, has_links: false });
    }

    pub fn symlink(&mut self, path: &str, target: &str) {
        self.create(path, Node::Symlink(target.as_bytes().into()));
    }

    /// Writes a file in place, or a new one.
    pub fn write(&mut self, path: &str, content: &str) {
        if !self.has(path) {
            return self.create(path, file_node(content));
        }
        let now = self.tick();
        let inode = self.inode(path);
        (inode.node, inode.mtime, inode.ctime) = (file_node(content), now, now);
    }

    /// Sets the modification time alone.
    pub fn touch(&mut self, path: &str) {
        let now = self.tick();
        let inode = self.inode(path);
        (inode.mtime, inode.ctime) = (now, now);
    }

    pub fn chmod(&mut self, path: &str, mode: u32) {
        let now = self.tick();
        let inode = self.inode(path);
        (inode.mode, inode.ctime) = (mode, now);
    }

    pub fn link(&mut self, path: &str, second: &str) {
        let now = self.tick();
        let inode = self.inode(path);
        inode.ctime = now;
        let identity = inode.identity;
        self.names.insert(second.into(), identity);
        self.linked.insert(identity);
        self.touch_parent(second, now);
    }

    /// Removes a path and everything below it.
    pub fn remove(&mut self, path: &str) {
        let now = self.tick();
        let below = format!("{path}/");
        self.names.retain(|other, _| other != path && !other.starts_with(&below));
        self.touch_parent(path, now);
    }

    /// Renames a path and everything below it, over whatever is there.
    pub fn rename(&mut self, from: &str, to: &str) {
        let now = self.tick();
        self.remove(to);
        let below = format!("{from}/");
        let moved: Vec<String> = self.names.keys().filter(|path| *path == from || path.starts_with(&below)).cloned().collect();
        for path in moved {
            let identity = self.names.remove(&path).unwrap();
            self.names.insert(format!("{to}{}", &path[from.len()..]), identity);
        }
        self.touch_parent(from, now);
        self.touch_parent(to, now);
    }

    /// Does one of seven operations on paths picked by two numbers; those that make no sense do nothing.
    pub fn random(&mut self, (what, first, second): (usize, usize, usize)) {
        const NAMES: [&str; 4] = ["p", "q", "r", "s"];
        let mut directories: Vec<String> = self.paths().into_iter().filter(|path| self.is_directory(path)).collect();
        directories.push(String::new());
        let directory = &directories[second / 4 % directories.len()];
        let name = NAMES[second % 4];
        let target = if directory.is_empty() { name.to_string() } else { format!("{directory}/{name}") };
        let Some(path) = self.paths().into_iter().cycle().nth(first) else { return self.write(&target, "new") };
        let inside = target == path || target.starts_with(&format!("{path}/")) || path.starts_with(&format!("{target}/"));
        let is_directory = self.is_directory(&path);
        match what {
            0 if !self.is_directory(&target) => self.write(&target, &format!("{first}")),
            1 if !self.has(&target) => self.directory(&target),
            2 if !is_directory => self.write(&path, &format!("{second}")),
            3 => self.chmod(&path, 0o600 + second as u32),
            4 if !is_directory && !self.has(&target) => self.link(&path, &target),
            5 => self.remove(&path),
            6 if !inside => self.rename(&path, &target),
            _ => {}
        }
    }

    /// Stores the state.
    pub fn root(&self, sink: &dyn NodeSink) -> Root {
        let mut names: HashMap<u64, u32> = HashMap::new();
        for identity in self.names.values() {
            *names.entry(*identity).or_default() += 1;
        }
        let mut top = entry(1, self.stored_directory(sink, "", &names).0, self.top);
        (top.mode, top.nlink) = (0o755, self.stored_directory(sink, "", &names).1);
        let mut links: Vec<(Name, Option<TreeItem>)> = Vec::new();
        for (identity, nlink) in names.iter().filter(|(identity, nlink)| self.is_link(**identity, **nlink)) {
            let entry = Entry { nlink: *nlink, ..self.inodes[identity].clone() };
            links.push((Name::of_identity(*identity), Some(TreeItem::Entry(entry))));
        }
        links.sort_by(|(a, _), (b, _)| a.cmp(b));
        Root { directory: top, links: update(sink, None, &links).unwrap().tree }
    }

    fn is_link(&self, identity: u64, nlink: u32) -> bool {
        nlink > 1 || self.keeps_links && self.linked.contains(&identity)
    }

    fn stored_directory(&self, sink: &dyn NodeSink, path: &str, names: &HashMap<u64, u32>) -> (Node, u32) {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut nlink = 2;
        let mut edits = Vec::new();
        for (child, identity) in self.names.iter().filter(|(child, _)| child.starts_with(&prefix)) {
            let rest = &child[prefix.len()..];
            if rest.contains('/') {
                continue;
            }
            let mut entry = self.inodes[identity].clone();
            if matches!(entry.node, Node::Directory { .. }) {
                (entry.node, entry.nlink) = self.stored_directory(sink, child, names);
                nlink += 1;
            }
            let item = if self.is_link(*identity, names[identity]) { TreeItem::Link(*identity) } else { TreeItem::Entry(entry) };
            edits.push((name(rest), Some(item)));
        }
        edits.sort_by(|(a, _), (b, _)| a.cmp(b));
        let built = update(sink, None, &edits).unwrap();
        (Node::Directory { tree: built.tree, has_links: built.has_links }, nlink)
    }
}
