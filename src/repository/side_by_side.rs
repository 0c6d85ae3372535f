//! One piece of work on several threads.

/// Runs `work` on as many threads at once as the machine has cores when `pays`, and on this one alone otherwise; returns all of
/// what they returned. Each shall take what it works on from a place that all share. A panic of one is a panic of the caller.
pub fn side_by_side<T: Send, E: Send>(pays: bool, work: impl Fn() -> Result<Vec<T>, E> + Sync) -> Result<Vec<T>, E> {
    let threads = if pays { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 };
    if threads == 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let helper = || {
            crate::sys::give_way(); // The processor belongs to whoever waits for a file operation.
            work()
        };
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(helper)).collect();
        let mut all = work();
        for helper in helpers {
            let part = helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all = all.and_then(|mut all| part.map(|part| all.extend(part)).map(|()| all));
        }
        all
    })
}
