//! Warnings of the process: what a user should hear of that is no error.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use napi::bindgen_prelude::{JsObjectValue, Object, Unknown};
use napi::{Env, JsValue};
use parking_lot::Mutex;

use super::convert::calling;
use super::convert::values::js_string;

/// What `--disable-warning` and listeners know them by.
const KIND: &str = "SandboxAgentPersistWarning";

const DROPPED_FIELDS: &str = "a session or an event had fields that this version doesn't know, and the table has no column for them: they were not stored. Add a column \"extra_json\" of the type json to both tables, and restart, to keep them.";

const LATE_CALL: &str = "a driver was called after its close(): nothing was stored. Events may come in after a prompt has been answered; gracefulShutdown(sdk, driver) waits for them, and closes in the right order.";

/// Emits a warning of the process. An application's own `process.emitWarning` may throw: no call is
/// to fail by that.
pub fn emit(env: &Env, message: &str) {
    if try_to_emit(env, message).is_err() {
        let _ = calling::take_exception(env);
    }
}

fn try_to_emit(env: &Env, message: &str) -> napi::Result<()> {
    let process: Object<'_> = env.get_global()?.get_named_property_unchecked("process")?;
    let emit: Unknown<'_> = process.get_named_property_unchecked("emitWarning")?;
    let told = [js_string(env, message)?.raw(), js_string(env, KIND)?.raw()];
    calling::call(env, emit.raw(), Some(process.raw()), &told).map(drop)
}

/// Emits a warning, unless the process has had the same before. What nobody counts is emitted again.
pub fn once(env: &Env, message: &str) {
    const MAX_MESSAGES: usize = 100;
    static WARNED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    let is_new = {
        let mut warned = WARNED.lock();
        warned.len() >= MAX_MESSAGES || warned.insert(message.to_owned())
    };
    if is_new {
        emit(env, message);
    }
}

/// Warns that fields were not stored, once in a process.
pub fn of_dropped_fields(env: &Env) {
    static HAS_WARNED: AtomicBool = AtomicBool::new(false);
    if !HAS_WARNED.swap(true, Ordering::Relaxed) {
        emit(env, DROPPED_FIELDS);
    }
}

/// Warns of a call after `close()`, once in a process.
pub fn of_late_call(env: &Env) {
    static HAS_WARNED: AtomicBool = AtomicBool::new(false);
    if !HAS_WARNED.swap(true, Ordering::Relaxed) {
        emit(env, LATE_CALL);
    }
}

/// Warns of a file system that may be on a network for all we know, once in a process.
pub fn of_unknown_file_system(env: &Env, number: u32) {
    static HAS_WARNED: AtomicBool = AtomicBool::new(false);
    if HAS_WARNED.swap(true, Ordering::Relaxed) {
        return;
    }
    let message = format!(
        "a database lies on a file system that isn't known here (0x{number:08x}): it is taken for a \
         local one. If it is on a network, SQLite's WAL corrupts the database there: choose another \
         folder."
    );
    emit(env, &message);
}

/// Warns of names in a request that mean nothing, once in a process for each.
pub fn of_unknown_names(env: &Env, method: &str, names: &[String]) {
    /// A process that makes names up isn't warned of all of them.
    const MAX_NAMES: usize = 100;
    static WARNED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    for name in names {
        let is_new = {
            let mut warned = WARNED.lock();
            warned.len() < MAX_NAMES && warned.insert(format!("{method}.{name}"))
        };
        if is_new {
            let shown: String = name.chars().take(MAX_NAMES).collect();
            emit(env, &format!("{method} knows no \"{shown}\" in its request: it has no effect."));
        }
    }
}
