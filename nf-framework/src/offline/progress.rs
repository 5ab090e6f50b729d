//! How far a replay is: a bar on stderr if that is a terminal, else a line of the log now and then.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const ON_A_TERMINAL: Duration = Duration::from_millis(100);
const ELSEWHERE: Duration = Duration::from_secs(5);
/// Looking at the clock for every burst would cost more than it is worth.
const BURSTS: u32 = 64;
const WIDTH: usize = 40;

/// What is shown of how far it is.
#[derive(Debug)]
pub(super) struct Progress {
    /// Bytes to be read.
    length: Option<u64>,
    is_terminal: bool,
    next: Instant,
    bursts: u32,
    is_drawn: bool,
}

impl Progress {
    pub(super) fn new(length: Option<u64>) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let first = if is_terminal { ON_A_TERMINAL } else { ELSEWHERE };
        Self { length, is_terminal, next: Instant::now() + first, bursts: 0, is_drawn: false }
    }

    /// Shows it, now and then, if it is time to.
    pub(super) fn burst(&mut self, position: u64, packets: u64) {
        self.bursts = self.bursts.wrapping_add(1);
        if self.bursts.is_multiple_of(BURSTS) {
            self.show(position, packets);
        }
    }

    /// Shows it if it is time to.
    pub(super) fn show(&mut self, position: u64, packets: u64) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + if self.is_terminal { ON_A_TERMINAL } else { ELSEWHERE };
        let text = text(position, self.length, packets);
        if !self.is_terminal {
            return log::info!("{text}");
        }
        self.is_drawn = true;
        let mut stderr = std::io::stderr().lock();
        // Whether anybody sees it changes nothing.
        let _ = write!(stderr, "\r{}{text}\x1b[K", bar(position, self.length)).and_then(|()| stderr.flush());
    }

    /// Takes the bar away.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

fn percent(position: u64, length: u64) -> u64 {
    position.saturating_mul(100).checked_div(length).unwrap_or(100).min(100)
}

fn text(position: u64, length: Option<u64>, packets: u64) -> String {
    match length {
        Some(length) => format!("{} %, {packets} packets", percent(position, length)),
        None => format!("{packets} packets"),
    }
}

fn bar(position: u64, length: Option<u64>) -> String {
    let Some(length) = length else { return String::new() };
    let done = usize::try_from(percent(position, length)).unwrap_or(100) * WIDTH / 100;
    format!("[{}{}] ", "#".repeat(done), "-".repeat(WIDTH - done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_what_is_done() {
        let half = format!("[{}{}] ", "#".repeat(20), "-".repeat(20));
        assert_eq!((bar(50, Some(100)), text(50, Some(100), 7)), (half, "50 %, 7 packets".to_owned()));
        assert_eq!((bar(9, None), text(9, None, 7)), (String::new(), "7 packets".to_owned()));
        assert_eq!(text(0, Some(0), 0), "100 %, 0 packets", "of an empty file");
        assert_eq!(text(u64::MAX, Some(1), 0), "100 %, 0 packets", "of one that grows");
    }
}
