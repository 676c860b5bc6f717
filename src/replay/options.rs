//! What a replay window may hold.

use super::text::DEFAULT_MAX_CHARS;

/// Which end of the history is kept where not all of it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// The end, which an agent needs most.
    #[default]
    Newest,
    /// The beginning of the last events, as the SDK does.
    Oldest,
}

/// See the fields. All lengths are in UTF-16 units, as JavaScript's `length` counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayOptions {
    /// At most this many events result; at least 1. Default: 50, as the SDK's.
    pub max_events: usize,
    /// How long the text may be. Default: 12,000, as the SDK's.
    pub max_chars: usize,
    /// Default: the newest.
    pub keep: Keep,
    /// Whether chunks of a text become one event, and a tool call and its updates. Default: yes.
    pub coalesce: bool,
    /// Longer strings of an event lose their middle. Default: 2,000.
    pub max_chars_per_event: usize,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self {
            max_events: 50,
            max_chars: DEFAULT_MAX_CHARS,
            keep: Keep::default(),
            coalesce: true,
            max_chars_per_event: 2_000,
        }
    }
}

impl ReplayOptions {
    /// Whether replays that the SDK has put into prompts are left in them: only where the window is
    /// the SDK's own.
    pub fn keeps_earlier_replays(&self) -> bool {
        self.keep == Keep::Oldest && !self.coalesce
    }
}
