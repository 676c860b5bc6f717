//! The engine's own `JSON.parse` and `JSON.stringify`: what they preserve, we preserve.
//!
//! Taken once for each environment: an application that replaces them later doesn't change what
//! is stored.

use napi::bindgen_prelude::{
    Array, FromNapiValue, Function, FunctionRef, JsObjectValue, Object, Unknown,
};
use napi::{Env, JsValue, ValueType};

use crate::error::StoreError;
use crate::json;
use crate::model::{JsonText, Page};
use crate::store::Replay;

use super::convert;
use super::error::CallError;

/// See the module's documentation.
pub struct Json {
    parse: FunctionRef<Unknown<'static>, Unknown<'static>>,
    stringify: FunctionRef<Unknown<'static>, Unknown<'static>>,
}

impl Json {
    pub fn new(env: &Env) -> napi::Result<Self> {
        let json: Object<'_> = env.get_global()?.get_named_property_unchecked("JSON")?;
        let function = |name: &str| -> napi::Result<_> {
            let function: Function<'_, Unknown<'static>, Unknown<'static>> =
                json.get_named_property_unchecked(name)?;
            function.create_ref()
        };
        Ok(Self { parse: function("parse")?, stringify: function("stringify")? })
    }

    /// The text of `value`; `None` where JSON has none, as for `undefined` and functions.
    pub fn stringify(
        &self,
        env: &Env,
        value: Unknown<'_>,
        name: impl Fn() -> String,
    ) -> Result<Option<JsonText>, CallError> {
        let text = call(env, &self.stringify, value).map_err(|_| {
            CallError::expected(
                &name(),
                "serialisable by JSON.stringify, without a BigInt, a cycle or a method that throws",
            )
        })?;
        match text.get_type()? {
            ValueType::String => Ok(Some(convert::read_text(&text)?)),
            _ => Ok(None),
        }
    }

    /// The object that a stored session's text stands for.
    pub fn parse_session<'env>(
        &self,
        env: &'env Env,
        text: &str,
    ) -> Result<Unknown<'env>, CallError> {
        self.parse(env, text).map_err(|_| unreadable("session", text_id(text)))
    }

    /// `{ items, nextCursor? }`.
    pub fn parse_page<'env>(&self, env: &'env Env, page: Page) -> Result<Unknown<'env>, CallError> {
        let mut result = Object::new(env)?;
        result.set_named_property("items", self.parse_arrays(env, page.arrays)?)?;
        if let Some(next_cursor) = page.next_cursor {
            result.set_named_property("nextCursor", next_cursor)?;
        }
        Ok(result.to_unknown())
    }

    /// `{ text, events, firstEventIndex, lastEventIndex, truncated }`.
    pub fn parse_replay<'env>(
        &self,
        env: &'env Env,
        replay: Replay,
    ) -> Result<Unknown<'env>, CallError> {
        let mut result = Object::new(env)?;
        result.set_named_property("text", convert::replay_text(env, &replay.text)?)?;
        result.set_named_property("events", self.parse_arrays(env, replay.arrays)?)?;
        for (name, index) in [
            ("firstEventIndex", replay.first_event_index),
            ("lastEventIndex", replay.last_event_index),
        ] {
            result.set_named_property(name, index.as_f64())?;
        }
        result.set_named_property("truncated", replay.is_truncated)?;
        Ok(result.to_unknown())
    }

    /// The items of all arrays, one after the other.
    fn parse_arrays<'env>(
        &self,
        env: &'env Env,
        arrays: Vec<JsonText>,
    ) -> Result<Array<'env>, CallError> {
        let mut arrays = arrays.into_iter();
        let first = arrays.next().unwrap_or_else(|| "[]".to_owned());
        let mut items = self.parse_items(env, first)?;
        for text in arrays {
            append(&mut items, self.parse_items(env, text)?)?;
        }
        Ok(items)
    }

    fn parse_items<'env>(&self, env: &'env Env, text: JsonText) -> Result<Array<'env>, CallError> {
        let items = self
            .parse(env, &text)
            .map_err(|_| unreadable("row", json::id_of_broken_item(&text)))?;
        #[expect(unsafe_code, reason = "napi's conversion of a value to its type is unsafe")]
        // SAFETY: the value is live and of this environment; its type is checked.
        Ok(unsafe { Array::from_napi_value(env.raw(), items.raw()) }?)
    }

    /// V8's errors quote the text; they must not get out.
    fn parse<'env>(&self, env: &'env Env, text: &str) -> napi::Result<Unknown<'env>> {
        let text = convert::js_string(env, text)?;
        call(env, &self.parse, text)
    }
}

fn text_id(text: &str) -> Option<String> {
    json::id_of_broken_item(&format!("[{text}]"))
}

fn unreadable(what: &str, id: Option<String>) -> CallError {
    let what = match id {
        Some(id) => format!("{what} \"{id}\""),
        None => what.to_owned(),
    };
    StoreError::Corrupt { what, reason: "a column does not hold JSON" }.into()
}

fn append(items: &mut Array<'_>, more: Array<'_>) -> napi::Result<()> {
    for index in 0..more.len() {
        if let Some(item) = more.get::<Unknown<'_>>(index)? {
            items.insert(item)?;
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "napi's safe call would tie the result to 'static")]
fn call<'env>(
    env: &'env Env,
    function: &FunctionRef<Unknown<'static>, Unknown<'static>>,
    argument: Unknown<'_>,
) -> napi::Result<Unknown<'env>> {
    let function = function.borrow_back(env)?;
    // SAFETY: the argument is live for the length of the call, which is all the call needs.
    let argument = unsafe { Unknown::from_raw_unchecked(env.raw(), argument.raw()) };
    let result = function.call(argument)?;
    // SAFETY: the result is a live value of this environment.
    Ok(unsafe { Unknown::from_raw_unchecked(env.raw(), result.raw()) })
}
