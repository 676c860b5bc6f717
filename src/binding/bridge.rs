//! Promises: made and settled on JavaScript's thread, completed from any.
//!
//! A backend delivers completions by the batch into the inbox and wakes JavaScript once. The
//! wake keeps the process alive only while calls are outstanding.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use napi::bindgen_prelude::{FunctionCallContext, Null, ToNapiValue, Unknown};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, JsValue, Status, sys};
use slab::Slab;

use crate::lock::lock;
use crate::store::{Completion, Completions, OperationResult, Outcome, Ticket};

use super::driver::Handle;
use super::error::CallError;
use super::json::Json;
use super::warning;

/// Calls back into JavaScript's thread; unreferenced, so an idle driver ends with its process.
type Wake = ThreadsafeFunction<(), (), (), Status, false, true>;

/// The promises of one environment.
pub struct Bridge {
    json: Rc<Json>,
    inbox: Arc<Inbox>,
    pending: RefCell<Slab<Pending>>,
}

struct Pending {
    deferred: sys::napi_deferred,
    /// A driver isn't closed, as by garbage collection, before its calls are settled.
    _handle: Rc<Handle>,
}

/// Where completions arrive, on any thread.
pub struct Inbox {
    arrived: Mutex<Vec<Completion>>,
    has_dropped_fields: AtomicBool,
    wake: OnceLock<Wake>,
}

impl Completions for Inbox {
    fn deliver(&self, batch: Vec<Completion>) {
        let is_first = {
            let mut arrived = lock(&self.arrived);
            let is_first = arrived.is_empty();
            arrived.extend(batch);
            is_first
        };
        if let Some(wake) = self.wake.get().filter(|_| is_first) {
            // Refused only while the environment ends, when nobody waits any more.
            wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    fn warn_of_dropped_fields(&self) {
        // The completions that are to follow wake JavaScript.
        self.has_dropped_fields.store(true, Ordering::Relaxed);
    }
}

impl Inbox {
    fn take(&self) -> Vec<Completion> {
        std::mem::take(&mut *lock(&self.arrived))
    }
}

impl Bridge {
    pub fn new(env: &Env, json: Rc<Json>) -> napi::Result<Rc<Self>> {
        let inbox = Arc::new(Inbox {
            arrived: Mutex::default(),
            has_dropped_fields: AtomicBool::new(false),
            wake: OnceLock::new(),
        });
        let bridge = Rc::new(Self { json, inbox, pending: RefCell::default() });
        let weak: Weak<Self> = Rc::downgrade(&bridge);
        let settle = env.create_function_from_closure::<(), (), _>(
            "settle",
            move |context: FunctionCallContext<'_>| match weak.upgrade() {
                Some(bridge) => bridge.settle_arrived(context.env),
                None => Ok(()),
            },
        )?;
        let wake = settle.build_threadsafe_function::<()>().weak::<true>().build()?;
        // Freshly made, so it was empty.
        let _ = bridge.inbox.wake.set(wake);
        Ok(bridge)
    }

    /// Where backends deliver to.
    pub fn completions(&self) -> Arc<dyn Completions> {
        Arc::clone(&self.inbox) as Arc<dyn Completions>
    }

    /// Makes a promise of what `submit` gives at once, or of the completion that will come.
    pub fn promise<'env, T>(
        &self,
        env: &'env Env,
        handle: &Rc<Handle>,
        read_arguments: impl FnOnce() -> Result<T, CallError>,
        submit: impl FnOnce(Ticket, T) -> Option<OperationResult>,
    ) -> napi::Result<Unknown<'env>> {
        let (deferred, promise) = create_promise(env)?;
        // A getter or a toJSON of an argument may call us again: no ticket is chosen before.
        let arguments = match read_arguments() {
            Ok(arguments) => arguments,
            Err(error) => {
                self.settle(env, deferred, Err(error))?;
                return Ok(promise);
            }
        };
        let ticket = Ticket(self.pending.borrow().vacant_key());
        match submit(ticket, arguments) {
            Some(result) => self.settle(env, deferred, result.map_err(CallError::from))?,
            None => {
                let pending = Pending { deferred, _handle: Rc::clone(handle) };
                let outstanding = {
                    let mut all = self.pending.borrow_mut();
                    all.insert(pending);
                    all.len()
                };
                if outstanding == 1 {
                    self.keep_process_alive(env, true)?;
                }
            }
        }
        Ok(promise)
    }

    /// Settles the promises of all completions that arrived.
    pub fn settle_arrived(&self, env: &Env) -> napi::Result<()> {
        // What fails, as when the environment ends, keeps no other promise from being settled.
        let mut outcome = Ok(());
        for Completion { ticket, result } in self.inbox.take() {
            let pending = self.pending.borrow_mut().try_remove(ticket.0);
            if let Some(pending) = pending {
                let settled = self.settle(env, pending.deferred, result.map_err(CallError::from));
                outcome = outcome.and(settled);
            }
        }
        if self.pending.borrow().is_empty() {
            outcome = outcome.and(self.keep_process_alive(env, false));
        }
        if self.inbox.has_dropped_fields.swap(false, Ordering::Relaxed) {
            outcome = outcome.and(warning::of_dropped_fields(env));
        }
        outcome
    }

    fn settle(
        &self,
        env: &Env,
        deferred: sys::napi_deferred,
        result: Result<Outcome, CallError>,
    ) -> napi::Result<()> {
        match result.and_then(|outcome| self.outcome_to_js(env, outcome)) {
            Ok(value) => conclude(env, sys::napi_resolve_deferred, deferred, value),
            Err(error) => conclude(env, sys::napi_reject_deferred, deferred, error.into_js(env)?),
        }
    }

    fn outcome_to_js<'env>(
        &self,
        env: &'env Env,
        outcome: Outcome,
    ) -> Result<Unknown<'env>, CallError> {
        match outcome {
            Outcome::Stored | Outcome::Session(None) => Ok(().into_unknown(env)?),
            Outcome::Session(Some(text)) => self.json.parse_session(env, &text),
            Outcome::Page(page) => self.json.parse_page(env, page),
            Outcome::Replay(None) => Ok(Null.into_unknown(env)?),
            Outcome::Replay(Some(replay)) => self.json.parse_replay(env, replay),
        }
    }

    #[expect(unsafe_code, reason = "napi's own refer and unref need the function for themselves")]
    fn keep_process_alive(&self, env: &Env, keep: bool) -> napi::Result<()> {
        let Some(wake) = self.inbox.wake.get().filter(|wake| !wake.aborted()) else {
            return Ok(());
        };
        let status = if keep {
            // SAFETY: the function is alive, and this is its environment's thread.
            unsafe { sys::napi_ref_threadsafe_function(env.raw(), wake.raw()) }
        } else {
            // SAFETY: as above.
            unsafe { sys::napi_unref_threadsafe_function(env.raw(), wake.raw()) }
        };
        napi::check_status!(status)
    }
}

#[expect(unsafe_code, reason = "napi's deferred costs a threadsafe function a promise")]
fn create_promise(env: &Env) -> napi::Result<(sys::napi_deferred, Unknown<'_>)> {
    let (mut deferred, mut promise) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the environment is this thread's; both are valid places to write to.
    let status = unsafe { sys::napi_create_promise(env.raw(), &mut deferred, &mut promise) };
    napi::check_status!(status)?;
    // SAFETY: on success the promise is a live value of this environment.
    Ok((deferred, unsafe { Unknown::from_raw_unchecked(env.raw(), promise) }))
}

type Conclude = unsafe fn(sys::napi_env, sys::napi_deferred, sys::napi_value) -> sys::napi_status;

#[expect(unsafe_code, reason = "as for creating it")]
fn conclude(
    env: &Env,
    conclude: Conclude,
    deferred: sys::napi_deferred,
    value: Unknown<'_>,
) -> napi::Result<()> {
    // SAFETY: the deferred is of this environment and is used once: its owner was removed.
    let status = unsafe { conclude(env.raw(), deferred, value.raw()) };
    napi::check_status!(status)
}
