//! Selects as they are put together: which rows, in which order, from where on. The one builder of
//! WHERE, ORDER BY and LIMIT.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};

use crate::columns::{ID, SESSION_ID};
use crate::cursor::Start;
use crate::error::StoreError;
use crate::filter::{Condition, Field, Order, Test};
use crate::page::sql_count;

use super::failure;
use super::rows::count;

/// Of an envelope that is JSON. Texts alone: a number isn't the text that it is printed as.
const IS_METHOD: &str = "CASE WHEN json_valid(payload_json) \
     THEN json_extract(payload_json, '$.method') = ? \
       AND json_type(payload_json, '$.method') = 'text' END";

/// A value for a place in a statement.
#[derive(Debug, Clone, Copy)]
pub enum Bound<'value> {
    /// Nothing.
    Null,
    /// A text.
    Text(&'value str),
    /// A whole number.
    Integer(i64),
}

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Integer(integer) => ValueRef::Integer(*integer),
        }))
    }
}

/// A SELECT as it is put together, with the values for its places.
#[derive(Debug)]
pub struct Select<'value> {
    sql: String,
    values: Vec<Bound<'value>>,
    has_condition: bool,
}

impl<'value> Select<'value> {
    /// Up to the conditions.
    pub fn new(sql: &str) -> Self {
        Self { sql: sql.to_owned(), values: Vec::new(), has_condition: false }
    }

    /// A value for a place that the statement has already.
    pub fn with(mut self, value: Bound<'value>) -> Self {
        self.values.push(value);
        self
    }

    fn where_(&mut self, condition: &str) {
        self.sql.push_str(if self.has_condition { " AND " } else { " WHERE " });
        self.sql.push_str(condition);
        self.has_condition = true;
    }

    /// Only rows that satisfy these.
    pub fn filtered(mut self, conditions: impl IntoIterator<Item = Condition<'value>>) -> Self {
        for Condition { field, test } in conditions {
            let condition = match (field, test) {
                (Field::Method, _) => IS_METHOD.to_owned(),
                (Field::Column(name), Test::Is(_)) => format!("{name} = ?"),
                (Field::Column(name), Test::Above(_)) => format!("{name} > ?"),
                (Field::Column(name), Test::Below(_)) => format!("{name} < ?"),
                (Field::Column(name), Test::Exists(true)) => format!("{name} IS NOT NULL"),
                (Field::Column(name), Test::Exists(false)) => format!("{name} IS NULL"),
            };
            self.where_(&condition);
            match test {
                Test::Is(text) => self.values.push(Bound::Text(text)),
                Test::Above(number) | Test::Below(number) => {
                    self.values.push(Bound::Integer(number));
                }
                Test::Exists(_) => {}
            }
        }
        self
    }

    /// By a column and then the id, from where a page starts, at most so many rows.
    pub fn in_order(mut self, column: &str, order: Order, start: &'value Start, rows: u64) -> Self {
        let (comes_after, direction) = match order {
            Order::Oldest => (">", "ASC"),
            Order::Newest => ("<", "DESC"),
        };
        if let Some(last) = &start.after {
            self.where_(&format!("({column}, {ID}) {comes_after} (?, ?)"));
            self.values.extend([Bound::Integer(last.order), Bound::Text(&last.id)]);
        }
        self.sql.push_str(&format!(" ORDER BY {column} {direction}, {ID} {direction} LIMIT ?"));
        self.values.push(Bound::Integer(sql_count(rows)));
        if start.after.is_none() && start.offset > 0 {
            self.sql.push_str(" OFFSET ?");
            self.values.push(Bound::Integer(sql_count(start.offset)));
        }
        self
    }

    /// Calls `wants_more` with each row, until it wants none.
    pub fn each_row(
        &self,
        connection: &Connection,
        mut wants_more: impl FnMut(&Row<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(&self.sql).map_err(failure::store_error)?;
        let values = params_from_iter(self.values.iter());
        let mut rows = statement.query(values).map_err(failure::store_error)?;
        while let Some(row) = rows.next().map_err(failure::store_error)? {
            if !wants_more(row)? {
                break;
            }
        }
        Ok(())
    }

    /// The number that is selected.
    pub fn count(&self, connection: &Connection) -> Result<u64, StoreError> {
        let mut counted = 0;
        self.each_row(connection, |row| {
            counted = count(row, 0).map_err(failure::store_error)?;
            Ok(true)
        })?;
        Ok(counted)
    }
}

/// The events of this session.
pub fn of_session(session_id: &str) -> Condition<'_> {
    Condition { field: Field::Column(SESSION_ID), test: Test::Is(session_id) }
}
