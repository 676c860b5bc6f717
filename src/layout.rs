//! What the tables of a session store look like, in whatever database: every layout in the field,
//! and which tables aren't ours.

use crate::columns::{ColumnSpec, EVENT_INDEX, EVENTS, EXTRA, ID, KNOWN_SESSIONS, SESSIONS, Since};

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
    /// It may be empty.
    pub is_nullable: bool,
    /// Part of the primary key.
    pub is_key: bool,
    /// Its values are computed.
    pub is_generated: bool,
    /// An SQL expression.
    pub default: Option<String>,
}

impl Layout {
    /// Whether nothing needs to be created or changed, our own columns included.
    pub fn is_current(&self) -> bool {
        self.has_documented_columns()
            && self.sessions.as_ref().is_some_and(|sessions| sessions.has(EXTRA))
            && self.events.as_ref().is_some_and(|events| events.has(EXTRA))
            && self.has_indexes
    }

    /// Whether both tables have every column of SDK 0.4's drivers.
    pub fn has_documented_columns(&self) -> bool {
        let mut documented = SESSIONS.iter().filter(|column| column.since != Since::Ours);
        let sessions_have = self
            .sessions
            .as_ref()
            .is_some_and(|sessions| documented.all(|column| sessions.has(column.name)));
        sessions_have && self.events.as_ref().is_some_and(|events| !events.is_outdated())
    }

    /// Whether every row can be read as it is.
    pub fn is_readable(&self) -> bool {
        self.sessions.is_some() && self.events.as_ref().is_some_and(|events| !events.is_outdated())
    }

    /// A table that has our name and isn't a session store's, and why it isn't.
    pub fn foreign_table(&self) -> Option<(&'static str, String)> {
        let why_foreign_sessions = |table: &Table| {
            table
                .why_foreign(&KNOWN_SESSIONS)
                .or_else(|| table.has_integer_ids().then(|| "its ids are integers".to_owned()))
        };
        let sessions = self.sessions.as_ref().and_then(why_foreign_sessions);
        let events = self.events.as_ref().and_then(|table| table.why_foreign(&EVENTS));
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

    /// The column that holds what is specified. One that only forks have does so if it takes texts
    /// as they are, and sessions without it too, unless each must have it.
    pub fn holding(&self, spec: &ColumnSpec) -> Option<&Column> {
        const TEXTS: [&str; 4] = ["TEXT", "VARCHAR", "CHARACTER VARYING", "CITEXT"];
        let is_plain = |column: &&Column| {
            let declared = column.declared_type.to_ascii_uppercase();
            let name = declared.split_once('(').map_or(declared.as_str(), |(name, _)| name);
            let is_text = TEXTS.contains(&name.trim());
            is_text && !column.is_generated && (column.is_nullable || column.is_required)
        };
        self.column(spec.name).filter(|column| spec.since != Since::Forks || is_plain(column))
    }

    /// The columns that tell its rows apart.
    pub fn key(&self) -> Vec<&str> {
        let keys = self.columns.iter().filter(|column| column.is_key);
        keys.map(|column| column.name.as_str()).collect()
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
        self.has_integer_ids() || self.column(EVENT_INDEX).is_none_or(|index| index.is_nullable)
    }

    /// Those of the columns that it lacks.
    pub fn lacking<'spec>(
        &self,
        columns: &'spec [ColumnSpec],
    ) -> impl Iterator<Item = &'spec ColumnSpec> {
        columns.iter().filter(|column| !self.has(column.name))
    }

    /// Why a table isn't one of ours, if it isn't.
    fn why_foreign(&self, columns: &[ColumnSpec]) -> Option<String> {
        let missing = self.lacking(columns).find(|column| column.since == Since::Always);
        if let Some(missing) = missing {
            return Some(format!("it has no column \"{}\"", missing.name));
        }
        if self.key() != [ID] {
            return Some("its primary key is not \"id\"".to_owned());
        }
        let is_known = |name: &str| {
            columns.iter().any(|spec| spec.name == name && self.holding(spec).is_some())
        };
        self.columns
            .iter()
            .find(|column| column.is_required && !is_known(&column.name))
            .map(|column| format!("it needs a value for a column \"{}\"", column.name))
    }
}
