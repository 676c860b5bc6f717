//! Replay as JavaScript sees it: its options, the view, and the SDK's text of given events.

use std::ops::Deref;

use napi::bindgen_prelude::{Either, JsObjectValue, Null, Object, Unknown};
use napi::{Env, JsValue, ValueType};
use napi_derive::napi;

use crate::cursor;
use crate::replay::{DEFAULT_MAX_CHARS, Keep, ReplayOptions, ReplayText};
use crate::store::{EventsQuery, Operation, Query, ReplayForm, ReplayQuery};

use super::convert;
use super::driver::Driver;
use super::environment::Environment;
use super::error::CallError;
use super::json::Json;
use super::methods::session_methods;
use super::options::Options;

const REPLAY_OPTIONS: [&str; 5] = ["maxEvents", "maxChars", "keep", "coalesce", "maxCharsPerEvent"];

/// Reads replay options; what is missing has its default.
pub fn options(options: Unknown<'_>) -> Result<ReplayOptions, CallError> {
    let mut result = ReplayOptions::default();
    if convert::is_nullish(&options)? {
        return Ok(result);
    }
    let options = Options::of(options, "options")?.only(&REPLAY_OPTIONS, &[])?;
    for (name, field) in [
        ("maxEvents", &mut result.max_events),
        ("maxChars", &mut result.max_chars),
        ("maxCharsPerEvent", &mut result.max_chars_per_event),
    ] {
        if let Some(count) = options.count(name)? {
            *field = count;
        }
    }
    if let Some(keep) = options.text("keep")? {
        result.keep = match keep.as_str() {
            "newest" => Keep::Newest,
            "oldest" => Keep::Oldest,
            _ => return Err(CallError::expected("options.keep", "\"newest\" or \"oldest\"")),
        };
    }
    if let Some(coalesce) = options.boolean("coalesce")? {
        result.coalesce = coalesce;
    }
    Ok(result)
}

/// A driver whose lists of events are replay windows. It is open for as long as the driver that it
/// was made by.
#[napi]
pub struct ReplayView {
    driver: ViewedDriver,
}

session_methods!(ReplayView);

impl ReplayView {
    pub fn of(env: &Env, driver: &Driver, options: Unknown<'_>) -> napi::Result<Self> {
        let options = self::options(options).map_err(|error| error.into_thrown(env))?;
        Ok(Self { driver: ViewedDriver { driver: driver.clone(), options } })
    }
}

/// A driver, but for its lists of events.
struct ViewedDriver {
    driver: Driver,
    options: ReplayOptions,
}

impl Deref for ViewedDriver {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        &self.driver
    }
}

impl ViewedDriver {
    /// The window is one page, whatever the limit. Who goes on by an offset finds its end.
    fn list_events<'env>(
        &self,
        env: &'env Env,
        request: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        self.driver.call(env, || {
            let EventsQuery { session_id, page } = convert::events_request(request)?;
            let offset = cursor::parse(page.cursor.as_deref(), &session_id).offset;
            let form = ReplayForm::Events { offset: usize::try_from(offset).unwrap_or(usize::MAX) };
            let options = self.options.clone();
            Ok(Operation::Read(Query::Replay(ReplayQuery { session_id, options, form })))
        })
    }
}

/// The text that the SDK puts before the first prompt after a restore, character for character, made
/// of these events. `null` for none.
///
/// @param maxChars The SDK's `replayMaxChars`, in UTF-16 units. Default: 12,000.
/// @throws {TypeError} `ERR_PERSIST_INVALID_ARG`: `events` isn't an array of objects that
/// `JSON.stringify` can print.
/// @throws {PersistError} `ERR_PERSIST_TOO_LARGE`: no string is that long.
#[cfg_attr(test, allow(dead_code, reason = "registered in addons, which tests are not"))]
#[napi(
    ts_args_type = "events: readonly Pick<SessionEvent, \"createdAt\" | \"sender\" | \"payload\">[], maxChars?: number",
    ts_return_type = "string | null"
)]
pub fn build_replay_text<'env>(
    env: &'env Env,
    events: Unknown<'_>,
    max_chars: Unknown<'_>,
) -> napi::Result<Either<Unknown<'env>, Null>> {
    let json = &Environment::of(env)?.json;
    let build = || -> Result<Either<Unknown<'env>, Null>, CallError> {
        let max_chars = match max_chars.get_type()? {
            ValueType::Undefined => DEFAULT_MAX_CHARS,
            ValueType::Number => limit(convert::read_number(&max_chars)?),
            _ => return Err(CallError::expected("maxChars", "a number")),
        };
        if !events.is_array()? {
            return Err(CallError::expected("events", "an array"));
        }
        let events = convert::object(events, "events")?;
        let mut text = ReplayText::new(max_chars);
        let mut index = 0;
        // A getter or a toJSON may change the array, as it may while JavaScript goes through it.
        while index < events.get_array_length()? {
            if !text.push_line(&line(env, json, events.get_element(index)?, index)?) {
                break;
            }
            index += 1;
        }
        if index == 0 && events.get_array_length()? == 0 {
            return Ok(Either::B(Null));
        }
        convert::replay_text(env, &text.finish()).map(Either::A)
    };
    build().map_err(|error| error.into_thrown(env))
}

/// The engine's own text of an event.
fn line(env: &Env, json: &Json, event: Unknown<'_>, index: u32) -> Result<String, CallError> {
    let name = || format!("events[{index}]");
    let event = convert::object(event, &name())?;
    let mut printed = Object::new(env)?;
    for (key, name) in [(c"createdAt", "createdAt"), (c"sender", "sender"), (c"payload", "payload")]
    {
        printed.set_named_property(name, convert::property(&event, key)?)?;
    }
    let text = json.stringify(env, printed.to_unknown(), name)?;
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
