//! Steps that take a while, with the time that each took.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::ProgressBar;

/// Between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(100);

/// Does one step under a spinner; where nobody watches, a line at its end.
pub async fn step<T>(doing: String, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let spinner = if stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    spinner.set_message(doing.clone());
    spinner.enable_steady_tick(TICK);
    let result = work.await;
    spinner.finish_and_clear();
    eprintln!("{doing}: {:.2} s", begun.elapsed().as_secs_f64());
    result
}
