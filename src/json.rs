//! Rows as JSON text, around the stored texts as they are.
//!
//! Stored JSON is spliced in verbatim: never parsed, never re-printed, never checked here.
//! Absent optional fields are left out, as the TypeScript drivers leave them `undefined`.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use crate::model::{EventRow, JsonText, Number, SessionRow};

/// A page's texts are cut at this size, so that each stays far below the 2^29 units that a
/// JavaScript string holds.
pub const MAX_ARRAY_TEXT_BYTES: usize = 64 * 1024 * 1024;

/// Builds the arrays of a page.
#[derive(Debug)]
pub struct ArrayWriter {
    done: Vec<JsonText>,
    text: String,
    max_text_bytes: usize,
}

impl Default for ArrayWriter {
    fn default() -> Self {
        Self::with_max_text_bytes(MAX_ARRAY_TEXT_BYTES)
    }
}

impl ArrayWriter {
    fn with_max_text_bytes(max_text_bytes: usize) -> Self {
        Self { done: Vec::new(), text: "[".to_owned(), max_text_bytes }
    }

    /// Adds one item of about `bytes` bytes, written by `write`.
    pub fn push(&mut self, bytes: usize, write: impl FnOnce(&mut String)) {
        if self.text.len() > 1 && self.text.len().saturating_add(bytes) > self.max_text_bytes {
            let full = std::mem::replace(&mut self.text, "[".to_owned());
            self.done.push(closed(full));
        }
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.reserve(bytes);
        write(&mut self.text);
    }

    /// The finished arrays; at least one.
    pub fn finish(mut self) -> Vec<JsonText> {
        self.done.push(closed(self.text));
        self.done
    }
}

fn closed(mut text: String) -> String {
    text.push(']');
    text
}

/// Appends a session as the object the SDK expects.
pub fn write_session(out: &mut String, row: &SessionRow<'_>) {
    out.push_str("{\"id\":");
    write_string(out, row.id);
    write_string_field(out, "agent", row.agent);
    write_string_field(out, "agentSessionId", row.agent_session_id);
    write_string_field(out, "lastConnectionId", row.last_connection_id);
    write_number_field(out, "createdAt", row.created_at);
    if let Some(destroyed_at) = row.destroyed_at {
        write_number_field(out, "destroyedAt", destroyed_at);
    }
    if let Some(sandbox_id) = row.sandbox_id {
        write_string_field(out, "sandboxId", sandbox_id);
    }
    for (name, json) in [
        ("sessionInit", row.session_init),
        ("configOptions", row.config_options),
        ("modes", row.modes),
    ] {
        // The TypeScript drivers treat an empty text as no value.
        if let Some(json) = json.filter(|json| !json.is_empty()) {
            write_json_field(out, name, json);
        }
    }
    write_extra(out, row.extra);
    // After what an earlier version may have put among the others: of two, the last counts.
    if let Some(server_id) = row.server_id {
        write_string_field(out, "serverId", server_id);
    }
    out.push('}');
}

/// A session as the object the SDK expects.
pub fn session_text(row: &SessionRow<'_>) -> JsonText {
    let mut text = String::with_capacity(session_bytes(row));
    write_session(&mut text, row);
    text
}

/// About how many bytes [`write_session`] appends.
pub fn session_bytes(session: &SessionRow<'_>) -> usize {
    const NAMES_AND_STRINGS_BYTES: usize = 512;
    [session.session_init, session.config_options, session.modes, session.extra]
        .into_iter()
        .flatten()
        .fold(NAMES_AND_STRINGS_BYTES, |bytes, json| bytes.saturating_add(json.len()))
}

/// Appends an event as the object the SDK expects.
pub fn write_event(out: &mut String, row: &EventRow<'_>) {
    out.push_str("{\"id\":");
    write_string(out, row.id);
    write_number_field(out, "eventIndex", row.event_index);
    write_string_field(out, "sessionId", row.session_id);
    write_number_field(out, "createdAt", row.created_at);
    write_string_field(out, "connectionId", row.connection_id);
    write_string_field(out, "sender", row.sender);
    write_json_field(out, "payload", row.payload);
    write_extra(out, row.extra);
    out.push('}');
}

/// About how many bytes [`write_event`] appends, not counting what must be escaped.
pub fn event_bytes(row: &EventRow<'_>) -> usize {
    const NAMES_AND_NUMBERS_BYTES: usize = 160;
    NAMES_AND_NUMBERS_BYTES
        + row.id.len()
        + row.session_id.len()
        + row.connection_id.len()
        + row.payload.len()
        + row.extra.map_or(0, str::len)
}

/// The id of the first item of an array, as written here, that isn't JSON.
pub fn id_of_broken_item(array: &str) -> Option<String> {
    let mut rest = array.strip_prefix('[')?;
    while let Some(bytes) = leading_value::<&RawValue>(rest).map(|(_, bytes)| bytes) {
        rest = rest.get(bytes..)?.strip_prefix(',')?;
    }
    leading_value(rest.strip_prefix("{\"id\":")?).map(|(id, _)| id)
}

/// The JSON value that a text begins with, and how long it is there.
fn leading_value<'text, T: serde::Deserialize<'text>>(text: &'text str) -> Option<(T, usize)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, values.byte_offset()))
}

fn write_key(out: &mut String, name: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
}

fn write_string_field(out: &mut String, name: &str, value: &str) {
    write_key(out, name);
    write_string(out, value);
}

fn write_json_field(out: &mut String, name: &str, json: &str) {
    write_key(out, name);
    out.push_str(json);
}

fn write_number_field(out: &mut String, name: &str, number: Number) {
    write_key(out, name);
    let written = match number {
        Number::Integer(integer) => write!(out, "{integer}"),
        Number::Real(real) => write!(out, "{real}"),
    };
    written.expect("a String takes whatever is written");
}

/// Splices the members of the object text `extra` in, after the members before it.
fn write_extra(out: &mut String, extra: Option<&str>) {
    let members = extra
        .and_then(|json| json.trim().strip_prefix('{')?.strip_suffix('}'))
        .map(str::trim)
        .filter(|members| !members.is_empty());
    if let Some(members) = members {
        out.push(',');
        out.push_str(members);
    }
}

fn write_string(out: &mut String, value: &str) {
    let needs_escape = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    if value.bytes().any(needs_escape) {
        out.push_str(&serde_json::to_string(value).expect("a string"));
    } else {
        out.push('"');
        out.push_str(value);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: EventRow<'_> = EventRow {
        id: "e\"1",
        event_index: Number::Integer(3),
        session_id: "s",
        created_at: Number::Real(1.5),
        connection_id: "c\n",
        sender: "agent",
        payload: r#"{"a":-0,"b":1e21}"#,
        extra: None,
    };

    fn session<'row>() -> SessionRow<'row> {
        SessionRow {
            id: "s",
            agent: "mock",
            agent_session_id: "a",
            last_connection_id: "c",
            created_at: Number::Integer(5),
            destroyed_at: None,
            sandbox_id: None,
            session_init: None,
            config_options: None,
            modes: None,
            extra: None,
            server_id: None,
        }
    }

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn an_event_holds_its_payload_verbatim() {
        assert_eq!(
            written(|out| write_event(out, &EVENT)),
            concat!(
                r#"{"id":"e\"1","eventIndex":3,"sessionId":"s","createdAt":1.5,"#,
                r#""connectionId":"c\n","sender":"agent","payload":{"a":-0,"b":1e21}}"#
            )
        );
    }

    #[test]
    fn absent_fields_are_left_out_and_null_modes_are_kept() {
        let row = SessionRow { session_init: Some(""), modes: Some("null"), ..session() };
        assert_eq!(
            written(|out| write_session(out, &row)),
            concat!(
                r#"{"id":"s","agent":"mock","agentSessionId":"a","lastConnectionId":"c","#,
                r#""createdAt":5,"modes":null}"#
            )
        );
    }

    #[test]
    fn unknown_fields_are_spliced_in() {
        let row = EventRow { extra: Some(r#"{"later":[1]}"#), ..EVENT };
        assert!(written(|out| write_event(out, &row)).ends_with(r#"1e21},"later":[1]}"#));
        for blank in ["{}", " { }\n"] {
            let none = EventRow { extra: Some(blank), ..EVENT };
            assert!(written(|out| write_event(out, &none)).ends_with("1e21}}"));
        }
    }

    #[test]
    fn a_page_is_cut_before_it_outgrows_a_string() {
        let mut arrays = ArrayWriter::with_max_text_bytes(8);
        for item in ["11", "22", "333333333333", "4"] {
            arrays.push(item.len(), |out| out.push_str(item));
        }
        assert_eq!(arrays.finish(), ["[11,22]", "[333333333333]", "[4]"]);
        assert_eq!(ArrayWriter::default().finish(), ["[]"]);
    }

    #[test]
    fn a_broken_item_is_found() {
        let good = r#"{"id":"a","payload":{}}"#;
        let broken = r#"{"id":"b","payload":{"#;
        assert_eq!(id_of_broken_item(&format!("[{good},{broken}]")).as_deref(), Some("b"));
        assert_eq!(id_of_broken_item(&format!("[{broken}]")).as_deref(), Some("b"));
        assert_eq!(id_of_broken_item(&format!("[{good},{good}]")), None);
        assert_eq!(id_of_broken_item("[]"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_string_comes_back(value in ".*") {
            let text = written(|out| write_string(out, &value));
            proptest::prop_assert_eq!(serde_json::from_str::<String>(&text).unwrap(), value);
        }
    }
}
