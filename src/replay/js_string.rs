//! Strings as JavaScript has them: UTF-16 units, among which a surrogate may be unpaired.

use std::ops::Range;

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct JsString(Vec<u16>);

impl From<&str> for JsString {
    fn from(text: &str) -> Self {
        Self(text.encode_utf16().collect())
    }
}

impl JsString {
    /// How many units it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn push_unit(&mut self, unit: u16) {
        self.0.push(unit);
    }

    pub fn push_str(&mut self, text: &str) {
        self.0.extend(text.encode_utf16());
    }

    pub fn push(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    pub fn starts_with(&self, text: &str) -> bool {
        let mut units = self.0.iter();
        text.encode_utf16().all(|unit| units.next() == Some(&unit))
    }

    /// As a text, if no surrogate in it is unpaired.
    pub fn to_text(&self) -> Option<String> {
        String::from_utf16(&self.0).ok()
    }

    pub fn is(&self, text: &str) -> bool {
        self.starts_with(text) && self.len() == text.encode_utf16().count()
    }

    /// The number that it is as an array's index: such keys of an object come first, in order.
    pub fn array_index(&self) -> Option<u32> {
        const MAX_DIGITS: usize = 10;
        if self.is_empty() || self.len() > MAX_DIGITS || (self.0[0] == 0x30 && self.len() > 1) {
            return None;
        }
        let number = self.0.iter().try_fold(0_u64, |number, unit| {
            let digit = char::from_u32((*unit).into())?.to_digit(10)?;
            Some(number * 10 + u64::from(digit))
        })?;
        u32::try_from(number).ok().filter(|index| *index != u32::MAX)
    }

    /// Appends it as `JSON.stringify` writes it, quotes included.
    pub fn write_json(&self, out: &mut String) {
        out.reserve(self.len() + 2);
        out.push('"');
        for unit in char::decode_utf16(self.0.iter().copied()) {
            match unit {
                Ok('"') => out.push_str("\\\""),
                Ok('\\') => out.push_str("\\\\"),
                Ok('\u{8}') => out.push_str("\\b"),
                Ok('\t') => out.push_str("\\t"),
                Ok('\n') => out.push_str("\\n"),
                Ok('\u{c}') => out.push_str("\\f"),
                Ok('\r') => out.push_str("\\r"),
                Ok(control @ '\0'..='\u{1f}') => {
                    out.push_str(&format!("\\u{:04x}", u32::from(control)));
                }
                Ok(character) => out.push(character),
                Err(unpaired) => {
                    out.push_str(&format!("\\u{:04x}", unpaired.unpaired_surrogate()));
                }
            }
        }
        out.push('"');
    }

    /// How many units `JSON.stringify` makes of it, quotes not counted.
    pub fn json_len(&self) -> usize {
        char::decode_utf16(self.0.iter().copied()).map(json_len).sum()
    }

    /// By how much the two are shorter together than apart: a pair of surrogates may meet.
    pub fn json_len_saved_before(&self, next: &Self) -> usize {
        const ESCAPED_SURROGATES: usize = 12;
        match (self.0.last(), next.0.first()) {
            (Some(high), Some(low)) if is_high(*high) && is_low(*low) => ESCAPED_SURROGATES - 2,
            _ => 0,
        }
    }

    /// The longest end that `JSON.stringify` makes at most so many units of.
    pub fn suffix_within(&self, max_json_len: usize) -> Self {
        let mut start = self.len();
        let mut json_units = 0_usize;
        while start > 0 {
            let width = if self.is_pair(start - 1) { 2 } else { 1 };
            let character = char::decode_utf16(self.0[start - width..start].iter().copied()).next();
            json_units += character.map_or(0, json_len);
            if json_units > max_json_len {
                break;
            }
            start -= width;
        }
        Self(self.0[start..].to_vec())
    }

    /// Leaves out the middle of a string that is longer than `max_len`, and says there how many
    /// units went. Returns whether it did: not where the words would be longer than what they stand
    /// for.
    pub fn elide(&mut self, max_len: usize) -> bool {
        if self.len() <= max_len {
            return false;
        }
        let kept = max_len.saturating_sub(elision(self.len()).len());
        let Range { mut start, mut end } = kept.div_ceil(2)..self.len() - kept / 2;
        // Both halves of a pair stay, or both go.
        start -= usize::from(start > 0 && self.is_pair(start));
        end += usize::from(self.is_pair(end));
        let elision = elision(end - start);
        if elision.len() >= end - start {
            return false;
        }
        self.0.splice(start..end, elision.encode_utf16());
        true
    }

    /// Whether the unit at `low` is the second of a pair.
    fn is_pair(&self, low: usize) -> bool {
        let unit = |at: usize| self.0.get(at).copied().unwrap_or_default();
        low > 0 && is_high(unit(low - 1)) && is_low(unit(low))
    }
}

/// Stands where so many units were.
fn elision(units: usize) -> String {
    format!("[... {units} characters elided ...]")
}

fn json_len(unit: Result<char, std::char::DecodeUtf16Error>) -> usize {
    match unit {
        Ok('"' | '\\' | '\u{8}' | '\t' | '\n' | '\u{c}' | '\r') => 2,
        Ok('\0'..='\u{1f}') | Err(_) => 6,
        Ok(character) => character.len_utf16(),
    }
}

fn is_high(unit: u16) -> bool {
    (0xd800..0xdc00).contains(&unit)
}

fn is_low(unit: u16) -> bool {
    (0xdc00..0xe000).contains(&unit)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn json(string: &JsString) -> String {
        let mut out = String::new();
        string.write_json(&mut out);
        out
    }

    /// Units of every kind that is treated apart.
    fn strings() -> impl Strategy<Value = JsString> {
        let units = prop_oneof![
            Just(0_u16),
            Just(0x22),
            Just(0x5c),
            Just(0x0a),
            Just(0x61),
            Just(0xe9),
            Just(0xd83d),
            Just(0xde00),
            any::<u16>(),
        ];
        vec(units, 0..80).prop_map(JsString)
    }

    #[test]
    fn only_canonical_numbers_below_2_to_32_less_1_are_indexes() {
        for (key, index) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("4294967294", Some(4_294_967_294)),
            ("4294967295", None),
            ("01", None),
            ("-1", None),
            ("", None),
            ("1.5", None),
            ("99999999999", None),
        ] {
            assert_eq!(JsString::from(key).array_index(), index, "{key}");
        }
    }

    #[test]
    fn a_string_is_elided_in_its_middle() {
        let mut long = JsString::from(format!("{}{}", "a".repeat(60), "z".repeat(60)).as_str());
        assert!(long.elide(50));
        let (head, tail) = ("a".repeat(10), "z".repeat(9));
        assert_eq!(json(&long), format!("\"{head}[... 101 characters elided ...]{tail}\""));
        let mut short = JsString::from("thirty characters, or about so");
        assert!(!short.elide(1));
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_is_written(string in strings()) {
            prop_assert_eq!(string.json_len() + 2, json(&string).encode_utf16().count());
        }

        #[test]
        fn joined_strings_are_counted_as_one(a in strings(), b in strings()) {
            let apart = a.json_len() + b.json_len() - a.json_len_saved_before(&b);
            let mut joined = a.clone();
            joined.push(&b);
            prop_assert_eq!(joined.json_len(), apart);
        }

        #[test]
        fn a_suffix_is_the_longest_that_fits(string in strings(), max in 0_usize..100) {
            let suffix = string.suffix_within(max);
            prop_assert!(string.0.ends_with(&suffix.0));
            prop_assert!(suffix.json_len() <= max);
            let before = string.len() - suffix.len();
            prop_assert!(!string.is_pair(before));
            if before > 0 {
                let longer = before - if string.is_pair(before - 1) { 2 } else { 1 };
                prop_assert!(JsString(string.0[longer..].to_vec()).json_len() > max);
            }
        }

        #[test]
        fn what_is_elided_fits_and_splits_no_pair(string in strings(), max in 40_usize..70) {
            let mut elided = string.clone();
            if elided.elide(max) {
                prop_assert!(elided.len() <= max);
                let lone = |string: &JsString| {
                    char::decode_utf16(string.0.iter().copied()).filter(Result::is_err).count()
                };
                prop_assert!(lone(&elided) <= lone(&string));
            } else {
                prop_assert_eq!(elided, string);
            }
        }
    }
}
