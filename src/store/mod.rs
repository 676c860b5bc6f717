//! The operations of a session store, without JavaScript and without SQL.
//!
//! | file | owns |
//! | --- | --- |
//! | `operation` | what is written and read, what each touches, and what comes of it |
//! | `session_store` | the trait that a backend implements, and whom it tells |
//! | `backlog` | what waits to be written, and the reads that wait for it; pure |
//! | `unsettled` | which writes aren't settled; pure |
//! | `compact` | what compaction asks of a backend; pure |
//! | `prune` | what pruning asks of a backend; pure |
//! | `pace` | how much of a long work to do at a time; pure |
//! | `metrics` | how a store does: commits, retries, waits |
//! | `trouble` | what no call has failed from, or not yet; pure |

mod backlog;
mod compact;
mod file_progress;
mod metrics;
mod operation;
mod pace;
mod probe;
mod prune;
mod session_store;
#[cfg(test)]
pub mod testing;
mod trouble;
mod unsettled;

pub use backlog::{Backlog, Batch, BatchRules, Patience, PendingWrite, Read};
pub use compact::{CompactCursor, CompactRun, CompactStep, Compacted};
pub use file_progress::FileProgress;
pub use metrics::{Latencies, LatencyHistogram, Metrics, MetricsSnapshot};
pub use operation::{
    EventsQuery, Operation, Outcome, Query, Replay, ReplayForm, ReplayQuery, SessionAmount,
    SessionsQuery, StoredAmount, Write,
};
pub use pace::Pace;
pub use probe::Probe;
pub use prune::{Candidates, CandidatesQuery, Place, Prune, PruneStep, Pruned};
pub use session_store::{
    Completion, Completions, DEFAULT_MAX_QUEUED_BYTES, OperationResult, SessionStore, Ticket,
    reject_as_closed,
};
pub use trouble::{Activity, Lasting, NOTICEABLE, Trouble};
