//! What a stored event is to the replay window.

use std::collections::HashSet;

use crate::model::{EVENT_FIELDS, EventRow, Number};

use super::js_string::JsString;
use super::text::{self, PREFIX};
use super::value::{self, Object, Value};

/// Stands before what is left of a text whose beginning isn't there.
const CUT_FRONT: &str = "[... earlier text elided ...] ";

/// The columns of an event, but for its payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    pub id: String,
    pub event_index: Number,
    pub session_id: String,
    pub created_at: Number,
    pub connection_id: String,
    pub sender: String,
    pub extra: Option<String>,
}

/// An event, read.
#[derive(Debug)]
pub struct Envelope {
    pub head: Head,
    /// Without what `part` holds.
    pub payload: Value,
    pub part: Part,
    /// Of the first stored event that is in it.
    pub first_index: Number,
    /// How much is stored of it, about.
    pub stored_bytes: usize,
}

/// What may be joined with what comes next, taken out of its payload.
#[derive(Debug, PartialEq)]
pub enum Part {
    /// Nothing.
    Whole,
    /// The text of a chunk, or of a run of them.
    Text(TextRun),
    /// A tool call, or an update of one.
    Tool(ToolState),
}

/// The text of chunks that follow each other.
#[derive(Debug, Default, PartialEq)]
pub struct TextRun {
    /// With the index of the event that each is of.
    newest_first: Vec<(Number, JsString)>,
    /// How many units `JSON.stringify` makes of it, quotes not counted.
    pub json_len: usize,
}

/// What is said of a tool call.
#[derive(Debug, Default, PartialEq)]
pub struct ToolState {
    id: JsString,
    /// Whether it begins with the call itself; else with an update.
    is_call: bool,
    /// Of each event, without the values that a later one has replaced.
    newest_first: Vec<Object>,
    names: HashSet<JsString>,
}

/// What may be spliced into an event's text: members of an object, none of which it has already.
fn unknown_fields(extra: &str) -> Option<String> {
    let Some(Value::Object(mut fields)) = Value::parse(extra) else { return None };
    fields.retain(|name, _| !EVENT_FIELDS.iter().any(|known| name.is(known)));
    (!fields.is_empty()).then(|| value::object_to_json(&fields))
}

impl Head {
    pub fn of(row: &EventRow<'_>) -> Self {
        Self {
            id: row.id.to_owned(),
            event_index: row.event_index,
            session_id: row.session_id.to_owned(),
            created_at: row.created_at,
            connection_id: row.connection_id.to_owned(),
            sender: row.sender.to_owned(),
            extra: row.extra.and_then(unknown_fields),
        }
    }

    /// Whether both are equal but for id, index and time.
    fn is_alike(&self, other: &Self) -> bool {
        self.session_id == other.session_id
            && self.connection_id == other.connection_id
            && self.sender == other.sender
            && self.extra == other.extra
    }
}

impl Envelope {
    /// The event of a row. `None` if its payload isn't JSON.
    pub fn read(row: &EventRow<'_>) -> Option<Self> {
        let payload = Value::parse(row.payload)?;
        Some(Self {
            head: Head::of(row),
            payload,
            part: Part::Whole,
            first_index: row.event_index,
            stored_bytes: row.payload.len(),
        })
    }

    /// Leaves out the replay that the SDK has put before a prompt.
    pub fn without_earlier_replay(mut self) -> Self {
        let is_prompt = self.head.sender == "client"
            && self.payload.get("method").is_some_and(|method| method.is("session/prompt"));
        if let Some(Value::Array(prompt)) =
            self.payload.get_mut("params").and_then(|params| params.get_mut("prompt"))
            && is_prompt
            && prompt.first().is_some_and(is_replay)
        {
            prompt.remove(0);
        }
        self
    }

    /// Takes out what may be joined with other events.
    pub fn split(mut self) -> Self {
        let index = self.first_index;
        self.part = take_part(&mut self.payload, index).unwrap_or(Part::Whole);
        self
    }

    /// Joins what came just before it. Gives it back if the two don't belong together.
    pub fn join(&mut self, older: Self) -> Option<Self> {
        let is_alike = self.head.is_alike(&older.head) && self.payload == older.payload;
        match (&mut self.part, older.part) {
            (Part::Text(run), Part::Text(before)) if is_alike => {
                for (index, text) in before.newest_first {
                    run.add_before(index, text);
                }
            }
            (Part::Tool(state), Part::Tool(before))
                if is_alike && state.id == before.id && !state.is_call =>
            {
                state.is_call = before.is_call;
                before.newest_first.into_iter().for_each(|fields| state.add_before(fields));
            }
            (_, part) => return Some(Self { part, ..older }),
        }
        self.first_index = older.first_index;
        self.stored_bytes = self.stored_bytes.saturating_add(older.stored_bytes);
        None
    }

    /// What is around a text, for what comes before it to be joined with; `None` of anything else.
    pub fn around_text(&self) -> Option<Self> {
        let Part::Text(_) = self.part else { return None };
        Some(Self {
            head: self.head.clone(),
            payload: self.payload.clone(),
            part: Part::Text(TextRun::default()),
            ..*self
        })
    }

    /// How many units `JSON.stringify` makes of the whole payload.
    pub fn payload_len(&self) -> usize {
        let rest = text::utf16_len(&self.payload.to_json());
        match &self.part {
            Part::Whole => rest,
            Part::Text(run) => rest + run.json_len,
            // A null is in its place.
            Part::Tool(state) => {
                let fields = value::object_to_json(&state.merged());
                rest + text::utf16_len(&fields) - "null".len()
            }
        }
    }

    /// Elides every longer string but the text of chunks. Returns whether there was one.
    pub fn elide_strings(&mut self, max_len: usize) -> bool {
        let in_part = match &mut self.part {
            Part::Tool(state) => {
                let fields = state.newest_first.iter_mut().flat_map(Object::values_mut);
                value::elide_each(fields, max_len)
            }
            Part::Whole | Part::Text(_) => false,
        };
        self.payload.elide_strings(max_len) || in_part
    }

    /// The payload, complete again.
    pub fn into_whole(self) -> (Head, Value) {
        let Self { head, mut payload, part, .. } = self;
        match part {
            Part::Whole => {}
            Part::Text(run) => *text_place(&mut payload) = Value::String(run.text()),
            Part::Tool(state) => *update_place(&mut payload) = Value::Object(state.merged()),
        }
        (head, payload)
    }
}

impl TextRun {
    fn of(index: Number, text: JsString) -> Self {
        let mut run = Self::default();
        run.add_before(index, text);
        run
    }

    fn add_before(&mut self, index: Number, text: JsString) {
        if text.is_empty() {
            return;
        }
        let next = self.newest_first.last();
        let saved = next.map_or(0, |(_, next)| text.json_len_saved_before(next));
        self.json_len = self.json_len + text.json_len() - saved;
        self.newest_first.push((index, text));
    }

    /// Keeps what fits of the end, after a mark, and returns the index of the event in which that
    /// begins. `None`, and nothing is changed, if nothing fits.
    pub fn cut_front(&mut self, max_json_len: usize) -> Option<Number> {
        let suffix = self.text().suffix_within(max_json_len.checked_sub(CUT_FRONT.len())?);
        let mut rest = suffix.len();
        let (index, _) = self.newest_first.iter().find(|(_, text)| {
            let reaches_it = text.len() >= rest;
            rest = rest.saturating_sub(text.len());
            reaches_it
        })?;
        let index = *index;
        if suffix.is_empty() {
            return None;
        }
        *self = Self::of(index, suffix);
        self.add_before(index, CUT_FRONT.into());
        Some(index)
    }

    fn text(&self) -> JsString {
        let mut joined = JsString::default();
        self.newest_first.iter().rev().for_each(|(_, text)| joined.push(text));
        joined
    }
}

impl ToolState {
    fn add_before(&mut self, mut fields: Object) {
        for (name, value) in &mut fields {
            if !self.names.insert(name.clone()) {
                *value = Value::Null;
            }
        }
        self.newest_first.push(fields);
    }

    /// Of each field the last value, in the place of the first.
    fn merged(&self) -> Object {
        let mut merged = Object::new();
        for fields in self.newest_first.iter().rev() {
            merged.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        if self.is_call {
            merged.insert("sessionUpdate".into(), Value::string("tool_call"));
        }
        value::in_order(merged)
    }
}

fn is_replay(block: &Value) -> bool {
    let text = block.get("text").and_then(Value::as_string);
    block.get("type").is_some_and(|kind| kind.is("text"))
        && text.is_some_and(|text| text.starts_with(PREFIX))
}

fn take_part(payload: &mut Value, index: Number) -> Option<Part> {
    if !payload.get("method")?.is("session/update") {
        return None;
    }
    let update = payload.get_mut("params")?.get_mut("update")?;
    let kind = update.get("sessionUpdate")?;
    let is_one_of = |names: &[&str]| names.iter().any(|name| kind.is(name));
    if is_one_of(&["agent_message_chunk", "agent_thought_chunk", "user_message_chunk"]) {
        let content = update.get_mut("content")?;
        if !content.get("type")?.is("text") {
            return None;
        }
        return match content.get_mut("text")? {
            Value::String(text) => Some(Part::Text(TextRun::of(index, std::mem::take(text)))),
            _ => None,
        };
    }
    let is_call = kind.is("tool_call");
    if !is_call && !kind.is("tool_call_update") {
        return None;
    }
    let id = update.get("toolCallId")?.as_string()?.clone();
    match std::mem::take(update) {
        Value::Object(fields) => {
            let mut state = ToolState { id, is_call, ..ToolState::default() };
            state.add_before(fields);
            Some(Part::Tool(state))
        }
        _ => None,
    }
}

/// Where [`take_part`] took an update from.
fn update_place(payload: &mut Value) -> &mut Value {
    let update = payload.get_mut("params").and_then(|params| params.get_mut("update"));
    update.expect("it was taken from there")
}

/// Where [`take_part`] took a text from.
fn text_place(payload: &mut Value) -> &mut Value {
    let content = update_place(payload).get_mut("content");
    content.and_then(|content| content.get_mut("text")).expect("it was taken from there")
}
