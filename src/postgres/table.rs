//! How rows of a table are read and stored: its columns, those that there are.

use std::borrow::Cow;

use crate::columns::{ColumnSpec, EXTRA, ID, Kind, OnDuplicate, Value};
use crate::layout::Table;

use super::message::{Message, Protocol};
use super::quote;
use super::schema::Schema;
use super::wrap::{self, Charset};

/// From so many rows on, one array a column is less work for the server than literals row by row.
const MIN_ROWS_IN_ARRAYS: usize = 100;

/// How rows of a table are read and stored.
#[derive(Debug)]
pub struct TableStatements {
    /// The table's full name, quoted.
    pub name: String,
    /// The columns that there are of ours, in our order.
    columns: Vec<FoundColumn>,
    key: String,
    /// Selects all columns that we know, in our order; one that there isn't reads as NULL.
    pub select: String,
    on_duplicate: OnDuplicate,
    charset: Charset,
}

/// A column, and how its values are sent.
#[derive(Debug)]
struct FoundColumn {
    spec: ColumnSpec,
    /// Of its values in a row's.
    place: usize,
    /// As the table has it.
    declared_type: String,
}

impl TableStatements {
    /// The statements for a table that was found.
    pub fn new(
        schema: &Schema,
        table: &str,
        specs: &[ColumnSpec],
        found: Option<&Table>,
        on_duplicate: OnDuplicate,
        protocol: &Protocol,
        charset: Charset,
    ) -> Self {
        let column = |(place, spec): (usize, &ColumnSpec)| {
            let declared_type = castable(&found?.holding(spec)?.declared_type);
            Some(FoundColumn { spec: *spec, place, declared_type })
        };
        let columns: Vec<FoundColumn> = specs.iter().enumerate().filter_map(column).collect();
        let has = |name: &str| columns.iter().any(|column| column.spec.name == name);
        let selected: Vec<String> = specs
            .iter()
            .map(|spec| match protocol {
                _ if !has(spec.name) => "NULL".to_owned(),
                // It sends texts anyway.
                Protocol::Simple(_) => spec.name.to_owned(),
                Protocol::Prepared => format!("{}::text", spec.name),
            })
            .collect();
        let name = schema.table(table);
        let key = found.map_or_else(|| ID.to_owned(), |table| table.key().join(", "));
        let select = format!("SELECT {} FROM {name} AS stored", selected.join(", "));
        Self { name, columns, key, select, on_duplicate, charset }
    }

    /// Whether there is a column that holds what this one is for.
    pub fn has(&self, spec: &ColumnSpec) -> bool {
        self.columns.iter().any(|column| column.spec == *spec)
    }

    /// Whether fields that we don't know by name can be stored.
    pub fn has_extra(&self) -> bool {
        self.columns.iter().any(|column| column.spec.name == EXTRA)
    }

    /// A JSON text as it is stored.
    pub fn stored_json<'json>(&self, json: &'json str) -> Cow<'json, str> {
        wrap::stored(json, self.charset)
    }

    /// The bytes of the texts of a row of `stored`, as an expression.
    pub fn text_bytes(&self) -> String {
        self.sum_of_texts(|name| format!("octet_length(stored.{name}::text)"))
    }

    /// The bytes that a row of `stored` takes, compressed and out of line as its texts may be.
    pub fn stored_bytes(&self) -> String {
        self.sum_of_texts(|name| format!("pg_column_size(stored.{name})"))
    }

    fn sum_of_texts(&self, size: impl Fn(&str) -> String) -> String {
        let texts = self.columns.iter().filter(|column| column.spec.kind != Kind::Integer);
        let sizes: Vec<String> =
            texts.map(|column| format!("coalesce({}, 0)", size(column.spec.name))).collect();
        sizes.join(" + ")
    }

    /// Appends a statement that stores these rows.
    pub fn push_upsert<'row, const N: usize>(
        &self,
        message: Message,
        rows: impl Iterator<Item = [Value<'row>; N]>,
    ) -> Message {
        let is_prepared = message.is_prepared();
        let rows: Vec<_> = rows.collect();
        let message = match is_prepared || rows.is_empty() || rows.len() >= MIN_ROWS_IN_ARRAYS {
            true => self.push_arrays(message, &rows),
            false => self.push_literals(message, rows.into_iter()),
        };
        // More statements may follow.
        let end = if is_prepared { "" } else { ";" };
        message.sql(&self.on_conflict()).sql(end)
    }

    fn push_literals<'row, const N: usize>(
        &self,
        message: Message,
        rows: impl Iterator<Item = [Value<'row>; N]>,
    ) -> Message {
        let insert = format!("INSERT INTO {} ({}) VALUES ", self.name, self.names());
        message.sql(&insert).literals(|sql| {
            for (number, row) in rows.enumerate() {
                sql.push_str(if number == 0 { "(" } else { "),(" });
                for (number, column) in self.columns.iter().enumerate() {
                    sql.push_str(if number > 0 { "," } else { "" });
                    push_literal(sql, row[column.place], self.charset);
                }
            }
            sql.push(')');
        })
    }

    /// One array a column: a prepared statement is the same for any number of rows.
    fn push_arrays<const N: usize>(&self, message: Message, rows: &[[Value<'_>; N]]) -> Message {
        let values: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{}::{}", column.spec.name, column.declared_type))
            .collect();
        let (name, names, values) = (&self.name, self.names(), values.join(", "));
        let mut message =
            message.sql(&format!("INSERT INTO {name} ({names}) SELECT {values} FROM unnest("));
        for (number, column) in self.columns.iter().enumerate() {
            message = message.sql(if number == 0 { "" } else { "," });
            let of_column = rows.iter().map(|row| row[column.place]);
            message = match column.spec.kind {
                Kind::Integer => {
                    let numbers: Vec<Option<i64>> = of_column.map(Value::as_integer).collect();
                    message.numbers(&numbers).sql("::bigint[]")
                }
                Kind::Text => {
                    let texts: Vec<Option<&str>> = of_column.map(Value::as_text).collect();
                    message.texts(&texts).sql("::text[]")
                }
                Kind::Json => {
                    let texts: Vec<_> = of_column
                        .map(|json| Some(wrap::stored(json.as_text()?, self.charset)))
                        .collect();
                    let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
                    message.texts(&texts).sql("::text[]")
                }
            };
        }
        message.sql(&format!(") AS rows ({names})"))
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| column.spec.name).collect();
        names.join(", ")
    }

    fn on_conflict(&self) -> String {
        if self.on_duplicate == OnDuplicate::Keep {
            return format!(" ON CONFLICT ({}) DO NOTHING", self.key);
        }
        let is_replaced =
            |column: &&FoundColumn| !self.key.split(", ").any(|key| key == column.spec.name);
        let replaced: Vec<String> = self
            .columns
            .iter()
            .filter(is_replaced)
            .map(|FoundColumn { spec, .. }| format!("{} = excluded.{}", spec.name, spec.name))
            .collect();
        format!(" ON CONFLICT ({}) DO UPDATE SET {}", self.key, replaced.join(", "))
    }
}

/// A type as it may be cast to: what the name alone means holds a single character.
fn castable(declared_type: &str) -> String {
    let without_length = if declared_type == "character" { "bpchar" } else { declared_type };
    without_length.to_owned()
}

fn push_literal(sql: &mut String, value: Value<'_>, charset: Charset) {
    match value {
        Value::Text(Some(text)) => quote::push_text(sql, text),
        Value::Json(Some(json)) => quote::push_text(sql, &wrap::stored(json, charset)),
        Value::Integer(Some(number)) => quote::push_number(sql, number),
        Value::Text(None) | Value::Json(None) | Value::Integer(None) => sql.push_str("NULL"),
    }
}
