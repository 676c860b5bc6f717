//! Warnings of the process: what a user should hear of that is no error.

use std::sync::atomic::{AtomicBool, Ordering};

use napi::Env;
use napi::bindgen_prelude::{FnArgs, Function, JsObjectValue, Object, Unknown};

/// What `--disable-warning` and listeners know them by.
const KIND: &str = "SandboxAgentPersistWarning";

const DROPPED_FIELDS: &str = "a session or an event had fields that this version doesn't know, and the table has no column for them: they were not stored. Add a column \"extra_json\" of the type json to both tables, and restart, to keep them.";

/// The arguments of `process.emitWarning`.
type Emit<'env> = FnArgs<(&'env str, &'env str)>;

/// Emits a warning of the process.
pub fn emit(env: &Env, message: &str) -> napi::Result<()> {
    let process: Object<'_> = env.get_global()?.get_named_property_unchecked("process")?;
    let emit: Function<'_, Emit<'_>, Unknown<'_>> =
        process.get_named_property_unchecked("emitWarning")?;
    emit.apply(process, FnArgs::from((message, KIND)))?;
    Ok(())
}

/// Warns that fields were not stored, once in a process.
pub fn of_dropped_fields(env: &Env) -> napi::Result<()> {
    static HAS_WARNED: AtomicBool = AtomicBool::new(false);
    if HAS_WARNED.swap(true, Ordering::Relaxed) { Ok(()) } else { emit(env, DROPPED_FIELDS) }
}
