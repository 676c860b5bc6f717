//! Sessions and events out of the objects that an application gives.

use std::ffi::CStr;

use napi::bindgen_prelude::{JsObjectValue, Object, Unknown};
use napi::{Env, JsValue, ValueType};

use crate::error::StoreError;
use crate::model::{EVENT_FIELDS, JsonText, Server, SessionEvent, SessionRecord};

use super::error::CallError;
use super::event_text;
use super::json::{self, MAX_JSON_BYTES};
use super::realm::Realm;
use super::values;

/// A field of forks of the SDK, which some tables have a column for.
const SERVER_ID: &str = "serverId";

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

/// A field that we don't know by name.
struct Field {
    name: String,
    /// With its quotes.
    json_name: JsonText,
    value: JsonText,
}

/// An object argument, for reading its fields.
struct Fields<'env> {
    env: &'env Env,
    realm: &'env Realm,
    object: Object<'env>,
    /// What errors call it.
    name: &'env str,
}

/// Reads an event, with the fields that we don't know by name.
///
/// The engine's text of the whole is one call where reading field by field takes thirty. Only
/// if there is anything odd about it, the fields are read one by one, to name what is wrong.
///
/// Errors call it `name`.
pub fn event(
    env: &Env,
    realm: &Realm,
    value: Unknown<'_>,
    name: &str,
) -> Result<SessionEvent, CallError> {
    if values::is_object(&value)?
        && !has_to_json(value)?
        && let Ok(Some(text)) = json::stringify(env, realm, value, || name.to_owned())
        && text.len() <= MAX_JSON_BYTES
        && let Some(event) = event_text::read(&text)
    {
        return Ok(event);
    }
    event_by_field(env, realm, value, name)
}

/// Whether an object says itself what its text is. The SDK's drivers ask the payload alone.
fn has_to_json(object: Unknown<'_>) -> Result<bool, CallError> {
    let object = Object::from_raw(object.value().env, object.raw());
    Ok(values::property(&object, c"toJSON")?.get_type()? == ValueType::Function)
}

fn event_by_field(
    env: &Env,
    realm: &Realm,
    value: Unknown<'_>,
    name: &str,
) -> Result<SessionEvent, CallError> {
    let fields = Fields::of(env, realm, value, name)?;
    let sender = fields.identifier("sender", c"sender")?;
    if !event_text::is_sender(&sender) {
        return Err(CallError::expected(&fields.full_name("sender"), "\"client\" or \"agent\""));
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
            .ok_or_else(|| CallError::expected(&fields.full_name("payload"), "a JSON value"))?,
        extra: object_text(&fields.unknown_fields(&EVENT_FIELDS)?),
    };
    check_size("event", [Some(&event.payload), event.extra.as_ref()])?;
    Ok(event)
}

/// Reads a session, with the fields that we don't know by name.
pub fn session(env: &Env, realm: &Realm, value: Unknown<'_>) -> Result<SessionRecord, CallError> {
    let fields = Fields::of(env, realm, value, "session")?;
    let unknown = fields.unknown_fields(&SESSION_FIELDS)?;
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
        extra: object_text(&unknown),
        server: server(unknown),
    };
    let SessionRecord { session_init, config_options, modes, extra, .. } = &session;
    let texts = [session_init, config_options, modes, extra];
    check_size("session", texts.map(Option::as_ref))?;
    Ok(session)
}

/// Refuses what would not fit into one JavaScript string with the rest of its row.
fn check_size<const N: usize>(
    what: &'static str,
    texts: [Option<&JsonText>; N],
) -> Result<(), StoreError> {
    let bytes =
        texts.into_iter().flatten().fold(0, |sum: usize, text| sum.saturating_add(text.len()));
    if bytes > MAX_JSON_BYTES {
        return Err(StoreError::TooLarge { what, size: bytes, max: MAX_JSON_BYTES, unit: "bytes" });
    }
    Ok(())
}

impl<'env> Fields<'env> {
    fn of(
        env: &'env Env,
        realm: &'env Realm,
        value: Unknown<'env>,
        name: &'env str,
    ) -> Result<Self, CallError> {
        Ok(Self { env, realm, object: values::object(value, name)?, name })
    }

    fn full_name(&self, field: &str) -> String {
        format!("{}.{field}", self.name)
    }

    fn identifier(&self, field: &str, key: &CStr) -> Result<String, CallError> {
        values::read_identifier(values::property(&self.object, key)?, || self.full_name(field))
    }

    fn optional_identifier(&self, field: &str, key: &CStr) -> Result<Option<String>, CallError> {
        self.present(key)?
            .map(|value| values::read_identifier(value, || self.full_name(field)))
            .transpose()
    }

    fn integer(&self, field: &str, key: &CStr) -> Result<i64, CallError> {
        values::integer(values::property(&self.object, key)?, || self.full_name(field))
    }

    fn optional_integer(&self, field: &str, key: &CStr) -> Result<Option<i64>, CallError> {
        self.present(key)?.map(|value| values::integer(value, || self.full_name(field))).transpose()
    }

    /// `None` where the field is missing.
    fn json(&self, field: &str, key: &CStr) -> Result<Option<JsonText>, CallError> {
        let value = values::property(&self.object, key)?;
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
        let text = json::stringify(self.env, self.realm, value, || self.full_name(field))?;
        text.ok_or_else(|| CallError::expected(&self.full_name(field), "a JSON value"))
    }

    /// The field, unless it is `undefined` or `null`.
    fn present(&self, key: &CStr) -> Result<Option<Unknown<'env>>, CallError> {
        let value = values::property(&self.object, key)?;
        Ok((!values::is_nullish(&value)?).then_some(value))
    }

    /// The own fields that aren't `known`, as `JSON.stringify` would see them.
    fn unknown_fields(&self, known: &[&str]) -> Result<Vec<Field>, CallError> {
        let mut unknown = Vec::new();
        for name in values::own_names(&self.object)? {
            let (name, text) = name?;
            if known.contains(&text.as_str()) {
                continue;
            }
            let value: Unknown<'_> = self.object.get_property_unchecked(name)?;
            let Some(value) =
                json::stringify(self.env, self.realm, value, || self.full_name(&text))?
            else {
                continue;
            };
            // The engine's own text of the name: an unpaired surrogate is escaped in it.
            let json = json::stringify(self.env, self.realm, name, || self.full_name(&text))?;
            unknown.push(Field { name: text, json_name: json.unwrap_or_default(), value });
        }
        Ok(unknown)
    }
}

/// The text of an object with these fields; `None` for none.
fn object_text(fields: &[Field]) -> Option<JsonText> {
    let mut text = String::new();
    for Field { json_name, value, .. } in fields {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push_str(json_name);
        text.push(':');
        text.push_str(value);
    }
    if text.is_empty() {
        return None;
    }
    text.push('}');
    Some(text)
}

/// The server among a session's unknown fields, if it is a text that a column can hold.
fn server(mut unknown: Vec<Field>) -> Option<Server> {
    let place = unknown.iter().position(|field| field.name == SERVER_ID)?;
    let id: String = serde_json::from_str(&unknown.remove(place).value).ok()?;
    (!id.contains('\0')).then(|| Server { id, extra: object_text(&unknown) })
}
