//! Which checkpoints may go when there are rules: a pure choice over their times.

use crate::object::{ObjectId, Timestamp};
use std::collections::HashSet;

/// How many checkpoints are kept. A rule that is absent keeps nothing by itself; without any rule nothing is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepRules {
    /// This many of the newest.
    pub last: Option<u32>,
    /// The newest of each of this many hours that have one.
    pub hourly: Option<u32>,
    /// The newest of each of this many days that have one.
    pub daily: Option<u32>,
    /// The newest of each of this many weeks that have one.
    pub weekly: Option<u32>,
}

const HOUR_SECS: i64 = 3600;
const DAY_SECS: i64 = 24 * HOUR_SECS;
const WEEK_SECS: i64 = 7 * DAY_SECS;

/// Returns those of `checkpoints` (newest first, without named, linked and current ones) that no rule keeps.
pub fn removable(checkpoints: &[(ObjectId, Timestamp)], rules: &KeepRules) -> Vec<ObjectId> {
    if *rules == KeepRules::default() {
        return Vec::new();
    }
    let mut kept: HashSet<ObjectId> = checkpoints.iter().take(rules.last.unwrap_or(0) as usize).map(|(id, _)| *id).collect();
    for (count, secs) in [(rules.hourly, HOUR_SECS), (rules.daily, DAY_SECS), (rules.weekly, WEEK_SECS)] {
        let mut periods = HashSet::new();
        for (id, time) in checkpoints {
            let period = time.secs.div_euclid(secs);
            if periods.len() < count.unwrap_or(0) as usize && periods.insert(period) {
                kept.insert(*id);
            }
        }
    }
    checkpoints.iter().map(|(id, _)| *id).filter(|id| !kept.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> (ObjectId, Timestamp) {
        (ObjectId::of(&secs.to_le_bytes()), Timestamp { secs, nanos: 0 })
    }

    #[test]
    fn without_rules_nothing_may_go() {
        assert_eq!(removable(&[at(5), at(1)], &KeepRules::default()), []);
    }

    #[test]
    fn each_rule_keeps_the_newest_of_its_periods() {
        let all = [at(7300), at(7250), at(3700), at(100), at(-1)];
        let gone = |rules| removable(&all, &rules);
        assert_eq!(gone(KeepRules { last: Some(2), ..Default::default() }), [all[2].0, all[3].0, all[4].0]);
        assert_eq!(gone(KeepRules { hourly: Some(2), ..Default::default() }), [all[1].0, all[3].0, all[4].0]);
        assert_eq!(gone(KeepRules { daily: Some(9), ..Default::default() }), [all[1].0, all[2].0, all[3].0]);
    }
}
