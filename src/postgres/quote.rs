//! Values as SQL literals, for the simple protocol. The one place where data becomes SQL.
//!
//! Whether a server takes a backslash in `'…'` for an escape is a setting that anybody may have
//! changed. So a text with one goes into `E'…'`, where it always is one, doubled. Everything else
//! is safe in either: a quote is doubled, never escaped, and all encodings we send are UTF-8.

/// Appends a text literal. PostgreSQL has no U+0000 in texts and ends the whole message at one; the
/// store refuses such rows before they get here.
pub fn push_text(sql: &mut String, text: &str) {
    debug_assert!(!text.contains('\0'), "refused by the store");
    sql.reserve(text.len() + 3);
    let has_backslash = text.contains('\\');
    sql.push_str(if has_backslash { "E'" } else { "'" });
    let mut rest = text;
    while let Some(at) = rest.find(['\'', '\\', '\0']) {
        let (plain, special) = rest.split_at(at);
        sql.push_str(plain);
        match special.as_bytes()[0] {
            b'\'' => sql.push_str("''"),
            b'\\' => sql.push_str("\\\\"),
            _ => {}
        }
        rest = &special[1..];
    }
    sql.push_str(rest);
    sql.push('\'');
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

    proptest::proptest! {
        #[test]
        fn a_literal_is_read_back_under_either_setting(value in "[^\\x00]*|([\\\\'\"E$;-]|x)*") {
            let literal = text(&value);
            proptest::prop_assert_eq!(read(&literal, false), Some(value.clone()));
            proptest::prop_assert_eq!(read(&literal, true), Some(value));
        }
    }
}
