//! The Node addon: the only part that knows JavaScript.
//!
//! `class`: what the addon exports, of which `lib/` makes the package's classes and functions.
//!
//! | file | owns |
//! | --- | --- |
//! | `binding` | `Binding`: opens drivers, and does what needs none |
//! | `driver` | `Driver`: a database or a view of one |
//! | `traced_call` | `TracedCall`: a call that is told of before it is made |
//! | `calls` | how a call is made |
//!
//! `convert`: JavaScript's values as ours and back.
//!
//! | file | owns |
//! | --- | --- |
//! | `operations` | the arguments of each method, as the store's operation |
//! | `requests` | which rows are wanted |
//! | `outcomes` | the store's outcome, as what the promise resolves to |
//! | `records` | sessions and events |
//! | `traces` | what a traced call tells of itself |
//! | `event_text` | an event out of the engine's text of it |
//! | `replay_text` | the arguments of `buildReplayText` |
//! | `sqlite_options`, `postgres_options`, `replay_options` | the options that there are |
//! | `options` | reading objects of options |
//! | `json` | values as the engine's own JSON texts |
//! | `values` | reading single values |
//! | `error` | errors as JavaScript sees them |
//! | `database` | which database a driver is of, as its user may see it |
//! | `realm` | the functions that values and errors are made with |
//!
//! `promise`: what outlasts a call.
//!
//! | file | owns |
//! | --- | --- |
//! | `environment` | the state of one JavaScript thread: its drivers, and their end with it |
//! | `bridge` | promises: made on JavaScript's thread, settled there, woken once a batch |
//! | `attempts` | attempts to connect, told of to who listens |
//! | `activity` | whether an application is in the middle of something |
//! | `health` | whether the driver can be counted on; pure |
//! | `notes` | what stores note, to be told of on JavaScript's thread |
//! | `handle` | the open store that a driver and its outstanding calls share |
//! | `password` | passwords from a function of the user's |
//!
//! `warning`: warnings of the process. Within each list, what stands higher uses what stands lower;
//! `class` uses `promise`, which uses `convert`.
//!
//! Everything here runs on the JavaScript thread of its environment, except what says
//! otherwise. A process has one environment for its main thread and one for each worker.

mod class;
mod convert;
mod promise;
mod warning;

/// The version of the addon, which is the package's: another one's isn't loaded.
#[napi_derive::napi]
#[cfg_attr(test, expect(dead_code, reason = "the addon's exports aren't made in tests"))]
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
