//! JSON that PostgreSQL can't work with, made harmless.
//!
//! JSON text may hold `\u0000` and unpaired surrogates; tools print such things. `jsonb` refuses
//! them, and in a `json` column one such row makes `payload_json->>'method'` fail for the whole
//! query. So such a text, and only such a one, is stored as an object with a key of ours: the exact
//! text is in it as one string, its backslashes escaped, beside `jsonrpc` and `method` for SQL.
//!
//! A database in LATIN1, say, can't hold most characters: there such a text is wrapped too, and what
//! isn't ASCII is escaped once more. That is another text of the same value.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object with this key is a wrapped text. A text that has the key itself is wrapped too.
const WRAPPER_KEY: &str = "$sandboxAgentPersist";
/// The key of the exact text.
const TEXT_KEY: &str = "text";

/// Which characters a database can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// All, as in UTF8.
    Unicode,
    /// Those up to U+00FF.
    Latin1,
    /// Surely no others.
    Ascii,
}

impl Charset {
    /// That of a `server_encoding`.
    pub fn of(encoding: &str) -> Self {
        match encoding {
            // The latter looks at no character.
            "UTF8" | "SQL_ASCII" => Self::Unicode,
            "LATIN1" => Self::Latin1,
            _ => Self::Ascii,
        }
    }

    fn holds(self, text: &str) -> bool {
        match self {
            Self::Unicode => true,
            Self::Latin1 => text.chars().all(|character| character <= '\u{ff}'),
            Self::Ascii => text.is_ascii(),
        }
    }
}

/// What to store for a JSON text: nearly always the text itself.
pub fn stored(json: &str, charset: Charset) -> Cow<'_, str> {
    if !charset.holds(json) {
        wrap(&escape_all_but_ascii(json), charset).into()
    } else if is_hostile(json) || wrapped(json).is_some() {
        wrap(json, charset).into()
    } else {
        json.into()
    }
}

/// Another JSON text of the same value.
fn escape_all_but_ascii(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len() * 2);
    for character in json.chars() {
        if character.is_ascii() {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            escaped.push_str(&format!("\\u{unit:04x}"));
        }
    }
    escaped
}

/// The JSON text that was stored; `None` if it was wrapped and can't be read any more.
pub fn original(stored: &str) -> Option<Cow<'_, str>> {
    match wrapped(stored) {
        Some(members) => {
            let text = members.get(TEXT_KEY.as_bytes())?;
            serde_json::from_str(text.get()).ok().map(Cow::Owned)
        }
        None => Some(stored.into()),
    }
}

/// The members of a wrapped text; `None` if it is a text like any other.
fn wrapped(json: &str) -> Option<Members<'_>> {
    if !json.contains(WRAPPER_KEY) {
        return None;
    }
    members(json).filter(|members| members.contains_key(WRAPPER_KEY.as_bytes()))
}

type Members<'text> = HashMap<Key, &'text RawValue>;

/// The members of an object.
fn members(json: &str) -> Option<Members<'_>> {
    serde_json::from_str(json).ok()
}

/// A key as bytes: one may hold an unpaired surrogate, which no string can.
#[derive(PartialEq, Eq, Hash)]
struct Key(Vec<u8>);

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Key, E> {
        Ok(Key(bytes.to_owned()))
    }
}

fn wrap(json: &str, charset: Charset) -> String {
    let mut wrapped = format!("{{\"{WRAPPER_KEY}\":1");
    for (name, value) in harmless_members(json, charset) {
        wrapped.push_str(&format!(",\"{name}\":{value}"));
    }
    wrapped.push_str(&format!(",\"{TEXT_KEY}\":"));
    wrapped.push_str(&serde_json::to_string(json).expect("a string"));
    wrapped.push('}');
    wrapped
}

/// `jsonrpc` and `method` of an envelope, where they are harmless themselves.
fn harmless_members(json: &str, charset: Charset) -> impl Iterator<Item = (&'static str, String)> {
    let members = members(json).unwrap_or_default();
    ["jsonrpc", "method"].into_iter().filter_map(move |name| {
        let value = members
            .get(name.as_bytes())
            .map(|value| value.get())
            .filter(|value| !is_hostile(value) && is_plain_in(value, charset))?;
        Some((name, value.to_owned()))
    })
}

/// Whether SQL can take a string out of a JSON text: outside UTF8 it knows no escapes of other
/// characters.
fn is_plain_in(json: &str, charset: Charset) -> bool {
    charset == Charset::Unicode || charset.holds(json) && !json.contains("\\u")
}

/// Whether a JSON text escapes U+0000, or half of a surrogate pair without the other.
fn is_hostile(json: &str) -> bool {
    let mut rest = json;
    // What follows a backslash belongs to it: `\\u0000` is a backslash and plain characters.
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at + 1..];
        match code_unit(escape) {
            Some(0) => return true,
            Some(0xd800..=0xdbff) => match escape.get(5..).and_then(|next| next.strip_prefix('\\'))
            {
                Some(next) if matches!(code_unit(next), Some(0xdc00..=0xdfff)) => {
                    rest = &next[5..];
                    continue;
                }
                _ => return true,
            },
            Some(0xdc00..=0xdfff) => return true,
            _ => rest = escape.get(1..).unwrap_or_default(),
        }
    }
    false
}

/// The unit that `uXXXX` at the text's start stands for.
fn code_unit(escape: &str) -> Option<u16> {
    u16::from_str_radix(escape.strip_prefix('u')?.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_postgres_cannot_work_with_is_wrapped() {
        for harmless in [
            r#"{"a":"\\u0000"}"#,
            r#"{"a":"\ud83d\ude00"}"#,
            r#"{"a":"\n\u0001\\"}"#,
            r#""$sandboxAgentPersist""#,
            r#"{"a":{"$sandboxAgentPersist":1}}"#,
            "null",
        ] {
            assert_eq!(stored(harmless, Charset::Unicode), harmless);
            assert_eq!(original(harmless).unwrap(), harmless);
        }
        for hostile in [
            r#"{"a":"\u0000"}"#,
            r#"{"a":"\\\u0000"}"#,
            r#"{"\ud83d":1}"#,
            r#"["\ude00\ud83d"]"#,
            r#"["\ud83d\n"]"#,
            r#"["\ud83d\u0041"]"#,
            r#"{"$sandboxAgentPersist":null,"text":"x"}"#,
            r#"{"$sandboxAgentPersist":1}"#,
        ] {
            let stored = stored(hostile, Charset::Unicode);
            assert_ne!(stored, hostile);
            assert!(!is_hostile(&stored), "{stored}");
            assert_eq!(original(&stored).unwrap(), hostile);
        }
    }

    #[test]
    fn sql_still_finds_the_method() {
        let stored = |json| super::stored(json, Charset::Unicode);
        let envelope = stored(r#"{"jsonrpc":"2.0","method":"m","params":"\u0000"}"#);
        assert!(envelope.starts_with(r#"{"$sandboxAgentPersist":1,"jsonrpc":"2.0","method":"m","#));
        let odd_key = stored(r#"{"\ud800":1,"method":"m"}"#);
        assert!(odd_key.starts_with(r#"{"$sandboxAgentPersist":1,"method":"m","#));
        let hostile = stored(r#"{"method":"\u0000"}"#);
        assert!(!hostile.contains("\"method\":"), "{hostile}");
    }

    #[test]
    fn what_an_encoding_cannot_hold_is_ascii_and_comes_back_as_the_same_value() {
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        let json = "{\"method\":\"m\",\"a\":\"é € 😀 \\n\"}";
        for (charset, is_wrapped) in
            [(Charset::Unicode, false), (Charset::Latin1, true), (Charset::Ascii, true)]
        {
            let stored = stored(json, charset);
            assert_eq!(stored != json, is_wrapped, "{charset:?}");
            assert_eq!(stored.is_ascii(), is_wrapped);
            assert_eq!(value(&original(&stored).unwrap()), value(json));
        }
        assert_eq!(stored("\"é\"", Charset::Latin1), "\"é\"");
        let odd_method = stored(r#"{"method":"€"}"#, Charset::Latin1);
        assert!(!odd_method.contains("\"method\":"), "{odd_method}");
    }

    #[test]
    fn keys_in_another_order_are_a_wrapped_text_still() {
        // As jsonb prints them.
        let stored = r#"{"text": "[\"\\u0000\"]", "$sandboxAgentPersist": 1}"#;
        assert_eq!(original(stored).unwrap(), r#"["\u0000"]"#);
    }

    proptest::proptest! {
        #[test]
        fn any_json_comes_back_and_is_stored_harmless(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    r"\u0000", r"\ud83d", r"\ude00", r"\\", r"\n", "u0000", "é", "$sandboxAgentPersist",
                ]),
                0..8,
            ),
        ) {
            let text = parts.concat();
            for json in [format!("\"{text}\""), format!("{{\"{text}\":1}}")] {
                let stored = stored(&json, Charset::Unicode);
                proptest::prop_assert!(!is_hostile(&stored));
                proptest::prop_assert_eq!(original(&stored).unwrap(), json.as_str());
            }
        }
    }
}
