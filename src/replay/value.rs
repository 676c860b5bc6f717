//! JSON as `JSON.parse` reads it and `JSON.stringify` prints it.
//!
//! serde_json's values hold no unpaired surrogates, and keep neither JavaScript's order of keys nor
//! its numbers.

use indexmap::IndexMap;

use super::js_string::JsString;

/// An object, its keys in the order that `JSON.stringify` prints them.
pub type Object = IndexMap<JsString, Value>;

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Number(f64),
    String(JsString),
    Array(Vec<Value>),
    Object(Object),
}

/// What is nested deeper isn't parsed: threads have small stacks.
const MAX_DEPTH: usize = 500;

impl Value {
    /// `None` where `JSON.parse` throws, and where something is nested too deep.
    pub fn parse(json: &str) -> Option<Self> {
        let mut parser = Parser { json, at: 0, depth: 0 };
        let value = parser.value()?;
        parser.skip_space();
        (parser.at == json.len()).then_some(value)
    }

    /// A string.
    pub fn string(text: &str) -> Self {
        Self::String(text.into())
    }

    /// The member of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => {
                members.iter().find_map(|(name, value)| name.is(key).then_some(value))
            }
            _ => None,
        }
    }

    /// As [`Self::get`].
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match self {
            Self::Object(members) => {
                members.iter_mut().find_map(|(name, value)| name.is(key).then_some(value))
            }
            _ => None,
        }
    }

    /// The string that it is.
    pub fn as_string(&self) -> Option<&JsString> {
        match self {
            Self::String(string) => Some(string),
            _ => None,
        }
    }

    /// Whether it is this string.
    pub fn is(&self, text: &str) -> bool {
        self.as_string().is_some_and(|string| string.is(text))
    }

    /// Elides every longer string in it. Returns whether there was one.
    pub fn elide_strings(&mut self, max_len: usize) -> bool {
        match self {
            Self::String(string) => string.elide(max_len),
            Self::Array(items) => elide_each(items.iter_mut(), max_len),
            Self::Object(members) => elide_each(members.values_mut(), max_len),
            Self::Null | Self::Bool(_) | Self::Number(_) => false,
        }
    }

    /// As `JSON.stringify` prints it.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Number(number) => push_number(out, *number),
            Self::String(string) => string.write_json(out),
            Self::Array(items) => {
                out.push('[');
                for (place, item) in items.iter().enumerate() {
                    push_comma(out, place);
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => write_object(out, members),
        }
    }
}

/// As `JSON.stringify` prints it.
pub fn object_to_json(members: &Object) -> String {
    let mut out = String::new();
    write_object(&mut out, members);
    out
}

fn write_object(out: &mut String, members: &Object) {
    out.push('{');
    for (place, (key, value)) in members.iter().enumerate() {
        push_comma(out, place);
        key.write_json(out);
        out.push(':');
        value.write(out);
    }
    out.push('}');
}

/// As [`Value::elide_strings`], of each.
pub fn elide_each<'value>(values: impl Iterator<Item = &'value mut Value>, max_len: usize) -> bool {
    values.map(|value| value.elide_strings(max_len)).fold(false, |any, elided| any | elided)
}

fn push_comma(out: &mut String, place: usize) {
    if place > 0 {
        out.push(',');
    }
}

/// Appends a number as `JSON.stringify` does.
pub fn push_number(out: &mut String, number: f64) {
    if number.is_finite() {
        out.push_str(ryu_js::Buffer::new().format_finite(number));
    } else {
        out.push_str("null");
    }
}

struct Parser<'json> {
    json: &'json str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Goes over this, if it comes next.
    fn take(&mut self, text: &str) -> Option<()> {
        let rest = self.json.as_bytes().get(self.at..)?;
        rest.starts_with(text.as_bytes()).then(|| self.at += text.len())
    }

    /// As [`Self::take`], after white space.
    fn take_mark(&mut self, mark: &str) -> Option<()> {
        self.skip_space();
        self.take(mark)
    }

    fn value(&mut self) -> Option<Value> {
        self.skip_space();
        match self.peek()? {
            b'"' => self.string().map(Value::String),
            b'{' => self.nested(Self::object),
            b'[' => self.nested(Self::array),
            b'n' => self.take("null").map(|()| Value::Null),
            b't' => self.take("true").map(|()| Value::Bool(true)),
            b'f' => self.take("false").map(|()| Value::Bool(false)),
            _ => self.number().map(Value::Number),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Option<Value>) -> Option<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn array(&mut self) -> Option<Value> {
        self.take("[")?;
        let mut items = Vec::new();
        if self.take_mark("]").is_some() {
            return Some(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            if self.take_mark("]").is_some() {
                return Some(Value::Array(items));
            }
            self.take(",")?;
        }
    }

    fn object(&mut self) -> Option<Value> {
        self.take("{")?;
        let mut members = Object::new();
        if self.take_mark("}").is_some() {
            return Some(Value::Object(members));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.take_mark(":")?;
            let value = self.value()?;
            // Of a key that comes twice the last value counts, in the place of the first.
            members.insert(key, value);
            if self.take_mark("}").is_some() {
                return Some(Value::Object(in_order(members)));
            }
            self.take(",")?;
        }
    }

    fn number(&mut self) -> Option<f64> {
        let start = self.at;
        let _ = self.take("-");
        if self.take("0").is_none() {
            self.digits()?;
        }
        if self.take(".").is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        self.json.get(start..self.at)?.parse().ok()
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn string(&mut self) -> Option<JsString> {
        self.take("\"")?;
        let mut string = JsString::default();
        loop {
            let rest = self.json.get(self.at..)?;
            let plain =
                rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\')?;
            string.push_str(&rest[..plain]);
            self.at += plain;
            if self.take("\"").is_some() {
                return Some(string);
            }
            self.take("\\")?;
            let unit = self.escape()?;
            string.push_unit(unit);
        }
    }

    /// The unit that is meant by what follows a backslash.
    fn escape(&mut self) -> Option<u16> {
        let letter = self.peek()?;
        self.at += 1;
        let unit = match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'f' => 0x0c,
            b'r' => b'\r',
            b'u' => return self.hex_unit(),
            _ => return None,
        };
        Some(unit.into())
    }

    fn hex_unit(&mut self) -> Option<u16> {
        let digits = self.json.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u16::from_str_radix(digits, 16).ok()
    }
}

/// Keys that are indexes of arrays come first, by their number.
pub fn in_order(mut members: Object) -> Object {
    if members.keys().any(|key| key.array_index().is_some()) {
        members.sort_by_key(|key, _| key.array_index().map_or(u64::MAX, u64::from));
    }
    members
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reprinted(json: &str) -> Option<String> {
        Value::parse(json).map(|value| value.to_json())
    }

    #[test]
    fn text_is_printed_as_the_engine_prints_it() {
        for (json, printed) in [
            (" { \"b\" : [ 1 , 2 ] , \"a\" : null } ", r#"{"b":[1,2],"a":null}"#),
            (
                "[-0,1e21,1E400,-1e400,0.1e-6,100000000000000000000,1.50]",
                "[0,1e+21,null,null,1e-7,100000000000000000000,1.5]",
            ),
            (r#"{"b":1,"2":1,"a":1,"1":1,"01":1}"#, r#"{"1":1,"2":1,"b":1,"a":1,"01":1}"#),
            (r#"{"a":1,"b":2,"a":3,"__proto__":4}"#, r#"{"a":3,"b":2,"__proto__":4}"#),
            (
                r#""\u0041\/\u000A\u0000\u001f\u007f\uD83D\uDE00""#,
                "\"A/\\n\\u0000\\u001f\u{7f}😀\"",
            ),
            (r#"["\ud83d","\ude00\ud83d"]"#, r#"["\ud83d","\ude00\ud83d"]"#),
            ("[]", "[]"),
            ("{}", "{}"),
            ("true", "true"),
        ] {
            assert_eq!(reprinted(json).as_deref(), Some(printed), "{json}");
        }
    }

    #[test]
    fn what_the_engine_refuses_is_refused() {
        for broken in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "nul",
            "'a'",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u+123\"",
            "\"",
            "1 2",
            "\u{feff}1",
            "[1 2]",
            "NaN",
            "\u{a0}1",
        ] {
            assert_eq!(reprinted(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_refused_without_a_crash() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Value::parse(&nested(MAX_DEPTH)).is_some());
        assert_eq!(Value::parse(&nested(MAX_DEPTH + 1)), None);
        assert_eq!(Value::parse(&"[".repeat(1_000_000)), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_serde_reads_it(json in "[\\[\\]{}:,\"0-9eE.+\\-a \\\\untrlsf]{0,12}") {
            let ours = Value::parse(&json).is_some();
            // A number beyond f64, and half a surrogate pair, are errors to serde alone.
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&json).is_ok();
            prop_assert_eq!(ours, theirs, "{}", json);
        }

        #[test]
        fn printing_is_idempotent(text in ".*", number: f64) {
            let mut json = serde_json::to_string(&text).unwrap();
            json = format!("{{{json}:[{json},{}]}}", serde_json::to_string(&number).unwrap());
            let once = reprinted(&json).unwrap();
            prop_assert_eq!(reprinted(&once).unwrap(), once.as_str());
            let read: serde_json::Value = serde_json::from_str(&once).unwrap();
            prop_assert_eq!(read[text.as_str()][0].as_str().unwrap(), text.as_str());
        }
    }
}
