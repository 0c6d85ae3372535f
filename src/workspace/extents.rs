//! Which ranges of a file were written since its last clean state.

use std::collections::BTreeMap;
use std::ops::Range;

/// What a range of a dirty file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// The staging file holds the bytes, at the same offset.
    Data,
    /// Reads as zeros and takes no space.
    Hole,
    /// Reads as zeros; space was asked for with fallocate(2).
    Zero,
}

/// A map of disjoint ranges; what no range covers lies in the layer below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentMap {
    /// Start of each range, its end and what it holds. Neighbours of the same kind are merged.
    ranges: BTreeMap<u64, (u64, Fill)>,
}

impl ExtentMap {
    /// Sets `range` to `fill`, over whatever it covered.
    pub fn set(&mut self, range: Range<u64>, fill: Fill) {
        if range.is_empty() {
            return;
        }
        self.clear(range.clone());
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&before, &(before_end, kind))) = self.ranges.range(..start).next_back()
            && before_end == start
            && kind == fill
        {
            start = before;
        }
        if let Some(&(after_end, kind)) = self.ranges.get(&end)
            && kind == fill
        {
            self.ranges.remove(&end);
            end = after_end;
        }
        self.ranges.insert(start, (end, fill));
    }

    /// Removes what is known about `range`.
    pub fn clear(&mut self, range: Range<u64>) {
        let from = self.ranges.range(..range.start).next_back().map_or(range.start, |(&start, _)| start);
        let touched: Vec<_> = self.ranges.range(from..range.end).map(|(&start, &(end, fill))| (start, end, fill)).collect();
        for (start, end, fill) in touched {
            if end <= range.start {
                continue;
            }
            self.ranges.remove(&start);
            if start < range.start {
                self.ranges.insert(start, (range.start, fill));
            }
            if end > range.end {
                self.ranges.insert(range.end, (end, fill));
            }
        }
    }

    /// Says of how many ranges it consists.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Returns the pieces of `range` in order; `None` stands for the layer below.
    pub fn pieces(&self, range: Range<u64>) -> Vec<(Range<u64>, Option<Fill>)> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        let from = self.ranges.range(..=at).next_back().map_or(at, |(&start, _)| start);
        for (&start, &(end, fill)) in self.ranges.range(from..range.end) {
            if end <= at {
                continue;
            }
            if start > at {
                pieces.push((at..start, None));
                at = start;
            }
            let stop = end.min(range.end);
            pieces.push((at..stop, Some(fill)));
            at = stop;
        }
        if at < range.end {
            pieces.push((at..range.end, None));
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: usize = 64;

    fn fill() -> impl Strategy<Value = Option<Fill>> {
        prop_oneof![Just(None), Just(Some(Fill::Data)), Just(Some(Fill::Hole)), Just(Some(Fill::Zero))]
    }

    proptest! {
        #[test]
        fn the_map_agrees_with_an_array(steps in prop::collection::vec((0..SIZE as u64, 0..SIZE as u64, fill()), 0..40)) {
            let mut map = ExtentMap::default();
            let mut model = [None; SIZE];
            for (from, to, fill) in steps {
                let range = from.min(to)..from.max(to);
                model[range.start as usize..range.end as usize].fill(fill);
                match fill {
                    Some(fill) => map.set(range, fill),
                    None => map.clear(range),
                }
            }
            let mut seen = Vec::new();
            for (range, fill) in map.pieces(0..SIZE as u64) {
                prop_assert_eq!(range.start as usize, seen.len());
                seen.extend(range.map(|_| fill));
            }
            prop_assert_eq!(&seen[..], &model[..]);
        }
    }
}
