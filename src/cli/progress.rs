//! Progress bars on a terminal; silence elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(100);

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

/// Shows a spinner with `what` while `work` runs.
pub fn spinning<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let bar = ProgressBar::with_draw_target(None, target());
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(TICK);
    let done = work();
    bar.finish_and_clear();
    done
}

/// Returns a bar that counts bytes.
pub fn bytes(what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), target());
    let style = "{msg} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(TICK);
    bar
}

/// Returns a bar for work that says by itself what it is at.
pub fn steps() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), target());
    let style = "checking {msg} [{bar:32}] {pos}/{len}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(TICK);
    bar
}

/// Shows how far the work is.
pub fn step(bar: &ProgressBar, what: &str, done: u64, total: u64) {
    if bar.message() != what {
        bar.set_message(what.to_owned());
    }
    bar.set_length(total.max(done));
    bar.set_position(done);
}
