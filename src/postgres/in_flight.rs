//! When the next batch may go out.
//!
//! What goes together shares the cost of a message, a transaction and a server process woken. So
//! while two batches have just gone out, what arrives waits for company; but not for long: the
//! server may be far away, or a batch be waiting for a lock.

use std::time::{Duration, Instant};

/// While so many have gone out recently, the next waits.
const MAX_RECENT: usize = 2;
const RECENT: Duration = Duration::from_millis(20);

/// The batches of one kind that are in flight: sent and not done with.
#[derive(Debug)]
pub struct InFlight {
    /// When each was sent.
    sent: Vec<Instant>,
    max: usize,
}

impl InFlight {
    /// At most `max` at a time.
    pub fn new(max: usize) -> Self {
        Self { sent: Vec::new(), max }
    }

    /// Whether one more may be sent now.
    pub fn has_room(&self, now: Instant) -> bool {
        let recent = self.sent.iter().filter(|sent| now.duration_since(**sent) < RECENT).count();
        self.sent.len() < self.max && recent < MAX_RECENT
    }

    /// When there is room without one being done with, if there isn't now.
    pub fn next_room(&self, now: Instant) -> Option<Instant> {
        let no_longer_recent = self.sent.iter().map(|sent| *sent + RECENT);
        no_longer_recent.filter(|then| *then > now && self.sent.len() < self.max).min()
    }

    /// One is sent.
    pub fn start(&mut self, now: Instant) {
        self.sent.push(now);
    }

    /// The one that was sent then is done with.
    pub fn end(&mut self, sent: Instant) {
        if let Some(place) = self.sent.iter().position(|other| *other == sent) {
            self.sent.swap_remove(place);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_waits_until_one_is_done_with_or_no_longer_recent() {
        let mut in_flight = InFlight::new(8);
        let start = Instant::now();
        in_flight.start(start);
        in_flight.start(start + RECENT / 2);
        assert!(!in_flight.has_room(start + RECENT / 2));
        assert_eq!(in_flight.next_room(start + RECENT / 2), Some(start + RECENT));
        assert!(in_flight.has_room(start + RECENT));
        in_flight.end(start);
        assert!(in_flight.has_room(start + RECENT / 2));
    }

    #[test]
    fn there_are_never_more_than_the_most() {
        let mut in_flight = InFlight::new(1);
        let start = Instant::now();
        in_flight.start(start);
        assert!(!in_flight.has_room(start + RECENT));
        assert_eq!(in_flight.next_room(start), None);
        in_flight.end(start);
        assert!(in_flight.is_empty());
    }
}
