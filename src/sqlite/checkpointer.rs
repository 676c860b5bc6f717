//! The checkpointer: moves the log into the database beside the writer, on a thread and a
//! connection of its own, both made when they are first needed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::error::StoreError;
use crate::lock::lock;

use super::connection::Location;
use super::failure;

/// A passing lock of another process's checkpoint isn't worth a wait: the next try comes.
const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::ZERO;

/// The writer's handle to it.
#[derive(Debug)]
pub struct Checkpointer {
    location: Location,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_requested: bool,
    is_finished: bool,
    is_stopping: bool,
}

impl Checkpointer {
    pub fn new(location: Location) -> Self {
        Self { location, shared: Arc::default(), thread: None }
    }

    /// Asks for a pass. Never waits for it.
    pub fn request(&mut self) {
        self.shared.lock().is_requested = true;
        self.shared.changed.notify_one();
        if self.thread.is_none() {
            let (location, shared) = (self.location.clone(), Arc::clone(&self.shared));
            // Without a thread the log only grows until the next request.
            self.thread = std::thread::Builder::new()
                .name("persist-checkpoint".to_owned())
                .spawn(move || run(&location, &shared))
                .ok();
        }
    }

    /// Whether a pass has ended since the last call.
    pub fn take_finished(&self) -> bool {
        // Checked after every commit: not worth waiting for a lock.
        match self.shared.state.try_lock() {
            Ok(mut state) => std::mem::take(&mut state.is_finished),
            Err(_) => false,
        }
    }

    /// Waits for the end of a pass under way, and ends the thread.
    pub fn stop(self) {
        self.shared.lock().is_stopping = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread {
            // A panic in it has nothing that anybody waits for.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits for a request; `false` when there will be none.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        while !state.is_requested && !state.is_stopping {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_requested = false;
        !state.is_stopping
    }
}

fn run(location: &Location, shared: &Shared) {
    let mut connection = None;
    while shared.wait() {
        if connection.is_none() {
            connection = location.open_writable(BUSY_TIMEOUT).ok();
        }
        if let Some(connection) = &connection {
            // What fails is tried again at the next request.
            let _ = move_log(location, connection);
        }
        shared.lock().is_finished = true;
    }
}

/// Moves what nobody reads any more into the database, without waiting for readers or the
/// writer. A log that is moved whole starts over at the next commit. One that was deleted isn't moved: by
/// now the database may have another.
pub fn move_log(location: &Location, connection: &Connection) -> Result<(), StoreError> {
    location.check_is_in_place()?;
    let checkpoint = || -> rusqlite::Result<()> {
        connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(()))
    };
    let moved = checkpoint().map_err(failure::store_error);
    location.remember_contents();
    moved
}
