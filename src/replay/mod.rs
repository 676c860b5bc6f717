//! The replay of a session: what of its history an agent is given after a restore.
//!
//! | file | owns |
//! | --- | --- |
//! | `options` | what a window may hold |
//! | `window` | the choice of events, newest first |
//! | `compaction` | which events become one for good |
//! | `envelope` | what an event is to the window: a chunk of text, part of a tool call, or neither |
//! | `text` | the SDK's text of a list of events |
//! | `value` | JSON as `JSON.parse` reads and `JSON.stringify` prints it |
//! | `js_string` | strings as JavaScript has them |
//!
//! Pure: backends feed rows in, newest first, until the window wants no more.

mod compaction;
mod envelope;
mod js_string;
mod options;
mod text;
mod value;
mod window;

pub use compaction::{Compaction, Merge};
pub use options::{Keep, ReplayOptions};
pub use text::{DEFAULT_MAX_CHARS, ReplayText};
pub use window::{Window, WindowBuilder};
