//! Promises: made and settled on JavaScript's thread, completed from any.
//!
//! A backend delivers completions by the batch into the inbox and wakes JavaScript once. The
//! wake keeps the process alive only while calls are outstanding.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use napi::bindgen_prelude::{FunctionCallContext, Unknown};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, JsValue, Status, sys};
use parking_lot::Mutex;
use slab::Slab;

use crate::binding::convert::error::CallError;
use crate::binding::convert::outcomes;
use crate::binding::convert::realm::Realm;
use crate::binding::convert::traces::Amount;
use crate::binding::warning;
use crate::postgres::Attempts;
use crate::store::{Completion, Completions, Operation, OperationResult, Ticket, Trouble};

use super::attempts::{AttemptListeners, JsAttempts, NotedAttempts};
use super::handle::{Begun, Handle, OldestCalls};
use super::notes::Notes;

/// Calls back into JavaScript's thread; unreferenced, so an idle driver ends with its process.
type Wake = ThreadsafeFunction<(), (), (), Status, false, true>;

/// The promises of one environment.
pub struct Bridge {
    inbox: Arc<Inbox>,
    pending: RefCell<Slab<Pending>>,
    /// Of drivers that connect.
    attempts: RefCell<Vec<Rc<JsAttempts>>>,
    watched: RefCell<Vec<Watched>>,
}

struct Pending {
    deferred: sys::napi_deferred,
    /// `None` for what is no call of the store's.
    begun: Option<Begun>,
    /// A driver isn't closed, as by garbage collection, before its calls are settled.
    handle: Rc<Handle>,
    /// Where a tracer wants to know how much it returned.
    amount: Option<Rc<Cell<Option<Amount>>>>,
}

/// A call that has its promise.
pub struct Call<'env> {
    /// Names it until it is settled.
    pub ticket: Ticket,
    promise: Unknown<'env>,
}

/// Where completions arrive, on any thread.
pub struct Inbox {
    arrived: Mutex<Vec<Completion>>,
    has_dropped_fields: AtomicBool,
    wake: OnceLock<Wake>,
}

/// What a driver's store tells.
pub struct Listener {
    inbox: Arc<Inbox>,
    troubles: Arc<Notes<Trouble>>,
}

impl Completions for Listener {
    fn deliver(&self, batch: Vec<Completion>) {
        if batch.is_empty() {
            return;
        }
        let is_first = {
            let mut arrived = self.inbox.arrived.lock();
            let is_first = arrived.is_empty();
            arrived.extend(batch);
            is_first
        };
        if is_first {
            self.inbox.wake();
        }
    }

    fn warn_of_dropped_fields(&self) {
        // The completions that are to follow wake JavaScript.
        self.inbox.has_dropped_fields.store(true, Ordering::Relaxed);
    }

    fn report(&self, trouble: Trouble) {
        self.troubles.note(trouble);
    }
}

/// A driver whose store may tell of trouble.
struct Watched {
    handle: Weak<Handle>,
    listener: Arc<Listener>,
}

impl Inbox {
    /// Has JavaScript's thread look at what arrived.
    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            // Refused only while the environment ends, when nobody waits any more.
            wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    fn take(&self) -> Vec<Completion> {
        std::mem::take(&mut *self.arrived.lock())
    }
}

impl Bridge {
    /// Without a promise yet.
    pub fn new(env: &Env) -> napi::Result<Rc<Self>> {
        let inbox = Arc::new(Inbox {
            arrived: Mutex::default(),
            has_dropped_fields: AtomicBool::new(false),
            wake: OnceLock::new(),
        });
        let bridge = Rc::new(Self {
            inbox,
            pending: RefCell::default(),
            attempts: RefCell::default(),
            watched: RefCell::default(),
        });
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

    /// Whom the store of one driver tells.
    pub fn listener(&self) -> Arc<Listener> {
        let inbox = Arc::clone(&self.inbox);
        let troubles = Notes::new(move || inbox.wake());
        Arc::new(Listener { inbox: Arc::clone(&self.inbox), troubles })
    }

    /// The driver's user is told of the trouble that its store tells of.
    pub fn watch(&self, handle: &Rc<Handle>, listener: Arc<Listener>) {
        let mut watched = self.watched.borrow_mut();
        watched.retain(|watched| watched.handle.strong_count() > 0);
        watched.push(Watched { handle: Rc::downgrade(handle), listener });
    }

    /// When the oldest of a driver's outstanding calls were called.
    pub fn oldest_calls(&self, handle: &Rc<Handle>) -> OldestCalls {
        let mut oldest = OldestCalls::default();
        for (_, pending) in self.pending.borrow().iter() {
            if let Some(begun) =
                pending.begun.as_ref().filter(|_| Rc::ptr_eq(&pending.handle, handle))
            {
                oldest.add(begun);
            }
        }
        oldest
    }

    /// Where a driver's attempts to connect are noted, to be told of.
    pub fn attempts(&self, listeners: AttemptListeners, realm: Rc<Realm>) -> Arc<dyn Attempts> {
        let inbox = Arc::clone(&self.inbox);
        let noted = NotedAttempts::new(move || inbox.wake());
        let attempts = JsAttempts::new(Arc::clone(&noted), listeners, realm);
        self.attempts.borrow_mut().push(Rc::new(attempts));
        noted
    }

    /// Makes the promise of a call that is about to be submitted.
    pub fn begin<'env>(
        &self,
        env: &'env Env,
        handle: &Rc<Handle>,
        operation: Option<(&'static str, &Operation)>,
        amount: Option<Rc<Cell<Option<Amount>>>>,
    ) -> napi::Result<Call<'env>> {
        let (deferred, promise) = create_promise(env)?;
        let begun = operation.map(|(name, operation)| handle.begin(name, operation));
        let pending = Pending { deferred, begun, handle: Rc::clone(handle), amount };
        let ticket = Ticket(self.pending.borrow_mut().insert(pending));
        Ok(Call { ticket, promise })
    }

    /// The call's promise: settled, if there was a result at once; else the completion is awaited.
    pub fn follow<'env>(
        &self,
        env: &'env Env,
        call: Call<'env>,
        result: Option<OperationResult>,
    ) -> napi::Result<Unknown<'env>> {
        if let Some(result) = result {
            self.settle(env, Completion { ticket: call.ticket, result })?;
            return Ok(call.promise);
        }
        let count = {
            let pending = self.pending.borrow();
            if let Some(waiting) = pending.get(call.ticket.0) {
                waiting.handle.note_waiting();
            }
            pending.len()
        };
        if count == 1 {
            self.keep_process_alive(env, true)?;
        }
        Ok(call.promise)
    }

    /// Settles the promises of all completions that arrived.
    pub fn settle_arrived(&self, env: &Env) -> napi::Result<()> {
        // What fails, as when the environment ends, keeps no other promise from being settled.
        let completions = self.inbox.take();
        // What was noted before a call was completed is told of before its promise is settled.
        let mut outcome = self.tell_of_attempts(env).and(self.tell_of_troubles(env));
        for completion in completions {
            outcome = outcome.and(self.settle(env, completion));
        }
        if self.pending.borrow().is_empty() {
            outcome = outcome.and(self.keep_process_alive(env, false));
        }
        if self.inbox.has_dropped_fields.swap(false, Ordering::Relaxed) {
            warning::of_dropped_fields(env);
        }
        outcome
    }

    fn tell_of_attempts(&self, env: &Env) -> napi::Result<()> {
        // A listener may open another driver.
        let attempts = self.attempts.borrow().clone();
        let told = attempts.iter().map(|attempts| attempts.tell(env));
        let outcome = told.fold(Ok(()), napi::Result::and);
        self.attempts.borrow_mut().retain(|attempts| attempts.is_open());
        outcome
    }

    fn tell_of_troubles(&self, env: &Env) -> napi::Result<()> {
        let mut outcome = Ok(());
        for (handle, trouble) in self.take_troubles() {
            handle.note_trouble(&trouble);
            let Trouble { activity, error } = trouble;
            let error = CallError::from(error).into_js(env, &handle.realm, Some(&handle.database));
            let told = error.and_then(|error| handle.tell(env, &error, activity.name(), None));
            outcome = outcome.and(told);
        }
        outcome
    }

    /// Each with its driver. A listener may open another driver.
    fn take_troubles(&self) -> Vec<(Rc<Handle>, Trouble)> {
        let watched = self.watched.borrow();
        let of_driver = |Watched { handle, listener }: &Watched| {
            let troubles = listener.troubles.take();
            let handle = handle.upgrade().filter(|_| !troubles.is_empty())?;
            Some(troubles.into_iter().map(move |trouble| (Rc::clone(&handle), trouble)))
        };
        watched.iter().filter_map(of_driver).flatten().collect()
    }

    fn settle(&self, env: &Env, completion: Completion) -> napi::Result<()> {
        let Completion { ticket, result } = completion;
        let Some(pending) = self.pending.borrow_mut().try_remove(ticket.0) else {
            return Ok(());
        };
        let Pending { deferred, mut begun, handle, amount } = pending;
        let realm = &handle.realm;
        let failure = result.as_ref().err().cloned();
        let answer = result
            .map_err(CallError::from)
            .and_then(|outcome| outcomes::to_js(env, realm, outcome));
        if let Some(begun) = &mut begun {
            handle.end(begun, failure.as_ref(), answer.is_err());
        }
        match answer {
            Ok(answer) => {
                if let Some(amount) = amount.filter(|_| answer.amount.is_some()) {
                    amount.set(answer.amount);
                }
                conclude(env, sys::napi_resolve_deferred, deferred, answer.value)
            }
            Err(error) => {
                let error = error.into_js_or_thrown(env, realm, Some(&handle.database));
                let begun = begun.filter(|begun| begun.is_worth_telling(failure.as_ref()));
                let told = begun.map_or(Ok(()), |mut begun| {
                    handle.tell(env, &error, begun.operation, begun.take_session_id())
                });
                conclude(env, sys::napi_reject_deferred, deferred, error).and(told)
            }
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

/// A promise that is rejected already.
pub fn rejected<'env>(
    env: &'env Env,
    handle: &Handle,
    operation: &'static str,
    error: CallError,
) -> napi::Result<Unknown<'env>> {
    // First, as nothing else can be asked of JavaScript while an exception is pending.
    let error = error.into_js(env, &handle.realm, Some(&handle.database))?;
    handle.tell(env, &error, operation, None)?;
    let (deferred, promise) = create_promise(env)?;
    conclude(env, sys::napi_reject_deferred, deferred, error)?;
    Ok(promise)
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
