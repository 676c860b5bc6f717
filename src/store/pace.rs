//! How much of a long work to do at a time, so that nobody waits long for its lock. Pure.

use std::time::Duration;

/// How long a step should hold the lock that others wait for.
const STEP_TIME: Duration = Duration::from_millis(20);
/// A step takes at least this many rows …
const MIN_ROWS: usize = 50;
/// … and at most this many, which the first is on the way to.
const MAX_ROWS: usize = 1_000;
const FIRST_ROWS: usize = 250;

/// How many rows the next step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    rows: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rows: FIRST_ROWS }
    }
}

impl Pace {
    /// How many rows the next step takes.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// A step of so many took this long.
    pub fn note(&mut self, took: Duration) {
        let micros = |time: Duration| usize::try_from(time.as_micros()).unwrap_or(usize::MAX);
        let rows = self.rows.saturating_mul(micros(STEP_TIME)) / micros(took).max(1);
        self.rows = rows.clamp(MIN_ROWS, MAX_ROWS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_the_time_that_they_take_within_their_bounds() {
        for (rows, took_ms, next) in [
            (250, 5, 1_000),
            (1_000, 40, 500),
            (1_000, 20, 1_000),
            (100, 4_000, 50),
            (50, 0, 1_000),
        ] {
            let mut pace = Pace { rows };
            pace.note(Duration::from_millis(took_ms));
            assert_eq!(pace.rows(), next, "{rows} rows took {took_ms} ms");
        }
    }
}
