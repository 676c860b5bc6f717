//! The checkpointer: runs checkpoints beside the writer, on a thread and a connection of its own,
//! both made when they are first needed.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;

use crate::error::StoreError;
use crate::store::{Activity, Completions, Lasting, Trouble};

use super::connection::Location;

/// A passing lock of another process's checkpoint isn't worth a wait: the next try comes.
const BUSY_TIMEOUT: Duration = Duration::ZERO;

/// The writer's handle to it.
pub struct Checkpointer {
    location: Location,
    completions: Arc<dyn Completions>,
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
    /// Of a file. Who listens is told if checkpoints fail.
    pub fn new(location: Location, completions: Arc<dyn Completions>) -> Self {
        Self { location, completions, shared: Arc::default(), thread: None }
    }

    /// Asks for a checkpoint. Never waits for it.
    pub fn request(&mut self) {
        self.shared.state.lock().is_requested = true;
        self.shared.changed.notify_one();
        if self.thread.is_none() {
            let (location, shared) = (self.location.clone(), Arc::clone(&self.shared));
            let completions = Arc::clone(&self.completions);
            // Without a thread the WAL only grows until the next request.
            self.thread = std::thread::Builder::new()
                .name("persist-checkpoint".to_owned())
                .spawn(move || run(&location, &shared, &*completions))
                .ok();
        }
    }

    /// Whether a checkpoint has ended since the last call.
    pub fn take_finished(&self) -> bool {
        // Checked after every commit: not worth waiting for a lock.
        let state = self.shared.state.try_lock();
        state.is_some_and(|mut state| std::mem::take(&mut state.is_finished))
    }

    /// Waits for the end of a checkpoint under way, and ends the thread.
    pub fn stop(self) {
        self.shared.state.lock().is_stopping = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread {
            // A panic in it has nothing that anybody waits for.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Waits for a request; `false` when there will be none.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.is_requested && !state.is_stopping {
            self.changed.wait(&mut state);
        }
        state.is_requested = false;
        !state.is_stopping
    }
}

fn run(location: &Location, shared: &Shared, completions: &dyn Completions) {
    let (mut connection, mut trouble) = (None, Lasting::default());
    while shared.wait() {
        // What fails is tried again at the next request.
        match checkpoint(location, &mut connection) {
            Ok(()) | Err(StoreError::Busy { .. }) => trouble.end(),
            Err(error) if trouble.note(Instant::now(), Duration::ZERO) => {
                completions.report(Trouble { activity: Activity::Checkpoint, error });
            }
            Err(_) => {}
        }
        shared.state.lock().is_finished = true;
    }
}

fn checkpoint(location: &Location, opened: &mut Option<Connection>) -> Result<(), StoreError> {
    let connection = match opened.take() {
        Some(connection) => connection,
        None => location.open_writable(BUSY_TIMEOUT)?,
    };
    location.file.checkpoint(opened.insert(connection))
}
