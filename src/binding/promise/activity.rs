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

/// Who was used within this time is in use.
const LATELY: Duration = Duration::from_secs(60 * 60);
/// With so many sessions, those that aren't in use are forgotten.
const MANY: usize = 10_000;

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
    /// When the last of each session began.
    uses: RefCell<Uses>,
    growth: RefCell<Growth>,
}

/// How many events each session has got, where somebody watches.
#[derive(Default)]
struct Growth {
    /// After so many, a session has grown; `None` while nobody watches.
    threshold: Option<f64>,
    /// Since somebody asked last.
    inserted: HashMap<String, f64, RandomState>,
    grown: Vec<String>,
    /// There were too many to remember.
    has_forgotten: bool,
}

/// See [`Activity`].
struct Uses {
    /// By the session's hash.
    last: HashMap<u64, Instant, RandomState>,
    /// At this size it is looked through.
    max: usize,
}

/// A call that counts, by its sessions.
pub struct Active(SmallVec<[u64; 1]>);

impl Default for Uses {
    fn default() -> Self {
        Self { last: HashMap::default(), max: MANY }
    }
}

impl Growth {
    fn note(&mut self, session_id: &str) {
        let Some(threshold) = self.threshold else { return };
        let Some(inserted) = self.inserted.get_mut(session_id) else {
            if self.inserted.len() >= MANY {
                self.inserted.clear();
                self.has_forgotten = true;
            }
            self.inserted.insert(session_id.to_owned(), 1.0);
            return self.note_grown(session_id, 1.0, threshold);
        };
        *inserted += 1.0;
        let inserted = *inserted;
        self.note_grown(session_id, inserted, threshold);
    }

    fn note_grown(&mut self, session_id: &str, inserted: f64, threshold: f64) {
        if inserted >= threshold {
            self.inserted.insert(session_id.to_owned(), 0.0);
            self.grown.push(session_id.to_owned());
        }
    }

    fn take_written(&mut self) -> Option<Vec<String>> {
        let written = std::mem::take(&mut self.inserted).into_keys().collect();
        (!std::mem::take(&mut self.has_forgotten)).then_some(written)
    }
}

impl Uses {
    fn note(&mut self, session: u64, now: Instant) {
        self.last.insert(session, now);
        if self.last.len() > self.max {
            self.last.retain(|_, last| now.duration_since(*last) < LATELY);
            self.max = MANY.max(2 * self.last.len());
        }
    }
}

impl Activity {
    /// Whether a call of this session began within the last hour.
    pub fn was_used_lately(&self, session_id: &str, now: Instant) -> bool {
        let last = self.uses.borrow().last.get(&self.hasher.hash_one(session_id)).copied();
        last.is_some_and(|last| now.duration_since(last) < LATELY)
    }

    /// Sessions that have got so many events from here on are remembered.
    pub fn watch_growth(&self, events: f64) {
        self.growth.borrow_mut().threshold = Some(events);
    }

    /// The ids of these sessions since the last call.
    pub fn take_grown(&self) -> Vec<String> {
        std::mem::take(&mut self.growth.borrow_mut().grown)
    }

    /// The ids of sessions that have got any event since the last call; `None` if they were too many.
    pub fn take_written(&self) -> Option<Vec<String>> {
        self.growth.borrow_mut().take_written()
    }

    /// A call begins. `None` if it doesn't count.
    pub fn begin(&self, operation: &Operation, now: Instant) -> Option<Active> {
        if let Operation::Write(write) = operation {
            let mut growth = self.growth.borrow_mut();
            write.each_event(|event| growth.note(&event.session_id));
        }
        let mut sessions: SmallVec<[u64; 1]> = SmallVec::new();
        operation.each_active_session(|id| sessions.push(self.hasher.hash_one(id)));
        sessions.sort_unstable();
        sessions.dedup();
        if sessions.is_empty() {
            return None;
        }
        sessions.iter().for_each(|session| self.uses.borrow_mut().note(*session, now));
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
    fn a_session_is_in_use_for_an_hour_after_a_call() {
        let (activity, now) = (Activity::default(), Instant::now());
        let insert = activity.begin(&testing::insert("s", 1), now).unwrap();
        activity.end(insert, now);
        assert!(activity.was_used_lately("s", now) && !activity.was_used_lately("t", now));
        assert!(!activity.was_used_lately("s", now + LATELY));
    }

    #[test]
    fn sessions_that_get_events_are_remembered_where_somebody_watches() {
        let (activity, now) = (Activity::default(), Instant::now());
        let insert = |session: &str| drop(activity.begin(&testing::insert(session, 1), now));
        insert("a");
        assert_eq!(activity.take_written(), Some(Vec::new()));
        activity.watch_growth(2.0);
        ["a", "b", "a"].into_iter().for_each(insert);
        assert_eq!(activity.take_grown(), ["a"]);
        let mut written = activity.take_written().unwrap();
        written.sort_unstable();
        assert_eq!(written, ["a", "b"]);
        assert_eq!(activity.take_written(), Some(Vec::new()));
        (0..=MANY).for_each(|number| insert(&number.to_string()));
        assert_eq!(activity.take_written(), None);
    }

    #[test]
    fn uses_that_are_long_past_are_forgotten() {
        let (mut uses, now) = (Uses { max: 2, ..Uses::default() }, Instant::now());
        let later = now + LATELY;
        [1, 2].into_iter().for_each(|session| uses.note(session, now));
        [3, 4].into_iter().for_each(|session| uses.note(session, later));
        let mut kept: Vec<u64> = uses.last.into_keys().collect();
        kept.sort_unstable();
        assert_eq!(kept, [3, 4]);
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
