//! A page of a list, built from rows of any backend.

use crate::cursor::{self, List, Position, Start};
use crate::json::{self, ArrayWriter};
use crate::model::{EventRow, Number, Page, PageRequest, SessionRow};

/// The name that the cursors of the list of sessions carry. No session can have it as its id.
pub const SESSIONS_LIST: &str = "\0";

/// Collects rows, one more than the page holds telling that another page follows.
#[derive(Debug)]
pub struct PageBuilder<'list> {
    list: List<'list>,
    limit: u64,
    max_bytes: usize,
    start: Start,
    count: u64,
    bytes: usize,
    last: Option<Position>,
    has_more: bool,
    arrays: ArrayWriter,
}

impl<'list> PageBuilder<'list> {
    /// The page of the list that is asked for.
    pub fn new(list: List<'list>, request: &PageRequest) -> Self {
        Self {
            start: cursor::parse(request.cursor.as_deref(), &list),
            list,
            limit: request.limit,
            max_bytes: request.max_bytes.unwrap_or(usize::MAX),
            count: 0,
            bytes: 0,
            last: None,
            has_more: false,
            arrays: ArrayWriter::default(),
        }
    }

    /// Where the page starts.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// How many rows to ask the database for.
    pub fn rows_wanted(&self) -> u64 {
        self.limit.saturating_add(1)
    }

    /// Adds the next session. Returns whether more rows are wanted.
    pub fn add_session(&mut self, session: &SessionRow<'_>) -> bool {
        let bytes = json::session_bytes(session);
        self.add(session.created_at, session.id, bytes, |out| json::write_session(out, session))
    }

    /// Adds the next event. Returns whether more rows are wanted.
    pub fn add_event(&mut self, event: &EventRow<'_>) -> bool {
        let bytes = json::event_bytes(event);
        self.add(event.event_index, event.id, bytes, |out| json::write_event(out, event))
    }

    fn add(
        &mut self,
        order: Number,
        id: &str,
        bytes: usize,
        write: impl FnOnce(&mut String),
    ) -> bool {
        if self.is_full() {
            self.has_more = true;
            return false;
        }
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.arrays.push(bytes, write);
        if self.is_full() {
            self.last = Position::of(order, id);
        }
        true
    }

    fn is_full(&self) -> bool {
        self.count == self.limit || self.bytes >= self.max_bytes
    }

    /// The page, with the cursor of the next if there is one.
    pub fn finish(self) -> Page {
        let next_offset = self.start.offset.saturating_add(self.count);
        let next_cursor =
            self.has_more.then(|| cursor::format(next_offset, &self.list, self.last.as_ref()));
        Page { arrays: self.arrays.finish(), next_cursor }
    }
}

/// A count as databases take it, with a sign; nobody has more rows than that.
pub fn sql_count(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
