//! Limits and cursors, read by JavaScript's rules.
//!
//! A cursor is the decimal offset of the next item, as the TypeScript drivers make it,
//! followed by `~` and the key of the last item, URL-safe. Whoever reads it with
//! `parseInt` still finds the offset; we seek to the key instead, which costs the same
//! on page one and on page ten thousand.
//!
//! That of a filtered or descending list has no number before the `~`, so that whoever asks another
//! question with it begins at the start.

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

    /// No id holds U+0000, and a database may not take one.
    fn is_possible(&self) -> bool {
        !self.id.contains('\0')
    }
}

/// Where a page starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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

/// Which list a cursor is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<'list> {
    /// What the list is of: a session's id, say.
    pub of: &'list str,
    /// What else was asked for, a filter or the other order. `None` for the whole list, oldest
    /// first, whose cursors the TypeScript drivers can read.
    pub question: Option<String>,
}

/// What the cursor of a filtered or descending list holds: the list, how many items come before the
/// next, and the place of the last.
type QuestionKey = (String, String, u64, Option<(i64, String)>);

/// Reads a cursor of a list. Junk is the start; a key that is malformed or of another list leaves
/// the offset, if the whole list was asked for. A plain number is an offset in any list.
pub fn parse(cursor: Option<&str>, list: &List<'_>) -> Start {
    let cursor = cursor.unwrap_or_default();
    let Some((number, key)) = cursor.split_once(KEY_SEPARATOR) else {
        return Start { offset: parse_offset(cursor), after: None };
    };
    match &list.question {
        None => {
            let offset = parse_offset(number);
            let after = parse_key(key, list.of).filter(|_| offset > 0);
            Start { offset, after }
        }
        Some(question) => parse_question_key(number, key, list.of, question).unwrap_or_default(),
    }
}

/// The cursor of what follows `last`, the item before number `offset` of the list.
pub fn format(offset: u64, list: &List<'_>, last: Option<&Position>) -> String {
    let last = last.map(|Position { order, id }| (*order, id.as_str()));
    match (&list.question, last) {
        (None, None) => offset.to_string(),
        (None, Some((order, id))) => {
            format!("{offset}{KEY_SEPARATOR}{}", encode(&(list.of, order, id)))
        }
        (Some(question), last) => {
            format!("{KEY_SEPARATOR}{}", encode(&(list.of, question, offset, last)))
        }
    }
}

fn encode(key: &impl serde::Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_string(key).expect("strings and integers"))
}

fn parse_key(key: &str, list: &str) -> Option<Position> {
    let json = URL_SAFE_NO_PAD.decode(key).ok()?;
    let (of_list, order, id): (String, i64, String) = serde_json::from_slice(&json).ok()?;
    (of_list == list).then_some(Position { order, id }).filter(Position::is_possible)
}

fn parse_question_key(number: &str, key: &str, list: &str, question: &str) -> Option<Start> {
    let json = URL_SAFE_NO_PAD.decode(key).ok()?;
    let (of_list, asked, offset, last): QuestionKey = serde_json::from_slice(&json).ok()?;
    let is_of_list = number.is_empty() && of_list == list && asked == question;
    let after = last.map(|(order, id)| Position { order, id });
    let is_possible = after.as_ref().is_none_or(Position::is_possible);
    (is_of_list && is_possible).then_some(Start { offset, after })
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

    fn whole(of: &str) -> List<'_> {
        List { of, question: None }
    }

    fn asked<'list>(of: &'list str, question: &str) -> List<'list> {
        List { of, question: Some(question.to_owned()) }
    }

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
            assert_eq!(parse(Some(cursor), &whole("s")).offset, offset, "{cursor:?}");
        }
    }

    #[test]
    fn a_cursor_leads_to_the_item_it_was_made_from() {
        let cursor = format(20, &whole("s"), Some(&at(-4, "ü~\"\\")));
        assert!(cursor.starts_with("20~"));
        assert_eq!(
            parse(Some(&cursor), &whole("s")),
            Start { offset: 20, after: Some(at(-4, "ü~\"\\")) }
        );
    }

    #[test]
    fn a_key_of_another_list_or_a_torn_one_leaves_the_offset() {
        let cursor = format(20, &whole("s"), Some(&at(1, "a")));
        let offset_only = Start { offset: 20, after: None };
        assert_eq!(parse(Some(&cursor), &whole("t")), offset_only);
        assert_eq!(parse(Some(&cursor[..cursor.len() - 2]), &whole("s")), offset_only);
        assert_eq!(parse(Some("20~!"), &whole("s")), offset_only);
        assert_eq!(
            parse(Some(&format(20, &whole("s"), Some(&at(1, "a\0")))), &whole("s")),
            offset_only
        );
        assert_eq!(parse(Some(&cursor.replacen("20", "0", 1)), &whole("s")).after, None);
    }

    #[test]
    fn a_question_has_cursors_of_its_own() {
        let cursor = format(20, &asked("s", "q"), Some(&at(1, "a")));
        assert!(cursor.starts_with('~'));
        let found = Start { offset: 20, after: Some(at(1, "a")) };
        assert_eq!(parse(Some(&cursor), &asked("s", "q")), found);
        let start = Start::default();
        for other in [asked("s", "r"), asked("t", "q"), whole("s")] {
            assert_eq!(parse(Some(&cursor), &other), start, "{other:?}");
        }
        let of_whole = format(20, &whole("s"), Some(&at(1, "a")));
        assert_eq!(parse(Some(&of_whole), &asked("s", "q")), start);
        assert_eq!(parse(Some("20"), &asked("s", "q")), Start { offset: 20, after: None });
        assert_eq!(parse(Some(&format!("1{cursor}")), &asked("s", "q")), start);
        let without_place = format(20, &asked("s", "q"), None);
        assert_eq!(parse(Some(&without_place), &asked("s", "q")).offset, 20);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(cursor in ".*", list in ".*") {
            parse(Some(&cursor), &whole(&list));
            parse(Some(&cursor), &asked(&list, "q"));
        }

        #[test]
        fn cursors_round_trip_and_are_safe_in_urls(offset in 1u64.., list in ".*", order: i64, id in "[^\\x00]*") {
            let position = Position { order, id };
            let cursor = format(offset, &whole(&list), Some(&position));
            proptest::prop_assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b"~-_".contains(&b)));
            proptest::prop_assert_eq!(parse(Some(&cursor), &whole(&list)), Start { offset, after: Some(position) });
        }
    }
}
