//! The update of one directory: a sorted list of edits merged into its tree.

use super::build::Builder;
use super::cursor::{Cursor, Piece};
use super::{NodeSink, TreeError};
use crate::object::{Name, ObjectId, TreeItem};
use std::cmp::Ordering;

/// What an update came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Built {
    /// The tree; absent when the directory is empty.
    pub tree: Option<ObjectId>,
    /// Whether a name of a hard-linked inode is in it or anywhere below.
    pub has_links: bool,
    /// How many names it has.
    pub count: u64,
}

/// Applies `edits` to a directory and returns its new tree, the same that building it anew would give.
///
/// The edits are sorted by name, each name once; `None` removes the name, which may be absent. The cost
/// is that of the nodes that change: all others are reused by id, and only new nodes are stored.
pub fn update(sink: &dyn NodeSink, tree: Option<ObjectId>, edits: &[(Name, Option<TreeItem>)]) -> Result<Built, TreeError> {
    if let Some(pair) = edits.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        return Err(TreeError::EditsUnsorted { name: pair[1].0.clone() });
    }
    let mut merge = Merge { cursor: Cursor::new(sink, tree)?, builder: Builder::new(sink), edits };
    merge.remember();
    while merge.step()? {}
    merge.builder.finish()
}

struct Merge<'a> {
    cursor: Cursor<'a>,
    builder: Builder<'a>,
    /// What is left of the edits.
    edits: &'a [(Name, Option<TreeItem>)],
}

enum Step {
    /// The next edit applies to a name that is absent.
    Insert,
    /// The next edit applies to the item here.
    Replace,
    /// No edit applies to the item here.
    Keep,
    /// The subtree here stays a node of the new tree.
    Take,
    /// The subtree here must be looked into.
    Open,
}

impl Merge<'_> {
    /// Merges the next edit, item or subtree; says whether there was one.
    fn step(&mut self) -> Result<bool, TreeError> {
        let Some(step) = self.decide() else { return Ok(false) };
        match step {
            Step::Insert => self.edit()?,
            Step::Replace => {
                self.cursor.advance();
                self.edit()?;
            }
            Step::Keep => self.keep()?,
            Step::Take => self.take()?,
            Step::Open => {
                self.cursor.open()?;
                self.remember();
            }
        }
        Ok(true)
    }

    fn decide(&self) -> Option<Step> {
        let edit = self.edits.first().map(|(name, _)| name);
        match (self.cursor.peek(), edit) {
            (None, None) => None,
            (None, Some(_)) => Some(Step::Insert),
            (Some(Piece::Item(_, _)), None) => Some(Step::Keep),
            (Some(Piece::Item(name, _)), Some(edit)) => Some(match edit.cmp(name) {
                Ordering::Less => Step::Insert,
                Ordering::Equal => Step::Replace,
                Ordering::Greater => Step::Keep,
            }),
            (Some(Piece::Subtree(child, level)), edit) => {
                let untouched = edit.is_none_or(|edit| *edit > child.last);
                // The last node of a level may end anywhere, as long as nothing comes behind it.
                let whole = child.last.ends_node(level) || edit.is_none() && self.cursor.is_last();
                let take = untouched && whole && self.builder.begins_node(level);
                Some(if take { Step::Take } else { Step::Open })
            }
        }
    }

    fn edit(&mut self) -> Result<(), TreeError> {
        if let Some(((name, item), rest)) = self.edits.split_first() {
            self.edits = rest;
            if let Some(item) = item {
                self.builder.push(name.clone(), item.clone())?;
            }
        }
        Ok(())
    }

    fn keep(&mut self) -> Result<(), TreeError> {
        if let Some((name, item)) = self.cursor.item() {
            self.builder.push(name, item)?;
        }
        self.cursor.advance();
        Ok(())
    }

    fn take(&mut self) -> Result<(), TreeError> {
        if let Some(Piece::Subtree(child, level)) = self.cursor.peek() {
            self.builder.take(child.clone(), level)?;
        }
        self.cursor.advance();
        Ok(())
    }

    fn remember(&mut self) {
        if let Some((id, node)) = self.cursor.node() {
            self.builder.remember(id, node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::file;
    use super::super::{MemoryNodes, count, list};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Model = BTreeMap<Name, TreeItem>;

    fn edits_of(model: &Model) -> Vec<(Name, Option<TreeItem>)> {
        model.iter().map(|(name, item)| (name.clone(), Some(item.clone()))).collect()
    }

    fn check(nodes: &MemoryNodes, built: Built, model: &Model) {
        let anew = update(&MemoryNodes::new(), None, &edits_of(model)).unwrap();
        assert_eq!(built, anew);
        assert_eq!(built.count, model.len() as u64);
        assert_eq!(count(nodes, built.tree).unwrap(), built.count);
        assert_eq!(built.has_links, model.values().any(TreeItem::has_links));
        let listed: Vec<_> = list(nodes, built.tree, 0).map(Result::unwrap).collect();
        assert!(listed.iter().map(|(name, item)| (name, item)).eq(model));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn an_updated_directory_equals_one_built_anew(
            rounds in prop::collection::vec(prop::collection::btree_map(0u64..600, prop::option::weighted(0.6, 0u64..5), 0..200), 1..8)
        ) {
            let nodes = MemoryNodes::new();
            let mut model = Model::new();
            let mut built = Built::default();
            for round in rounds {
                let edits: BTreeMap<Name, Option<TreeItem>> = round
                    .into_iter()
                    .map(|(n, state)| (Name::of_identity(n), state.map(|s| if s == 4 { TreeItem::Link(n) } else { file(n + 2, &s.to_string()) })))
                    .collect();
                for (name, item) in &edits {
                    match item {
                        Some(item) => model.insert(name.clone(), item.clone()),
                        None => model.remove(name),
                    };
                }
                let edits: Vec<_> = edits.into_iter().collect();
                built = update(&nodes, built.tree, &edits).unwrap();
                check(&nodes, built, &model);
            }
        }
    }

    #[test]
    fn removing_names_one_by_one_keeps_the_canonical_form() {
        let nodes = MemoryNodes::new();
        let mut model: Model = (0..400).map(|n| (Name::of_identity(n), file(n + 2, "x"))).collect();
        let mut built = update(&nodes, None, &edits_of(&model)).unwrap();
        while let Some((name, _)) = model.pop_last() {
            built = update(&nodes, built.tree, &[(name, None)]).unwrap();
            check(&nodes, built, &model);
        }
        assert_eq!(built, Built::default());
    }

    #[test]
    fn one_change_among_100k_names_stores_and_reads_a_node_per_level() {
        let nodes = MemoryNodes::new();
        let model: Model = (0..100_000).map(|n| (Name::of_identity(n), file(n + 2, "x"))).collect();
        let built = update(&nodes, None, &edits_of(&model)).unwrap();
        let (mut stored, mut read, mut tried) = (0, 0, 0);
        for n in (0..100_000).step_by(997) {
            for item in [Some(file(n + 2, "other")), None] {
                let (nodes_before, reads_before) = (nodes.node_count(), nodes.read_count());
                update(&nodes, built.tree, &[(Name::of_identity(n), item)]).unwrap();
                stored = stored.max(nodes.node_count() - nodes_before);
                read = read.max(nodes.read_count() - reads_before);
                tried += 1;
            }
        }
        assert!(stored <= 8 && read <= 16, "{stored} stored, {read} read, {tried} tried");
    }

    #[test]
    fn edits_that_change_nothing_store_nothing() {
        struct NoPut(MemoryNodes);
        impl super::super::NodeSource for NoPut {
            fn node(&self, id: &ObjectId) -> Result<std::sync::Arc<crate::object::TreeNode>, TreeError> {
                self.0.node(id)
            }
            fn root(&self, id: &ObjectId) -> Result<crate::object::Root, TreeError> {
                self.0.root(id)
            }
        }
        impl NodeSink for NoPut {
            fn put_node(&self, _: &crate::object::TreeNode) -> Result<ObjectId, TreeError> {
                Err(TreeError::source("put"))
            }
            fn put_root(&self, _: &crate::object::Root) -> Result<ObjectId, TreeError> {
                Err(TreeError::source("put"))
            }
        }
        let nodes = MemoryNodes::new();
        let model: Model = (0..2000).map(|n| (Name::of_identity(n), file(n + 2, "x"))).collect();
        let built = update(&nodes, None, &edits_of(&model)).unwrap();
        let nodes = NoPut(nodes);
        for n in 0..500 {
            let same = model[&Name::of_identity(n)].clone();
            assert_eq!(update(&nodes, built.tree, &[(Name::of_identity(n), Some(same))]).unwrap(), built);
            assert_eq!(update(&nodes, built.tree, &[(Name::of_identity(n + 10_000), None)]).unwrap(), built);
        }
        assert_eq!(update(&nodes, built.tree, &[]).unwrap(), built);
        assert_eq!(update(&nodes, built.tree, &edits_of(&model)).unwrap(), built);
    }

    #[test]
    fn unsorted_edits_are_refused() {
        let twice = [(Name::of_identity(1), None), (Name::of_identity(1), None)];
        assert!(matches!(update(&MemoryNodes::new(), None, &twice), Err(TreeError::EditsUnsorted { .. })));
    }
}
