//! Limits and cursors, read by JavaScript's rules.
//!
//! A cursor is the decimal offset of the next item, as the TypeScript drivers make it,
//! followed by `~` and the key of the last item, URL-safe. Whoever reads it with
//! `parseInt` still finds the offset; we seek to the key instead, which costs the same
//! on page one and on page ten thousand.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::Number;

/// How many items a page has when the caller doesn't say.
pub const DEFAULT_PAGE_ITEMS: u64 = 100;

/// Stands between the offset and the key.
const KEY_SEPARATOR: char = '~';

/// Where an item stands in its list: first by number, then by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// `event_index` of an event, `created_at` of a session.
    pub order: i64,
    /// The item's id.
    pub id: String,
}

impl Position {
    /// The position of a row. Rows of other writers may be ordered by a fraction; they have none.
    pub fn of(order: Number, id: &str) -> Option<Self> {
        match order {
            Number::Integer(order) => Some(Self { order, id: id.to_owned() }),
            Number::Real(_) => None,
        }
    }
}

/// Where a page starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// How many items come before it.
    pub offset: u64,
    /// The item it follows, where the cursor says.
    pub after: Option<Position>,
}

/// The SDK's rule for `limit`: missing, not finite or below 1 means 100; else floored.
pub fn page_items(limit: Option<f64>) -> u64 {
    match limit {
        Some(limit) if limit.is_finite() && limit >= 1.0 => saturating_u64(limit),
        _ => DEFAULT_PAGE_ITEMS,
    }
}

/// Reads a cursor of the list named `list`. Junk is the start; a key that is malformed or
/// of another list leaves the offset.
pub fn parse(cursor: Option<&str>, list: &str) -> Start {
    let cursor = cursor.unwrap_or_default();
    let offset = parse_offset(cursor);
    let after = cursor
        .split_once(KEY_SEPARATOR)
        .and_then(|(_, key)| parse_key(key, list))
        .filter(|_| offset > 0);
    Start { offset, after }
}

/// The cursor of what follows `last`, the item before number `offset` of the list named `list`.
pub fn format(offset: u64, list: &str, last: Option<&Position>) -> String {
    match last {
        Some(Position { order, id }) => {
            let key = serde_json::to_string(&(list, order, id)).expect("strings and integers");
            format!("{offset}{KEY_SEPARATOR}{}", URL_SAFE_NO_PAD.encode(key))
        }
        None => offset.to_string(),
    }
}

fn parse_key(key: &str, list: &str) -> Option<Position> {
    let json = URL_SAFE_NO_PAD.decode(key).ok()?;
    let (of_list, order, id): (String, i64, String) = serde_json::from_slice(&json).ok()?;
    // No id holds U+0000, and a database may not take one.
    (of_list == list && !id.contains('\0')).then_some(Position { order, id })
}

/// `parseInt(text, 10)`, with what isn't a positive number as 0.
fn parse_offset(text: &str) -> u64 {
    let text = text.trim_start_matches(is_js_whitespace);
    let digits = text.strip_prefix('+').unwrap_or(text);
    digits
        .bytes()
        .map_while(|byte| byte.is_ascii_digit().then(|| u64::from(byte - b'0')))
        .fold(0, |offset, digit| offset.saturating_mul(10).saturating_add(digit))
}

/// What JavaScript trims: Unicode's white space and the byte order mark, but not U+0085.
fn is_js_whitespace(character: char) -> bool {
    (character.is_whitespace() && character != '\u{85}') || character == '\u{feff}'
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "called with numbers >= 1; a larger one than u64 holds saturates"
)]
fn saturating_u64(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(order: i64, id: &str) -> Position {
        Position { order, id: id.to_owned() }
    }

    #[test]
    fn limits_follow_the_sdk() {
        for (limit, items) in [
            (None, 100),
            (Some(f64::NAN), 100),
            (Some(f64::INFINITY), 100),
            (Some(0.0), 100),
            (Some(-3.0), 100),
            (Some(0.99), 100),
            (Some(1.0), 1),
            (Some(7.9), 7),
            (Some(1e30), u64::MAX),
        ] {
            assert_eq!(page_items(limit), items, "{limit:?}");
        }
    }

    #[test]
    fn offsets_are_read_as_parse_int_does() {
        for (cursor, offset) in [
            ("", 0),
            ("12", 12),
            ("  \u{feff}12abc", 12),
            ("\u{85}12", 0),
            ("+7", 7),
            ("-7", 0),
            ("1e3", 1),
            ("0x10", 0),
            ("junk", 0),
            ("99999999999999999999999", u64::MAX),
        ] {
            assert_eq!(parse(Some(cursor), "s").offset, offset, "{cursor:?}");
        }
    }

    #[test]
    fn a_cursor_leads_to_the_item_it_was_made_from() {
        let cursor = format(20, "s", Some(&at(-4, "ü~\"\\")));
        assert!(cursor.starts_with("20~"));
        assert_eq!(parse(Some(&cursor), "s"), Start { offset: 20, after: Some(at(-4, "ü~\"\\")) });
    }

    #[test]
    fn a_key_of_another_list_or_a_torn_one_leaves_the_offset() {
        let cursor = format(20, "s", Some(&at(1, "a")));
        let offset_only = Start { offset: 20, after: None };
        assert_eq!(parse(Some(&cursor), "t"), offset_only);
        assert_eq!(parse(Some(&cursor[..cursor.len() - 2]), "s"), offset_only);
        assert_eq!(parse(Some("20~!"), "s"), offset_only);
        assert_eq!(parse(Some(&format(20, "s", Some(&at(1, "a\0")))), "s"), offset_only);
        assert_eq!(parse(Some(&cursor.replacen("20", "0", 1)), "s").after, None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(cursor in ".*", list in ".*") {
            parse(Some(&cursor), &list);
        }

        #[test]
        fn cursors_round_trip_and_are_safe_in_urls(offset in 1u64.., list in ".*", order: i64, id in "[^\\x00]*") {
            let position = Position { order, id };
            let cursor = format(offset, &list, Some(&position));
            proptest::prop_assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b"~-_".contains(&b)));
            proptest::prop_assert_eq!(parse(Some(&cursor), &list), Start { offset, after: Some(position) });
        }
    }
}
