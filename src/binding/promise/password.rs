//! Passwords from a function of the user's, asked from the store's thread and answered on
//! JavaScript's.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use napi::bindgen_prelude::{
    CallbackContext, FromNapiValue, FunctionCallContext, PromiseRaw, Unknown,
};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, JsValue, Status, ValueType};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::binding::convert::calling;
use crate::binding::convert::postgres_options::PasswordFunction;
use crate::binding::convert::values;
use crate::postgres::PasswordSource;

/// Calls back into JavaScript's thread; doesn't keep the process alive.
type Wake = ThreadsafeFunction<(), (), (), Status, false, true>;

type Answer = Result<String, String>;

/// The store's end.
pub struct JsPasswords {
    asked: Arc<Mutex<Vec<oneshot::Sender<Answer>>>>,
    wake: Wake,
}

impl JsPasswords {
    pub fn new(env: &Env, function: PasswordFunction) -> napi::Result<Self> {
        let asked: Arc<Mutex<Vec<oneshot::Sender<Answer>>>> = Arc::default();
        let shared = Arc::clone(&asked);
        let answer = env.create_function_from_closure::<(), (), _>(
            "answerPassword",
            move |context: FunctionCallContext<'_>| {
                let asked = std::mem::take(&mut *shared.lock());
                for reply in asked {
                    answer(context.env, &function, reply);
                }
                Ok(())
            },
        )?;
        let wake = answer.build_threadsafe_function::<()>().weak::<true>().build()?;
        Ok(Self { asked, wake })
    }
}

impl PasswordSource for JsPasswords {
    fn ask(&self) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let (reply, answer) = oneshot::channel();
        self.asked.lock().push(reply);
        self.wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        Box::pin(async {
            answer.await.unwrap_or_else(|_| Err("the password function gave no answer".to_owned()))
        })
    }
}

/// Asks the function. Of what it throws only the name is repeated: the rest may hold a secret.
fn answer(env: &Env, function: &PasswordFunction, reply: oneshot::Sender<Answer>) {
    let function = function.borrow_back(env);
    let called = function.and_then(|function| calling::call(env, function.raw(), None, &[]));
    match called {
        Ok(value) => match as_promise(env, &value) {
            Some(promise) => answer_later(env, promise, reply),
            None => drop(reply.send(text(&value))),
        },
        Err(error) => {
            let thrown = napi::JsError::from(error).into_unknown(*env);
            let _ =
                reply.send(Err(format!("the password function threw{}", name_of(env, &thrown))));
        }
    }
}

fn answer_later(
    env: &Env,
    promise: PromiseRaw<'_, Unknown<'static>>,
    reply: oneshot::Sender<Answer>,
) {
    let reply = Rc::new(Cell::new(Some(reply)));
    let (rejected, unheard) = (Rc::clone(&reply), Rc::clone(&reply));
    let send = |reply: &Cell<Option<oneshot::Sender<Answer>>>, answer| {
        if let Some(reply) = reply.take() {
            let _ = reply.send(answer);
        }
    };
    let followed = promise.then(move |context: CallbackContext<Unknown<'static>>| {
        send(&reply, text(&context.value));
        Ok(())
    });
    let followed = followed.and_then(|followed| {
        followed.catch(move |context: CallbackContext<Unknown<'static>>| {
            let name = name_of(&context.env, &context.value);
            send(&rejected, Err(format!("the password function rejected{name}")));
            Ok(())
        })
    });
    if followed.is_err() {
        // Its `then` isn't a promise's: what that threw is nobody's.
        let _ = calling::take_exception(env);
        send(&unheard, Err("the password function's promise can't be awaited".to_owned()));
    }
}

/// The error's own name, such as `ExpiredTokenException`, in parentheses.
fn name_of(env: &Env, error: &Unknown<'_>) -> String {
    const MAX_BYTES: usize = 64;
    let name = values::object(Unknown::clone(error), "error")
        .and_then(|error| values::property(&error, c"name"))
        .and_then(|name| values::identifier(name, "name"));
    // Its own getter may have thrown: nobody is there to hear of that.
    let _ = calling::take_exception(env);
    let is_name = |name: &String| {
        name.len() <= MAX_BYTES && name.chars().all(|character| character.is_ascii_alphanumeric())
    };
    match name.ok().filter(is_name) {
        Some(name) if name != "Error" => format!(" ({name})"),
        _ => String::new(),
    }
}

#[expect(unsafe_code, reason = "napi's conversion of a value to its type is unsafe")]
fn as_promise(env: &Env, value: &Unknown<'_>) -> Option<PromiseRaw<'static, Unknown<'static>>> {
    if !value.is_promise().unwrap_or(false) {
        return None;
    }
    // SAFETY: the value is live and of this environment; its type is checked.
    unsafe { PromiseRaw::from_napi_value(env.raw(), value.raw()) }.ok()
}

fn text(value: &Unknown<'_>) -> Answer {
    match value.get_type() {
        Ok(ValueType::String) => {
            values::read_text(value).map_err(|_| "the password cannot be read".to_owned())
        }
        _ => Err("the password function returned no string".to_owned()),
    }
}
