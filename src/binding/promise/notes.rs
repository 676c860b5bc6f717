//! What is noted on a store's thread, to be told of on JavaScript's.

use std::sync::Arc;

use parking_lot::Mutex;

/// See the module's documentation.
pub struct Notes<T> {
    /// Has JavaScript's thread ask what has been noted.
    wake: Box<dyn Fn() + Send + Sync>,
    noted: Mutex<Vec<T>>,
}

impl<T> Notes<T> {
    /// `wake` has JavaScript's thread ask what has been noted.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { wake: Box::new(wake), noted: Mutex::default() })
    }

    /// Notes it, on any thread.
    pub fn note(&self, note: T) {
        let is_first = {
            let mut noted = self.noted.lock();
            noted.push(note);
            noted.len() == 1
        };
        if is_first {
            (self.wake)();
        }
    }

    /// What has been noted since the last time.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.noted.lock())
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.noted.lock().is_empty()
    }
}
