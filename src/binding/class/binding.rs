//! The class `Binding`: all that needs no open database.

use std::rc::Rc;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Unknown;
use napi_derive::napi;

use crate::binding::convert::database::Database;
use crate::binding::convert::error::CallError;
use crate::binding::convert::postgres_options::{self, PostgresArguments};
use crate::binding::convert::realm::{Given, Kept, Realm};
use crate::binding::convert::sqlite_options::{self, SqliteArguments};
use crate::binding::convert::{outcomes, replay_text};
use crate::binding::promise::attempts::{AttemptBegun, AttemptEnded, AttemptListeners};
use crate::binding::promise::bridge::Listener;
use crate::binding::promise::environment::Environment;
use crate::binding::promise::password::JsPasswords;
use crate::binding::warning;
use crate::error::StoreError;
use crate::postgres::{self, Attempts, PasswordSource};
use crate::sqlite;
use crate::store::{Completions, SessionStore};

use super::driver::{Driver, Opened};

/// The addon for one realm.
#[napi]
pub struct Binding {
    realm: Rc<Realm>,
}

#[napi]
impl Binding {
    /// Of the realm's `JSON.parse`, `JSON.stringify`, `Object`, `Error` and `TypeError`, and of what
    /// tells an `onError` of an error.
    #[napi(
        constructor,
        ts_args_type = "parse: Function, stringify: Function, object: Function, error: Function, typeError: Function, tell: Function"
    )]
    pub fn new(
        parse: Given<'_>,
        stringify: Given<'_>,
        object: Given<'_>,
        error: Given<'_>,
        type_error: Given<'_>,
        tell: Given<'_>,
    ) -> napi::Result<Self> {
        Ok(Self { realm: Rc::new(Realm::new(parse, stringify, object, error, type_error, tell)?) })
    }

    /// Opens a SQLite database.
    #[napi]
    pub fn open_sqlite(&self, env: &Env, options: Unknown<'_>) -> napi::Result<Driver> {
        let environment = Environment::of(env)?;
        let opened = open_sqlite(env, &environment, options);
        self.driver(env, environment, "sqlite", opened)
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
        let opened = open_postgres(env, &environment, options, attempts);
        self.driver(env, environment, "postgresql", opened)
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
    pub fn postgres_schema_sql(
        &self,
        env: &Env,
        schema: Unknown<'_>,
        options: Unknown<'_>,
    ) -> napi::Result<String> {
        let sql = postgres_options::schema_sql(schema, options);
        sql.map_err(|error| error.into_thrown(env, &self.realm))
    }
}

impl Binding {
    fn driver(
        &self,
        env: &Env,
        environment: Rc<Environment>,
        system: &'static str,
        opened: Result<Opened, OpeningError>,
    ) -> napi::Result<Driver> {
        let opened = opened.map_err(|OpeningError { error, database }| {
            error.into_thrown_of(env, &self.realm, database.as_deref())
        })?;
        Ok(Driver::new(environment, Rc::clone(&self.realm), system, opened))
    }
}

/// Why a driver couldn't be opened, and of which database it would have been, if that was read.
struct OpeningError {
    error: CallError,
    database: Option<Box<Database>>,
}

impl From<CallError> for OpeningError {
    fn from(error: CallError) -> Self {
        Self { error, database: None }
    }
}

impl From<napi::Error> for OpeningError {
    fn from(error: napi::Error) -> Self {
        CallError::from(error).into()
    }
}

fn open_sqlite(
    env: &Env,
    environment: &Environment,
    options: Unknown<'_>,
) -> Result<Opened, OpeningError> {
    let SqliteArguments { options, on_error } = sqlite_options::read(options)?;
    if let Some(number) = sqlite::unknown_file_system(&options) {
        warning::of_unknown_file_system(env, number);
    }
    let listener = environment.bridge.listener();
    let store = sqlite::open(&options, Arc::clone(&listener) as Arc<dyn Completions>);
    opened(Database::from(&options), store, on_error, listener)
}

fn open_postgres(
    env: &Env,
    environment: &Environment,
    options: Unknown<'_>,
    attempts: Option<Arc<dyn Attempts>>,
) -> Result<Opened, OpeningError> {
    let arguments = postgres_options::read(env, options)?;
    let PostgresArguments { options, password_function, on_error } = arguments;
    for message in &options.settings.warnings {
        warning::once(env, message);
    }
    let passwords =
        password_function.map(|function| JsPasswords::new(env, function)).transpose()?;
    let passwords = passwords.map(|passwords| Arc::new(passwords) as Arc<dyn PasswordSource>);
    let database = Database::from(&options);
    let listener = environment.bridge.listener();
    let completions = Arc::clone(&listener) as Arc<dyn Completions>;
    let store = postgres::open(options, passwords, attempts, completions);
    opened(database, store, on_error, listener)
}

fn opened(
    database: Database,
    store: Result<Arc<dyn SessionStore>, StoreError>,
    on_error: Option<Kept>,
    listener: Arc<Listener>,
) -> Result<Opened, OpeningError> {
    match store {
        Ok(store) => Ok(Opened { store, database, on_error, listener }),
        Err(error) => Err(OpeningError { error: error.into(), database: Some(Box::new(database)) }),
    }
}
