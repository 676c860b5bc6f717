//! The options of `PostgresSessionPersistDriver`, in node-postgres' names.

use std::time::Duration;

use napi::bindgen_prelude::{FunctionRef, Unknown};
use napi::{Env, JsValue, ValueType};

use crate::postgres::{self, Given, Password, PostgresOptions, Ssl};
use crate::store::DEFAULT_MAX_QUEUED_BYTES;

use super::error::CallError;
use super::options::Options;
use super::realm::Kept;
use super::values;

/// What setTimeout counts to, and more than anybody waits.
const MAX_TIMEOUT_MS: u64 = 2_147_483_647;

/// It bounds the first attempt too: less would fail where nothing is wrong.
const MIN_RETRY_TIMEOUT_MS: u64 = 100;

const OPTIONS: [&str; 13] = [
    "connectionString",
    "pool",
    "poolConfig",
    "schema",
    "migrate",
    "preparedStatements",
    "retryTimeoutMs",
    "onDuplicateEvent",
    "retention",
    "maxSessions",
    "maxEventsPerSession",
    "maxQueuedBytes",
    "onError",
];

const POOL_OPTIONS: [&str; 24] = [
    "connectionString",
    "host",
    "port",
    "user",
    "password",
    "database",
    "ssl",
    "max",
    "min",
    "idleTimeoutMillis",
    "connectionTimeoutMillis",
    "maxLifetimeSeconds",
    "maxUses",
    "allowExitOnIdle",
    "application_name",
    "fallback_application_name",
    "statement_timeout",
    "query_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "keepAlive",
    "keepAliveInitialDelayMillis",
    "client_encoding",
    "options",
];

/// Every pool carries these; they mean nothing to connections that aren't node-postgres' own.
const UNUSED_POOL_OPTIONS: [&str; 4] = ["log", "Promise", "Client", "types"];

/// What node-postgres has an effect for, and these connections none: the user is told.
const POOL_OPTIONS_WITHOUT_EFFECT: [&str; 3] =
    ["pipeline", "enableChannelBinding", "sslnegotiation"];

/// What node-postgres would do and we can't.
const IMPOSSIBLE_POOL_OPTIONS: [&str; 6] =
    ["stream", "onConnect", "verify", "checkServerIdentity", "replication", "binary"];

const SSL_OPTIONS: [&str; 5] = ["rejectUnauthorized", "ca", "cert", "key", "servername"];

/// What other libraries have there, or Node's TLS without any effect on what is trusted.
const SSL_OPTIONS_WITHOUT_EFFECT: [&str; 6] =
    ["require", "sslmode", "requestCert", "enableTrace", "timeout", "ALPNProtocols"];

/// Versions of TLS, the oldest first. Connections here take the last two.
const TLS_VERSIONS: [&str; 4] = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];

/// A function that is asked for the password of each connection.
pub type PasswordFunction = FunctionRef<(), Unknown<'static>>;

/// What was read.
pub struct PostgresArguments {
    pub options: PostgresOptions,
    pub password_function: Option<PasswordFunction>,
    /// Is told of errors.
    pub on_error: Option<Kept>,
}

/// Reads the options of `PostgresSessionPersistDriver`; what is missing has its default.
pub fn read(env: &Env, options: Unknown<'_>) -> Result<PostgresArguments, CallError> {
    let options = match options.get_type()? {
        ValueType::Undefined => Options::empty(env, "options")?,
        _ => Options::of(options, "options")?.only(&OPTIONS, &[])?,
    };
    let schema = schema(&options)?;
    let migrate = options.boolean("migrate")?.unwrap_or(true);
    let prepared_statements = options.boolean("preparedStatements")?.unwrap_or(false);
    let retry_timeout_ms =
        options.whole_number_within("retryTimeoutMs", MIN_RETRY_TIMEOUT_MS..=MAX_TIMEOUT_MS)?;
    let retry_timeout_ms =
        retry_timeout_ms.unwrap_or(u64::from(postgres::DEFAULT_RETRY_TIMEOUT_MS));
    let max_queued_bytes = options.whole_number("maxQueuedBytes", u64::MAX)?;
    let max_queued_bytes = max_queued_bytes
        .map_or(DEFAULT_MAX_QUEUED_BYTES, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let on_duplicate_event = options.on_duplicate_event()?;
    let on_error = options.function("onError")?;
    let (given, password_function) = given(&options)?;
    let settings = postgres::resolve(given, &environment, &|path| std::fs::read_to_string(path))
        .map_err(|error| CallError::InvalidArgument(error.to_string()))?;
    let options = PostgresOptions {
        settings,
        schema,
        migrate,
        prepared_statements,
        retry_timeout: Duration::from_millis(retry_timeout_ms),
        max_queued_bytes,
        on_duplicate_event,
    };
    Ok(PostgresArguments { options, password_function, on_error })
}

/// Containers often have no variable for the user's name; the system knows it all the same.
fn environment(name: &str) -> Option<String> {
    let is_user = matches!(name, "USER" | "USERNAME");
    let of_system = || is_user.then(whoami::username).and_then(Result::ok);
    std::env::var(name).ok().or_else(of_system)
}

/// What `postgresSchemaSql(schema, options)` returns.
pub fn schema_sql(schema: Unknown<'_>, options: Unknown<'_>) -> Result<String, CallError> {
    let schema = schema_name(schema)?;
    let mut sql = postgres::schema_sql(&schema);
    if !values::is_nullish(&options)? {
        let options = Options::of(options, "options")?.only(&["rowLevelSecurity", "role"], &[])?;
        let role = options.get("role")?;
        let role = role.map(|role| role_name(role, &options.full_name("role"))).transpose()?;
        let is_wanted = options.boolean("rowLevelSecurity")?.unwrap_or(false);
        if role.is_some() && !is_wanted {
            let expected = "true where options.role is given";
            return Err(CallError::expected("options.rowLevelSecurity", expected));
        }
        if is_wanted {
            sql.push_str(&postgres::row_level_security_sql(&schema, role.as_deref()));
        }
    }
    Ok(sql)
}

/// A role's name. That of an unset variable would silently be none.
fn role_name(role: Unknown<'_>, name: &str) -> Result<String, CallError> {
    let role = values::identifier(role, name)?;
    if role.is_empty() {
        return Err(CallError::expected(name, "the name of a role"));
    }
    Ok(role)
}

fn schema_name(schema: Unknown<'_>) -> Result<String, CallError> {
    if values::is_nullish(&schema)? {
        return Ok(postgres::DEFAULT_SCHEMA.to_owned());
    }
    check_schema(values::identifier(schema, "schema")?)
}

/// The name as the drivers that this one replaces take it.
fn check_schema(name: String) -> Result<String, CallError> {
    let is_letter = |character: char| character.is_ascii_alphabetic() || character == '_';
    let is_valid = name.starts_with(is_letter)
        && name.chars().all(|character| is_letter(character) || character.is_ascii_digit());
    if !is_valid {
        return Err(CallError::InvalidArgument(format!(
            "Invalid schema name '{name}'. Use letters, numbers, and underscores only."
        )));
    }
    if name.len() > postgres::MAX_SCHEMA_BYTES {
        let expectation = format!("at most {} characters long", postgres::MAX_SCHEMA_BYTES);
        return Err(CallError::expected("options.schema", &expectation));
    }
    Ok(name)
}

fn schema(options: &Options<'_>) -> Result<String, CallError> {
    options.text("schema")?.map_or_else(|| Ok(postgres::DEFAULT_SCHEMA.to_owned()), check_schema)
}

/// A pool that is passed in is all; else `poolConfig`, with `connectionString` as its default.
fn given(options: &Options<'_>) -> Result<(Given, Option<PasswordFunction>), CallError> {
    if let Some(pool) = options.present("pool")? {
        let pool = Options::of(pool, "options.pool")?;
        let Some(settings) = pool.present("options")? else {
            return Err(CallError::expected("options.pool", "a Pool of node-postgres"));
        };
        return pool_options(&Options::of(settings, "options.pool.options")?);
    }
    let connection_string = options.text("connectionString")?;
    let (mut given, password_function) = match options.present("poolConfig")? {
        Some(config) => {
            let silent =
                [&UNUSED_POOL_OPTIONS[..], &POOL_OPTIONS_WITHOUT_EFFECT, &IMPOSSIBLE_POOL_OPTIONS]
                    .concat();
            let config = Options::of(config, "options.poolConfig")?.only(&POOL_OPTIONS, &silent)?;
            pool_options(&config)?
        }
        None => (Given::default(), None),
    };
    if given.connection_string.is_none() {
        given.connection_string = connection_string.map(Into::into);
    }
    Ok((given, password_function))
}

fn pool_options(config: &Options<'_>) -> Result<(Given, Option<PasswordFunction>), CallError> {
    refuse_impossible(config)?;
    let mut without_effect = names_of_given(config, &POOL_OPTIONS_WITHOUT_EFFECT)?;
    let count = |name| -> Result<Option<u32>, CallError> {
        let number = config.numeric(name, u64::from(u32::MAX))?;
        Ok(number.map(|number| u32::try_from(number).expect("checked")))
    };
    let milliseconds = |name| config.numeric(name, MAX_TIMEOUT_MS);
    let (password, password_function) = password(config)?;
    let given = Given {
        connection_string: config.text("connectionString")?.map(Into::into),
        host: config.text("host")?,
        port: port(config)?,
        user: config.text("user")?,
        password,
        database: config.text("database")?,
        ssl: ssl(config, &mut without_effect)?,
        max: count("max")?,
        min: count("min")?,
        idle_timeout_ms: milliseconds("idleTimeoutMillis")?,
        connection_timeout_ms: milliseconds("connectionTimeoutMillis")?,
        max_lifetime_s: config.numeric("maxLifetimeSeconds", MAX_TIMEOUT_MS)?,
        max_uses: max_uses(config)?,
        application_name: config.text("application_name")?,
        fallback_application_name: config.text("fallback_application_name")?,
        statement_timeout_ms: timeout_or_false(config, "statement_timeout")?,
        query_timeout_ms: timeout_or_false(config, "query_timeout")?,
        lock_timeout_ms: timeout_or_false(config, "lock_timeout")?,
        idle_in_transaction_session_timeout_ms: timeout_or_false(
            config,
            "idle_in_transaction_session_timeout",
        )?,
        keep_alive: config.boolean("keepAlive")?,
        keep_alive_initial_delay_ms: milliseconds("keepAliveInitialDelayMillis")?,
        client_encoding: config.text("client_encoding")?,
        options: config.text("options")?,
        without_effect,
    };
    // A driver that is idle never keeps its process alive: read only to be checked.
    config.boolean("allowExitOnIdle")?;
    Ok((given, password_function))
}

fn refuse_impossible(config: &Options<'_>) -> Result<(), CallError> {
    for name in IMPOSSIBLE_POOL_OPTIONS {
        let Some(value) = config.present(name)? else { continue };
        let is_off = value.get_type()? == ValueType::Boolean && !values::read_boolean(&value)?;
        if !is_off {
            return Err(CallError::InvalidArgument(format!(
                "{} can't be honoured: connections are native, not node-postgres' own",
                config.full_name(name)
            )));
        }
    }
    Ok(())
}

/// Those of the names that are given, and not as `false`.
fn names_of_given(config: &Options<'_>, names: &[&str]) -> Result<Vec<String>, CallError> {
    let mut given = Vec::new();
    for name in names {
        let Some(value) = config.present(name)? else { continue };
        if value.get_type()? != ValueType::Boolean || values::read_boolean(&value)? {
            given.push(config.full_name(name));
        }
    }
    Ok(given)
}

fn port(config: &Options<'_>) -> Result<Option<u16>, CallError> {
    let Some(value) = config.present("port")? else { return Ok(None) };
    if value.get_type()? == ValueType::String {
        // As out of the environment.
        let text = values::read_text(&value)?;
        let expected = || CallError::expected(&config.full_name("port"), "a port number");
        return text.trim().parse().map(Some).map_err(|_| expected());
    }
    let port = config.whole_number("port", u64::from(u16::MAX))?;
    Ok(port.map(|port| u16::try_from(port).expect("checked")))
}

fn max_uses(config: &Options<'_>) -> Result<Option<u64>, CallError> {
    match config.present("maxUses")? {
        Some(value)
            if value.get_type()? == ValueType::Number
                && values::read_number(&value)? == f64::INFINITY =>
        {
            Ok(None)
        }
        _ => config.numeric("maxUses", u64::MAX),
    }
}

/// `false` is as good as missing.
fn timeout_or_false(config: &Options<'_>, name: &str) -> Result<Option<u64>, CallError> {
    match config.present(name)? {
        Some(value)
            if value.get_type()? == ValueType::Boolean && !values::read_boolean(&value)? =>
        {
            Ok(None)
        }
        _ => config.numeric(name, MAX_TIMEOUT_MS),
    }
}

fn password(
    config: &Options<'_>,
) -> Result<(Option<Password>, Option<PasswordFunction>), CallError> {
    let Some(value) = config.present("password")? else { return Ok((None, None)) };
    match value.get_type()? {
        ValueType::String => {
            let text = values::identifier(value, &config.full_name("password"))?;
            Ok((Some(Password::Text(text)), None))
        }
        ValueType::Function => Ok((Some(Password::Function), Some(values::function(&value)?))),
        _ => Err(CallError::expected(&config.full_name("password"), "a string or a function")),
    }
}

fn ssl(config: &Options<'_>, without_effect: &mut Vec<String>) -> Result<Option<Ssl>, CallError> {
    let Some(value) = config.present("ssl")? else { return Ok(None) };
    let name = config.full_name("ssl");
    match value.get_type()? {
        ValueType::Boolean => {
            Ok(Some(if values::read_boolean(&value)? { Ssl::On } else { Ssl::Off }))
        }
        ValueType::String if values::read_text(&value)? == "no-verify" => Ok(Some(Ssl::With {
            reject_unauthorized: false,
            ca: Vec::new(),
            cert: None,
            key: None,
            servername: None,
        })),
        ValueType::Object => {
            let silent = [&SSL_OPTIONS_WITHOUT_EFFECT[..], &["minVersion", "maxVersion"]].concat();
            let ssl = Options::of(value, &name)?.only(&SSL_OPTIONS, &silent)?;
            without_effect.extend(names_of_given(&ssl, &SSL_OPTIONS_WITHOUT_EFFECT)?);
            // Connections take 1.2 and 1.3: what allows these is honoured.
            check_tls_version(&ssl, "minVersion", &TLS_VERSIONS[..3])?;
            check_tls_version(&ssl, "maxVersion", &TLS_VERSIONS[3..])?;
            let ca = ssl.present("ca")?;
            Ok(Some(Ssl::With {
                reject_unauthorized: ssl.boolean("rejectUnauthorized")?.unwrap_or(true),
                ca: ca.map_or_else(|| Ok(Vec::new()), |ca| pems(ca, &ssl.full_name("ca")))?,
                cert: pem_option(&ssl, "cert")?,
                key: pem_option(&ssl, "key")?.map(Into::into),
                servername: ssl.text("servername")?,
            }))
        }
        _ => Err(CallError::expected(&name, "true, false or an object")),
    }
}

fn check_tls_version(ssl: &Options<'_>, name: &str, honoured: &[&str]) -> Result<(), CallError> {
    match ssl.text(name)? {
        Some(version) if !honoured.contains(&version.as_str()) => {
            Err(CallError::InvalidArgument(format!(
                "{} can't be honoured: connections take TLS 1.2 and 1.3, so it may be {}",
                ssl.full_name(name),
                honoured.join(", ")
            )))
        }
        _ => Ok(()),
    }
}

fn pem_option(ssl: &Options<'_>, name: &str) -> Result<Option<String>, CallError> {
    let value = ssl.present(name)?;
    value.map(|value| pem(&value, &ssl.full_name(name))).transpose()
}

/// One text, or an array of them.
fn pems(value: Unknown<'_>, name: &str) -> Result<Vec<String>, CallError> {
    if !value.is_array()? {
        return Ok(vec![pem(&value, name)?]);
    }
    values::elements(&value)?.iter().map(|element| pem(element, name)).collect()
}

/// A string, or the bytes of one, as read from a file.
fn pem(value: &Unknown<'_>, name: &str) -> Result<String, CallError> {
    let text = match value.get_type()? {
        ValueType::String => Some(values::read_text(value)?),
        ValueType::Object if value.is_typedarray()? => {
            values::read_bytes(value).ok().and_then(|bytes| String::from_utf8(bytes).ok())
        }
        _ => None,
    };
    let text = text.filter(|text| text.contains("-----BEGIN "));
    text.ok_or_else(|| CallError::expected(name, "PEM, as a string or a buffer"))
}
