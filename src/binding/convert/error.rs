//! Errors as JavaScript sees them: an `Error`, or a `TypeError` for a wrong argument, with a
//! stable `code` and, where there is one, the database's own.

use napi::bindgen_prelude::{JsObjectValue, Unknown};
use napi::{Env, JsValue, sys};

use crate::error::{DatabaseCode, StoreError};

use super::database::Database;
use super::realm::Realm;

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

    /// The JavaScript error object. Where the message leaves that open, it names the database.
    pub fn into_js<'env>(
        self,
        env: &'env Env,
        realm: &Realm,
        database: Option<&Database>,
    ) -> napi::Result<Unknown<'env>> {
        match self {
            Self::InvalidArgument(message) => {
                let mut error = realm.type_error(env, &message)?;
                error.set_named_property("code", INVALID_ARGUMENT)?;
                Ok(error.to_unknown())
            }
            Self::Store(error) => store_error(env, realm, &error, database),
            Self::Thrown(error) => match take_exception(env) {
                Some(exception) => Ok(exception),
                None => Ok(napi::JsError::from(error).into_unknown(*env)),
            },
        }
    }

    /// An error that napi throws as the JavaScript error object.
    pub fn into_thrown(self, env: &Env, realm: &Realm) -> napi::Error {
        self.into_thrown_of(env, realm, None)
    }

    /// As [`Self::into_thrown`], of a database.
    pub fn into_thrown_of(
        self,
        env: &Env,
        realm: &Realm,
        database: Option<&Database>,
    ) -> napi::Error {
        match self.into_js(env, realm, database) {
            Ok(error) => napi::Error::from_unknown_without_coercion(error),
            Err(error) => error,
        }
    }
}

fn store_error<'env>(
    env: &'env Env,
    realm: &Realm,
    failure: &StoreError,
    database: Option<&Database>,
) -> napi::Result<Unknown<'env>> {
    let message = match database.filter(|_| failure.is_about_a_database()) {
        Some(database) => format!("{failure} ({database})"),
        None => failure.to_string(),
    };
    let mut error = realm.error(env, &message)?;
    error.set_named_property("code", failure.code())?;
    if let Some(code) = failure.database_code() {
        let name = match code {
            DatabaseCode::Sqlite(_) => "sqliteCode",
            DatabaseCode::Sqlstate(_) => "sqlState",
        };
        error.set_named_property(name, code.as_str())?;
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
