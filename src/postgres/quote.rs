//! Values as SQL literals, for the simple protocol. The one place where data becomes SQL.
//!
//! Whether a server takes a backslash in `'…'` for an escape is a setting that anybody may have
//! changed. So a text with one goes into `E'…'`, where it always is one, doubled. Everything else
//! is safe in either: a quote is doubled, never escaped, and all encodings we send are UTF-8.

use std::fmt::Write as _;

/// Appends a text literal. U+0000, which PostgreSQL has no literal for, stays what it is: a message
/// that holds one is refused before it is sent.
pub fn push_text(sql: &mut String, text: &str) {
    sql.reserve(text.len() + 3);
    let has_backslash = text.contains('\\');
    sql.push_str(if has_backslash { "E'" } else { "'" });
    let mut rest = text;
    while let Some(at) = rest.find(['\'', '\\']) {
        let (plain, special) = rest.split_at(at);
        let (doubled, after) = special.split_at(1);
        sql.push_str(plain);
        sql.push_str(doubled);
        sql.push_str(doubled);
        rest = after;
    }
    sql.push_str(rest);
    sql.push('\'');
}

/// Appends a number.
pub fn push_number(sql: &mut String, number: i64) {
    write!(sql, "{number}").expect("a String takes whatever is written");
}

/// Appends an array literal of texts. Each is quoted twice: as an element, and for `E'…'`.
pub fn push_texts(sql: &mut String, texts: &[Option<&str>]) {
    sql.push_str("E'{");
    for (place, text) in texts.iter().enumerate() {
        sql.push_str(if place == 0 { "" } else { "," });
        match text {
            Some(text) => push_element(sql, text),
            None => sql.push_str("NULL"),
        }
    }
    sql.push_str("}'");
}

fn push_element(sql: &mut String, text: &str) {
    sql.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(['\'', '"', '\\']) {
        let (plain, special) = rest.split_at(at);
        let (special, after) = special.split_at(1);
        sql.push_str(plain);
        sql.push_str(match special {
            "'" => "''",
            "\"" => r#"\\""#,
            _ => r"\\\\",
        });
        rest = after;
    }
    sql.push_str(rest);
    sql.push('"');
}

/// Appends an array literal of numbers.
pub fn push_numbers(sql: &mut String, numbers: &[Option<i64>]) {
    sql.push_str("'{");
    for (place, number) in numbers.iter().enumerate() {
        sql.push_str(if place == 0 { "" } else { "," });
        match number {
            Some(number) => push_number(sql, *number),
            None => sql.push_str("NULL"),
        }
    }
    sql.push_str("}'");
}

/// The text as a literal.
pub fn text(text: &str) -> String {
    let mut sql = String::new();
    push_text(&mut sql, text);
    sql
}

/// The name as a quoted identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a literal as a server does that takes backslashes for escapes only in `E'…'`, or, if
    /// `is_lenient`, everywhere. `None` if it isn't one literal to its end.
    fn read(literal: &str, is_lenient: bool) -> Option<String> {
        let (body, escapes) = match literal.strip_prefix("E'") {
            Some(body) => (body, true),
            None => (literal.strip_prefix('\'')?, is_lenient),
        };
        let mut value = String::new();
        let mut characters = body.chars();
        loop {
            match characters.next()? {
                '\\' if escapes => value.push(characters.next()?),
                '\'' => match characters.next() {
                    Some('\'') => value.push('\''),
                    Some(_) => return None,
                    None => return Some(value),
                },
                other => value.push(other),
            }
        }
    }

    #[test]
    fn quotes_and_backslashes_are_doubled() {
        assert_eq!(text("it's"), "'it''s'");
        assert_eq!(text(r"a\'b"), r"E'a\\''b'");
        assert_eq!(text(""), "''");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }

    /// Reads the elements of an array of texts.
    fn elements(array: &str) -> Option<Vec<Option<String>>> {
        let mut rest = array.strip_prefix('{')?.strip_suffix('}')?;
        let mut elements = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("NULL") {
                elements.push(None);
                rest = after;
            } else {
                let mut element = String::new();
                let mut characters = rest.strip_prefix('"')?.chars();
                loop {
                    match characters.next()? {
                        '\\' => element.push(characters.next()?),
                        '"' => break,
                        other => element.push(other),
                    }
                }
                elements.push(Some(element));
                rest = characters.as_str();
            }
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        Some(elements)
    }

    #[test]
    fn numbers_of_an_array_may_be_missing() {
        let mut literal = String::new();
        push_numbers(&mut literal, &[Some(-5), None, Some(7)]);
        assert_eq!(literal, "'{-5,NULL,7}'");
    }

    proptest::proptest! {
        #[test]
        fn an_array_is_read_back(
            texts in proptest::collection::vec(
                proptest::option::of("(?s:.*)|NULL|([\\\\'\"E{},$;-]|x)*"),
                0..5,
            ),
        ) {
            let mut literal = String::new();
            push_texts(&mut literal, &texts.iter().map(Option::as_deref).collect::<Vec<_>>());
            let read = read(&literal, false).and_then(|array| elements(&array));
            proptest::prop_assert_eq!(read, Some(texts));
        }

        #[test]
        fn a_literal_is_read_back_under_either_setting(value in "(?s:.*)|([\\\\'\"E$;-]|x)*") {
            let literal = text(&value);
            proptest::prop_assert_eq!(read(&literal, false), Some(value.clone()));
            proptest::prop_assert_eq!(read(&literal, true), Some(value));
        }
    }
}
