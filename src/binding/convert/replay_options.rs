//! What a replay may hold.

use napi::bindgen_prelude::Unknown;

use crate::replay::{Keep, ReplayOptions};

use super::error::CallError;
use super::options::Options;
use super::values;

const OPTIONS: [&str; 5] = ["maxEvents", "maxChars", "keep", "coalesce", "maxCharsPerEvent"];

/// Reads replay options; what is missing has its default.
pub fn read(options: Unknown<'_>) -> Result<ReplayOptions, CallError> {
    let mut result = ReplayOptions::default();
    if values::is_nullish(&options)? {
        return Ok(result);
    }
    let options = Options::of(options, "options")?.only(&OPTIONS, &[])?;
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
