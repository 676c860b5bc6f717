//! What goes to the server in one message: statements, and their values in one of two ways.

use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Encode, Postgres, Type};

use crate::error::StoreError;

use super::quote;

/// How statements and their values are sent.
#[derive(Debug, Clone)]
pub enum Protocol {
    /// PostgreSQL's simple protocol, which any pooler passes on: values are literals.
    Simple(Prefix),
    /// Named statements, whose values are parameters. Nothing can go before one.
    Prepared,
}

/// What goes before a statement, in the same message and so in the same transaction.
#[derive(Debug, Clone)]
pub struct Prefix {
    /// Sets the timeouts that the user gave.
    pub timeouts: String,
    /// Before a statement of several rows: one that somebody else has locked is soon found, and the
    /// others don't wait with it.
    pub of_several: String,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Message {
    sql: String,
    /// `None` where values are literals.
    parameters: Option<Parameters>,
}

#[derive(Debug, Default)]
struct Parameters {
    values: PgArguments,
    /// About how large the values are.
    bytes: usize,
    holds_nul: bool,
}

impl Protocol {
    /// A message that begins as each must.
    pub fn message(&self) -> Message {
        match self {
            Self::Simple(prefix) => Message::simple(prefix.timeouts.as_str()),
            Self::Prepared => Message::prepared(),
        }
    }
}

impl Message {
    /// A message whose values are literals.
    pub fn simple(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), parameters: None }
    }

    /// A statement whose values are parameters.
    pub fn prepared() -> Self {
        Self { sql: String::new(), parameters: Some(Parameters::default()) }
    }

    /// Whether values are parameters.
    pub fn is_prepared(&self) -> bool {
        self.parameters.is_some()
    }

    /// Appends SQL. Never holds a value.
    pub fn sql(mut self, sql: &str) -> Self {
        self.sql.push_str(sql);
        self
    }

    /// Appends values that are literals, many at once: each through `quote`.
    pub fn literals(mut self, push: impl FnOnce(&mut String)) -> Self {
        push(&mut self.sql);
        self
    }

    /// Appends a text.
    pub fn text(mut self, text: &str) -> Self {
        match self.parameters {
            None => {
                quote::push_text(&mut self.sql, text);
                self
            }
            Some(_) => self.note_texts([text]).parameter(text),
        }
    }

    /// Appends a number.
    pub fn number(self, number: i64) -> Self {
        match self.parameters {
            None => self.sql(&number.to_string()),
            Some(_) => self.parameter(number),
        }
    }

    /// Appends an array of texts.
    pub fn texts(mut self, texts: &[Option<&str>]) -> Self {
        match self.parameters {
            None => {
                quote::push_texts(&mut self.sql, texts);
                self
            }
            Some(_) => self.note_texts(texts.iter().copied().flatten()).parameter(texts),
        }
    }

    /// Appends an array of numbers.
    pub fn numbers(mut self, numbers: &[Option<i64>]) -> Self {
        match self.parameters {
            None => {
                quote::push_numbers(&mut self.sql, numbers);
                self
            }
            Some(_) => self.parameter(numbers),
        }
    }

    /// About how much there is to send.
    pub fn bytes(&self) -> usize {
        self.sql.len() + self.parameters.as_ref().map_or(0, |parameters| parameters.bytes)
    }

    /// The statements, and the values that aren't in them. A message with U+0000 is never sent:
    /// PostgreSQL has none in its texts, and would take it for the end of the statements.
    pub fn into_parts(self) -> Result<(String, Option<PgArguments>), StoreError> {
        let in_parameters = self.parameters.as_ref().is_some_and(|parameters| parameters.holds_nul);
        if in_parameters || self.sql.contains('\0') {
            return Err(StoreError::Internal { reason: "a text holds U+0000" });
        }
        Ok((self.sql, self.parameters.map(|parameters| parameters.values)))
    }

    fn note_texts<'text>(mut self, texts: impl IntoIterator<Item = &'text str>) -> Self {
        let parameters = self.parameters_mut();
        for text in texts {
            parameters.bytes += text.len();
            parameters.holds_nul |= text.contains('\0');
        }
        self
    }

    fn parameter<'value, T>(mut self, value: T) -> Self
    where
        T: Encode<'value, Postgres> + Type<Postgres>,
    {
        let values = &mut self.parameters_mut().values;
        values.add(value).expect("texts and numbers are encoded as they are");
        let place = values.len();
        self.sql(&format!("${place}"))
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        self.parameters.as_mut().expect("only prepared statements have any")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_u0000_is_never_sent() {
        for message in [
            Message::simple("SELECT ").text("a\0b"),
            Message::simple("SELECT '\0'"),
            Message::prepared().sql("SELECT ").text("\0"),
            Message::prepared().sql("SELECT ").texts(&[Some("a"), None, Some("b\0")]),
        ] {
            let refused = message.into_parts().expect_err("U+0000");
            assert_eq!(refused, StoreError::Internal { reason: "a text holds U+0000" });
        }
    }

    #[test]
    fn values_are_literals_or_parameters() {
        let query = |message: Message| message.sql("SELECT ").text("it's").sql(", ").number(-5);
        let (sql, parameters) = query(Message::simple("")).into_parts().unwrap();
        assert_eq!(sql, "SELECT 'it''s', -5");
        assert!(parameters.is_none());
        let (sql, parameters) = query(Message::prepared()).into_parts().unwrap();
        assert_eq!(sql, "SELECT $1, $2");
        assert_eq!(parameters.unwrap().len(), 2);
    }

    #[test]
    fn what_is_sent_beside_the_sql_counts_too() {
        assert_eq!(Message::prepared().texts(&[Some("abc"), None]).bytes(), "$1".len() + 3);
    }
}
