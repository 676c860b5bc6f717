//! How a call is made, by whichever class.

use std::cell::Cell;
use std::rc::Rc;

use napi::Env;
use napi::bindgen_prelude::Unknown;

use crate::binding::convert::traces::Amount;
use crate::binding::promise::environment::Environment;
use crate::binding::promise::handle::Handle;
use crate::binding::warning;
use crate::store::Operation;

/// What calls are made on.
#[derive(Clone)]
pub struct Calls {
    /// Of the thread.
    pub environment: Rc<Environment>,
    /// The open database.
    pub handle: Rc<Handle>,
}

impl Calls {
    /// A promise of what the operation gives, which users know by this name. How much that is, is
    /// left where a tracer wants it.
    pub fn submit<'env>(
        &self,
        env: &'env Env,
        name: &'static str,
        operation: Operation,
        amount: Option<Rc<Cell<Option<Amount>>>>,
    ) -> napi::Result<Unknown<'env>> {
        if self.handle.is_closed() {
            warning::of_late_call(env);
        }
        let bridge = &self.environment.bridge;
        let call = bridge.begin(env, &self.handle, Some((name, &operation)), amount)?;
        let result = self.handle.submit(call.ticket, operation);
        if let Some(deadline) = self.environment.exit_deadline() {
            self.handle.flush(deadline);
        }
        bridge.follow(env, call, result)
    }
}
