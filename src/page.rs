//! A page of a list, built from rows of any backend.

use crate::cursor::{self, Position};
use crate::json::{self, ArrayWriter};
use crate::model::{EventRow, Number, Page, SessionRow};

/// The name that the cursors of the list of sessions carry. No session can have it as its id.
pub const SESSIONS_LIST: &str = "\0";

/// Collects rows, one more than the page holds telling that another page follows.
#[derive(Debug)]
pub struct PageBuilder<'list> {
    list: &'list str,
    limit: u64,
    next_offset: u64,
    count: u64,
    last: Option<Position>,
    has_more: bool,
    arrays: ArrayWriter,
}

impl<'list> PageBuilder<'list> {
    /// A page of the list that cursors call `list`, from the item at `offset` on.
    pub fn new(list: &'list str, limit: u64, offset: u64) -> Self {
        Self {
            list,
            limit,
            next_offset: offset,
            count: 0,
            last: None,
            has_more: false,
            arrays: ArrayWriter::default(),
        }
    }

    /// How many rows to ask the database for.
    pub fn rows_wanted(&self) -> u64 {
        self.limit.saturating_add(1)
    }

    /// Adds the next session.
    pub fn add_session(&mut self, session: &SessionRow<'_>) {
        let bytes = json::session_bytes(session);
        self.add(session.created_at, session.id, bytes, |out| json::write_session(out, session));
    }

    /// Adds the next event.
    pub fn add_event(&mut self, event: &EventRow<'_>) {
        let bytes = json::event_bytes(event);
        self.add(event.event_index, event.id, bytes, |out| json::write_event(out, event));
    }

    fn add(&mut self, order: Number, id: &str, bytes: usize, write: impl FnOnce(&mut String)) {
        if self.count == self.limit {
            self.has_more = true;
            return;
        }
        self.count += 1;
        self.next_offset = self.next_offset.saturating_add(1);
        if self.count == self.limit {
            self.last = Position::of(order, id);
        }
        self.arrays.push(bytes, write);
    }

    /// The page, with the cursor of the next if there is one.
    pub fn finish(self) -> Page {
        let next_cursor =
            self.has_more.then(|| cursor::format(self.next_offset, self.list, self.last.as_ref()));
        Page { arrays: self.arrays.finish(), next_cursor }
    }
}

/// A count as databases take it, with a sign; nobody has more rows than that.
pub fn sql_count(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
