//! Whether an application is in the middle of something: which of its writes and `getSession`s, the
//! calls that make up the course of a session, are outstanding. Lists and streams don't count, as
//! who only looks is in the middle of nothing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::store::Operation;

/// The activity of one driver.
#[derive(Default)]
pub struct Activity {
    hasher: RandomState,
    outstanding: Cell<usize>,
    /// How many calls of each session are outstanding. By a hash: two sessions that collide only
    /// wait for each other needlessly.
    of_session: RefCell<HashMap<u64, usize, RandomState>>,
    /// When the last of these calls began or ended.
    last: Cell<Option<Instant>>,
}

/// A call that counts, by its sessions.
pub struct Active(SmallVec<[u64; 1]>);

impl Activity {
    /// A call begins. `None` if it doesn't count.
    pub fn begin(&self, operation: &Operation, now: Instant) -> Option<Active> {
        let mut sessions: SmallVec<[u64; 1]> = SmallVec::new();
        operation.each_active_session(|id| sessions.push(self.hasher.hash_one(id)));
        sessions.sort_unstable();
        sessions.dedup();
        if sessions.is_empty() {
            return None;
        }
        let mut of_session = self.of_session.borrow_mut();
        for session in &sessions {
            *of_session.entry(*session).or_default() += 1;
        }
        self.outstanding.set(self.outstanding.get() + 1);
        self.last.set(Some(now));
        Some(Active(sessions))
    }

    /// That call has ended.
    pub fn end(&self, Active(sessions): Active, now: Instant) {
        let mut of_session = self.of_session.borrow_mut();
        for session in sessions {
            if let Some(count) = of_session.get_mut(&session) {
                *count -= 1;
                if *count == 0 {
                    of_session.remove(&session);
                }
            }
        }
        self.outstanding.set(self.outstanding.get().saturating_sub(1));
        self.last.set(Some(now));
    }

    /// Whether no call of this session is outstanding.
    pub fn is_at_rest(&self, session_id: &str) -> bool {
        let of_session = self.of_session.borrow();
        of_session.is_empty() || !of_session.contains_key(&self.hasher.hash_one(session_id))
    }

    /// How long there has been nothing; `None` while calls are outstanding.
    pub fn quiet(&self, now: Instant) -> Option<Duration> {
        if self.outstanding.get() > 0 {
            return None;
        }
        Some(self.last.get().map_or(Duration::MAX, |last| now.duration_since(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[test]
    fn a_session_is_at_rest_when_its_last_call_has_ended() {
        let activity = Activity::default();
        let now = Instant::now();
        assert_eq!(activity.quiet(now), Some(Duration::MAX));
        let insert = activity.begin(&testing::insert("s", 1), now).unwrap();
        let get = activity.begin(&testing::get("s"), now).unwrap();
        assert!(activity.begin(&testing::list("s"), now).is_none());
        assert!(!activity.is_at_rest("s") && activity.is_at_rest("t"));
        activity.end(insert, now);
        assert!(!activity.is_at_rest("s"));
        assert_eq!(activity.quiet(now), None);
        activity.end(get, now);
        assert!(activity.is_at_rest("s"));
        assert_eq!(activity.quiet(now + Duration::from_secs(1)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_call_of_several_sessions_is_a_call_of_each() {
        let activity = Activity::default();
        let events = vec![testing::event("a", "s", 1), testing::event("b", "t", 1)];
        let now = Instant::now();
        let active = activity.begin(&testing::insert_all(events), now).unwrap();
        assert!(!activity.is_at_rest("s") && !activity.is_at_rest("t"));
        activity.end(active, now);
        assert!(activity.is_at_rest("s") && activity.is_at_rest("t"));
    }
}
