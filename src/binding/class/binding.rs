//! The class `Binding`: all that needs no open database.

use std::rc::Rc;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Unknown;
use napi_derive::napi;

use crate::binding::convert::error::CallError;
use crate::binding::convert::postgres_options::{self, PostgresArguments};
use crate::binding::convert::realm::{Given, Realm};
use crate::binding::convert::{outcomes, replay_text, sqlite_options};
use crate::binding::promise::attempts::{AttemptBegun, AttemptEnded, AttemptListeners};
use crate::binding::promise::environment::Environment;
use crate::binding::promise::password::JsPasswords;
use crate::binding::warning;
use crate::postgres::{self, Attempts, PasswordSource};
use crate::sqlite;
use crate::store::SessionStore;

use super::driver::Driver;

/// The addon for one realm.
#[napi]
pub struct Binding {
    realm: Rc<Realm>,
}

#[napi]
impl Binding {
    /// Of the realm's `JSON.parse`, `JSON.stringify`, `Object`, `Error` and `TypeError`.
    #[napi(
        constructor,
        ts_args_type = "parse: Function, stringify: Function, object: Function, error: Function, typeError: Function"
    )]
    pub fn new(
        parse: Given<'_>,
        stringify: Given<'_>,
        object: Given<'_>,
        error: Given<'_>,
        type_error: Given<'_>,
    ) -> napi::Result<Self> {
        Ok(Self { realm: Rc::new(Realm::new(parse, stringify, object, error, type_error)?) })
    }

    /// Opens a SQLite database.
    #[napi]
    pub fn open_sqlite(&self, env: &Env, options: Unknown<'_>) -> napi::Result<Driver> {
        let environment = Environment::of(env)?;
        let store = sqlite_store(&environment, options);
        self.driver(env, environment, "sqlite", store)
    }

    /// Opens a PostgreSQL database: connects to nothing yet. The functions are told of attempts to
    /// connect: of each that begins its number, host and port, and of its end the number and an
    /// error.
    #[napi(ts_args_type = "options: unknown, attemptBegun?: Function, attemptEnded?: Function")]
    pub fn open_postgres(
        &self,
        env: &Env,
        options: Unknown<'_>,
        attempt_begun: Option<AttemptBegun<'_>>,
        attempt_ended: Option<AttemptEnded<'_>>,
    ) -> napi::Result<Driver> {
        let environment = Environment::of(env)?;
        let listeners = AttemptListeners::of(attempt_begun, attempt_ended)?;
        let realm = Rc::clone(&self.realm);
        let attempts = listeners.map(|listeners| environment.bridge.attempts(listeners, realm));
        let store = postgres_store(env, &environment, options, attempts);
        self.driver(env, environment, "postgresql", store)
    }

    /// The SDK's text of these events; `null` for none.
    #[napi]
    pub fn build_replay_text<'env>(
        &self,
        env: &'env Env,
        events: Unknown<'_>,
        max_chars: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let text = replay_text::build(env, &self.realm, events, max_chars);
        let text = text.and_then(|text| outcomes::replay_text(env, text.as_deref()));
        text.map_err(|error| error.into_thrown(env, &self.realm))
    }

    /// The SQL that makes the tables in a schema.
    #[napi]
    pub fn postgres_schema_sql(&self, env: &Env, schema: Unknown<'_>) -> napi::Result<String> {
        let schema = postgres_options::schema_name(schema);
        let schema = schema.map_err(|error| error.into_thrown(env, &self.realm))?;
        Ok(postgres::schema_sql(&schema))
    }
}

impl Binding {
    fn driver(
        &self,
        env: &Env,
        environment: Rc<Environment>,
        system: &'static str,
        store: Opened,
    ) -> napi::Result<Driver> {
        let store = store.map_err(|error| error.into_thrown(env, &self.realm))?;
        Ok(Driver::new(environment, Rc::clone(&self.realm), system, store))
    }
}

type Opened = Result<Arc<dyn SessionStore>, CallError>;

fn sqlite_store(environment: &Environment, options: Unknown<'_>) -> Opened {
    let options = sqlite_options::read(options)?;
    Ok(sqlite::open(&options, environment.bridge.completions())?)
}

fn postgres_store(
    env: &Env,
    environment: &Environment,
    options: Unknown<'_>,
    attempts: Option<Arc<dyn Attempts>>,
) -> Opened {
    let PostgresArguments { options, password_function } = postgres_options::read(env, options)?;
    for message in &options.settings.warnings {
        warning::emit(env, message)?;
    }
    let passwords =
        password_function.map(|function| JsPasswords::new(env, function)).transpose()?;
    let passwords = passwords.map(|passwords| Arc::new(passwords) as Arc<dyn PasswordSource>);
    Ok(postgres::open(options, passwords, attempts, environment.bridge.completions())?)
}
