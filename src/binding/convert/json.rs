//! The engine's own `JSON.parse` and `JSON.stringify`: what they preserve, we preserve.

use napi::bindgen_prelude::Unknown;
use napi::{Env, ValueType};

use crate::model::JsonText;

use super::error::CallError;
use super::realm::Realm;
use super::values;

/// A JSON text must come back as part of one JavaScript string of 2^29 units.
pub const MAX_JSON_BYTES: usize = (1 << 29) - (1 << 20);

/// The text of `value`; `None` where JSON has none, as for `undefined` and functions.
pub fn stringify(
    env: &Env,
    realm: &Realm,
    value: Unknown<'_>,
    name: impl Fn() -> String,
) -> Result<Option<JsonText>, CallError> {
    let text = realm.stringify(env, value).map_err(|_| {
        CallError::expected(
            &name(),
            "serialisable by JSON.stringify, without a BigInt, a cycle or a method that throws",
        )
    })?;
    match text.get_type()? {
        ValueType::String => Ok(Some(values::read_text(&text)?)),
        _ => Ok(None),
    }
}

/// The value that a text stands for. V8's errors quote the text; they must not get out.
pub fn parse<'env>(env: &'env Env, realm: &Realm, text: &str) -> napi::Result<Unknown<'env>> {
    realm.parse(env, values::js_string(env, text)?)
}
