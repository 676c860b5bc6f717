//! Writing a round: one message, and what to do if the server won't have it.

use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::error::StoreError;
use crate::store::Outcome;

use super::backend::{Backend, Parts};
use super::failure::{Failure, Remedy};
use super::queue::{Queue, Write};

/// Writes that nobody was told about yet. What is left when it is dropped holds up no read.
pub struct Unsettled {
    queue: Arc<Queue>,
    writes: Vec<Write>,
}

impl Unsettled {
    pub fn new(queue: &Arc<Queue>, writes: Vec<Write>) -> Self {
        Self { queue: Arc::clone(queue), writes }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if !self.writes.is_empty() {
            self.queue.settle(&self.writes);
        }
    }
}

/// Stores the writes together; or puts those back that may be stored without the others.
pub async fn write(backend: &Rc<Backend>, mut unsettled: Unsettled) {
    let count = unsettled.writes.len();
    let result = store(backend, &unsettled.writes).await;
    match result {
        Err(failure) if failure.remedy == Remedy::Split && count > 1 => {
            backend.queue.put_back(mem::take(&mut unsettled.writes), count / 2);
        }
        Err(failure) if failure.remedy != Remedy::None => {
            // Its oldest write can wait no longer; the others have time left.
            let expired = backend.queue.count_expired(&unsettled.writes).max(1);
            settle(backend, &mut unsettled, expired, Err(failure.error));
            backend.queue.put_back(mem::take(&mut unsettled.writes), count);
        }
        result => settle(backend, &mut unsettled, count, result.map_err(|failure| failure.error)),
    }
}

/// One message, one transaction.
async fn store(backend: &Rc<Backend>, writes: &[Write]) -> Result<(), Failure> {
    let accepted = writes.first().map_or_else(Instant::now, |write| write.accepted);
    let parts = if writes.len() > 1 { Parts::Several } else { Parts::One };
    backend
        .with_retries(parts, accepted, async |lease, statements| {
            for message in statements.upsert(writes.iter().map(|write| &write.row)) {
                let sent = lease.connection().fetch(message).await;
                sent.map_err(|failure| statements.explain(failure))?;
            }
            if writes.iter().any(|write| statements.drops_fields_of(&write.row)) {
                backend.completions.warn_of_dropped_fields();
            }
            Ok(())
        })
        .await
}

fn settle(
    backend: &Rc<Backend>,
    unsettled: &mut Unsettled,
    size: usize,
    result: Result<(), StoreError>,
) {
    let done: Vec<Write> = unsettled.writes.drain(..size).collect();
    backend.queue.settle(&done);
    let result = |()| result.clone().map(|()| Outcome::Stored);
    backend.deliver(done.into_iter().map(|write| (write.ticket, result(()))));
}
