//! The functions with which values and errors are made: those of the realm that loaded the package.
//!
//! A thread may have several realms, each with an `Object`, an `Error` and a `JSON` of its own:
//! contexts of `node:vm`, and with them the test files of Jest. Each hands over its own when it
//! loads the package: an application that replaces them later doesn't change what is stored.

use napi::bindgen_prelude::{FnArgs, Function, FunctionRef, Object, ToNapiValue, Unknown};
use napi::{Env, JsValue};

/// A function of one argument.
pub type Given<'env> = Function<'env, Unknown<'static>, Unknown<'static>>;
/// A function that is called later.
pub type Kept = FunctionRef<Unknown<'static>, Unknown<'static>>;
/// A user's `onError`, an error, the operation, and the session or `null`.
type Told = FnArgs<(Unknown<'static>, Unknown<'static>, &'static str, Option<String>)>;
/// A function that tells a user's `onError` of an error.
pub type Tell<'env> = Function<'env, Told, Unknown<'static>>;

/// See the module's documentation.
pub struct Realm {
    parse: Kept,
    stringify: Kept,
    object: Kept,
    error: Kept,
    type_error: Kept,
    tell: FunctionRef<Told, Unknown<'static>>,
}

impl Realm {
    /// Of `JSON.parse`, `JSON.stringify`, `Object`, `Error` and `TypeError`, and of what tells of
    /// errors.
    pub fn new(
        parse: Given<'_>,
        stringify: Given<'_>,
        object: Given<'_>,
        error: Given<'_>,
        type_error: Given<'_>,
        tell: Tell<'_>,
    ) -> napi::Result<Self> {
        Ok(Self {
            parse: parse.create_ref()?,
            stringify: stringify.create_ref()?,
            object: object.create_ref()?,
            error: error.create_ref()?,
            type_error: type_error.create_ref()?,
            tell: tell.create_ref()?,
        })
    }

    /// `JSON.parse(text)`.
    pub fn parse<'env>(&self, env: &'env Env, text: Unknown<'_>) -> napi::Result<Unknown<'env>> {
        call(env, &self.parse, text)
    }

    /// `JSON.stringify(value)`.
    pub fn stringify<'env>(
        &self,
        env: &'env Env,
        value: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        call(env, &self.stringify, value)
    }

    /// Tells a user's `onError` of an error. What that throws isn't thrown here.
    #[expect(unsafe_code, reason = "napi's safe call would tie its arguments to 'static")]
    pub fn tell(
        &self,
        env: &Env,
        on_error: &Kept,
        error: &Unknown<'_>,
        operation: &'static str,
        session_id: Option<String>,
    ) -> napi::Result<()> {
        let on_error = on_error.borrow_back(env)?;
        // SAFETY: both are live for the length of the call, which is all the call needs.
        let live = |value| unsafe { Unknown::from_raw_unchecked(env.raw(), value) };
        let told = FnArgs::from((live(on_error.raw()), live(error.raw()), operation, session_id));
        self.tell.borrow_back(env)?.call(told).map(drop)
    }

    /// `{}`.
    pub fn object<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let object = call(env, &self.object, ().into_unknown(env)?)?;
        Ok(Object::from_raw(env.raw(), object.raw()))
    }

    /// `Error(message)`.
    pub fn error<'env>(&self, env: &'env Env, message: &str) -> napi::Result<Object<'env>> {
        new_error(env, &self.error, message)
    }

    /// `TypeError(message)`.
    pub fn type_error<'env>(&self, env: &'env Env, message: &str) -> napi::Result<Object<'env>> {
        new_error(env, &self.type_error, message)
    }
}

fn new_error<'env>(env: &'env Env, class: &Kept, message: &str) -> napi::Result<Object<'env>> {
    let error = call(env, class, env.create_string(message)?.to_unknown())?;
    Ok(Object::from_raw(env.raw(), error.raw()))
}

#[expect(unsafe_code, reason = "napi's safe call would tie the result to 'static")]
fn call<'env>(
    env: &'env Env,
    function: &Kept,
    argument: Unknown<'_>,
) -> napi::Result<Unknown<'env>> {
    let function = function.borrow_back(env)?;
    // SAFETY: the argument is live for the length of the call, which is all the call needs.
    let argument = unsafe { Unknown::from_raw_unchecked(env.raw(), argument.raw()) };
    let result = function.call(argument)?;
    // SAFETY: the result is a live value of this environment.
    Ok(unsafe { Unknown::from_raw_unchecked(env.raw(), result.raw()) })
}
