//! The threads on which the work of all stores of the process runs, several stores on each.
//!
//! A thread is started for the first store on it, and ends with the `join` of the last: none runs
//! once every store is closed, so that the addon may be unloaded. A store's tasks are a set of
//! their own. They are dropped together, and a panic of one ends its store's work at most.
//!
//! What waits for JavaScript's thread is no task of Tokio's: to wake one takes a thread-local, and
//! the handlers of libc's `exit`, in which the last calls are flushed, run when there are none.

use std::convert::Infallible;
use std::num::NonZero;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc;
use std::thread::{self, JoinHandle, ThreadId};

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use crate::error::StoreError;

/// The most threads that there are at a time, and no more than the machine has cores: what keeps a
/// thread busy, as large messages and TLS do, holds up only the stores that share it.
const MAX_THREADS: usize = 4;

/// Makes the work of a store, on the thread where it runs.
type Start = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// A thread that at least one store works on.
struct Thread {
    handle: JoinHandle<()>,
    stores: usize,
    /// The thread ends when this is dropped.
    starts: UnboundedSender<Start>,
}

static THREADS: Mutex<Vec<Thread>> = Mutex::new(Vec::new());

/// The work of a store, under way.
pub struct Working {
    /// Disconnected when the work has ended.
    ended: mpsc::Receiver<Infallible>,
    thread: ThreadId,
}

/// Starts the work of a store, which ends with the future that `start` makes: whatever else it has
/// spawned by then is dropped.
pub fn spawn<Work>(start: impl FnOnce() -> Work + Send + 'static) -> Result<Working, StoreError>
where
    Work: Future<Output = ()> + 'static,
{
    let (working, ended) = mpsc::channel();
    let start: Start = Box::new(move || {
        Box::pin(async move {
            LocalSet::new().run_until(start()).await;
            drop(working);
        })
    });
    let mut threads = THREADS.lock();
    let thread = next_thread(&mut threads)?;
    thread.starts.send(start).map_err(|_| StoreError::NO_THREAD)?;
    thread.stores += 1;
    Ok(Working { ended, thread: thread.handle.thread().id() })
}

impl Working {
    /// Blocks until the work has ended.
    pub fn join(self) {
        // Nothing is ever sent. That the work panicked is as good an end as any.
        let _ = self.ended.recv();
        leave(self.thread);
    }
}

/// A thread of its own as long as there may be one more, and then one that it shares.
fn next_thread(threads: &mut Vec<Thread>) -> Result<&mut Thread, StoreError> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    if threads.len() < MAX_THREADS.min(cores) {
        threads.push(start_thread()?);
    }
    threads.iter_mut().min_by_key(|thread| thread.stores).ok_or(StoreError::NO_THREAD)
}

fn start_thread() -> Result<Thread, StoreError> {
    let runtime =
        Builder::new_current_thread().enable_all().build().map_err(|_| StoreError::NO_OPEN_FILE)?;
    let (starts, received) = unbounded_channel();
    let handle = thread::Builder::new()
        .name("persist-postgres".to_owned())
        .spawn(move || {
            runtime.block_on(work(received));
            // A name that is still being looked up is waited for by nobody.
            runtime.shutdown_background();
        })
        .map_err(|_| StoreError::NO_THREAD)?;
    Ok(Thread { handle, stores: 0, starts })
}

/// Does the work of all stores of a thread, until there can't be another.
async fn work(mut starts: UnboundedReceiver<Start>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            start = starts.recv() => match start {
                Some(start) => {
                    let work = async move { start().await };
                    under_way.push(AssertUnwindSafe(work).catch_unwind());
                }
                None => break,
            },
            Some(_) = under_way.next() => {}
        }
    }
}

/// The last store to leave waits for the thread's end, which is all that the thread has left to do.
fn leave(id: ThreadId) {
    let mut threads = THREADS.lock();
    let Some(at) = threads.iter().position(|thread| thread.handle.thread().id() == id) else {
        return;
    };
    threads[at].stores -= 1;
    if threads[at].stores > 0 {
        return;
    }
    let Thread { handle, starts, .. } = threads.swap_remove(at);
    drop(threads);
    drop(starts);
    // A panic outside of every store's work would have ended that first.
    let _ = handle.join();
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::mpsc::{TryRecvError, channel};

    use tokio::sync::oneshot;
    use tokio::task::spawn_local;

    use super::*;

    /// More than there are threads: some share one.
    const MANY: usize = 10;

    #[test]
    fn a_panic_ends_the_work_of_its_store_alone() {
        let (sender, told) = oneshot::channel();
        let (done, is_done) = channel();
        let other = spawn(|| async move { done.send(told.await).unwrap() }).unwrap();
        let panicking: Vec<_> = (0..MANY)
            .map(|_| spawn(|| async { panic!("on purpose, as a store's work") }).unwrap())
            .collect();
        panicking.into_iter().for_each(Working::join);
        sender.send("go on").unwrap();
        other.join();
        assert_eq!(is_done.recv(), Ok(Ok("go on")));
    }

    #[test]
    fn work_ends_while_that_of_others_goes_on() {
        let (senders, others): (Vec<_>, Vec<_>) = (0..MANY)
            .map(|_| {
                let (sender, told) = oneshot::channel::<()>();
                (sender, spawn(|| async { drop(told.await) }).unwrap())
            })
            .unzip();
        spawn(|| async {}).unwrap().join();
        drop(senders);
        others.into_iter().for_each(Working::join);
    }

    #[test]
    fn what_it_has_spawned_is_gone_when_work_has_ended() {
        let (held, is_held) = channel::<()>();
        let work = spawn(|| async {
            spawn_local(async move {
                pending::<()>().await;
                drop(held);
            });
        });
        work.unwrap().join();
        assert_eq!(is_held.try_recv(), Err(TryRecvError::Disconnected));
    }
}
