//! What the tables of a session store look like, in whatever database: every layout in the field,
//! and which tables aren't ours.

/// The columns of `sessions` that older layouts lack.
pub const NEWER_SESSION_COLUMNS: [&str; 4] =
    ["sandbox_id", "config_options_json", "modes_json", EXTRA_COLUMN];
/// What every layout of `sessions` has.
const SESSION_COLUMNS: [&str; 7] = [
    "id",
    "agent",
    "agent_session_id",
    "last_connection_id",
    "created_at",
    "destroyed_at",
    "session_init_json",
];
/// What every layout of `events` has.
pub const EVENT_COLUMNS: [&str; 6] =
    ["id", "session_id", "created_at", "connection_id", "sender", "payload_json"];
/// The oldest layouts lack it, or leave it empty in places.
pub const EVENT_INDEX_COLUMN: &str = "event_index";
/// Ours alone, in both tables: the fields of newer SDKs.
pub const EXTRA_COLUMN: &str = "extra_json";

/// What was found in a database.
#[derive(Debug)]
pub struct Layout {
    /// The table `sessions`, if there is one.
    pub sessions: Option<Table>,
    /// The table `events`, if there is one.
    pub events: Option<Table>,
    /// Whether lists are in the order of an index.
    pub has_indexes: bool,
}

/// Columns that statements read if they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalColumns {
    pub sandbox_id: bool,
    pub config_options: bool,
    pub modes: bool,
    pub session_extra: bool,
    pub event_extra: bool,
}

/// A table that was found.
#[derive(Debug)]
pub struct Table {
    /// In the table's order.
    pub columns: Vec<Column>,
}

/// A column that was found.
#[derive(Debug)]
pub struct Column {
    /// In lower case.
    pub name: String,
    /// As the database prints it.
    pub declared_type: String,
    /// An insert must give it a value.
    pub is_required: bool,
    pub is_nullable: bool,
    /// Part of the primary key.
    pub is_key: bool,
    pub is_generated: bool,
    /// An SQL expression.
    pub default: Option<String>,
}

impl Layout {
    /// Whether nothing needs to be created or changed, our own columns included.
    pub fn is_current(&self) -> bool {
        self.has_documented_columns()
            && self.sessions.as_ref().is_some_and(|sessions| sessions.has(EXTRA_COLUMN))
            && self.events.as_ref().is_some_and(|events| events.has(EXTRA_COLUMN))
            && self.has_indexes
    }

    /// Whether both tables have every column of SDK 0.4's drivers.
    pub fn has_documented_columns(&self) -> bool {
        let sessions_have = self.sessions.as_ref().is_some_and(|sessions| {
            let mut documented = NEWER_SESSION_COLUMNS.iter().filter(|name| **name != EXTRA_COLUMN);
            documented.all(|name| sessions.has(name))
        });
        sessions_have && self.events.as_ref().is_some_and(|events| !events.is_outdated())
    }

    /// Whether every row can be read as it is.
    pub fn is_readable(&self) -> bool {
        self.sessions.is_some() && self.events.as_ref().is_some_and(|events| !events.is_outdated())
    }

    /// Which columns there are to read.
    pub fn optional_columns(&self) -> OptionalColumns {
        let session = |name| self.sessions.as_ref().is_some_and(|table| table.has(name));
        OptionalColumns {
            sandbox_id: session("sandbox_id"),
            config_options: session("config_options_json"),
            modes: session("modes_json"),
            session_extra: session(EXTRA_COLUMN),
            event_extra: self.events.as_ref().is_some_and(|table| table.has(EXTRA_COLUMN)),
        }
    }

    /// A table that has our name and isn't a session store's, and why it isn't.
    pub fn foreign_table(&self) -> Option<(&'static str, String)> {
        let why_foreign_sessions = |table: &Table| {
            table
                .why_foreign(&SESSION_COLUMNS, &NEWER_SESSION_COLUMNS)
                .or_else(|| table.has_integer_ids().then(|| "its ids are integers".to_owned()))
        };
        let why_foreign_events =
            |table: &Table| table.why_foreign(&EVENT_COLUMNS, &[EVENT_INDEX_COLUMN, EXTRA_COLUMN]);
        let sessions = self.sessions.as_ref().and_then(why_foreign_sessions);
        let events = self.events.as_ref().and_then(why_foreign_events);
        sessions
            .map(|reason| ("sessions", reason))
            .or_else(|| events.map(|reason| ("events", reason)))
    }
}

impl Table {
    /// The column of this name, if there is one.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether there is a column of this name.
    pub fn has(&self, name: &str) -> bool {
        self.column(name).is_some()
    }

    /// Whether ids are numbers, as in the oldest layouts of `events`.
    pub fn has_integer_ids(&self) -> bool {
        self.column("id").is_some_and(|id| id.declared_type.to_ascii_uppercase().contains("INT"))
    }

    /// Of `events`: whether ids are integers, or events may lack their index and leave the order to
    /// the time, as in the oldest layouts.
    pub fn is_outdated(&self) -> bool {
        self.has_integer_ids()
            || self.column(EVENT_INDEX_COLUMN).is_none_or(|index| index.is_nullable)
    }

    /// Why a table isn't one of ours, if it isn't.
    fn why_foreign(&self, needed: &[&str], optional: &[&str]) -> Option<String> {
        if let Some(missing) = needed.iter().find(|name| !self.has(name)) {
            return Some(format!("it has no column \"{missing}\""));
        }
        let keys: Vec<&str> = self
            .columns
            .iter()
            .filter(|column| column.is_key)
            .map(|column| column.name.as_str())
            .collect();
        if keys != ["id"] {
            return Some("its primary key is not \"id\"".to_owned());
        }
        let is_known = |name: &&str| needed.contains(name) || optional.contains(name);
        self.columns
            .iter()
            .find(|column| column.is_required && !is_known(&column.name.as_str()))
            .map(|column| format!("it needs a value for a column \"{}\"", column.name))
    }
}
