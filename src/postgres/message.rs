//! What goes to the server in one message: statements, and their values in one of two ways.
//!
//! By default values are literals, and the message is one of the simple protocol, which any pooler
//! passes on. With prepared statements they are parameters.

use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Encode, Postgres, Type};

use super::quote;

/// See the module's documentation.
#[derive(Debug)]
pub struct Message {
    sql: String,
    parameters: Option<PgArguments>,
    /// About how large the parameters are.
    parameter_bytes: usize,
}

impl Message {
    /// A message whose values are literals.
    pub fn simple(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), parameters: None, parameter_bytes: 0 }
    }

    /// A statement whose values are parameters.
    pub fn prepared(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), parameters: Some(PgArguments::default()), parameter_bytes: 0 }
    }

    /// Appends SQL. Never holds a value.
    pub fn sql(mut self, sql: &str) -> Self {
        self.sql.push_str(sql);
        self
    }

    /// Appends a text.
    pub fn text(mut self, text: &str) -> Self {
        match self.parameters {
            None => {
                quote::push_text(&mut self.sql, text);
                self
            }
            Some(_) => self.parameter(text),
        }
    }

    /// Appends a number.
    pub fn number(self, number: i64) -> Self {
        match self.parameters {
            None => self.sql(&number.to_string()),
            Some(_) => self.parameter(number),
        }
    }

    /// Appends a parameter, of a prepared statement.
    pub fn parameter<'value, T>(mut self, value: T) -> Self
    where
        T: Encode<'value, Postgres> + Type<Postgres>,
    {
        let parameters = self.parameters.as_mut().expect("only prepared statements have any");
        parameters.add(value).expect("texts and numbers are encoded as they are");
        self.sql.push_str(&format!("${}", parameters.len()));
        self
    }

    /// Says how large the parameters are.
    pub fn with_parameter_bytes(mut self, bytes: usize) -> Self {
        self.parameter_bytes = bytes;
        self
    }

    /// About how much there is to send.
    pub fn bytes(&self) -> usize {
        self.sql.len() + self.parameter_bytes
    }

    /// The statements, and the values that aren't in them.
    pub fn into_parts(self) -> (String, Option<PgArguments>) {
        (self.sql, self.parameters)
    }
}
