//! Attempts to connect: noted on a store's thread, told of on JavaScript's.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use napi::bindgen_prelude::{FnArgs, Function, FunctionRef, ToNapiValue, Unknown};
use napi::{Env, JsValue};

use crate::binding::convert::calling;
use crate::binding::convert::error::CallError;
use crate::binding::convert::outcomes;
use crate::binding::convert::realm::Realm;
use crate::error::StoreError;
use crate::postgres::Attempts;

use super::notes::Notes;

/// The number of an attempt, and where to, if that is shown.
type Begun = FnArgs<(f64, Option<String>, Option<u16>)>;
/// The number of an attempt, and why it failed, if it did.
type Ended = FnArgs<(f64, Option<Unknown<'static>>)>;
/// Is told of each attempt that begins.
pub type AttemptBegun<'env> = Function<'env, Begun, Unknown<'static>>;
/// Is told of the end of each.
pub type AttemptEnded<'env> = Function<'env, Ended, Unknown<'static>>;

/// Whom to tell.
pub struct AttemptListeners {
    begun: FunctionRef<Begun, Unknown<'static>>,
    ended: FunctionRef<Ended, Unknown<'static>>,
}

impl AttemptListeners {
    /// If both are given.
    pub fn of(
        begun: Option<AttemptBegun<'_>>,
        ended: Option<AttemptEnded<'_>>,
    ) -> napi::Result<Option<Self>> {
        let (Some(begun), Some(ended)) = (begun, ended) else { return Ok(None) };
        Ok(Some(Self { begun: begun.create_ref()?, ended: ended.create_ref()? }))
    }
}

/// The store's end.
pub struct NotedAttempts {
    count: AtomicU64,
    notes: Arc<Notes<Noted>>,
}

enum Noted {
    Begun { attempt: u64, address: Option<(String, u16)> },
    Ended { attempt: u64, error: Option<StoreError> },
}

impl NotedAttempts {
    /// `wake` has JavaScript's thread ask what has been noted.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { count: AtomicU64::new(0), notes: Notes::new(wake) })
    }
}

impl Attempts for NotedAttempts {
    fn begin(&self, address: Option<(&str, u16)>) -> u64 {
        let attempt = self.count.fetch_add(1, Ordering::Relaxed);
        let address = address.map(|(host, port)| (host.to_owned(), port));
        self.notes.note(Noted::Begun { attempt, address });
        attempt
    }

    fn end(&self, attempt: u64, error: Option<StoreError>) {
        self.notes.note(Noted::Ended { attempt, error });
    }
}

/// JavaScript's end.
pub struct JsAttempts {
    noted: Arc<NotedAttempts>,
    listeners: AttemptListeners,
    /// Where the errors belong.
    realm: Rc<Realm>,
}

impl JsAttempts {
    pub fn new(noted: Arc<NotedAttempts>, listeners: AttemptListeners, realm: Rc<Realm>) -> Self {
        Self { noted, listeners, realm }
    }

    /// Whether there may be more: the store isn't closed, or something isn't told of yet.
    pub fn is_open(&self) -> bool {
        Arc::strong_count(&self.noted) > 1 || !self.noted.notes.is_empty()
    }

    /// Tells of what has been noted.
    pub fn tell(&self, env: &Env) -> napi::Result<()> {
        let noted = self.noted.notes.take();
        noted.into_iter().map(|noted| self.tell_of(env, noted)).fold(Ok(()), napi::Result::and)
    }

    fn tell_of(&self, env: &Env, noted: Noted) -> napi::Result<()> {
        match noted {
            Noted::Begun { attempt, address } => {
                let (host, port) = address.unzip();
                let told = [
                    outcomes::number(attempt).into_unknown(env)?.raw(),
                    host.into_unknown(env)?.raw(),
                    port.into_unknown(env)?.raw(),
                ];
                calling::call(env, self.listeners.begun.borrow_back(env)?.raw(), None, &told)?;
            }
            Noted::Ended { attempt, error } => {
                let error = error
                    .map(|error| CallError::from(error).into_js(env, &self.realm, None))
                    .transpose()?;
                let told = [
                    outcomes::number(attempt).into_unknown(env)?.raw(),
                    error.into_unknown(env)?.raw(),
                ];
                calling::call(env, self.listeners.ended.borrow_back(env)?.raw(), None, &told)?;
            }
        }
        Ok(())
    }
}
