//! When the next batch may go out.
//!
//! What goes together shares the cost of a message, a transaction and a server process woken. So
//! while two batches have just gone out, what arrives waits for company; but not for long: the server
//! may be far away, or a batch be waiting for a lock.

use std::time::{Duration, Instant};

const MAX_YOUNG: usize = 2;
const YOUTH: Duration = Duration::from_millis(20);

/// The batches of one kind that are under way.
#[derive(Debug)]
pub struct Flight {
    /// When each went out.
    since: Vec<Instant>,
    max: usize,
}

impl Flight {
    /// At most `max` at a time.
    pub fn new(max: usize) -> Self {
        Self { since: Vec::new(), max }
    }

    /// Whether one more may go out now.
    pub fn has_room(&self, now: Instant) -> bool {
        let young = self.since.iter().filter(|since| now.duration_since(**since) < YOUTH).count();
        self.since.len() < self.max && young < MAX_YOUNG
    }

    /// When there is room without one coming back, if there isn't now.
    pub fn next_room(&self, now: Instant) -> Option<Instant> {
        let coming_of_age = self.since.iter().map(|since| *since + YOUTH);
        coming_of_age.filter(|age| *age > now && self.since.len() < self.max).min()
    }

    /// One goes out.
    pub fn depart(&mut self, now: Instant) {
        self.since.push(now);
    }

    /// The one that went out then is back.
    pub fn arrive(&mut self, departed: Instant) {
        if let Some(place) = self.since.iter().position(|since| *since == departed) {
            self.since.swap_remove(place);
        }
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.since.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_waits_until_one_is_back_or_not_young_any_more() {
        let mut flight = Flight::new(8);
        let start = Instant::now();
        flight.depart(start);
        flight.depart(start + YOUTH / 2);
        assert!(!flight.has_room(start + YOUTH / 2));
        assert_eq!(flight.next_room(start + YOUTH / 2), Some(start + YOUTH));
        assert!(flight.has_room(start + YOUTH));
        flight.arrive(start);
        assert!(flight.has_room(start + YOUTH / 2));
    }

    #[test]
    fn there_are_never_more_than_the_most() {
        let mut flight = Flight::new(1);
        let start = Instant::now();
        flight.depart(start);
        assert!(!flight.has_room(start + YOUTH));
        assert_eq!(flight.next_room(start), None);
        flight.arrive(start);
        assert!(flight.is_empty());
    }
}
