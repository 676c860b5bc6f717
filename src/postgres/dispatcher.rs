//! Hands out the work of the queue, each piece to a task of its own.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_util::FutureExt as _;

use crate::error::StoreError;
use crate::store::{Read, Ticket};

use super::backend::Backend;
use super::queue::{Lookups, Round, Work};
use super::{reader, writer};

/// Works until the queue ends.
pub async fn run(backend: Rc<Backend>) {
    loop {
        match backend.queue.next_work().await {
            Work::Round(round) => {
                tokio::task::spawn_local(write(Rc::clone(&backend), round));
            }
            Work::Lookups(lookups) => {
                tokio::task::spawn_local(look_up(Rc::clone(&backend), lookups));
            }
            Work::List(read) => {
                tokio::task::spawn_local(list(Rc::clone(&backend), read));
            }
            Work::Expired(tickets) => fail(&backend, &tickets, &backend.trouble()),
            Work::End => break,
        }
    }
    backend.pool.close().await;
}

async fn write(backend: Rc<Backend>, round: Round) {
    let sent = round.sent;
    let tickets: Vec<Ticket> = round.writes.iter().map(|pending| pending.ticket).collect();
    let task = writer::write(&backend, round);
    unless_it_panics(&backend, &tickets, "the writer panicked", task).await;
    backend.queue.end_round(sent);
}

async fn look_up(backend: Rc<Backend>, lookups: Lookups) {
    let Lookups { wanted, called_at, sent } = lookups;
    let tickets: Vec<Ticket> = wanted.iter().map(|lookup| lookup.ticket).collect();
    let task = reader::look_up(&backend, wanted, called_at);
    unless_it_panics(&backend, &tickets, "a reader panicked", task).await;
    backend.queue.end_lookups(sent);
}

async fn list(backend: Rc<Backend>, read: Read) {
    let ticket = read.ticket;
    let task = reader::list(&backend, read);
    unless_it_panics(&backend, &[ticket], "a reader panicked", task).await;
    backend.queue.end_list();
}

/// Tells the callers if it does; those that were told how their calls ended are no longer known.
async fn unless_it_panics(
    backend: &Backend,
    tickets: &[Ticket],
    reason: &'static str,
    task: impl Future<Output = ()>,
) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        fail(backend, tickets, &StoreError::Internal { reason });
    }
}

fn fail(backend: &Backend, tickets: &[Ticket], error: &StoreError) {
    backend.deliver(tickets.iter().map(|ticket| (*ticket, Err(error.clone()))));
}
