//! Knows when the daemon has nothing to do, so that it can give its memory back.

/// With less processor time than this between two looks nobody asks for anything; the looks themselves take less.
const IDLE_MILLIS: u64 = 50;

/// Looks at how much the process works.
#[derive(Debug, Default)]
pub struct Rest {
    last_millis: u64,
    is_resting: bool,
}

impl Rest {
    /// Says, once after every time of work, that it is over. `used_millis` is what the process has used of the processor by now.
    pub fn is_due(&mut self, used_millis: u64) -> bool {
        let works = used_millis.saturating_sub(self.last_millis) >= IDLE_MILLIS;
        self.last_millis = used_millis;
        let is_due = !works && !self.is_resting;
        self.is_resting = !works;
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::Rest;

    #[test]
    fn rest_comes_once_after_work() {
        let mut rest = Rest::default();
        let seen: Vec<bool> = [100, 200, 201, 202, 300, 305, 306].into_iter().map(|used| rest.is_due(used)).collect();
        assert_eq!(seen, [false, false, true, false, false, true, false]);
    }
}
