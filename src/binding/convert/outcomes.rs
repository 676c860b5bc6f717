//! What a call gave, as JavaScript sees it. The one place where outcomes are told apart.

use std::time::Duration;

use napi::bindgen_prelude::{
    Array, FromNapiValue, JsObjectValue, Null, Object, ToNapiValue, Unknown,
};
use napi::{Env, JsValue};

use crate::error::StoreError;
use crate::json as json_text;
use crate::model::{JsonText, Page};
use crate::store::{
    Compacted, Latencies, MetricsSnapshot, Outcome, Pruned, Replay, SessionAmount, StoredAmount,
};

use super::error::CallError;
use super::json::{self, MAX_JSON_BYTES};
use super::realm::Realm;
use super::traces::Amount;
use super::values;

/// What the call's promise resolves to.
pub struct Answer<'env> {
    /// The value itself.
    pub value: Unknown<'env>,
    /// How much it is, if it is sessions or events.
    pub amount: Option<Amount>,
}

/// The answer that the outcome stands for.
pub fn to_js<'env>(
    env: &'env Env,
    realm: &Realm,
    outcome: Outcome,
) -> Result<Answer<'env>, CallError> {
    match outcome {
        Outcome::Stored => Ok(Answer::without_rows(().into_unknown(env)?)),
        Outcome::Deleted(was_there) => Ok(Answer::without_rows(was_there.into_unknown(env)?)),
        Outcome::Count(count) => Ok(Answer::without_rows(number(count).into_unknown(env)?)),
        Outcome::Stats(amount) => {
            Ok(Answer::without_rows(stored_amount(env, realm, &amount)?.to_unknown()))
        }
        Outcome::Pruned(found) => Ok(Answer::without_rows(pruned(env, realm, found)?.to_unknown())),
        Outcome::Compacted(found) => {
            Ok(Answer::without_rows(compacted(env, realm, &found)?.to_unknown()))
        }
        Outcome::Shrunk { bytes_before, bytes_after } => {
            let mut result = realm.object(env)?;
            result.set_named_property("bytesBefore", number(bytes_before))?;
            result.set_named_property("bytesAfter", number(bytes_after))?;
            Ok(Answer::without_rows(result.to_unknown()))
        }
        Outcome::Session(None) => Ok(Answer::of(().into_unknown(env)?, 0, 0)),
        Outcome::Session(Some(text)) => Ok(Answer::of(session(env, realm, &text)?, 1, text.len())),
        Outcome::Page(found) => page(env, realm, found),
        Outcome::Replay(None) => Ok(Answer::of(Null.into_unknown(env)?, 0, 0)),
        Outcome::Replay(Some(found)) => replay(env, realm, found),
    }
}

impl<'env> Answer<'env> {
    fn of(value: Unknown<'env>, rows: usize, bytes: usize) -> Self {
        Self { value, amount: Some(Amount { rows, bytes }) }
    }

    fn without_rows(value: Unknown<'env>) -> Self {
        Self { value, amount: None }
    }
}

/// The text of a replay, which may be longer than a JavaScript string can be; `null` for none.
pub fn replay_text<'env>(env: &'env Env, text: Option<&str>) -> Result<Unknown<'env>, CallError> {
    let Some(text) = text else { return Ok(Null.into_unknown(env)?) };
    let too_large = |_| StoreError::TooLarge {
        what: "the replay text",
        size: text.len(),
        max: MAX_JSON_BYTES,
        unit: "bytes",
    };
    Ok(values::js_string(env, text).map_err(too_large)?)
}

/// The object that a stored session's text stands for.
fn session<'env>(env: &'env Env, realm: &Realm, text: &str) -> Result<Unknown<'env>, CallError> {
    let id = || json_text::id_of_broken_item(&format!("[{text}]"));
    json::parse(env, realm, text).map_err(|_| unreadable("session", id()))
}

/// `{ items, nextCursor? }`.
fn page<'env>(env: &'env Env, realm: &Realm, page: Page) -> Result<Answer<'env>, CallError> {
    let bytes = bytes_of(&page.arrays);
    let items = items(env, realm, page.arrays)?;
    let rows = items.len() as usize;
    let mut result = realm.object(env)?;
    result.set_named_property("items", items)?;
    if let Some(next_cursor) = page.next_cursor {
        result.set_named_property("nextCursor", next_cursor)?;
    }
    Ok(Answer::of(result.to_unknown(), rows, bytes))
}

/// `{ handled, sessions, events, bytes, isElsewhere }`.
fn pruned<'env>(env: &'env Env, realm: &Realm, pruned: Pruned) -> napi::Result<Object<'env>> {
    let mut result = realm.object(env)?;
    result.set_named_property("handled", number(pruned.handled))?;
    result.set_named_property("sessions", number(pruned.sessions))?;
    result.set_named_property("events", number(pruned.events))?;
    result.set_named_property("bytes", number(pruned.bytes))?;
    result.set_named_property("isElsewhere", pruned.is_elsewhere)?;
    Ok(result)
}

/// `{ read, gone, bytes, cursor?, isElsewhere }`.
fn compacted<'env>(env: &'env Env, realm: &Realm, came: &Compacted) -> napi::Result<Object<'env>> {
    let mut result = realm.object(env)?;
    result.set_named_property("read", number(came.read))?;
    result.set_named_property("gone", number(came.gone))?;
    result.set_named_property("bytes", number(came.bytes))?;
    if let Some(next) = &came.next {
        result.set_named_property("cursor", next.to_text())?;
    }
    result.set_named_property("isElsewhere", came.is_elsewhere)?;
    Ok(result)
}

/// `{ text, events, firstEventIndex, lastEventIndex, truncated }`.
fn replay<'env>(env: &'env Env, realm: &Realm, replay: Replay) -> Result<Answer<'env>, CallError> {
    let mut result = realm.object(env)?;
    result.set_named_property("text", replay_text(env, Some(&replay.text))?)?;
    let bytes = bytes_of(&replay.arrays);
    let events = items(env, realm, replay.arrays)?;
    let rows = events.len() as usize;
    result.set_named_property("events", events)?;
    for (name, index) in
        [("firstEventIndex", replay.first_event_index), ("lastEventIndex", replay.last_event_index)]
    {
        result.set_named_property(name, index.as_f64())?;
    }
    result.set_named_property("truncated", replay.is_truncated)?;
    Ok(Answer::of(result.to_unknown(), rows, bytes))
}

/// `{ sessions, events, isEstimate, bytes, largest? }`.
fn stored_amount<'env>(
    env: &'env Env,
    realm: &Realm,
    amount: &StoredAmount,
) -> napi::Result<Object<'env>> {
    let mut bytes = realm.object(env)?;
    bytes.set_named_property("database", number(amount.database_bytes))?;
    for (name, optional) in [("wal", amount.wal_bytes), ("reclaimable", amount.reclaimable_bytes)] {
        if let Some(count) = optional {
            bytes.set_named_property(name, number(count))?;
        }
    }
    let mut result = realm.object(env)?;
    result.set_named_property("sessions", number(amount.sessions))?;
    result.set_named_property("events", number(amount.events))?;
    result.set_named_property("isEstimate", amount.is_estimate)?;
    result.set_named_property("bytes", bytes)?;
    if let Some(largest) = &amount.largest {
        let list: Vec<String> = largest.iter().map(session_amount).collect();
        let list = format!("[{}]", list.join(","));
        result.set_named_property("largest", json::parse(env, realm, &list)?)?;
    }
    Ok(result)
}

fn session_amount(SessionAmount { session_id, events, bytes }: &SessionAmount) -> String {
    let session_id = serde_json::to_string(session_id).expect("a text");
    format!("{{\"sessionId\":{session_id},\"events\":{events},\"bytes\":{bytes}}}")
}

/// `{ queue, commits, calls, retries, reconnects, lockWaits }`: how a driver does.
pub fn metrics<'env>(
    env: &'env Env,
    realm: &Realm,
    store: &MetricsSnapshot,
    calls: &CallMetrics,
) -> napi::Result<Object<'env>> {
    let mut queue = realm.object(env)?;
    queue.set_named_property("calls", number(calls.outstanding))?;
    queue.set_named_property("bytes", number(store.queued_bytes))?;
    let mut commits = realm.object(env)?;
    commits.set_named_property("count", number(store.commits))?;
    commits.set_named_property("writes", number(store.committed_writes))?;
    commits.set_named_property("latencyMs", latencies(env, realm, store.commit_latencies)?)?;
    let mut of_calls = realm.object(env)?;
    of_calls.set_named_property("latencyMs", latencies(env, realm, calls.latencies)?)?;
    of_calls.set_named_property("rejected", number(calls.rejected))?;
    let mut result = realm.object(env)?;
    result.set_named_property("queue", queue)?;
    result.set_named_property("commits", commits)?;
    result.set_named_property("calls", of_calls)?;
    result.set_named_property("retries", number(store.retries))?;
    result.set_named_property("reconnects", number(store.reconnects))?;
    result.set_named_property("lockWaits", number(store.lock_waits))?;
    Ok(result)
}

/// How a driver is, told from how its calls end.
#[derive(Debug)]
pub struct HealthReport {
    /// One of index.d.ts' `Health`.
    pub state: &'static str,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// The last error that lay with the database, and when it was.
    pub last_error: Option<(u64, LastError)>,
    /// How many calls are outstanding.
    pub queued_calls: u64,
    /// How long the oldest of them waits.
    pub oldest_queued: Duration,
}

/// An error that lay with the database.
#[derive(Debug, Clone)]
pub struct LastError {
    /// Its stable name.
    pub code: &'static str,
    /// Its message.
    pub message: String,
    /// What failed.
    pub operation: &'static str,
}

/// `{ state, since, lastError?, queuedCalls, oldestQueuedMs }`.
pub fn health<'env>(
    env: &'env Env,
    realm: &Realm,
    report: HealthReport,
) -> napi::Result<Object<'env>> {
    let mut result = realm.object(env)?;
    result.set_named_property("state", report.state)?;
    result.set_named_property("since", number(report.since_ms))?;
    if let Some((at, LastError { code, message, operation })) = report.last_error {
        let mut error = realm.object(env)?;
        error.set_named_property("code", code)?;
        error.set_named_property("message", message)?;
        error.set_named_property("operation", operation)?;
        error.set_named_property("at", number(at))?;
        result.set_named_property("lastError", error)?;
    }
    result.set_named_property("queuedCalls", number(report.queued_calls))?;
    let oldest_ms = (report.oldest_queued.as_secs_f64() * 1_000.0).round();
    result.set_named_property("oldestQueuedMs", oldest_ms)?;
    Ok(result)
}

/// How a driver's calls do.
#[derive(Debug, Clone, Copy)]
pub struct CallMetrics {
    /// How many have a promise that isn't settled.
    pub outstanding: u64,
    /// How many rejected.
    pub rejected: u64,
    /// How long they took to settle.
    pub latencies: Latencies,
}

fn latencies<'env>(
    env: &'env Env,
    realm: &Realm,
    Latencies { p50_ms, p99_ms, max_ms }: Latencies,
) -> napi::Result<Object<'env>> {
    let mut result = realm.object(env)?;
    for (name, milliseconds) in [("p50", p50_ms), ("p99", p99_ms), ("max", max_ms)] {
        result.set_named_property(name, milliseconds)?;
    }
    Ok(result)
}

/// As JavaScript has it.
#[expect(clippy::cast_precision_loss, reason = "nobody has more than 2^53 of anything here")]
pub fn number(count: u64) -> f64 {
    count as f64
}

fn bytes_of(arrays: &[JsonText]) -> usize {
    arrays.iter().map(String::len).sum()
}

/// The items of all arrays, one after the other.
fn items<'env>(
    env: &'env Env,
    realm: &Realm,
    arrays: Vec<JsonText>,
) -> Result<Array<'env>, CallError> {
    let mut arrays = arrays.into_iter();
    let first = arrays.next().unwrap_or_else(|| "[]".to_owned());
    let mut items = array(env, realm, first)?;
    for text in arrays {
        append(&mut items, array(env, realm, text)?)?;
    }
    Ok(items)
}

fn array<'env>(env: &'env Env, realm: &Realm, text: JsonText) -> Result<Array<'env>, CallError> {
    let items = json::parse(env, realm, &text)
        .map_err(|_| unreadable("row", json_text::id_of_broken_item(&text)))?;
    #[expect(unsafe_code, reason = "napi's conversion of a value to its type is unsafe")]
    // SAFETY: the value is live and of this environment; its type is checked.
    Ok(unsafe { Array::from_napi_value(env.raw(), items.raw()) }?)
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
