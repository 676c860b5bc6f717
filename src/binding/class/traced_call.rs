//! The class `TracedCall`: a call that is told of before it is made.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use napi::Env;
use napi::bindgen_prelude::{ToNapiValue, Unknown};
use napi_derive::napi;

use crate::binding::convert::traces::{self, Amount};
use crate::store::Operation;

use super::calls::Calls;

/// A call of a traced driver: its arguments are read, and nothing is done yet.
#[napi]
pub struct TracedCall {
    calls: Calls,
    name: &'static str,
    operation: RefCell<Option<Operation>>,
    session_id: Option<String>,
    /// Of what it writes; once it has ended, of what it returned.
    amount: Rc<Cell<Option<Amount>>>,
}

impl TracedCall {
    /// Of a driver.
    pub fn new(calls: Calls, name: &'static str, operation: Operation) -> Self {
        Self {
            calls,
            name,
            session_id: traces::session_id(&operation).map(str::to_owned),
            amount: Rc::new(Cell::new(traces::written(&operation))),
            operation: RefCell::new(Some(operation)),
        }
    }
}

#[napi]
impl TracedCall {
    /// The session that it is for, if it is for one.
    #[napi(getter)]
    pub fn session_id(&self) -> Option<&str> {
        self.session_id.as_deref()
    }

    /// Once it has succeeded: how many sessions or events it wrote or returned, if that is known.
    #[napi(getter)]
    pub fn rows(&self) -> Option<f64> {
        self.amount.get().map(|amount| number(amount.rows))
    }

    /// The bytes of their texts.
    #[napi(getter)]
    pub fn bytes(&self) -> Option<f64> {
        self.amount.get().map(|amount| number(amount.bytes))
    }

    /// Makes the call: a promise of what it gives. The second time, of nothing.
    #[napi]
    pub fn submit<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        // Taken first: making a call may run JavaScript.
        let operation = self.operation.borrow_mut().take();
        match operation {
            Some(operation) => {
                self.calls.submit(env, self.name, operation, Some(Rc::clone(&self.amount)))
            }
            None => ().into_unknown(env),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 bytes")]
fn number(count: usize) -> f64 {
    count as f64
}
