//! JavaScript's values as ours, checked, and texts back.

use std::ffi::CStr;

use napi::bindgen_prelude::{FromNapiValue, JsObjectValue, Object, Uint8Array, Unknown};
use napi::{Env, JsValue, KeyCollectionMode, KeyConversion, KeyFilter, ValueType, sys};

use crate::cursor;
use crate::error::StoreError;
use crate::model::{EVENT_FIELDS, JsonText, PageRequest, SessionEvent, SessionRecord};
use crate::store::EventsQuery;

use super::error::CallError;
use super::event_text;
use super::json::Json;

/// 2^53 - 1: the largest integer that a JavaScript number holds exactly, and all below.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;
/// A JSON text must come back as part of one JavaScript string of 2^29 units.
const MAX_JSON_BYTES: usize = (1 << 29) - (1 << 20);

const SESSION_FIELDS: [&str; 10] = [
    "id",
    "agent",
    "agentSessionId",
    "lastConnectionId",
    "createdAt",
    "destroyedAt",
    "sandboxId",
    "sessionInit",
    "configOptions",
    "modes",
];

/// An object argument, for reading its fields.
struct Fields<'env> {
    env: &'env Env,
    json: &'env Json,
    object: Object<'env>,
    /// What errors call it.
    name: &'static str,
}

/// Reads an event, with the fields that we don't know by name.
///
/// The engine's text of the whole is one call where reading field by field takes thirty. Only
/// if there is anything odd about it, the fields are read one by one, to name what is wrong.
pub fn event(env: &Env, json: &Json, value: Unknown<'_>) -> Result<SessionEvent, CallError> {
    if is_object(&value)?
        && !has_to_json(value)?
        && let Ok(Some(text)) = json.stringify(env, value, || "event".to_owned())
        && text.len() <= MAX_JSON_BYTES
        && let Some(event) = event_text::read(&text)
    {
        return Ok(event);
    }
    event_by_field(env, json, value)
}

/// Whether an object says itself what its text is. The SDK's drivers ask the payload alone.
fn has_to_json(object: Unknown<'_>) -> Result<bool, CallError> {
    let object = Object::from_raw(object.value().env, object.raw());
    Ok(property(&object, c"toJSON")?.get_type()? == ValueType::Function)
}

fn event_by_field(env: &Env, json: &Json, value: Unknown<'_>) -> Result<SessionEvent, CallError> {
    let fields = Fields::of(env, json, value, "event")?;
    let sender = fields.identifier("sender", c"sender")?;
    if !is_sender(&sender) {
        return Err(CallError::expected("event.sender", "\"client\" or \"agent\""));
    }
    let event = SessionEvent {
        id: fields.identifier("id", c"id")?,
        event_index: fields.integer("eventIndex", c"eventIndex")?,
        session_id: fields.identifier("sessionId", c"sessionId")?,
        created_at: fields.integer("createdAt", c"createdAt")?,
        connection_id: fields.identifier("connectionId", c"connectionId")?,
        sender,
        payload: fields
            .json("payload", c"payload")?
            .ok_or_else(|| CallError::expected("event.payload", "a JSON value"))?,
        extra: fields.unknown_fields(&EVENT_FIELDS)?,
    };
    check_size("event", [Some(&event.payload), event.extra.as_ref()])?;
    Ok(event)
}

/// Reads a session, with the fields that we don't know by name.
pub fn session(env: &Env, json: &Json, value: Unknown<'_>) -> Result<SessionRecord, CallError> {
    let fields = Fields::of(env, json, value, "session")?;
    let session = SessionRecord {
        id: fields.identifier("id", c"id")?,
        agent: fields.identifier("agent", c"agent")?,
        agent_session_id: fields.identifier("agentSessionId", c"agentSessionId")?,
        last_connection_id: fields.identifier("lastConnectionId", c"lastConnectionId")?,
        created_at: fields.integer("createdAt", c"createdAt")?,
        destroyed_at: fields.optional_integer("destroyedAt", c"destroyedAt")?,
        sandbox_id: fields.optional_identifier("sandboxId", c"sandboxId")?,
        session_init: fields.optional_json("sessionInit", c"sessionInit")?,
        config_options: fields.optional_json("configOptions", c"configOptions")?,
        // Here null is a value: the agent has no modes.
        modes: fields.json("modes", c"modes")?,
        extra: fields.unknown_fields(&SESSION_FIELDS)?,
    };
    let SessionRecord { session_init, config_options, modes, extra, .. } = &session;
    let texts = [session_init, config_options, modes, extra];
    check_size("session", texts.map(Option::as_ref))?;
    Ok(session)
}

/// Whether the SDK knows such a sender.
pub fn is_sender(text: &str) -> bool {
    text == "client" || text == "agent"
}

/// Refuses what would not fit into one JavaScript string with the rest of its row.
fn check_size<const N: usize>(
    what: &'static str,
    texts: [Option<&JsonText>; N],
) -> Result<(), StoreError> {
    let bytes =
        texts.into_iter().flatten().fold(0, |sum: usize, text| sum.saturating_add(text.len()));
    if bytes > MAX_JSON_BYTES {
        return Err(StoreError::TooLarge { what, bytes, max_bytes: MAX_JSON_BYTES });
    }
    Ok(())
}

/// Reads `{ cursor?, limit? }`, or nothing at all, as leniently as the SDK's drivers do.
pub fn page_request(request: Unknown<'_>) -> Result<PageRequest, CallError> {
    if is_nullish(&request)? {
        return Ok(PageRequest { limit: cursor::page_items(None), cursor: None });
    }
    let request = object(request, "request")?;
    let limit = property(&request, c"limit")?;
    let limit = match limit.get_type()? {
        ValueType::Number => Some(read_number(&limit)?),
        _ => None,
    };
    let cursor = property(&request, c"cursor")?;
    let cursor = match cursor.get_type()? {
        ValueType::String => Some(read_text(&cursor)?),
        ValueType::Number => Some(read_text(&cursor.coerce_to_string()?.to_unknown())?),
        _ => None,
    };
    Ok(PageRequest { limit: cursor::page_items(limit), cursor })
}

/// Reads `{ sessionId, cursor?, limit? }`.
pub fn events_request(request: Unknown<'_>) -> Result<EventsQuery, CallError> {
    let fields = object(request, "request")?;
    let session_id = identifier(property(&fields, c"sessionId")?, "request.sessionId")?;
    Ok(EventsQuery { session_id, page: page_request(request)? })
}

impl<'env> Fields<'env> {
    fn of(
        env: &'env Env,
        json: &'env Json,
        value: Unknown<'env>,
        name: &'static str,
    ) -> Result<Self, CallError> {
        Ok(Self { env, json, object: object(value, name)?, name })
    }

    fn full_name(&self, field: &str) -> String {
        format!("{}.{field}", self.name)
    }

    fn identifier(&self, field: &str, key: &CStr) -> Result<String, CallError> {
        read_identifier(property(&self.object, key)?, || self.full_name(field))
    }

    fn optional_identifier(&self, field: &str, key: &CStr) -> Result<Option<String>, CallError> {
        self.present(key)?.map(|value| read_identifier(value, || self.full_name(field))).transpose()
    }

    fn integer(&self, field: &str, key: &CStr) -> Result<i64, CallError> {
        integer(property(&self.object, key)?, || self.full_name(field))
    }

    fn optional_integer(&self, field: &str, key: &CStr) -> Result<Option<i64>, CallError> {
        self.present(key)?.map(|value| integer(value, || self.full_name(field))).transpose()
    }

    /// `None` where the field is missing.
    fn json(&self, field: &str, key: &CStr) -> Result<Option<JsonText>, CallError> {
        let value = property(&self.object, key)?;
        if value.get_type()? == ValueType::Undefined {
            return Ok(None);
        }
        self.json_text(value, field).map(Some)
    }

    /// `None` for null too.
    fn optional_json(&self, field: &str, key: &CStr) -> Result<Option<JsonText>, CallError> {
        self.present(key)?.map(|value| self.json_text(value, field)).transpose()
    }

    fn json_text(&self, value: Unknown<'_>, field: &str) -> Result<JsonText, CallError> {
        let text = self.json.stringify(self.env, value, || self.full_name(field))?;
        text.ok_or_else(|| CallError::expected(&self.full_name(field), "a JSON value"))
    }

    /// The field, unless it is `undefined` or `null`.
    fn present(&self, key: &CStr) -> Result<Option<Unknown<'env>>, CallError> {
        let value = property(&self.object, key)?;
        Ok((!is_nullish(&value)?).then_some(value))
    }

    /// An object text of the own fields that aren't `known`, as `JSON.stringify` would see them.
    fn unknown_fields(&self, known: &[&str]) -> Result<Option<JsonText>, CallError> {
        let mut extra = String::new();
        for name in own_names(&self.object)? {
            let (name, text) = name?;
            if known.contains(&text.as_str()) {
                continue;
            }
            let value: Unknown<'_> = self.object.get_property_unchecked(name)?;
            let Some(value) = self.json.stringify(self.env, value, || self.full_name(&text))?
            else {
                continue;
            };
            // The engine's own text of the name: an unpaired surrogate is escaped in it.
            let name = self.json.stringify(self.env, name, || self.full_name(&text))?;
            extra.push(if extra.is_empty() { '{' } else { ',' });
            extra.push_str(&name.unwrap_or_default());
            extra.push(':');
            extra.push_str(&value);
        }
        if extra.is_empty() {
            return Ok(None);
        }
        extra.push('}');
        Ok(Some(extra))
    }
}

/// The names of an object's own enumerable fields, as values and as texts; not symbols.
pub fn own_names<'env>(
    object: &Object<'env>,
) -> napi::Result<impl Iterator<Item = napi::Result<(Unknown<'env>, String)>>> {
    let names = object.get_all_property_names(
        KeyCollectionMode::OwnOnly,
        KeyFilter::Enumerable,
        KeyConversion::NumbersToStrings,
    )?;
    Ok((0..names.get_array_length_unchecked()?).filter_map(move |index| {
        let named = || -> napi::Result<_> {
            let name: Unknown<'env> = names.get_element(index)?;
            match name.get_type()? {
                ValueType::String => Ok(Some((name, read_text(&name)?))),
                _ => Ok(None),
            }
        };
        named().transpose()
    }))
}

/// The elements of a value known to be an array.
pub fn elements<'env>(array: &Unknown<'env>) -> napi::Result<Vec<Unknown<'env>>> {
    let array = Object::from_raw(array.value().env, array.raw());
    (0..array.get_array_length()?).map(|index| array.get_element(index)).collect()
}

/// Whether it is `undefined` or `null`.
pub fn is_nullish(value: &Unknown<'_>) -> napi::Result<bool> {
    Ok(matches!(value.get_type()?, ValueType::Undefined | ValueType::Null))
}

/// Whether it is an object, and not `null` or a function.
pub fn is_object(value: &Unknown<'_>) -> napi::Result<bool> {
    Ok(value.get_type()? == ValueType::Object)
}

/// Whether it is a string.
pub fn is_string(value: &Unknown<'_>) -> napi::Result<bool> {
    Ok(value.get_type()? == ValueType::String)
}

/// An argument that must be an object.
pub fn object<'env>(value: Unknown<'env>, name: &str) -> Result<Object<'env>, CallError> {
    match value.get_type()? {
        ValueType::Object => Ok(Object::from_raw(value.value().env, value.raw())),
        _ => Err(CallError::expected(name, "an object")),
    }
}

/// A field of an object; a getter may throw.
pub fn property<'env>(object: &Object<'env>, key: &CStr) -> Result<Unknown<'env>, CallError> {
    Ok(object.get_c_named_property_unchecked(key)?)
}

/// A string that can be told apart from every other in UTF-8.
pub fn identifier(value: Unknown<'_>, name: &str) -> Result<String, CallError> {
    read_identifier(value, || name.to_owned())
}

fn read_identifier(value: Unknown<'_>, name: impl Fn() -> String) -> Result<String, CallError> {
    if value.get_type()? != ValueType::String {
        return Err(CallError::expected(&name(), "a string"));
    }
    let text = read_text(&value)?;
    // What UTF-8 can't hold reads as U+FFFD, which may also be meant.
    if text.contains(['\0', char::REPLACEMENT_CHARACTER]) && !is_unambiguous(&value)? {
        let expectation = "a string without U+0000 and unpaired surrogates";
        return Err(CallError::expected(&name(), expectation));
    }
    Ok(text)
}

fn is_unambiguous(text: &Unknown<'_>) -> napi::Result<bool> {
    let units = convert_to::<napi::bindgen_prelude::Utf16String>(text)?;
    let is_well_formed = char::decode_utf16(units.iter().copied()).all(|unit| unit.is_ok());
    Ok(is_well_formed && !units.contains(&0))
}

fn integer(value: Unknown<'_>, name: impl Fn() -> String) -> Result<i64, CallError> {
    let wrong = || CallError::expected(&name(), "an integer between -(2^53 - 1) and 2^53 - 1");
    if value.get_type()? != ValueType::Number {
        return Err(wrong());
    }
    safe_integer(read_number(&value)?).ok_or_else(wrong)
}

/// The integer that a number is, exactly.
pub fn safe_integer(number: f64) -> Option<i64> {
    let is_safe = number.fract() == 0.0 && number.abs() <= MAX_SAFE_INTEGER;
    #[expect(clippy::cast_possible_truncation, reason = "a whole number of at most 53 bits")]
    is_safe.then_some(number as i64)
}

/// A value known to be a number.
pub fn read_number(value: &Unknown<'_>) -> napi::Result<f64> {
    convert_to(value)
}

/// A value known to be a boolean.
pub fn read_boolean(value: &Unknown<'_>) -> napi::Result<bool> {
    convert_to(value)
}

/// A value known to be a `Uint8Array`, as Node's buffers are.
pub fn read_bytes(value: &Unknown<'_>) -> napi::Result<Vec<u8>> {
    Ok(convert_to::<Uint8Array>(value)?.to_vec())
}

#[expect(unsafe_code, reason = "napi's conversion of a value to a type is unsafe")]
fn convert_to<T: FromNapiValue>(value: &Unknown<'_>) -> napi::Result<T> {
    // SAFETY: the value is live and of its own environment; its type is checked.
    unsafe { T::from_napi_value(value.value().env, value.raw()) }
}

/// A value known to be a string, in one look where it is short.
#[expect(unsafe_code, reason = "napi's own conversion asks for the length first")]
pub fn read_text(text: &Unknown<'_>) -> napi::Result<String> {
    const SHORT_BYTES: usize = 1_024;
    /// A text that doesn't fit is cut before a character, of at most four bytes, and a NUL.
    const SURELY_WHOLE_BYTES: usize = SHORT_BYTES - 5;
    let mut buffer = [0_u8; SHORT_BYTES];
    let mut length = 0;
    // SAFETY: the buffer is as long as we say; the value is live and of its own environment.
    let status = unsafe {
        sys::napi_get_value_string_utf8(
            text.value().env,
            text.raw(),
            buffer.as_mut_ptr().cast(),
            SHORT_BYTES,
            &mut length,
        )
    };
    napi::check_status!(status)?;
    if length > SURELY_WHOLE_BYTES {
        return convert_to(text);
    }
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A text that may be longer than a JavaScript string can be.
pub fn replay_text<'env>(env: &'env Env, text: &str) -> Result<Unknown<'env>, CallError> {
    let too_large = |_| StoreError::TooLarge {
        what: "replay text",
        bytes: text.len(),
        max_bytes: MAX_JSON_BYTES,
    };
    Ok(js_string(env, text).map_err(too_large)?)
}

/// A JavaScript string. Plain ASCII, as most of our texts are, is copied, not decoded.
#[expect(unsafe_code, reason = "napi's safe constructor can't take a borrowed Latin-1 text")]
pub fn js_string<'env>(env: &'env Env, text: &str) -> napi::Result<Unknown<'env>> {
    let create =
        if text.is_ascii() { sys::napi_create_string_latin1 } else { sys::napi_create_string_utf8 };
    let length = isize::try_from(text.len()).expect("no allocation is longer");
    let mut string = std::ptr::null_mut();
    // SAFETY: the text is as long as we say, and ASCII where it is read as Latin-1.
    let status = unsafe { create(env.raw(), text.as_ptr().cast(), length, &mut string) };
    napi::check_status!(status)?;
    // SAFETY: on success the string is a live value of this environment.
    Ok(unsafe { Unknown::from_raw_unchecked(env.raw(), string) })
}
