//! Errors as JavaScript sees them: an `Error`, or a `TypeError` for a wrong argument, with a
//! stable `code` and, where there is one, the database's own.

use napi::bindgen_prelude::{JsObjectValue, Unknown};
use napi::{Env, JsValue};

use crate::error::{DatabaseCode, StoreError};

use super::calling::take_exception;
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

    /// As [`Self::into_js`]; where the application lets no such object be made, what it threw.
    pub fn into_js_or_thrown<'env>(
        self,
        env: &'env Env,
        realm: &Realm,
        database: Option<&Database>,
    ) -> Unknown<'env> {
        self.into_js(env, realm, database).unwrap_or_else(|error| {
            take_exception(env).unwrap_or_else(|| napi::JsError::from(error).into_unknown(*env))
        })
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
    let message = match database {
        Some(database) => database.describe(failure),
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
