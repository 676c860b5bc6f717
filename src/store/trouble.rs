//! Trouble that no call has failed from, or not yet: what its user should hear of before.

use std::time::{Duration, Instant};

use crate::error::StoreError;

/// What is waited for this long is no hiccup any more.
pub const NOTICEABLE: Duration = Duration::from_secs(2);

/// What a store does besides answering calls, or before it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// To make attempts again and again, or to wait for a lock: calls wait.
    Retry,
    /// To copy the WAL into the database: meanwhile the WAL grows.
    Checkpoint,
    /// To empty the WAL of what was deleted.
    Erasure,
}

impl Activity {
    /// What users know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Checkpoint => "checkpoint",
            Self::Erasure => "secureDelete",
        }
    }
}

/// What went wrong in what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What is in trouble.
    pub activity: Activity,
    /// How the last try failed.
    pub error: StoreError,
}

/// Since when there is trouble without a success in between, and whether that was told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lasting {
    since: Option<Instant>,
    is_told: bool,
}

impl Lasting {
    /// Another try has failed. Whether it is to be told now: once, when it has lasted this long.
    pub fn note(&mut self, now: Instant, tell_after: Duration) -> bool {
        let since = *self.since.get_or_insert(now);
        let is_to_tell = !self.is_told && now.duration_since(since) >= tell_after;
        self.is_told |= is_to_tell;
        is_to_tell
    }

    /// A try that began then waits still; see [`Self::note`].
    pub fn note_since(&mut self, begun: Instant, now: Instant, tell_after: Duration) -> bool {
        self.since = Some(self.since.map_or(begun, |since| since.min(begun)));
        self.note(now, tell_after)
    }

    /// One has succeeded.
    pub fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_once_for_as_long_as_it_lasts() {
        let mut lasting = Lasting::default();
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        assert!(!lasting.note(after(0), NOTICEABLE));
        assert!(!lasting.note(after(1_999), NOTICEABLE));
        assert!(lasting.note(after(2_000), NOTICEABLE));
        assert!(!lasting.note(after(9_000), NOTICEABLE));
        lasting.end();
        assert!(!lasting.note(after(9_001), NOTICEABLE));
        assert!(lasting.note(after(11_001), NOTICEABLE));
    }

    #[test]
    fn a_wait_counts_from_its_beginning() {
        let mut lasting = Lasting::default();
        let start = Instant::now();
        assert!(lasting.note_since(start, start + NOTICEABLE, NOTICEABLE));
    }
}
