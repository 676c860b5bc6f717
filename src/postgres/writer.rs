//! Writing a round: one message, and what to do if the server won't have it.

use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::error::StoreError;
use crate::store::{OperationResult, Outcome, PendingWrite, Write};

use super::backend::{Backend, Calls, GivenUp};
use super::compaction;
use super::deletion;
use super::probe;
use super::prune;
use super::queue::{Queue, Round};
use super::retry::Decision;

/// Writes that nobody was told about yet. What is left when it is dropped holds up no read.
pub struct Unsettled {
    queue: Arc<Queue>,
    writes: Vec<PendingWrite>,
}

impl Unsettled {
    pub fn new(queue: &Arc<Queue>, writes: Vec<PendingWrite>) -> Self {
        Self { queue: Arc::clone(queue), writes }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if !self.writes.is_empty() {
            self.queue.settle(&mut self.writes);
        }
    }
}

/// Does what the writes of a round say; or puts those back that may be done without the others.
pub async fn write(backend: &Rc<Backend>, Round { writes, sent }: Round) {
    let mut unsettled = Unsettled::new(&backend.queue, writes);
    let count = unsettled.writes.len();
    match run(backend, &unsettled.writes, sent).await {
        Ok(outcomes) => {
            settle(backend, &mut unsettled, outcomes.into_iter().map(Ok).collect());
        }
        Err(GivenUp { decision: Decision::Split, .. }) => {
            backend.queue.put_back(mem::take(&mut unsettled.writes), count / 2);
        }
        Err(GivenUp { decision: Decision::Expire, error }) => {
            let expired = backend.queue.count_expired(&unsettled.writes).max(1);
            settle(backend, &mut unsettled, failed(expired, &error));
            backend.queue.put_back(mem::take(&mut unsettled.writes), count);
        }
        Err(GivenUp { error, .. }) => settle(backend, &mut unsettled, failed(count, &error)),
    }
}

fn failed(count: usize, error: &StoreError) -> Vec<OperationResult> {
    (0..count).map(|_| Err(error.clone())).collect()
}

/// What each of the writes gave.
async fn run(
    backend: &Rc<Backend>,
    writes: &[PendingWrite],
    sent: Instant,
) -> Result<Vec<Outcome>, GivenUp> {
    match writes {
        // Alone in its round.
        [PendingWrite { write: Write::DeleteSession { id }, called_at, .. }] => {
            let deleted = delete(backend, id, *called_at, sent).await?;
            Ok(vec![deleted])
        }
        [PendingWrite { write: Write::Probe(rows), called_at, .. }] => {
            probe::probe(backend, rows, *called_at).await?;
            Ok(vec![Outcome::Stored])
        }
        [pending @ PendingWrite { write: Write::Prune(step), .. }] => {
            let pruned = prune::prune(backend, step, pending).await?;
            Ok(vec![pruned])
        }
        [pending @ PendingWrite { write: Write::Compact(step), .. }] => {
            let compacted = compaction::compact(backend, step, pending).await?;
            Ok(vec![compacted])
        }
        [PendingWrite { write: Write::Shrink(_), .. }] => Err(GivenUp {
            decision: Decision::Fail,
            error: StoreError::Internal { reason: "a server's database isn't shrunk from here" },
        }),
        writes => {
            upsert(backend, writes).await?;
            Ok(writes.iter().map(|_| Outcome::Stored).collect())
        }
    }
}

/// A deletion that takes several transactions leaves its place in flight to others.
async fn delete(
    backend: &Rc<Backend>,
    id: &str,
    called_at: Instant,
    sent: Instant,
) -> Result<Outcome, GivenUp> {
    if let Some(was_there) = deletion::delete_whole(backend, id, called_at).await? {
        return Ok(Outcome::Deleted(was_there));
    }
    backend.queue.end_round(sent);
    deletion::delete_in_steps(backend, id, called_at).await?;
    Ok(Outcome::Deleted(true))
}

/// One message, one transaction.
async fn upsert(backend: &Rc<Backend>, writes: &[PendingWrite]) -> Result<(), GivenUp> {
    let called_at = writes.first().map_or_else(Instant::now, |pending| pending.called_at);
    let calls = Calls::together(writes.len(), called_at);
    let stored = backend.with_retries(calls, async |connection, statements| {
        let sent = Instant::now();
        let steps = statements.steps(writes.iter().map(|pending| &pending.write));
        for message in statements.messages(&steps) {
            let stored = connection.fetch(message).await;
            stored.map_err(|failure| statements.explain(failure))?;
        }
        backend.metrics.note_commit(sent.elapsed());
        backend.metrics.note_stored(writes.len());
        if writes.iter().any(|pending| statements.drops_fields_of(&pending.write)) {
            backend.completions.warn_of_dropped_fields();
        }
        Ok(())
    });
    stored.await
}

/// Tells the callers of the first writes how these ended.
fn settle(backend: &Rc<Backend>, unsettled: &mut Unsettled, results: Vec<OperationResult>) {
    let mut done: Vec<PendingWrite> = unsettled.writes.drain(..results.len()).collect();
    backend.queue.settle(&mut done);
    backend.deliver(done.iter().map(|pending| pending.ticket).zip(results));
}
