//! An event out of the text that `JSON.stringify` made of it: the hot path of `insertEvent`.
//!
//! Its scalars are decoded; its payload is cut out as it is.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::SessionEvent;

use super::values;

/// The event, if it is as it should be; else somebody slower must say what is wrong.
pub fn read(text: &str) -> Option<SessionEvent> {
    let mut json = serde_json::Deserializer::from_str(text);
    let event = json.deserialize_map(EventVisitor).ok()?;
    let identifiers = [&event.id, &event.session_id, &event.connection_id];
    let are_plain = identifiers.into_iter().all(|identifier| !identifier.contains('\0'));
    (are_plain && is_sender(&event.sender)).then_some(event)
}

/// Whether the SDK knows such a sender.
pub fn is_sender(text: &str) -> bool {
    text == "client" || text == "agent"
}

struct EventVisitor;

impl<'text> Visitor<'text> for EventVisitor {
    type Value = SessionEvent;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an event")
    }

    fn visit_map<A: MapAccess<'text>>(self, mut map: A) -> Result<SessionEvent, A::Error> {
        let mut event = SessionEvent::default();
        let mut known = 0;
        while let Some(name) = map.next_key::<&str>()? {
            known += 1;
            match name {
                "id" => event.id = map.next_value()?,
                "eventIndex" => event.event_index = safe_integer(map.next_value()?)?,
                "sessionId" => event.session_id = map.next_value()?,
                "createdAt" => event.created_at = safe_integer(map.next_value()?)?,
                "connectionId" => event.connection_id = map.next_value()?,
                "sender" => event.sender = map.next_value()?,
                "payload" => event.payload = map.next_value::<&RawValue>()?.get().to_owned(),
                _ => {
                    known -= 1;
                    let value = map.next_value::<&RawValue>()?.get();
                    push_member(&mut event.extra, name, value);
                }
            }
        }
        // The engine writes no name twice.
        if known == 7 { Ok(event) } else { Err(A::Error::custom("a field is missing")) }
    }
}

fn safe_integer<E: Error>(number: f64) -> Result<i64, E> {
    values::safe_integer(number).ok_or_else(|| E::custom("not a safe integer"))
}

/// Adds to an object text, and begins it where there is none.
fn push_member(object: &mut Option<String>, name: &str, value: &str) {
    let object = object.get_or_insert_with(|| "{}".to_owned());
    object.pop();
    if object.len() > 1 {
        object.push(',');
    }
    object.push_str(&serde_json::to_string(name).expect("a string"));
    object.push(':');
    object.push_str(value);
    object.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = concat!(
        r#"{"id":"e\"1","eventIndex":2,"sessionId":"s","createdAt":3,"connectionId":"c","#,
        r#""sender":"agent","payload":{"a":[1e21,"\ud800"]}}"#
    );

    #[test]
    fn the_payload_is_cut_out_as_it_is() {
        let event = read(TEXT).unwrap();
        assert_eq!((event.id.as_str(), event.event_index, event.created_at), ("e\"1", 2, 3));
        assert_eq!(event.payload, r#"{"a":[1e21,"\ud800"]}"#);
        assert_eq!(event.extra, None);
    }

    #[test]
    fn unknown_fields_are_collected() {
        let text = TEXT.replacen('{', r#"{"b":[1],"7":null,"#, 1);
        assert_eq!(read(&text).unwrap().extra.as_deref(), Some(r#"{"b":[1],"7":null}"#));
    }

    #[test]
    fn anything_odd_is_left_to_the_slower_reader() {
        for (good, odd) in [
            (r#""id":"e\"1","#, ""),
            (r#""e\"1""#, r#""\u0000""#),
            (r#""e\"1""#, r#""\ud800""#),
            (r#""e\"1""#, "1"),
            (":2,", ":2.5,"),
            (":2,", ":9007199254740992,"),
            (":2,", ":null,"),
            ("agent", "user"),
            (r#","payload":{"a":[1e21,"\ud800"]}"#, ""),
        ] {
            let text = TEXT.replacen(good, odd, 1);
            assert_ne!(text, TEXT);
            assert_eq!(read(&text), None, "{text}");
        }
        assert_eq!(read("[]"), None);
        assert_eq!(read("\"text\""), None);
    }
}
