//! The state of one JavaScript thread, and what happens when it ends.
//!
//! Every call made is stored, unless a signal ends the process:
//!
//! | end | what runs |
//! | --- | --- |
//! | nothing left to do, `worker.terminate()` | the environment's cleanup hook closes all drivers |
//! | `process.exit()`, an uncaught exception | the `exit` listener: writes all, later calls block until written |
//! | libc's `exit()` from elsewhere, and Bun's `quick_exit()` | handlers of libc, the net below: write all |

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Once, Weak};
use std::time::{Duration, Instant};

use napi::Env;
use napi::bindgen_prelude::{
    FnArgs, Function, FunctionCallContext, JsObjectValue, Object, Unknown,
};
use parking_lot::Mutex;

use crate::store::SessionStore;

use super::bridge::Bridge;

/// How long a thread that ends waits for databases on other machines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it waits if another has waited in vain, this long before at most.
const FLUSH_TIMEOUT_IN_VAIN: Duration = Duration::from_millis(500);

/// See the module's documentation.
pub struct Environment {
    /// The promises of its drivers.
    pub bridge: Rc<Bridge>,
    /// Every store that may not be fully closed.
    stores: RefCell<Vec<Arc<dyn SessionStore>>>,
    /// Since when it exits: until when its calls wait.
    exit_deadline: Cell<Option<Instant>>,
}

impl Environment {
    /// This thread's environment, made on first use.
    pub fn of(env: &Env) -> napi::Result<Rc<Self>> {
        if let Some(environment) = env.get_instance_data::<Rc<Self>>()? {
            return Ok(Rc::clone(environment));
        }
        let bridge = Bridge::new(env)?;
        let environment =
            Rc::new(Self { bridge, stores: RefCell::default(), exit_deadline: Cell::new(None) });
        listen_for_exit(env, &environment)?;
        // After the bridge's threadsafe function, whose own hook then runs after ours.
        let ended = Rc::clone(&environment);
        env.add_env_cleanup_hook((), move |()| ended.close_all())?;
        env.set_instance_data(Rc::clone(&environment), (), |_| {})?;
        Ok(environment)
    }

    /// Remembers a store until it is closed.
    pub fn add(&self, store: &Arc<dyn SessionStore>) {
        register_for_process_exit(store);
        let mut stores = self.stores.borrow_mut();
        // Those that only we hold were closed, by their owner or by the thread it left that to.
        stores.retain(|store| Arc::strong_count(store) > 1);
        stores.push(Arc::clone(store));
    }

    /// Until when each call waits to be durable before it returns, once the thread exits.
    pub fn exit_deadline(&self) -> Option<Instant> {
        self.exit_deadline.get()
    }

    fn flush_all(&self) {
        let deadline = ending_deadline();
        self.exit_deadline.set(Some(deadline));
        flush(self.stores.borrow().iter(), deadline);
    }

    fn close_all(&self) {
        let stores = self.stores.take();
        // First without waiting for long for what is far away.
        flush(stores.iter(), ending_deadline());
        for store in stores {
            store.close();
        }
    }
}

/// When a thread that ends last gave up waiting.
static GAVE_UP: Mutex<Option<Instant>> = Mutex::new(None);

/// When what ends stops waiting for databases that don't answer: sooner if another thread has just
/// waited in vain, as Node ends a process's workers one after another.
fn ending_deadline() -> Instant {
    let now = Instant::now();
    let is_in_vain = GAVE_UP.lock().is_some_and(|then| now < then + FLUSH_TIMEOUT_IN_VAIN);
    now + if is_in_vain { FLUSH_TIMEOUT_IN_VAIN } else { FLUSH_TIMEOUT }
}

fn flush<'store>(stores: impl Iterator<Item = &'store Arc<dyn SessionStore>>, deadline: Instant) {
    for store in stores {
        if !store.flush(deadline) {
            *GAVE_UP.lock() = Some(Instant::now());
        }
    }
}

/// The arguments of `process.on`.
type Listen<'env> = FnArgs<(&'env str, Function<'env, (), ()>)>;

fn listen_for_exit(env: &Env, environment: &Rc<Environment>) -> napi::Result<()> {
    let exiting = Rc::downgrade(environment);
    let listener = env.create_function_from_closure::<(), (), _>(
        "writeQueuedSessions",
        move |_: FunctionCallContext<'_>| {
            if let Some(environment) = exiting.upgrade() {
                environment.flush_all();
            }
            Ok(())
        },
    )?;
    let process: Object<'_> = env.get_global()?.get_named_property_unchecked("process")?;
    let on: Function<'_, Listen<'_>, Unknown<'_>> = process.get_named_property_unchecked("on")?;
    on.apply(process, FnArgs::from(("exit", listener)))?;
    Ok(())
}

/// Stores of every environment, for [`flush_process`].
static PROCESS_STORES: Mutex<Vec<Weak<dyn SessionStore>>> = Mutex::new(Vec::new());

fn register_for_process_exit(store: &Arc<dyn SessionStore>) {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(install_exit_handler);
    let mut stores = PROCESS_STORES.lock();
    stores.retain(|store| store.strong_count() > 0);
    stores.push(Arc::downgrade(store));
}

/// Not on Windows: there, other threads are gone before the handlers of a library run.
#[cfg(unix)]
#[expect(unsafe_code, reason = "the functions are C's")]
fn install_exit_handler() {
    // SAFETY: the handler is a function of this library, which is never unloaded while a
    // handler of it is registered. Without room for it there is one net less.
    let _ = unsafe { libc::atexit(flush_process) };
    #[cfg(target_os = "linux")]
    // SAFETY: as above.
    let _ = unsafe { at_quick_exit(flush_process) };
}

// Which the crate libc doesn't declare.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the function is C's")]
// SAFETY: as the C standard declares it.
unsafe extern "C" {
    fn at_quick_exit(handler: extern "C" fn()) -> libc::c_int;
}

#[cfg(not(unix))]
fn install_exit_handler() {}

#[cfg(unix)]
extern "C" fn flush_process() {
    let stores = std::mem::take(&mut *PROCESS_STORES.lock());
    let stores: Vec<_> = stores.iter().filter_map(Weak::upgrade).collect();
    flush(stores.iter(), ending_deadline());
}
