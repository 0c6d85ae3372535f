//! Which checkpoints and paths does a damaged object belong to?

use super::trees::{Mark, Marks};
use super::{Holder, KeptRoots, Place, PlacesByObject, Verified};
use crate::object::{Content, Entry, Manifest, Name, Node, ObjectId, Root, TreeItem, TreeNode};
use crate::repository::Repository;
use crate::tree::{self, NodeSource};
use std::collections::HashMap;

/// The search through one state; it goes only where something below is damaged.
struct Search<'a> {
    repository: &'a Repository,
    marks: &'a Marks,
    holder: &'a Holder,
    places: &'a mut PlacesByObject,
    /// Damaged objects of hard-linked files, by identity: their names are found afterwards.
    linked: HashMap<u64, Vec<ObjectId>>,
}

impl Repository {
    /// Says of each damaged object where people meet it.
    pub(super) fn find_places(&self, roots: &KeptRoots, marks: &Marks, found: &mut Verified) {
        let mut places = PlacesByObject::new();
        for (holder, root) in roots {
            if is(marks, root, Mark::TAINTED) {
                let mut search = Search { repository: self, marks, holder, places: &mut places, linked: HashMap::new() };
                search.in_root(root);
            }
        }
        for finding in &mut found.findings {
            if let Some(id) = finding.object
                && finding.places.is_empty()
            {
                finding.places = places.remove(&id).unwrap_or_default();
                finding.places.sort_by(|a, b| a.path.cmp(&b.path)); // Stable: checkpoints stay in their order.
            }
        }
    }
}

fn is(marks: &Marks, id: &ObjectId, mark: Mark) -> bool {
    marks.get(id).is_some_and(|found| found.has(mark))
}

impl Search<'_> {
    fn note(&mut self, id: &ObjectId, path: &[u8]) {
        let place = Place { holder: self.holder.clone(), path: path.to_vec() };
        let places = self.places.entry(*id).or_default();
        if places.last() != Some(&place) {
            places.push(place);
        }
    }

    fn in_root(&mut self, id: &ObjectId) {
        if is(self.marks, id, Mark::DAMAGED) {
            return self.note(id, b"");
        }
        let Some(root) = self.repository.read_stored(id).ok().and_then(|bytes| Root::decode(&bytes).ok()) else { return };
        if let Some(links) = root.links {
            self.in_nodes(links, b"", true);
        }
        if let Some(tree) = root.tree() {
            self.in_nodes(tree, b"", false);
        }
        if !self.linked.is_empty() {
            self.name_linked(&root);
        }
    }

    /// Searches a directory at `path` and all below it, or the table of links.
    fn in_nodes(&mut self, tree: ObjectId, path: &[u8], links: bool) {
        let mut waiting = vec![(tree, path.to_vec())];
        while let Some((id, path)) = waiting.pop() {
            if !is(self.marks, &id, Mark::TAINTED) {
                continue;
            }
            if is(self.marks, &id, Mark::DAMAGED) {
                self.note(&id, &path);
                continue;
            }
            let Some(node) = self.repository.read_stored(&id).ok().and_then(|bytes| TreeNode::decode(&bytes).ok()) else {
                continue;
            };
            match node {
                TreeNode::Index { children, .. } => waiting.extend(children.iter().map(|child| (child.id, path.clone()))),
                TreeNode::Leaf(items) => {
                    for (name, item) in &items {
                        let TreeItem::Entry(entry) = item else { continue };
                        let damaged = self.damaged_content(entry);
                        if links && !damaged.is_empty() {
                            self.linked.entry(entry.identity).or_default().extend(damaged);
                            continue;
                        }
                        let path = join(&path, name);
                        damaged.iter().for_each(|id| self.note(id, &path));
                        if let Node::Directory { tree: Some(tree), .. } = entry.node {
                            waiting.push((tree, path));
                        }
                    }
                }
            }
        }
    }

    /// Returns the damaged objects that hold a file's bytes.
    fn damaged_content(&self, entry: &Entry) -> Vec<ObjectId> {
        let Node::File { content, .. } = entry.node else { return Vec::new() };
        let Some(id) = content.object().filter(|id| is(self.marks, id, Mark::TAINTED)) else { return Vec::new() };
        if is(self.marks, &id, Mark::DAMAGED) || !matches!(content, Content::Manifest(_)) {
            return vec![id];
        }
        let manifest = self.repository.read_stored(&id).ok().and_then(|bytes| Manifest::decode(&bytes).ok()).unwrap_or_default();
        let mut damaged: Vec<ObjectId> = manifest.extents.iter().filter_map(|extent| extent.blob).collect();
        damaged.retain(|id| is(self.marks, id, Mark::DAMAGED));
        damaged.dedup();
        damaged
    }

    /// Finds the names of hard-linked files, as far as directories can be read.
    fn name_linked(&mut self, root: &Root) {
        let linked = std::mem::take(&mut self.linked);
        let mut named = Vec::new();
        let source: &dyn NodeSource = self.repository;
        let walked = tree::walk_links(source, root.tree(), &mut |path, item| {
            if let TreeItem::Link(identity) = item
                && let Some(ids) = linked.get(identity)
            {
                let path: Vec<&[u8]> = path.iter().map(Name::as_bytes).collect();
                named.extend(ids.iter().map(|id| (*id, path.join(&b'/'))));
            }
            Ok(())
        });
        if let Err(err) = walked {
            tracing::debug!(%err, "not every name of a damaged file was found");
        }
        named.iter().for_each(|(id, path)| self.note(id, path));
    }
}

fn join(path: &[u8], name: &Name) -> Vec<u8> {
    if path.is_empty() { name.as_bytes().to_vec() } else { [path, b"/", name.as_bytes()].concat() }
}
