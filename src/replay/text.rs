//! The text that the SDK puts before the first prompt after a restore.

use crate::model::Number;

use super::js_string::JsString;
use super::value;

/// What the text begins with.
pub const PREFIX: &str = "Previous session history is replayed below as JSON-RPC envelopes. Use it as context before responding to the latest user prompt.\n";
/// What it ends with where not everything fits.
const CUT: &str = "\n[history truncated]";

/// The SDK's `replayMaxChars`, unless it is told otherwise. In UTF-16 units.
pub const DEFAULT_MAX_CHARS: usize = 12_000;

/// Builds the text, line by line. Lengths are in UTF-16 units.
#[derive(Debug)]
pub struct ReplayText {
    text: String,
    length: usize,
    max_chars: usize,
}

impl ReplayText {
    /// A text that may become this long.
    pub fn new(max_chars: usize) -> Self {
        Self { text: PREFIX.to_owned(), length: PREFIX.len(), max_chars }
    }

    /// Adds the line of the next event. `false` where it doesn't fit: the text ends here.
    pub fn push_line(&mut self, line: &str) -> bool {
        self.length += utf16_len(line) + 1;
        if self.length > self.max_chars {
            self.text.push_str(CUT);
            return false;
        }
        self.text.push_str(line);
        self.text.push('\n');
        true
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// The line of an event.
pub fn line(created_at: Number, sender: &str, payload: &str) -> String {
    let mut line = "{\"createdAt\":".to_owned();
    value::push_number(&mut line, created_at.as_f64());
    line.push_str(",\"sender\":");
    JsString::from(sender).write_json(&mut line);
    line.push_str(",\"payload\":");
    line.push_str(payload);
    line.push('}');
    line
}

/// What JavaScript calls the length of a text.
pub fn utf16_len(text: &str) -> usize {
    let begins_character = |byte: u8| byte & 0xc0 != 0x80;
    let begins_pair = |byte: u8| byte >= 0xf0;
    text.bytes()
        .map(|byte| usize::from(begins_character(byte)) + usize::from(begins_pair(byte)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(lines: &[&str], max_chars: usize) -> String {
        let mut text = ReplayText::new(max_chars);
        let _ = lines.iter().all(|line| text.push_line(line));
        text.finish()
    }

    #[test]
    fn a_line_that_just_fits_is_in() {
        let full = PREFIX.len() + "{}\n".len();
        assert_eq!(text_of(&["{}"], full), format!("{PREFIX}{{}}\n"));
        assert_eq!(text_of(&["{}"], full - 1), format!("{PREFIX}\n[history truncated]"));
        assert_eq!(text_of(&["{}", "{}"], full), format!("{PREFIX}{{}}\n\n[history truncated]"));
    }

    #[test]
    fn a_line_is_the_engines() {
        assert_eq!(
            line(Number::Real(1e21), "a\"", "1"),
            r#"{"createdAt":1e+21,"sender":"a\"","payload":1}"#
        );
        let unsafe_integer = line(Number::Integer(9_007_199_254_740_993), "a", "1");
        assert!(unsafe_integer.contains("9007199254740992,"), "{unsafe_integer}");
    }

    proptest::proptest! {
        #[test]
        fn lengths_are_javascripts(text in ".*") {
            proptest::prop_assert_eq!(utf16_len(&text), text.encode_utf16().count());
        }
    }
}
