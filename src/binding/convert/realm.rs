//! The functions with which values and errors are made: those of the realm that loaded the package.
//!
//! A thread may have several realms, each with an `Object`, an `Error` and a `JSON` of its own:
//! contexts of `node:vm`, and with them the test files of Jest. Each hands over its own when it
//! loads the package: an application that replaces them later doesn't change what is stored.

use napi::bindgen_prelude::{Function, FunctionRef, Null, Object, ToNapiValue, Unknown};
use napi::{Env, JsValue};

use super::calling;
use super::values::js_string;

/// A function of one argument.
pub type Given<'env> = Function<'env, Unknown<'static>, Unknown<'static>>;
/// A function that is called later.
pub type Kept = FunctionRef<Unknown<'static>, Unknown<'static>>;

/// See the module's documentation.
pub struct Realm {
    parse: Kept,
    stringify: Kept,
    object: Kept,
    error: Kept,
    type_error: Kept,
    /// Of a user's `onError`, an error, the operation, and the session or `null`.
    tell: Kept,
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
        tell: Given<'_>,
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
    pub fn tell(
        &self,
        env: &Env,
        on_error: &Kept,
        error: &Unknown<'_>,
        operation: &'static str,
        session_id: Option<&str>,
    ) -> napi::Result<()> {
        let on_error = on_error.borrow_back(env)?;
        let operation = js_string(env, operation)?;
        let session_id = match session_id {
            Some(id) => js_string(env, id)?,
            None => Null.into_unknown(env)?,
        };
        let told = [on_error.raw(), error.raw(), operation.raw(), session_id.raw()];
        calling::call(env, self.tell.borrow_back(env)?.raw(), None, &told).map(drop)
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

fn call<'env>(
    env: &'env Env,
    function: &Kept,
    argument: Unknown<'_>,
) -> napi::Result<Unknown<'env>> {
    calling::call(env, function.borrow_back(env)?.raw(), None, &[argument.raw()])
}
