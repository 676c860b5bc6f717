//! The arguments of `buildReplayText`, which are read as they are needed.

use napi::bindgen_prelude::{JsObjectValue, Object, Unknown};
use napi::{Env, JsValue, ValueType};

use crate::replay::{DEFAULT_MAX_CHARS, ReplayText};

use super::error::CallError;
use super::realm::Realm;
use super::{json, values};

/// The SDK's text of these events; `None` for none.
pub fn build(
    env: &Env,
    realm: &Realm,
    events: Unknown<'_>,
    max_chars: Unknown<'_>,
) -> Result<Option<String>, CallError> {
    let max_chars = match max_chars.get_type()? {
        ValueType::Undefined => DEFAULT_MAX_CHARS,
        ValueType::Number => limit(values::read_number(&max_chars)?),
        _ => return Err(CallError::expected("maxChars", "a number")),
    };
    if !events.is_array()? {
        return Err(CallError::expected("events", "an array"));
    }
    let events = values::object(events, "events")?;
    let mut text = ReplayText::new(max_chars);
    let mut index = 0;
    // A getter or a toJSON may change the array, as it may while JavaScript goes through it.
    while index < events.get_array_length()? {
        if !text.push_line(&line(env, realm, events.get_element(index)?, index)?) {
            break;
        }
        index += 1;
    }
    let has_none = index == 0 && events.get_array_length()? == 0;
    Ok((!has_none).then(|| text.finish()))
}

/// The engine's own text of an event.
fn line(env: &Env, realm: &Realm, event: Unknown<'_>, index: u32) -> Result<String, CallError> {
    let name = || format!("events[{index}]");
    let event = values::object(event, &name())?;
    let mut printed = Object::new(env)?;
    for (key, name) in [(c"createdAt", "createdAt"), (c"sender", "sender"), (c"payload", "payload")]
    {
        printed.set_named_property(name, values::property(&event, key)?)?;
    }
    let text = json::stringify(env, realm, printed.to_unknown(), name)?;
    text.ok_or_else(|| CallError::expected(&name(), "a JSON value"))
}

/// A length that no other number compares differently to: fractions and NaN are none.
fn limit(number: f64) -> usize {
    if number.is_nan() {
        return usize::MAX;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it saturates, and a fraction is longer than no text"
    )]
    let limit = number as usize;
    limit
}
