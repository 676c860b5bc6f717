//! From what the user gave to how to connect.

use std::time::Duration;

use super::connection_string::Fields;
use super::error::SettingsError;
use super::given::{Given, Password, Ssl};
use super::hosts::{self, Host, TargetSession};
use super::sources::{self, Named, Sources, positive};
use super::tls::{self, ReadFile, Tls};

/// pg-pool's.
const DEFAULT_MAX_CONNECTIONS: u32 = 10;
/// pg-pool's.
const DEFAULT_IDLE_TIMEOUT_MS: u64 = 10_000;
/// What the name of the operating system's user is in.
const USER_VARIABLE: &str = if cfg!(windows) { "USERNAME" } else { "USER" };

/// How to connect, everything filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where to try, in this order. Never empty.
    pub hosts: Vec<Host>,
    /// Whether nobody named a host, so that it is the default one.
    pub is_default_host: bool,
    /// Which of the hosts will do.
    pub target: TargetSession,
    /// The role to log in as.
    pub user: String,
    /// The database, by default named as the user.
    pub database: String,
    /// What to say if the server asks for a password.
    pub password: Option<Password>,
    /// Whether and how to encrypt, over TCP.
    pub tls: Tls,
    /// What the server is told we are.
    pub application_name: Option<String>,
    /// The server's command line. Poolers refuse it: send it only where it is given.
    pub options: Option<String>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How many connections there are, and how long they live.
    pub pool: PoolLimits,
    /// Whether idle connections are probed by the system, and after how long; a delay of
    /// zero is the system's own. node-postgres' default is not to.
    pub keep_alive: Option<Duration>,
    /// What the user should hear of, a line each.
    pub warnings: Vec<String>,
}

/// How long things may take; `None` is unasked for. The first three are the server's to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// `statement_timeout`; zero turns off what the server has.
    pub statement: Option<Duration>,
    /// `lock_timeout`; zero turns off what the server has.
    pub lock: Option<Duration>,
    /// `idle_in_transaction_session_timeout`; zero turns off what the server has.
    pub idle_in_transaction: Option<Duration>,
    /// `query_timeout`, kept on this side. Never zero.
    pub query: Option<Duration>,
}

impl Settings {
    /// `SET <scope> …;` for each timeout that the server keeps, `scope` being `LOCAL` or
    /// `SESSION`. Empty where none is asked for.
    pub fn timeouts_sql(&self, scope: &'static str) -> String {
        let Timeouts { statement, lock, idle_in_transaction, query: _ } = self.timeouts;
        [
            ("statement_timeout", statement),
            ("lock_timeout", lock),
            ("idle_in_transaction_session_timeout", idle_in_transaction),
        ]
        .into_iter()
        .filter_map(|(name, timeout)| Some((name, timeout?.as_millis())))
        .map(|(name, ms)| format!("SET {scope} {name} = {ms}; "))
        .collect()
    }
}

/// What the pool keeps to. No duration is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// The most connections at a time, at least one.
    pub max: u32,
    /// How many connections idle time doesn't close, at most `max`.
    pub min: u32,
    /// How long a connection may go unused; `None` is for ever.
    pub idle_timeout: Option<Duration>,
    /// How long to wait for a connection; `None` is unasked for.
    pub connection_timeout: Option<Duration>,
    /// How old a connection may become; `None` is without end.
    pub max_lifetime: Option<Duration>,
    /// How often a connection may be used; `None` is without end.
    pub max_uses: Option<u64>,
}

/// Fills in what `given` leaves out, from the environment and node-postgres' defaults.
/// `environment` looks a variable up; `read_file` reads the certificates that a connection
/// string or `NODE_EXTRA_CA_CERTS` names.
pub fn resolve(
    given: Given,
    environment: &dyn Fn(&str) -> Option<String>,
    read_file: ReadFile<'_>,
) -> Result<Settings, SettingsError> {
    let fields = match &given.connection_string {
        Some(text) if !text.is_empty() => Fields::parse(text.expose())?,
        _ => Fields::default(),
    };
    let sources = Sources { fields, environment };
    let mut warnings: Vec<String> = sources.fields.warning().into_iter().collect();
    warnings.extend(warning_of_hidden_options(&given, &sources));
    if !given.without_effect.is_empty() {
        let names = given.without_effect.join(", ");
        warnings.push(format!("options that have no effect: {names}"));
    }
    check_encoding(&sources, given.client_encoding.clone())?;
    let pool = pool_limits(&given, &sources)?;
    let timeouts = timeouts(&given, &sources)?;
    let keep_alive = keep_alive(&given);
    let application_name = application_name(&given, &sources)?;
    let host_names = hosts::host_names(&sources, given.host)?;
    let is_default_host = host_names.is_none();
    let hosts = hosts::hosts(&sources, host_names, given.port)?;
    let user = user(&sources, given.user)?;
    let database = sources.bare_text("database", given.database, Some("PGDATABASE"))?;
    Ok(Settings {
        target: hosts::target_session(&sources)?,
        database: database.unwrap_or_else(|| user.clone()),
        user,
        password: password(&sources, given.password)?,
        tls: tls::tls(&sources, given.ssl, &hosts, read_file, &mut warnings)?,
        hosts,
        is_default_host,
        application_name,
        options: sources.bare_text("options", given.options, Some("PGOPTIONS"))?,
        timeouts,
        pool,
        keep_alive,
        warnings,
    })
}

/// What the connection string leaves empty comes from the environment, and `poolConfig`
/// has no say, as in node-postgres; there without a word.
fn warning_of_hidden_options(given: &Given, sources: &Sources<'_>) -> Option<String> {
    let is_empty = |name| sources.fields.get(name) == Some("");
    let with_ssl = matches!(given.ssl, Some(Ssl::With { .. }));
    let hidden = [
        ("host", given.host.is_some() && is_empty("host")),
        ("port", given.port.is_some() && is_empty("port")),
        ("user", given.user.is_some() && is_empty("user")),
        ("database", given.database.is_some() && is_empty("database")),
        ("ssl", with_ssl && tls::is_in_connection_string(sources)),
    ];
    let names: Vec<String> = hidden
        .into_iter()
        .filter(|(_, is_hidden)| *is_hidden)
        .map(|(name, _)| format!("poolConfig.{name}"))
        .collect();
    (!names.is_empty()).then(|| {
        let names = names.join(", ");
        format!("options that have no effect beside connectionString, as in node-postgres: {names}")
    })
}

fn user(sources: &Sources<'_>, option: Option<String>) -> Result<String, SettingsError> {
    let user = sources.bare_text("user", option, Some("PGUSER"))?;
    let user = user.or_else(|| sources.variable(USER_VARIABLE).map(|found| found.text));
    user.ok_or(SettingsError::NoUser)
}

/// Where node-postgres has no password, because a connection string without one hides
/// `poolConfig`'s, the latter serves: nobody can have meant none.
fn password(
    sources: &Sources<'_>,
    option: Option<Password>,
) -> Result<Option<Password>, SettingsError> {
    let option = option.filter(|password| !password.is_empty());
    if matches!(&option, Some(Password::Text(text)) if text.contains('\0')) {
        return Err(SettingsError::expected("poolConfig.password", sources::WITHOUT_NUL));
    }
    let is_hidden = sources.fields.get("password").is_some();
    let (first, last) = if is_hidden { (None, option) } else { (option, None) };
    if matches!(first, Some(Password::Function)) {
        return Ok(first);
    }
    let text = first.and_then(Password::into_text);
    let found = sources.bare_text("password", text, Some("PGPASSWORD"))?;
    let found = found.map(Password::Text);
    Ok(found.or(last))
}

fn application_name(given: &Given, sources: &Sources<'_>) -> Result<Option<String>, SettingsError> {
    let name =
        sources.bare_text("application_name", given.application_name.clone(), Some("PGAPPNAME"))?;
    let fallback = given.fallback_application_name.clone();
    match name {
        Some(name) => Ok(Some(name)),
        None => sources.bare_text("fallback_application_name", fallback, None),
    }
}

/// node-postgres asks the server for UTF-8 whatever this says; better to say so.
fn check_encoding(sources: &Sources<'_>, option: Option<String>) -> Result<(), SettingsError> {
    let Some(Named { name, text }) = sources.text("client_encoding", option, None)? else {
        return Ok(());
    };
    // PostgreSQL looks at letters and digits only.
    let letters = text.chars().filter(char::is_ascii_alphanumeric);
    let encoding: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    if matches!(encoding.as_str(), "utf8" | "unicode") {
        return Ok(());
    }
    Err(SettingsError::expected(name, "UTF8"))
}

fn timeouts(given: &Given, sources: &Sources<'_>) -> Result<Timeouts, SettingsError> {
    let idle_in_transaction = given.idle_in_transaction_session_timeout_ms;
    Ok(Timeouts {
        statement: sources.server_timeout("statement_timeout", given.statement_timeout_ms)?,
        lock: sources.server_timeout("lock_timeout", given.lock_timeout_ms)?,
        idle_in_transaction: sources
            .server_timeout("idle_in_transaction_session_timeout", idle_in_transaction)?,
        query: sources.own_timeout("query_timeout", given.query_timeout_ms)?,
    })
}

fn pool_limits(given: &Given, sources: &Sources<'_>) -> Result<PoolLimits, SettingsError> {
    let max = given.max.unwrap_or(DEFAULT_MAX_CONNECTIONS);
    if max == 0 {
        return Err(SettingsError::expected("poolConfig.max", "at least 1"));
    }
    let idle_timeout_ms = given.idle_timeout_ms.unwrap_or(DEFAULT_IDLE_TIMEOUT_MS);
    Ok(PoolLimits {
        max,
        min: given.min.unwrap_or(0).min(max),
        idle_timeout: positive(idle_timeout_ms).map(Duration::from_millis),
        connection_timeout: connection_timeout(given.connection_timeout_ms, sources)?,
        max_lifetime: given.max_lifetime_s.and_then(positive).map(Duration::from_secs),
        max_uses: given.max_uses.and_then(positive),
    })
}

/// libpq's `connect_timeout`, which node-postgres leaves unread, counts in seconds; what
/// isn't positive is never.
fn connection_timeout(
    option_ms: Option<u64>,
    sources: &Sources<'_>,
) -> Result<Option<Duration>, SettingsError> {
    let found = match (sources.parameter("connect_timeout"), option_ms) {
        (Some(found), _) => found,
        (None, Some(ms)) => return Ok(positive(ms).map(Duration::from_millis)),
        (None, None) => match sources.variable("PGCONNECT_TIMEOUT") {
            Some(found) => found,
            None => return Ok(None),
        },
    };
    let seconds: i64 = found
        .text
        .trim()
        .parse()
        .map_err(|_| SettingsError::expected(found.name, "a whole number of seconds"))?;
    Ok(u64::try_from(seconds).ok().and_then(positive).map(Duration::from_secs))
}

fn keep_alive(given: &Given) -> Option<Duration> {
    let delay_ms = given.keep_alive_initial_delay_ms.unwrap_or(0);
    given.keep_alive.unwrap_or(false).then(|| Duration::from_millis(delay_ms))
}
