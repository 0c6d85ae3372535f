//! The difference of two directories, one level only.

use super::cursor::{Cursor, Piece};
use super::{NodeSource, TreeError};
use crate::object::{Name, ObjectId, TreeItem};
use std::cmp::Ordering;

/// One name that two versions of a directory do not have alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemChange {
    /// The name.
    pub name: Name,
    /// What it stood for; absent when it came.
    pub old: Option<TreeItem>,
    /// What it stands for; absent when it went.
    pub new: Option<TreeItem>,
}

/// Compares two versions of a directory and returns the names that differ in anything, in name order.
///
/// Looks at this directory only, not below it, and only into nodes that are not in both.
pub fn diff(source: &dyn NodeSource, old: Option<ObjectId>, new: Option<ObjectId>) -> Result<Vec<ItemChange>, TreeError> {
    let mut changes = Vec::new();
    if old == new {
        return Ok(changes);
    }
    let mut old = Cursor::new(source, old)?;
    let mut new = Cursor::new(source, new)?;
    while let Some(step) = decide(old.peek(), new.peek()) {
        match step {
            Step::Same => {
                old.advance();
                new.advance();
            }
            Step::Open { in_old, in_new } => {
                if in_old {
                    old.open()?;
                }
                if in_new {
                    new.open()?;
                }
            }
            Step::Change { in_old, in_new } => changes.extend(take_change(&mut old, in_old, &mut new, in_new)),
        }
    }
    Ok(changes)
}

enum Step {
    Same,
    Open { in_old: bool, in_new: bool },
    Change { in_old: bool, in_new: bool },
}

fn decide(old: Option<Piece<'_>>, new: Option<Piece<'_>>) -> Option<Step> {
    Some(match (old, new) {
        (None, None) => return None,
        (Some(Piece::Subtree(old, old_level)), Some(Piece::Subtree(new, new_level))) => {
            if old.id == new.id {
                Step::Same
            } else {
                Step::Open { in_old: old_level >= new_level, in_new: new_level >= old_level }
            }
        }
        (Some(Piece::Subtree(..)), _) => Step::Open { in_old: true, in_new: false },
        (_, Some(Piece::Subtree(..))) => Step::Open { in_old: false, in_new: true },
        (Some(Piece::Item(..)), None) => Step::Change { in_old: true, in_new: false },
        (None, Some(Piece::Item(..))) => Step::Change { in_old: false, in_new: true },
        (Some(Piece::Item(old_name, old)), Some(Piece::Item(new_name, new))) => match old_name.cmp(new_name) {
            Ordering::Less => Step::Change { in_old: true, in_new: false },
            Ordering::Greater => Step::Change { in_old: false, in_new: true },
            Ordering::Equal if old == new => Step::Same,
            Ordering::Equal => Step::Change { in_old: true, in_new: true },
        },
    })
}

fn take_change(old: &mut Cursor<'_>, in_old: bool, new: &mut Cursor<'_>, in_new: bool) -> Option<ItemChange> {
    let old_item = if in_old { take_item(old) } else { None };
    let new_item = if in_new { take_item(new) } else { None };
    let name = new_item.as_ref().or(old_item.as_ref()).map(|(name, _)| name.clone())?;
    Some(ItemChange { name, old: old_item.map(|(_, item)| item), new: new_item.map(|(_, item)| item) })
}

fn take_item(cursor: &mut Cursor<'_>) -> Option<(Name, TreeItem)> {
    let item = cursor.item();
    cursor.advance();
    item
}

#[cfg(test)]
mod tests {
    use super::super::testing::file;
    use super::super::{MemoryNodes, update};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Model = BTreeMap<Name, TreeItem>;

    fn tree_of(nodes: &MemoryNodes, model: &Model) -> Option<ObjectId> {
        let edits: Vec<_> = model.iter().map(|(name, item)| (name.clone(), Some(item.clone()))).collect();
        update(nodes, None, &edits).unwrap().tree
    }

    fn model_diff(old: &Model, new: &Model) -> Vec<ItemChange> {
        let mut names: Vec<&Name> = old.keys().chain(new.keys()).collect();
        names.sort();
        names.dedup();
        let change = |name: &Name| ItemChange { name: name.clone(), old: old.get(name).cloned(), new: new.get(name).cloned() };
        names.into_iter().map(change).filter(|change| change.old != change.new).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn the_difference_is_that_of_the_names(
            base in prop::collection::btree_map(0u64..2000, 0u64..3, 0..800),
            edits in prop::collection::btree_map(0u64..2000, prop::option::of(0u64..3), 0..40),
        ) {
            let model = |map: &BTreeMap<u64, u64>| -> Model {
                map.iter().map(|(n, state)| (Name::of_identity(*n), file(n + 2, &state.to_string()))).collect()
            };
            let mut changed = base.clone();
            for (n, state) in edits {
                match state {
                    Some(state) => changed.insert(n, state),
                    None => changed.remove(&n),
                };
            }
            let (old, new) = (model(&base), model(&changed));
            let nodes = MemoryNodes::new();
            let (old_tree, new_tree) = (tree_of(&nodes, &old), tree_of(&nodes, &new));
            prop_assert_eq!(diff(&nodes, old_tree, new_tree).unwrap(), model_diff(&old, &new));
        }
    }

    #[test]
    fn one_change_among_20k_names_is_found_in_a_few_nodes() {
        let nodes = MemoryNodes::new();
        let model: Model = (0..20_000).map(|n| (Name::of_identity(n), file(n + 2, "x"))).collect();
        let old = tree_of(&nodes, &model);
        for n in (0..20_000).step_by(499) {
            for item in [Some(file(n + 2, "other")), None] {
                let new = update(&nodes, old, &[(Name::of_identity(n), item)]).unwrap().tree;
                let reads = nodes.read_count();
                assert_eq!(diff(&nodes, old, new).unwrap().len(), 1);
                assert!(nodes.read_count() - reads <= 20, "{} reads", nodes.read_count() - reads);
            }
        }
    }
}
