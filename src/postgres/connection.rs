//! Opening one connection: hosts in turn, a password for each attempt, and a look at which kind of
//! server answered.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

use crate::error::{DatabaseCode, StoreError};

use super::addresses;
use super::failure::{Failure, Remedy};
use super::message::Message;
use super::options::PostgresOptions;
use super::settings::{Address, Password, Settings, TargetSession, Tls};
use super::wrap::Charset;

/// A server that doesn't answer at all is given up after this long, unless the user says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// 256 kB a second: slower than any link that a database is used over.
const SLOW_LINK_BYTES_PER_MS: u64 = 256;
/// How often, and after what pause each, a function is asked again for a password that was refused.
const REFUSALS_OF_A_CHANGING_PASSWORD: u32 = 2;
const PASSWORD_PAUSE: Duration = Duration::from_millis(100);

/// Where passwords come from that the settings don't hold.
pub trait PasswordSource: Send + Sync {
    /// Asks for the password of a new connection. The error says why there is none.
    fn ask(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;
}

/// Who hears of attempts to open a connection, on the store's thread. Must not block.
pub trait Attempts: Send + Sync {
    /// One begins; host and port where it is on the network. Its number.
    fn begin(&self, address: Option<(&str, u16)>) -> u64;

    /// It has ended.
    fn end(&self, attempt: u64, error: Option<StoreError>);
}

/// An attempt that is told of: also of its end when it is given up.
struct Attempt {
    attempts: Option<Arc<dyn Attempts>>,
    number: u64,
}

/// A connection to a server that is as it should be.
pub struct Connection {
    inner: PgConnection,
    /// Begins every message, so that others can find the server process that this connection used.
    pub mark: String,
    pub opened: Instant,
    pub uses: u64,
    /// Of the database.
    pub charset: Charset,
}

/// A connection whose server may say nothing for so long, whatever it is asked.
pub struct Timed<'connection> {
    connection: &'connection mut Connection,
    timeout: Duration,
}

/// How to open connections.
pub struct Connector {
    settings: Settings,
    /// Empty where each message brings its own.
    session_settings: String,
    password_source: Option<Arc<dyn PasswordSource>>,
    attempts: Option<Arc<dyn Attempts>>,
    /// Where the last connection was made, and so the next is tried first.
    first_host: Cell<usize>,
    /// By host, the address of its name that worked last …
    last_good: RefCell<HashMap<usize, String>>,
    /// … and the one that worked and then wouldn't do.
    last_bad: RefCell<HashMap<usize, String>>,
    /// How many connections have got their marks.
    marked: Cell<u64>,
    /// Tells our marks from those of other drivers and processes.
    origin: String,
}

impl Timed<'_> {
    /// Sends a message, and returns the rows of its statements.
    pub async fn fetch(&mut self, message: Message) -> Result<Vec<PgRow>, Failure> {
        self.connection.fetch(message, self.timeout).await
    }

    /// Sends statements without values.
    pub async fn execute(&mut self, sql: &str) -> Result<(), Failure> {
        self.fetch(Message::simple(sql)).await.map(drop)
    }
}

impl Connection {
    /// For messages that each have this much time.
    pub fn with_timeout(&mut self, timeout: Duration) -> Timed<'_> {
        Timed { connection: self, timeout }
    }

    /// A server that says nothing for as long as `timeout` has lost us; a slow link has more time
    /// for what is large.
    async fn fetch(&mut self, message: Message, timeout: Duration) -> Result<Vec<PgRow>, Failure> {
        let time_to_send = Duration::from_millis(
            u64::try_from(message.bytes()).unwrap_or(u64::MAX) / SLOW_LINK_BYTES_PER_MS,
        );
        let timeout = timeout.saturating_add(time_to_send);
        let (sql, parameters) = message.into_parts().map_err(Failure::of_value)?;
        let sql = AssertSqlSafe(format!("{}{sql}", self.mark));
        let mut rows = match parameters {
            None => sqlx::raw_sql(sql).fetch(&mut self.inner),
            Some(values) => sqlx::query_with(sql, values).fetch(&mut self.inner),
        };
        let mut fetched = Vec::new();
        loop {
            match tokio::time::timeout(timeout, rows.try_next()).await {
                Ok(Ok(Some(row))) => fetched.push(row),
                Ok(Ok(None)) => return Ok(fetched),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(Failure::no_answer()),
            }
        }
    }

    /// Whether the server still answers, within this time.
    pub async fn is_alive(&mut self, timeout: Duration) -> bool {
        matches!(tokio::time::timeout(timeout, self.inner.ping()).await, Ok(Ok(())))
    }

    /// Takes leave of the server.
    pub async fn close(self) {
        // A server that is gone needs none.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.inner.close()).await;
    }
}

impl Attempt {
    fn begin(attempts: Option<Arc<dyn Attempts>>, address: &Address) -> Self {
        let shown = match address {
            Address::Tcp { host, port } => Some((host.as_str(), *port)),
            Address::Socket { .. } => None,
        };
        let number = attempts.as_ref().map(|attempts| attempts.begin(shown));
        Self { attempts, number: number.unwrap_or_default() }
    }

    fn end(mut self, error: Option<StoreError>) {
        if let Some(attempts) = self.attempts.take() {
            attempts.end(self.number, error);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(attempts) = self.attempts.take() {
            attempts.end(self.number, Some(Failure::no_answer().error));
        }
    }
}

impl Connector {
    pub fn new(
        options: &PostgresOptions,
        password_source: Option<Arc<dyn PasswordSource>>,
        attempts: Option<Arc<dyn Attempts>>,
        origin: String,
    ) -> Self {
        let session_settings = match options.prepared_statements {
            true => options.settings.timeouts_sql("SESSION"),
            false => String::new(),
        };
        Self {
            settings: options.settings.clone(),
            session_settings,
            password_source,
            attempts,
            first_host: Cell::new(0),
            last_good: RefCell::default(),
            last_bad: RefCell::default(),
            marked: Cell::new(0),
            origin,
        }
    }

    /// Opens a connection to the first host that is reached and is of the wanted kind.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        let hosts = self.settings.hosts.len();
        let mut last_failure = None;
        for &target in self.targets() {
            for turn in 0..hosts {
                let host = (self.first_host.get() + turn) % hosts;
                match self.connect_to(host, target).await {
                    Ok(connection) => {
                        self.first_host.set(host);
                        return Ok(connection);
                    }
                    // As libpq: where one refuses us, the others would too.
                    Err(failure) if failure.remedy == Remedy::None => {
                        return Err(self.name_database(failure));
                    }
                    Err(failure) => last_failure = Some(failure),
                }
            }
        }
        Err(last_failure.unwrap_or_else(|| Failure::lost("there is no host".to_owned())))
    }

    /// The next connection is tried at another host than the last, or at another address of its.
    pub fn prefer_next_host(&self) {
        let host = self.first_host.get();
        if let Some(address) = self.last_good.borrow_mut().remove(&host) {
            self.last_bad.borrow_mut().insert(host, address);
        }
        self.first_host.set((host + 1) % self.settings.hosts.len());
    }

    fn targets(&self) -> &'static [TargetSession] {
        match self.settings.target {
            TargetSession::Any => &[TargetSession::Any],
            TargetSession::ReadWrite => &[TargetSession::ReadWrite],
            TargetSession::ReadOnly => &[TargetSession::ReadOnly],
            TargetSession::Primary => &[TargetSession::Primary],
            TargetSession::Standby => &[TargetSession::Standby],
            TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
        }
    }

    /// A password that a function gave may have been changed while it was on its way: it is asked
    /// again before the server's refusal counts.
    async fn connect_to(&self, host: usize, target: TargetSession) -> Result<Connection, Failure> {
        let may_change = self.settings.password == Some(Password::Function);
        for _ in 0..REFUSALS_OF_A_CHANGING_PASSWORD {
            match self.try_to_connect(host, target).await {
                Err(failure) if may_change && is_refusal_of_password(&failure.error) => {
                    tokio::time::sleep(PASSWORD_PAUSE).await;
                }
                result => return result,
            }
        }
        self.try_to_connect(host, target).await
    }

    async fn try_to_connect(
        &self,
        host: usize,
        target: TargetSession,
    ) -> Result<Connection, Failure> {
        let timeout = self.settings.pool.connection_timeout.unwrap_or(CONNECT_TIMEOUT);
        let address = &self.settings.hosts[host].address;
        let attempt = Attempt::begin(self.attempts.clone(), address);
        let connection = tokio::time::timeout(timeout, self.open(host, target)).await;
        let connection = connection
            .unwrap_or_else(|_| Err(Failure::no_answer()))
            .map_err(|failure| name_address(failure, &address.to_string()));
        attempt.end(connection.as_ref().err().map(|failure| failure.error.clone()));
        connection
    }

    async fn open(&self, host: usize, target: TargetSession) -> Result<Connection, Failure> {
        let password = self.password().await?;
        let connect = async |address: String| {
            let connection = self.open_at(host, &address, password.as_deref(), target).await?;
            Ok((address, connection))
        };
        let addresses = self.addresses(host).await;
        let (address, connection) = addresses::first_to_connect(addresses, connect).await?;
        self.last_good.borrow_mut().insert(host, address);
        Ok(connection)
    }

    /// Where to try, in order. Where TLS is to look at the host's name, sqlx must have that, and goes
    /// through its addresses itself.
    async fn addresses(&self, host: usize) -> Vec<String> {
        let Settings { hosts, tls, .. } = &self.settings;
        let mut addresses = match &hosts[host].address {
            Address::Tcp { host, port } if *tls == Tls::Off => addresses::of(host, *port).await,
            address => vec![address.parts().0.to_owned()],
        };
        let is = |last: &RefCell<HashMap<usize, String>>, address: &String| {
            last.borrow().get(&host) == Some(address)
        };
        addresses
            .sort_by_key(|address| (is(&self.last_bad, address), !is(&self.last_good, address)));
        addresses
    }

    /// A connection to a server of the kind that is wanted.
    async fn open_at(
        &self,
        host: usize,
        address: &str,
        password: Option<&str>,
        target: TargetSession,
    ) -> Result<Connection, Failure> {
        let options = self.connect_options(host, address, password);
        let inner = options.connect().await.map_err(Failure::of_handshake)?;
        let mut connection = Connection {
            inner,
            mark: self.next_mark(),
            opened: Instant::now(),
            uses: 0,
            charset: Charset::Unicode,
        };
        let inspected = self.inspect(connection.with_timeout(CONNECT_TIMEOUT), target).await;
        connection.charset = inspected.map_err(Failure::of_no_row)?;
        Ok(connection)
    }

    /// Sends the first message, with the connection's mark, and sees whether the server is the kind
    /// we want. Which characters the database can hold.
    async fn inspect(
        &self,
        mut connection: Timed<'_>,
        target: TargetSession,
    ) -> Result<Charset, Failure> {
        if !self.session_settings.is_empty() {
            connection.execute(&self.session_settings).await?;
        }
        let question = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only'), \
             current_setting('server_encoding')";
        let rows = connection.fetch(Message::simple(question)).await?;
        let text = |column: usize| {
            let value = rows.first().and_then(|row| row.try_get_raw(column).ok());
            value.and_then(|value| value.as_str().map(str::to_owned).ok()).unwrap_or_default()
        };
        let is = |column: usize, expected: &str| text(column) == expected;
        let (is_standby, is_read_only) = (is(0, "t"), is(1, "on"));
        let (is_wanted, what) = match target {
            TargetSession::Any | TargetSession::PreferStandby => (true, ""),
            TargetSession::ReadWrite => (!is_standby && !is_read_only, "takes no writes"),
            TargetSession::ReadOnly => (is_standby || is_read_only, "is not read-only"),
            TargetSession::Primary => (!is_standby, "is a standby"),
            TargetSession::Standby => (is_standby, "is not a standby"),
        };
        if is_wanted {
            Ok(Charset::of(&text(2)))
        } else {
            Err(Failure::lost(format!("the server {what}")))
        }
    }

    async fn password(&self) -> Result<Option<String>, Failure> {
        match (&self.settings.password, &self.password_source) {
            (Some(Password::Text(text)), _) => Ok(Some(text.clone())),
            (Some(Password::Function), Some(source)) => {
                source.ask().await.map(Some).map_err(Failure::lost)
            }
            _ => Ok(None),
        }
    }

    /// For the host at this address, or under this name.
    fn connect_options(&self, host: usize, at: &str, password: Option<&str>) -> PgConnectOptions {
        let Settings { user, database, application_name, options, .. } = &self.settings;
        let address = &self.settings.hosts[host].address;
        let (_, port) = address.parts();
        // sqlx takes `options` as they are only in a URL, and finds `.pgpass` only through one.
        let mut url = url::form_urlencoded::Serializer::new("postgres:///?".to_owned());
        url.append_pair("host", at).append_pair("port", &port.to_string());
        url.append_pair("user", user).append_pair("dbname", database);
        // sqlx has put PGOPTIONS in front already; of a setting the last one counts.
        if let Some(options) = options {
            url.append_pair("options", options);
        }
        if let Some(password) = password {
            url.append_pair("password", password);
        }
        let mut result: PgConnectOptions =
            url.finish().parse().expect("pairs that sqlx knows, encoded");
        if let Some(name) = application_name {
            result = result.application_name(name);
        }
        // A pooler refuses to start with it.
        let result = result.extra_float_digits(None).disable_statement_logging();
        // As libpq: on a socket there is nobody in between.
        let is_socket = matches!(address, Address::Socket { .. });
        with_tls(result, if is_socket { &Tls::Off } else { &self.settings.tls })
    }

    fn next_mark(&self) -> String {
        self.marked.set(self.marked.get() + 1);
        format!("/* sandbox-agent-persist {}.{} */ ", self.origin, self.marked.get())
    }

    fn name_database(&self, failure: Failure) -> Failure {
        let lacks_password =
            self.settings.password.is_none() && is_refusal_of_password(&failure.error);
        let hint =
            if lacks_password { "; neither the options nor PGPASSWORD have one" } else { "" };
        let error = match failure.error {
            StoreError::CannotOpen { reason, database_code, .. } => StoreError::CannotOpen {
                database: self.settings.database.clone(),
                reason: format!("{reason}{hint}"),
                database_code,
            },
            error => error,
        };
        Failure { error, ..failure }
    }
}

fn with_tls(options: PgConnectOptions, tls: &Tls) -> PgConnectOptions {
    let (mode, roots, client) = match tls {
        Tls::Off => return options.ssl_mode(PgSslMode::Disable),
        Tls::Unverified { client } => (PgSslMode::Require, None, client),
        Tls::Full { roots, client } => (PgSslMode::VerifyFull, Some(roots), client),
    };
    let roots = roots.map(|roots| roots.join("\n")).unwrap_or_default();
    let options = options.ssl_mode(mode).ssl_root_cert_from_pem(roots.into_bytes());
    match client {
        Some(client) => options
            .ssl_client_cert_from_pem(client.certificate.as_bytes())
            .ssl_client_key_from_pem(client.key.expose().as_bytes()),
        None => options,
    }
}

/// Says where it failed: with several hosts, or a mistaken one, that is what must be known.
fn name_address(failure: Failure, address: &str) -> Failure {
    let error = match failure.error {
        StoreError::Unavailable { timeout, reason, database_code } => {
            let reason = format!("{address}: {reason}");
            StoreError::Unavailable { timeout, reason, database_code }
        }
        StoreError::CannotOpen { database, reason, database_code } => {
            let reason = format!("{address}: {reason}");
            StoreError::CannotOpen { database, reason, database_code }
        }
        error => error,
    };
    Failure { error, is_connection_lost: true, ..failure }
}

fn is_refusal_of_password(error: &StoreError) -> bool {
    error.database_code().map(DatabaseCode::as_str) == Some("28P01")
}
