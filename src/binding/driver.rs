//! What every driver class does with a call: check and convert, submit, promise.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{JsObjectValue, This, Unknown};

use crate::error::StoreError;
use crate::store::{
    Completion, Operation, Outcome, Query, ReplayForm, ReplayQuery, Row, SessionStore,
};

use super::convert;
use super::environment::Environment;
use super::error::CallError;
use super::replay;

/// A driver of one environment.
#[derive(Clone)]
pub struct Driver {
    environment: Rc<Environment>,
    handle: Rc<Handle>,
}

/// An open store, shared by the driver and its outstanding calls. When the last of them goes
/// without a `close()`, as by garbage collection, a thread closes it; nothing waits for that,
/// unless the system has no thread to give.
pub struct Handle {
    store: Arc<dyn SessionStore>,
    is_closed: Cell<bool>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.is_closed.get() {
            return;
        }
        let store = Arc::clone(&self.store);
        let thread = std::thread::Builder::new().name("persist-close".to_owned());
        if thread.spawn(move || store.close()).is_err() {
            self.store.close();
        }
    }
}

/// Without `new`, `this` is the global object or what stood before the dot, as the module, and
/// would be made the driver. It hasn't a driver's methods.
pub fn require_new(this: This<'_>, class: &str) -> Result<(), CallError> {
    if !this.object.has_named_property("insertEvent")? {
        let message = format!("{class} must be called with new");
        return Err(CallError::InvalidArgument(message));
    }
    Ok(())
}

impl Driver {
    pub fn new(environment: Rc<Environment>, store: Arc<dyn SessionStore>) -> Self {
        environment.add(&store);
        let handle = Rc::new(Handle { store, is_closed: Cell::new(false) });
        Self { environment, handle }
    }

    pub fn get_session<'env>(
        &self,
        env: &'env Env,
        id: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        self.call(env, || {
            Ok(Operation::Read(Query::Session { id: convert::identifier(id, "id")? }))
        })
    }

    pub fn list_sessions<'env>(
        &self,
        env: &'env Env,
        request: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        self.call(env, || {
            Ok(Operation::Read(Query::Sessions { page: convert::page_request(request)? }))
        })
    }

    pub fn update_session<'env>(
        &self,
        env: &'env Env,
        session: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let json = &self.environment.json;
        self.call(env, || Ok(Operation::Write(Row::Session(convert::session(env, json, session)?))))
    }

    pub fn list_events<'env>(
        &self,
        env: &'env Env,
        request: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        self.call(env, || Ok(Operation::Read(Query::Events(convert::events_request(request)?))))
    }

    /// `(event)`, as SDK 0.2 and 0.3 call it, or `(sessionId, event)`, as 0.4 does.
    pub fn insert_event<'env>(
        &self,
        env: &'env Env,
        first: Unknown<'_>,
        second: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let json = &self.environment.json;
        self.call(env, || {
            if convert::is_nullish(&second)? && !convert::is_string(&first)? {
                return Ok(Operation::Write(Row::Event(convert::event(env, json, first)?)));
            }
            let session_id = convert::identifier(first, "sessionId")?;
            let event = convert::event(env, json, second)?;
            if event.session_id != session_id {
                return Err(CallError::expected(
                    "event.sessionId",
                    "the sessionId it is stored for",
                ));
            }
            Ok(Operation::Write(Row::Event(event)))
        })
    }

    /// What is replayed of a session.
    pub fn replay<'env>(
        &self,
        env: &'env Env,
        session_id: Unknown<'_>,
        options: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        self.call(env, || {
            let session_id = convert::identifier(session_id, "sessionId")?;
            let options = replay::options(options)?;
            let form = ReplayForm::Replay;
            Ok(Operation::Read(Query::Replay(ReplayQuery { session_id, options, form })))
        })
    }

    /// Blocks until everything is written and the database is free.
    pub fn close(&self, env: &Env) -> napi::Result<()> {
        if !self.handle.is_closed.replace(true) {
            self.handle.store.close();
        }
        self.environment.bridge.settle_arrived(env)
    }

    /// As [`Self::close`], but on a thread: for a database that may be far away.
    pub fn close_later<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        self.handle.is_closed.set(true);
        let completions = self.environment.bridge.completions();
        let store = Arc::clone(&self.handle.store);
        let close = move |ticket, ()| {
            let thread = std::thread::Builder::new().name("persist-close".to_owned());
            let closing = thread.spawn(move || {
                store.close();
                let result = Ok(Outcome::Stored);
                completions.deliver(vec![Completion { ticket, result }]);
            });
            let refused = StoreError::Internal { reason: "the system refused a thread" };
            closing.err().map(|_| Err(refused))
        };
        self.environment.bridge.promise(env, &self.handle, || Ok(()), close)
    }

    /// A promise of what the operation gives that the arguments stand for.
    pub fn call<'env>(
        &self,
        env: &'env Env,
        read_arguments: impl FnOnce() -> Result<Operation, CallError>,
    ) -> napi::Result<Unknown<'env>> {
        let store = &self.handle.store;
        let submit = |ticket, operation| {
            if self.handle.is_closed.get() {
                return Some(Err(StoreError::Closed));
            }
            let result = store.submit(ticket, operation);
            if let Some(deadline) = self.environment.exit_deadline() {
                store.flush(deadline);
            }
            result
        };
        self.environment.bridge.promise(env, &self.handle, read_arguments, submit)
    }
}
