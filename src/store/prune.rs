//! What pruning asks of a backend, and what comes of it. Which sessions are to go is found first; each
//! step then looks again, in the transaction that deletes, and is small enough that nobody waits long
//! for it.

use crate::model::Page;

/// Sessions that may have to go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(clippy::missing_docs_in_private_items, reason = "a variant's docs have its fields")
)]
pub enum Candidates {
    /// Those with a record that are older than this time, of which their newest event tells, by
    /// `(created_at, id)`; destroyed before that one, if it is given.
    Idle { before: i64, destroyed_before: Option<i64> },
    /// Those of more events than this, by their ids.
    Large { max_events: u64 },
}

/// A page of candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidatesQuery {
    /// Which.
    pub of: Candidates,
    /// The last of the page before, as its cursor said.
    pub after: Option<Place>,
    /// At most so many.
    pub limit: u64,
}

/// The place of a candidate among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// When the session was created; 0 where order is by id alone.
    pub created_at: i64,
    /// Its id.
    pub id: String,
}

impl Place {
    /// As text.
    pub fn cursor(&self) -> String {
        format!("{} {}", self.created_at, self.id)
    }

    /// Out of such a text.
    pub fn parse(cursor: &str) -> Option<Self> {
        let (created_at, id) = cursor.split_once(' ')?;
        Some(Self { created_at: created_at.parse().ok()?, id: id.to_owned() })
    }
}

/// Some of the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneStep {
    /// These sessions, one after another, as far as a step goes.
    pub sessions: Vec<String>,
    /// What of them.
    pub what: Prune,
}

/// What is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(clippy::missing_docs_in_private_items, reason = "a variant's docs have its fields")
)]
pub enum Prune {
    /// Whole sessions, of which this is still so; and no more than would leave fewer than
    /// `more_than` records.
    Sessions { before: i64, destroyed_before: Option<i64>, more_than: Option<u64> },
    /// The oldest events, all but the newest so many; only of sessions that are older than `before`, if
    /// it is given.
    Events { keep: u64, before: Option<i64> },
}

/// What a step came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many of its sessions, from the first on, are done with.
    pub handled: u64,
    /// How many sessions went.
    pub sessions: u64,
    /// How many events went.
    pub events: u64,
    /// The bytes of the texts in the rows that went.
    pub bytes: u64,
    /// Nothing was done: another process prunes.
    pub is_elsewhere: bool,
}

impl Place {
    /// The ids of these places, and a cursor if there may be more.
    pub fn page(places: &[Self], limit: u64) -> Page {
        let ids: Vec<&str> = places.iter().map(|place| place.id.as_str()).collect();
        let is_full = u64::try_from(ids.len()).is_ok_and(|count| count >= limit);
        Page {
            arrays: vec![serde_json::to_string(&ids).expect("texts")],
            next_cursor: places.last().filter(|_| is_full).map(Self::cursor),
        }
    }
}

impl Pruned {
    /// Some events went too.
    pub fn note_events(&mut self, events: u64, bytes: u64) {
        self.events += events;
        self.bytes += bytes;
    }
}

impl PruneStep {
    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.sessions.iter().map(|id| id.len() + std::mem::size_of::<String>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_from_its_cursor() {
        let place = Place { created_at: -5, id: "a b".to_owned() };
        assert_eq!(Place::parse(&place.cursor()), Some(place));
        assert_eq!(Place::parse("x y"), None);
        assert_eq!(Place::parse("5"), None);
    }
}
