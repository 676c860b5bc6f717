//! How rows of a table are read and stored: its columns, those that there are.

use rusqlite::{Connection, params_from_iter};

use crate::columns::{ColumnSpec, ID, OnDuplicate, Value};
use crate::layout::Table;

use super::select::Bound;

/// The statement that stores a row.
#[derive(Debug)]
pub struct Upsert {
    sql: String,
    /// Of the columns' values in a row's.
    places: Vec<usize>,
}

impl Upsert {
    /// The statement for a table that was found.
    pub fn new(
        table: &str,
        specs: &[ColumnSpec],
        found: Option<&Table>,
        on_duplicate: OnDuplicate,
    ) -> Self {
        let is_found = |(_, spec): &(usize, &ColumnSpec)| has(found, spec);
        let (places, names): (Vec<usize>, Vec<&str>) = specs
            .iter()
            .enumerate()
            .filter(is_found)
            .map(|(place, spec)| (place, spec.name))
            .unzip();
        let key = found.map_or_else(|| vec![ID], Table::key);
        let replaced: Vec<String> = names
            .iter()
            .filter(|name| !key.contains(name))
            .map(|name| format!("{name} = excluded.{name}"))
            .collect();
        let action = match on_duplicate {
            OnDuplicate::Replace => format!("UPDATE SET {}", replaced.join(", ")),
            OnDuplicate::Keep => "NOTHING".to_owned(),
        };
        let sql = format!(
            "INSERT INTO {table} ({}) VALUES ({}) ON CONFLICT({}) DO {action}",
            names.join(", "),
            vec!["?"; names.len()].join(", "),
            key.join(", "),
        );
        Self { sql, places }
    }

    /// Stores a row.
    pub fn run<const N: usize>(
        &self,
        connection: &Connection,
        values: [Value<'_>; N],
    ) -> rusqlite::Result<()> {
        let bound = self.places.iter().map(|place| match values[*place] {
            Value::Text(text) | Value::Json(text) => text.map_or(Bound::Null, Bound::Text),
            Value::Integer(integer) => integer.map_or(Bound::Null, Bound::Integer),
        });
        connection.prepare_cached(&self.sql)?.execute(params_from_iter(bound)).map(drop)
    }
}

/// The sessions. A table that may not be changed can lack a column that is asked for.
pub fn sessions_source(found: Option<&Table>) -> &'static str {
    if found.is_some_and(|table| table.has("sandbox_id")) {
        "sessions"
    } else {
        "(SELECT *, NULL AS sandbox_id FROM sessions)"
    }
}

/// The statement that selects all columns that we know, in our order. One that the table lacks
/// reads as NULL.
pub fn select(table: &str, columns: &[ColumnSpec], found: Option<&Table>) -> String {
    let names: Vec<&str> = columns
        .iter()
        .map(|column| if has(found, column) { column.name } else { "NULL" })
        .collect();
    format!("SELECT {} FROM {table}", names.join(", "))
}

/// Whether there is a column that holds what this one is for.
pub fn has(found: Option<&Table>, spec: &ColumnSpec) -> bool {
    found.is_some_and(|table| table.holding(spec).is_some())
}
