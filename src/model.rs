//! What is stored, as the SDK defines it. Pure data: no I/O, no JavaScript, no SQL.

/// The text that `JSON.stringify` made of a value. Always well-formed Unicode: JSON
/// escapes U+0000 and unpaired surrogates. Never parsed between V8 and the database.
pub type JsonText = String;

/// One session, to be inserted or replaced by its `id`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionRecord {
    /// The primary key.
    pub id: String,
    /// The agent's name, such as `claude`.
    pub agent: String,
    /// The id that the agent itself gave the session.
    pub agent_session_id: String,
    /// The connection the session was last seen on.
    pub last_connection_id: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970; `None` while the session lives.
    pub destroyed_at: Option<i64>,
    /// The sandbox the session runs in (SDK 0.4 and later).
    pub sandbox_id: Option<String>,
    /// What the session was created with.
    pub session_init: Option<JsonText>,
    /// The agent's settings (SDK 0.4 and later).
    pub config_options: Option<JsonText>,
    /// The agent's modes (SDK 0.4 and later); the JSON text `null` is a value of its own.
    pub modes: Option<JsonText>,
    /// An object of the fields that this version doesn't know by name.
    pub extra: Option<JsonText>,
    /// Of those, the one that some tables have a column for.
    pub server: Option<Server>,
}

/// The field `serverId`, which forks of the SDK add, where it is a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// The field itself.
    pub id: String,
    /// [`SessionRecord::extra`] without it.
    pub extra: Option<JsonText>,
}

impl SessionRecord {
    /// What is stored as `extra` beside a column for the server's id, or without one.
    pub fn extra_beside(&self, has_server_id: bool) -> Option<&str> {
        match &self.server {
            Some(server) if has_server_id => server.extra.as_deref(),
            _ => self.extra.as_deref(),
        }
    }

    /// The bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        let texts = [&self.id, &self.agent, &self.agent_session_id, &self.last_connection_id];
        let optional =
            [&self.sandbox_id, &self.session_init, &self.config_options, &self.modes, &self.extra];
        let texts = texts.into_iter().chain(optional.into_iter().flatten());
        texts.fold(0, |bytes: usize, text| bytes.saturating_add(text.len()))
    }
}

/// One envelope of a session, to be inserted or replaced by its `id`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionEvent {
    /// The primary key.
    pub id: String,
    /// The place in the session, from 1.
    pub event_index: i64,
    /// The session it belongs to; the session's own row may come later.
    pub session_id: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The connection it passed through.
    pub connection_id: String,
    /// `client` or `agent`.
    pub sender: String,
    /// The JSON-RPC envelope.
    pub payload: JsonText,
    /// An object of the fields that this version doesn't know by name.
    pub extra: Option<JsonText>,
}

impl SessionEvent {
    /// The bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        let Self { id, session_id, connection_id, sender, payload, extra, .. } = self;
        let texts = [id, session_id, connection_id, sender, payload].into_iter().chain(extra);
        texts.fold(0, |bytes: usize, text| bytes.saturating_add(text.len()))
    }
}

/// The fields of an event that we know by name, as the SDK calls them.
pub const EVENT_FIELDS: [&str; 7] =
    ["id", "eventIndex", "sessionId", "createdAt", "connectionId", "sender", "payload"];

/// A number as a database holds it. Ours are integers; other writers' may not be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole number.
    Integer(i64),
    /// Anything else that is finite.
    Real(f64),
}

impl Number {
    /// As JavaScript, which has no other numbers, reads it.
    pub fn as_f64(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "JSON.parse rounds alike")]
            Self::Integer(integer) => integer as f64,
            Self::Real(real) => real,
        }
    }
}

/// A stored session, borrowed from the row it was read from. Fields are those of [`SessionRecord`].
#[derive(Debug)]
#[cfg_attr(
    not(test),
    expect(clippy::missing_docs_in_private_items, reason = "they are SessionRecord's")
)]
pub struct SessionRow<'row> {
    pub id: &'row str,
    pub agent: &'row str,
    pub agent_session_id: &'row str,
    pub last_connection_id: &'row str,
    pub created_at: Number,
    pub destroyed_at: Option<Number>,
    pub sandbox_id: Option<&'row str>,
    pub session_init: Option<&'row str>,
    pub config_options: Option<&'row str>,
    pub modes: Option<&'row str>,
    pub extra: Option<&'row str>,
    pub server_id: Option<&'row str>,
}

/// A stored event, borrowed from the row it was read from. Fields are those of [`SessionEvent`].
#[derive(Debug)]
#[cfg_attr(
    not(test),
    expect(clippy::missing_docs_in_private_items, reason = "they are SessionEvent's")
)]
pub struct EventRow<'row> {
    pub id: &'row str,
    pub event_index: Number,
    pub session_id: &'row str,
    pub created_at: Number,
    pub connection_id: &'row str,
    pub sender: &'row str,
    pub payload: &'row str,
    pub extra: Option<&'row str>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// At most this many items; at least 1.
    pub limit: u64,
    /// The cursor of the page before, as the caller gave it.
    pub cursor: Option<String>,
    /// No item is added once the page has this many bytes of text; `None` for no such bound.
    pub max_bytes: Option<usize>,
}

/// Part of a list, ready for JavaScript.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// JSON arrays whose items, one array after the other, are the page. More than one
    /// only where a single text could outgrow a JavaScript string.
    pub arrays: Vec<JsonText>,
    /// Where the next page starts; `None` on the last page.
    pub next_cursor: Option<String>,
}
