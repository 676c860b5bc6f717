//! Selects as they are put together: which rows, in which order, from where on. The one builder of
//! WHERE, ORDER BY and LIMIT.

use sqlx::postgres::PgRow;

use crate::columns::{ID, SESSION_ID};
use crate::cursor::{Position, Start};
use crate::error::StoreError;
use crate::filter::{Condition, Field, Order, Test};
use crate::model::{Number, PageRequest};
use crate::page::{PageBuilder, sql_count};

use super::connection::Timed;
use super::failure::Failure;
use super::message::{Message, Protocol};

/// Where a page is bounded in bytes, few rows are read at first, as they may be large, …
const FIRST_STEP_ROWS: usize = 32;
/// … and then ever more, as each step costs a round trip, …
const STEP_GROWTH: usize = 4;
const MAX_STEP_ROWS: usize = 1_000;
/// … but about so many bytes, as far as the rows before tell.
const STEP_BYTES: usize = 8 * 1024 * 1024;
/// How selects are printed for a database.
#[derive(Debug)]
pub struct Dialect {
    /// How values are sent.
    pub protocol: Protocol,
    /// Of envelopes: `json` or `jsonb`.
    pub payload_type: String,
}

/// Which rows are read, and in which order.
#[derive(Debug)]
pub struct Select<'query> {
    /// Selects the columns, up to the conditions.
    pub sql: &'query str,
    /// What the rows must satisfy.
    pub conditions: Vec<Condition<'query>>,
    /// Which column they are ordered by, before the id.
    pub column: &'static str,
    /// From which end.
    pub order: Order,
}

impl Dialect {
    /// A message that begins with this SQL.
    pub fn message(&self, sql: &str) -> Message {
        self.protocol.message().sql(sql)
    }

    /// Appends a WHERE with these conditions, if there are any. Their columns are those of a table
    /// called `stored`.
    pub fn push_where(&self, message: Message, conditions: &[Condition<'_>]) -> Message {
        match conditions.is_empty() {
            true => message,
            false => self.push_conditions(message.sql(" WHERE "), conditions),
        }
    }

    fn push_conditions(&self, message: Message, conditions: &[Condition<'_>]) -> Message {
        let conditions = conditions.iter().enumerate();
        conditions.fold(message, |message, (place, Condition { field, test })| {
            let message = message.sql(if place == 0 { "" } else { " AND " });
            let message = match field {
                Field::Method => message.sql("payload_json ->> 'method'"),
                Field::Column(name) => message.sql("stored.").sql(name),
            };
            match (field, test) {
                (Field::Method, Test::Is(text)) => {
                    message.sql(" = ").text(text).sql(&self.and_method_is_text())
                }
                (_, Test::Is(text)) => message.sql(" = ").text(text),
                (_, Test::Above(number)) => message.sql(" > ").number(*number),
                (_, Test::Below(number)) => message.sql(" < ").number(*number),
                (_, Test::Exists(true)) => message.sql(" IS NOT NULL"),
                (_, Test::Exists(false)) => message.sql(" IS NULL"),
            }
        })
    }

    /// A number isn't the text that it is printed as.
    fn and_method_is_text(&self) -> String {
        format!(" AND {}_typeof(payload_json -> 'method') = 'string'", self.payload_type)
    }
}

impl Select<'_> {
    /// Calls `wants_more` with each row, until it wants none; rows are read in steps. A row that
    /// can't be read has no place, and those behind it are found by their number.
    pub async fn each_row(
        &self,
        connection: &mut Timed<'_>,
        dialect: &Dialect,
        mut start: RowStart,
        mut steps: RowSteps,
        mut wants_more: impl FnMut(&PgRow) -> Result<(bool, Option<ReadRow>), StoreError>,
    ) -> Result<(), Failure> {
        loop {
            let rows = connection.fetch(self.message(dialect, &start, steps.rows)).await?;
            let mut bytes = 0;
            for row in &rows {
                let (wants_more, read) = wants_more(row).map_err(Failure::of_call)?;
                start.offset = start.offset.saturating_add(1);
                bytes += read.as_ref().map_or(0, |read| read.bytes);
                start.after = read.map(|read| read.place);
                if !wants_more {
                    return Ok(());
                }
            }
            if rows.len() < steps.rows || !steps.grow(rows.len(), bytes) {
                return Ok(());
            }
        }
    }

    /// The rows from a start, in order. A bare name would mean the text that is selected.
    ///
    /// What the order's index doesn't know is one condition that the planner can't estimate. Where
    /// it expects few rows to satisfy it, it would read and sort all of them for each page.
    pub fn message(&self, dialect: &Dialect, start: &RowStart, rows: usize) -> Message {
        let Self { sql, conditions, column, order } = self;
        let (comes_after, direction) = match order {
            Order::Oldest => (">", "ASC"),
            Order::Newest => ("<", "DESC"),
        };
        let is_indexed = |condition: &Condition<'_>| {
            [Field::Column(SESSION_ID), Field::Column(column)].contains(&condition.field)
        };
        let (indexed, others): (Vec<_>, Vec<_>) = conditions.iter().copied().partition(is_indexed);
        let and_or_where = |is_first: bool| if is_first { " WHERE " } else { " AND " };
        let mut message = dialect.push_where(dialect.message(sql), &indexed);
        if let Some((number, id)) = &start.after {
            let and = and_or_where(indexed.is_empty());
            message = message.sql(&format!("{and}(stored.{column}, stored.{ID}) {comes_after} ("));
            message = match number {
                Number::Integer(integer) => message.number(*integer),
                // As PostgreSQL prints and reads it.
                Number::Real(real) => message.sql(&format!("{real:?}")),
            };
            message = message.sql(", ").text(id).sql(")");
        }
        if !others.is_empty() {
            let and = and_or_where(indexed.is_empty() && start.after.is_none());
            message = message.sql(and).sql("CASE WHEN ");
            message = dialect.push_conditions(message, &others).sql(" THEN true END");
        }
        let order =
            format!(" ORDER BY stored.{column} {direction}, stored.{ID} {direction} LIMIT ");
        message = message.sql(&order).number(sql_count(rows));
        match start.after {
            None if start.offset > 0 => message.sql(" OFFSET ").number(sql_count(start.offset)),
            _ => message,
        }
    }
}

/// Where rows are read from.
#[derive(Debug)]
pub struct RowStart {
    /// How many rows come before, counted only where there is no `after`.
    pub offset: usize,
    /// The row before, by the order's column and its id.
    pub after: Option<(Number, String)>,
}

impl From<&Start> for RowStart {
    fn from(start: &Start) -> Self {
        let after = start.after.as_ref();
        Self {
            offset: usize::try_from(start.offset).unwrap_or(usize::MAX),
            after: after.map(|Position { order, id }| (Number::Integer(*order), id.clone())),
        }
    }
}

/// A row that could be read: its place, and about how large it was.
pub struct ReadRow {
    place: (Number, String),
    bytes: usize,
}

impl ReadRow {
    /// Of so many bytes.
    pub fn new(number: Number, id: &str, bytes: usize) -> Self {
        Self { place: (number, id.to_owned()), bytes }
    }
}

/// How many rows are read together.
pub struct RowSteps {
    rows: usize,
    /// How many rows are wanted in all.
    wanted: usize,
}

impl RowSteps {
    /// For a page: all at once, unless its bytes have a bound.
    pub fn of(request: &PageRequest, page: &PageBuilder<'_>) -> Self {
        let wanted = usize::try_from(page.rows_wanted()).unwrap_or(usize::MAX);
        match request.max_bytes {
            Some(_) => Self::growing(wanted),
            None => Self { rows: wanted, wanted },
        }
    }

    /// Few at first, of so many in all.
    pub fn growing(wanted: usize) -> Self {
        Self { rows: FIRST_STEP_ROWS.min(wanted), wanted }
    }

    /// Goes on after so many rows of so many bytes. `false`: no more are wanted.
    fn grow(&mut self, rows: usize, bytes: usize) -> bool {
        self.wanted = self.wanted.saturating_sub(rows);
        let room = STEP_BYTES / (bytes / rows.max(1)).max(1);
        let grown = (self.rows * STEP_GROWTH).min(MAX_STEP_ROWS).min(room.max(1));
        self.rows = grown.min(self.wanted);
        self.rows > 0
    }
}

/// The events of this session.
pub fn of_session(session_id: &str) -> Condition<'_> {
    Condition { field: Field::Column(SESSION_ID), test: Test::Is(session_id) }
}
