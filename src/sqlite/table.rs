//! How rows of a table are read and stored: its columns, those that there are.

use rusqlite::{Connection, params_from_iter};

use crate::columns::{ColumnSpec, ID, Value};
use crate::layout::Table;

use super::select::Bound;

/// Stores a row by an upsert of its table.
pub fn upsert_row<const N: usize>(
    connection: &Connection,
    sql: &str,
    values: [Value<'_>; N],
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql)?;
    let columns = statement.parameter_count();
    let bound = values.iter().map(|value| match value {
        Value::Text(text) | Value::Json(text) => text.map_or(Bound::Null, Bound::Text),
        Value::Integer(integer) => integer.map_or(Bound::Null, Bound::Integer),
    });
    // A column that the table lacks is the last, and its value is left out.
    statement.execute(params_from_iter(bound.take(columns))).map(drop)
}

/// The sessions. A table that may not be changed can lack a column that is asked for.
pub fn sessions_source(found: Option<&Table>) -> &'static str {
    if has(found, "sandbox_id") {
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
        .map(|column| if has(found, column.name) { column.name } else { "NULL" })
        .collect();
    format!("SELECT {} FROM {table}", names.join(", "))
}

/// The statement that stores a row, in place of the one with its key.
pub fn upsert(table: &str, columns: &[ColumnSpec], found: Option<&Table>) -> String {
    let names: Vec<&str> =
        columns.iter().map(|column| column.name).filter(|name| has(found, name)).collect();
    let key = found.map_or_else(|| vec![ID], Table::key);
    let replaced: Vec<String> = names
        .iter()
        .filter(|name| !key.contains(name))
        .map(|name| format!("{name} = excluded.{name}"))
        .collect();
    format!(
        "INSERT INTO {table} ({}) VALUES ({}) ON CONFLICT({}) DO UPDATE SET {}",
        names.join(", "),
        vec!["?"; names.len()].join(", "),
        key.join(", "),
        replaced.join(", "),
    )
}

fn has(found: Option<&Table>, name: &str) -> bool {
    found.is_some_and(|table| table.has(name))
}
