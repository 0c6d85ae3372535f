//! What holds for every two states that grew out of one.

use super::super::*;
use super::bench::{Bench, identities};
use crate::tree::report;
use crate::tree::testing::TestState;
use proptest::prelude::*;
use std::collections::BTreeMap;

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
