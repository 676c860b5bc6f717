//! Errors as JavaScript sees them: an `Error`, or a `TypeError` for a wrong argument, with a
//! stable `code` and, where there is one, the database's own.

use napi::bindgen_prelude::{JsObjectValue, Object, Unknown};
use napi::{Env, JsValue, sys};

use crate::error::{DatabaseCode, StoreError};

/// The `code` of every `TypeError`.
const INVALID_ARGUMENT: &str = "ERR_PERSIST_INVALID_ARG";

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// An argument is wrong; the text names it and says what was expected.
    InvalidArgument(String),
    /// The store failed.
    Store(StoreError),
    /// JavaScript threw, in a getter of an argument, say.
    Thrown(napi::Error),
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<napi::Error> for CallError {
    fn from(error: napi::Error) -> Self {
        Self::Thrown(error)
    }
}

impl CallError {
    /// A `TypeError`: `name` is the argument or its field.
    pub fn expected(name: &str, expectation: &str) -> Self {
        Self::InvalidArgument(format!("{name} must be {expectation}"))
    }

    /// The JavaScript error object.
    pub fn into_js<'env>(self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        match self {
            Self::InvalidArgument(message) => create(env, true, INVALID_ARGUMENT, &message, None),
            Self::Store(error) => {
                create(env, false, error.code(), &error.to_string(), error.database_code())
            }
            Self::Thrown(error) => match take_exception(env) {
                Some(exception) => Ok(exception),
                None => Ok(napi::JsError::from(error).into_unknown(*env)),
            },
        }
    }

    /// An error that napi throws as the JavaScript error object.
    pub fn into_thrown(self, env: &Env) -> napi::Error {
        match self.into_js(env) {
            Ok(error) => napi::Error::from_unknown_without_coercion(error),
            Err(error) => error,
        }
    }
}

#[expect(unsafe_code, reason = "napi's own constructors can't make a TypeError with a code")]
fn create<'env>(
    env: &'env Env,
    is_type_error: bool,
    code: &str,
    message: &str,
    database_code: Option<&DatabaseCode>,
) -> napi::Result<Unknown<'env>> {
    let code = env.create_string(code)?;
    let message = env.create_string(message)?;
    let create = if is_type_error { sys::napi_create_type_error } else { sys::napi_create_error };
    let mut error = std::ptr::null_mut();
    // SAFETY: the environment is this thread's, and both strings are live values of it.
    let status = unsafe { create(env.raw(), code.raw(), message.raw(), &mut error) };
    napi::check_status!(status)?;
    let mut error = Object::from_raw(env.raw(), error);
    if let Some(database_code) = database_code {
        let name = match database_code {
            DatabaseCode::Sqlite(_) => "sqliteCode",
            DatabaseCode::Sqlstate(_) => "sqlState",
        };
        error.set_named_property(name, database_code.as_str())?;
    }
    Ok(error.to_unknown())
}

/// The exception that a failed call into JavaScript left pending, if it did.
#[expect(unsafe_code, reason = "napi has no safe way to take an exception")]
fn take_exception(env: &Env) -> Option<Unknown<'_>> {
    let mut is_pending = false;
    // SAFETY: the environment is this thread's; the flag is a valid place to write to.
    let status = unsafe { sys::napi_is_exception_pending(env.raw(), &mut is_pending) };
    if status != sys::Status::napi_ok || !is_pending {
        return None;
    }
    let mut exception = std::ptr::null_mut();
    // SAFETY: as above.
    let status = unsafe { sys::napi_get_and_clear_last_exception(env.raw(), &mut exception) };
    // SAFETY: on success the exception is a live value of this environment.
    (status == sys::Status::napi_ok)
        .then(|| unsafe { Unknown::from_raw_unchecked(env.raw(), exception) })
}
