//! The columns of the two tables, declared once for every database, and a row's values in their
//! order.

use crate::model::{SessionEvent, SessionRecord};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A whole number.
    Integer,
    /// A JSON text.
    Json,
}

/// Which layouts have a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// All.
    Always,
    /// Of `events`, all but the oldest, which may also leave it empty in places.
    Numbered,
    /// Those of SDK 0.4.
    Sdk04,
    /// Ours, where it could be added.
    Ours,
    /// Those of forks of the SDK. It is never added.
    Forks,
}

/// A column as we would make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnSpec {
    /// The column's name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether each row has a value.
    pub is_required: bool,
    /// Which layouts have it.
    pub since: Since,
}

/// The name of a row, and what an upsert conflicts on unless the table is keyed otherwise.
pub const ID: &str = "id";
/// The place of an event in its session.
pub const EVENT_INDEX: &str = "event_index";
/// When a session was created: its place among the sessions.
pub const CREATED_AT: &str = "created_at";
/// The session of an event.
pub const SESSION_ID: &str = "session_id";
/// The fields of newer SDKs, in both tables.
pub const EXTRA: &str = "extra_json";

/// The columns of `sessions` as we make them.
pub const SESSIONS: [ColumnSpec; 11] = [
    required(ID, Kind::Text, Since::Always),
    required("agent", Kind::Text, Since::Always),
    required("agent_session_id", Kind::Text, Since::Always),
    required("last_connection_id", Kind::Text, Since::Always),
    required(CREATED_AT, Kind::Integer, Since::Always),
    optional("destroyed_at", Kind::Integer, Since::Always),
    optional("sandbox_id", Kind::Text, Since::Sdk04),
    optional("session_init_json", Kind::Json, Since::Always),
    optional("config_options_json", Kind::Json, Since::Sdk04),
    optional("modes_json", Kind::Json, Since::Sdk04),
    optional(EXTRA, Kind::Json, Since::Ours),
];

/// What some forks of the SDK add to a session.
pub const SERVER_ID: ColumnSpec = optional("server_id", Kind::Text, Since::Forks);

/// The columns of `sessions` that we know, in the order of [`session_values`].
pub const KNOWN_SESSIONS: [ColumnSpec; SESSIONS.len() + 1] = {
    let mut columns = [SERVER_ID; SESSIONS.len() + 1];
    let mut place = 0;
    while place < SESSIONS.len() {
        columns[place] = SESSIONS[place];
        place += 1;
    }
    columns
};

/// The columns of `events`, in the order of [`event_values`].
pub const EVENTS: [ColumnSpec; 8] = [
    required(ID, Kind::Text, Since::Always),
    required(EVENT_INDEX, Kind::Integer, Since::Numbered),
    required(SESSION_ID, Kind::Text, Since::Always),
    required(CREATED_AT, Kind::Integer, Since::Always),
    required("connection_id", Kind::Text, Since::Always),
    required("sender", Kind::Text, Since::Always),
    required("payload_json", Kind::Json, Since::Always),
    optional(EXTRA, Kind::Json, Since::Ours),
];

const fn required(name: &'static str, kind: Kind, since: Since) -> ColumnSpec {
    ColumnSpec { name, kind, is_required: true, since }
}

const fn optional(name: &'static str, kind: Kind, since: Since) -> ColumnSpec {
    ColumnSpec { name, kind, is_required: false, since }
}

/// What becomes of a row whose key is stored already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDuplicate {
    /// It takes the other's place.
    #[default]
    Replace,
    /// The one that is stored stays.
    Keep,
}

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'row> {
    /// Of a column of texts.
    Text(Option<&'row str>),
    /// Of a column of whole numbers.
    Integer(Option<i64>),
    /// Of a column of JSON.
    Json(Option<&'row str>),
}

impl<'row> Value<'row> {
    /// The text, if it is one.
    pub fn as_text(self) -> Option<&'row str> {
        match self {
            Self::Text(text) | Self::Json(text) => text,
            Self::Integer(_) => None,
        }
    }

    /// The number, if it is one.
    pub fn as_integer(self) -> Option<i64> {
        match self {
            Self::Integer(integer) => integer,
            Self::Text(_) | Self::Json(_) => None,
        }
    }
}

/// A session's values, in the order of [`KNOWN_SESSIONS`], for a table with a column for the
/// server's id or without one.
pub fn session_values(
    session: &SessionRecord,
    has_server_id: bool,
) -> [Value<'_>; KNOWN_SESSIONS.len()] {
    [
        Value::Text(Some(&session.id)),
        Value::Text(Some(&session.agent)),
        Value::Text(Some(&session.agent_session_id)),
        Value::Text(Some(&session.last_connection_id)),
        Value::Integer(Some(session.created_at)),
        Value::Integer(session.destroyed_at),
        Value::Text(session.sandbox_id.as_deref()),
        Value::Json(session.session_init.as_deref()),
        Value::Json(session.config_options.as_deref()),
        Value::Json(session.modes.as_deref()),
        Value::Json(session.extra_beside(has_server_id)),
        Value::Text(session.server.as_ref().map(|server| server.id.as_str())),
    ]
}

/// An event's values, in the order of [`EVENTS`].
pub fn event_values(event: &SessionEvent) -> [Value<'_>; EVENTS.len()] {
    [
        Value::Text(Some(&event.id)),
        Value::Integer(Some(event.event_index)),
        Value::Text(Some(&event.session_id)),
        Value::Integer(Some(event.created_at)),
        Value::Text(Some(&event.connection_id)),
        Value::Text(Some(&event.sender)),
        Value::Json(Some(&event.payload)),
        Value::Json(event.extra.as_deref()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_of_their_columns_kinds() {
        let session = session_values(&SessionRecord::default(), true).map(kind);
        assert_eq!(session, KNOWN_SESSIONS.map(|column| column.kind));
        let event = event_values(&SessionEvent::default()).map(kind);
        assert_eq!(event, EVENTS.map(|column| column.kind));
    }

    fn kind(value: Value<'_>) -> Kind {
        match value {
            Value::Text(_) => Kind::Text,
            Value::Integer(_) => Kind::Integer,
            Value::Json(_) => Kind::Json,
        }
    }
}
