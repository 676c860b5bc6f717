//! Which of a session's events become one, for good: what the window joins for a moment.

use crate::model::{EventRow, JsonText};

use super::envelope::{Envelope, Part};
use super::value::Value;

/// No text grows beyond this, in bytes of JSON: the next chunk begins another.
const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// Events that become the last of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// The one that stays.
    pub id: String,
    /// What it says then.
    pub payload: JsonText,
    /// Those that go.
    pub gone: Vec<String>,
    /// The bytes of the texts in these.
    pub bytes: usize,
}

/// Rows that become one event.
#[derive(Debug)]
struct Group {
    envelope: Envelope,
    gone: Vec<String>,
    bytes: usize,
}

/// Finds what belongs together, of rows that come in newest first.
#[derive(Debug)]
pub struct Compaction {
    joins_tools: bool,
    /// Whether an answer of the agent's has come: what is before it is of a turn that is over.
    has_answer: bool,
    group: Option<Group>,
    merges: Vec<Merge>,
}

impl Compaction {
    /// Of texts, and of tool calls with their updates if these are to lose their states in between.
    /// `has_answer` is of the rows before.
    pub fn new(joins_tools: bool, has_answer: bool) -> Self {
        Self { joins_tools, has_answer, group: None, merges: Vec::new() }
    }

    /// Takes the row before the last.
    pub fn push(&mut self, row: &EventRow<'_>) {
        let Some(envelope) = Envelope::read(row) else { return self.skip() };
        if is_answer(&envelope) {
            self.skip();
            self.has_answer = true;
            return;
        }
        let envelope = envelope.split();
        if !self.has_answer || !self.may_join(&envelope) {
            return self.skip();
        }
        let next = match &mut self.group {
            Some(group) if group.has_room_for(&envelope) => group.envelope.join(envelope),
            _ => Some(envelope),
        };
        match (next, &mut self.group) {
            (None, Some(group)) => group.add(row),
            (next, _) => {
                self.seal();
                self.group = next.map(Group::new);
            }
        }
    }

    /// Takes a row that stays as it is, whatever it says.
    pub fn keep(&mut self, row: &EventRow<'_>) {
        self.has_answer |= Envelope::read(row).is_some_and(|envelope| is_answer(&envelope));
        self.skip();
    }

    /// A row is in between that belongs to nothing.
    pub fn skip(&mut self) {
        self.seal();
    }

    /// Whether an answer has come.
    pub fn has_answer(&self) -> bool {
        self.has_answer
    }

    /// The id of the event that older ones may yet go into.
    pub fn open_id(&self) -> Option<&str> {
        self.group.as_ref().map(|group| group.envelope.head.id.as_str())
    }

    /// What is to be done.
    pub fn finish(mut self) -> Vec<Merge> {
        self.seal();
        self.merges
    }

    fn may_join(&self, envelope: &Envelope) -> bool {
        match envelope.part {
            Part::Whole => false,
            Part::Text(_) => true,
            Part::Tool(_) => self.joins_tools,
        }
    }

    fn seal(&mut self) {
        let Some(Group { envelope, gone, bytes }) = self.group.take() else { return };
        if gone.is_empty() {
            return;
        }
        let (head, payload) = envelope.into_whole();
        self.merges.push(Merge { id: head.id, payload: payload.to_json(), gone, bytes });
    }
}

impl Group {
    fn new(envelope: Envelope) -> Self {
        Self { envelope, gone: Vec::new(), bytes: 0 }
    }

    fn has_room_for(&self, older: &Envelope) -> bool {
        match (&self.envelope.part, &older.part) {
            (Part::Text(run), Part::Text(before)) => {
                run.json_len.saturating_add(before.json_len) <= MAX_TEXT_BYTES
            }
            _ => true,
        }
    }

    fn add(&mut self, row: &EventRow<'_>) {
        let EventRow { id, session_id, connection_id, sender, payload, extra, .. } = row;
        let texts = [id, session_id, connection_id, sender, payload].into_iter().chain(extra);
        self.bytes = texts.fold(self.bytes, |bytes, text| bytes.saturating_add(text.len()));
        self.gone.push((*id).to_owned());
    }
}

/// Whether the agent answers a request.
fn is_answer(envelope: &Envelope) -> bool {
    let has = |name: &str| envelope.payload.get(name).is_some();
    let is_null = |value: &Value| matches!(value, Value::Null);
    envelope.head.sender == "agent"
        && envelope.payload.get("id").is_some_and(|id| !is_null(id))
        && !has("method")
        && (has("result") || has("error"))
}
