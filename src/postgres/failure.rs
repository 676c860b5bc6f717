//! sqlx's errors as ours, and what helps against each.
//!
//! Messages of PostgreSQL may quote values: they are passed on only where they can't.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::error::{DatabaseCode, StoreError};

/// What helps against a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// To try again, for it passes by itself.
    Retry,
    /// To try again at another server: this one takes no writes.
    RetryElsewhere,
    /// To find the row that the server refuses; the others can be stored.
    Split,
    /// Nothing that we can do.
    None,
}

/// One attempt's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the call gets if nothing helps.
    pub error: StoreError,
    /// What to do about it.
    pub remedy: Remedy,
    /// Whether the connection is of no more use. What was sent on it may have been done, or may yet
    /// be.
    pub is_connection_lost: bool,
    /// Whether the server had the time of an attempt, and said nothing.
    pub is_unanswered: bool,
    /// The constraint that refused a row.
    pub constraint: Option<String>,
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => of_server(error.downcast_ref::<PgDatabaseError>()),
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                // A handshake that failed; the text is the TLS library's and holds no secret.
                Self::refused(tls_failure(&error.to_string()), None)
            }
            sqlx::Error::Io(error) => Self::lost(error.to_string()),
            sqlx::Error::Tls(error) => Self::refused(tls_failure(&error.to_string()), None),
            sqlx::Error::Configuration(_) => {
                Self::refused("the client certificate or its key cannot be read".to_owned(), None)
            }
            // The rest is a stream that makes no sense, or one that sqlx no longer follows.
            _ => Self::lost("the connection broke".to_owned()),
        }
    }
}

impl Failure {
    /// Of an attempt to connect: what answers may be a pooler, or no PostgreSQL at all. A proxy in
    /// trouble may speak like that, too.
    pub fn of_handshake(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => of_refusal(error.downcast_ref::<PgDatabaseError>()),
            sqlx::Error::Protocol(_) => {
                Self::lost("what answers there does not speak PostgreSQL's protocol".to_owned())
            }
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Self::lost(
                    "the connection was closed before PostgreSQL's handshake was complete; is it a \
                     PostgreSQL server that listens there?"
                        .to_owned(),
                )
            }
            error => error.into(),
        }
    }

    /// The connection broke, or was never made.
    pub fn lost(reason: String) -> Self {
        Self {
            error: StoreError::Unavailable { timeout: None, reason, database_code: None },
            remedy: Remedy::Retry,
            is_connection_lost: true,
            is_unanswered: false,
            constraint: None,
        }
    }

    /// The server says nothing.
    pub fn no_answer() -> Self {
        Self { is_unanswered: true, ..Self::lost("no answer in time".to_owned()) }
    }

    /// The server won't have us.
    pub fn refused(reason: String, database_code: Option<DatabaseCode>) -> Self {
        Self {
            // Whoever knows the database's name puts it in.
            error: StoreError::CannotOpen { database: String::new(), reason, database_code },
            remedy: Remedy::None,
            is_connection_lost: true,
            is_unanswered: false,
            constraint: None,
        }
    }

    /// Nothing helps, and the connection is as good as before.
    pub fn of_call(error: StoreError) -> Self {
        Self {
            error,
            remedy: Remedy::None,
            is_connection_lost: false,
            is_unanswered: false,
            constraint: None,
        }
    }

    /// A value can't be sent; others that were to go with it can.
    pub fn of_value(error: StoreError) -> Self {
        Self { remedy: Remedy::Split, ..Self::of_call(error) }
    }

    /// Of what was asked for no row's sake: there is none to find.
    pub fn of_no_row(self) -> Self {
        let remedy = if self.remedy == Remedy::Split { Remedy::None } else { self.remedy };
        Self { remedy, ..self }
    }

    /// Whether it passes by itself.
    pub fn is_passing(&self) -> bool {
        matches!(self.remedy, Remedy::Retry | Remedy::RetryElsewhere)
    }

    /// Whether a table or a column isn't there that was there before.
    pub fn is_of_the_schema(&self) -> bool {
        self.error.database_code().map(DatabaseCode::as_str).is_some_and(is_of_the_schema)
    }
}

/// What the TLS library says, and what helps where it says it in its own terms.
fn tls_failure(text: &str) -> String {
    const HINTS: [(&str, &str); 7] = [
        (
            "CaUsedAsEndEntity",
            "the server's certificate is marked as an authority's, CA:TRUE; have it made with \
             CA:FALSE, or signed by an authority that is given as ssl.ca",
        ),
        ("UnknownIssuer", "its authority isn't trusted; give it as ssl.ca"),
        (
            "UnsupportedCertVersion",
            "the server's certificate is of X.509 version 1; make a new one",
        ),
        (
            "not valid for any names",
            "the server's certificate has no subjectAltName; have it made with one, as its common \
             name is looked at no more",
        ),
        ("Expired", "the server's certificate has expired"),
        ("server does not support TLS", "leave ssl out, or say sslmode=disable"),
        ("InvalidContentType", "what answers there does not speak TLS as PostgreSQL does"),
    ];
    let hint = HINTS.iter().find(|(words, _)| text.contains(words));
    match hint {
        Some((_, hint)) => format!("the TLS connection failed: {text}: {hint}"),
        None => format!("the TLS connection failed: {text}"),
    }
}

/// Nobody was let in. Poolers report their own troubles with whatever SQLSTATE they like: what isn't
/// known to be final may pass.
fn of_refusal(error: &PgDatabaseError) -> Failure {
    let reason = match is_raised(error) {
        true => harmless_message(error),
        // Of no row: there was none yet.
        false => error.message().to_owned(),
    };
    let code = DatabaseCode::Sqlstate(error.code().to_owned());
    if is_final(error.code(), error.message()) {
        return Failure::refused(reason, Some(code));
    }
    let error = StoreError::Unavailable { timeout: None, reason, database_code: Some(code) };
    Failure { error, ..Failure::lost(String::new()) }
}

/// Whether a refusal to let us in would be the same the next time.
fn is_final(state: &str, message: &str) -> bool {
    /// Authentication, a missing database, a missing privilege, names and values at the start.
    const STATES: [&str; 6] = ["28", "3D", "42", "0A", "22", "F0"];
    /// In the words of PostgreSQL, PgBouncer, Supavisor, Neon's proxy, PgDog and pgcat, in lower case.
    const WORDINGS: [&str; 14] = [
        "authentication failed",
        "auth failed",
        "wrong password",
        "invalid password",
        "no such user",
        "no such database",
        "tenant or user not found",
        "(enotfound)",
        "does not exist",
        "endpoint could not be found",
        "endpoint id is not specified",
        "no pg_hba.conf entry",
        "unsupported startup parameter",
        "permission denied",
    ];
    let message = message.to_lowercase();
    STATES.iter().any(|class| state.starts_with(class))
        || WORDINGS.iter().any(|wording| message.contains(wording))
}

fn of_server(error: &PgDatabaseError) -> Failure {
    let is_fatal = matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic);
    // Poolers let one in, and look for a server when it is needed.
    if is_fatal && !is_shutdown(error) {
        return of_refusal(error);
    }
    let remedy = remedy(error.code());
    let is_connection_lost = is_shutdown(error);
    let constraint = error.constraint().map(ToOwned::to_owned);
    Failure {
        error: store_error(error, remedy),
        remedy,
        is_connection_lost,
        is_unanswered: false,
        constraint,
    }
}

fn is_shutdown(error: &PgDatabaseError) -> bool {
    matches!(error.code(), "57P01" | "57P02" | "57P03" | "57P05")
}

fn remedy(state: &str) -> Remedy {
    match state {
        // Read-only: a standby, or a primary that was one a moment ago.
        "25006" => Remedy::RetryElsewhere,
        // The server shuts down, crashed or starts; too many connections; a conflict with others.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" | "53300" | "40001" | "40P01" => {
            Remedy::Retry
        }
        // Connections, and poolers' own troubles.
        "58000" => Remedy::Retry,
        _ if state.starts_with("08") => Remedy::Retry,
        _ if is_no_fault_of_a_row(state) => Remedy::None,
        // A value, a constraint, a policy, or whatever somebody's trigger raised.
        _ => Remedy::Split,
    }
}

/// Logging in, names and the server's own troubles: the rows together fail as each would.
fn is_no_fault_of_a_row(state: &str) -> bool {
    ["25", "28", "3D", "3F", "58", "XX"].iter().any(|class| state.starts_with(class))
        || is_of_the_schema(state)
        || state == "42601"
}

fn is_of_the_schema(state: &str) -> bool {
    matches!(state, "42P01" | "42703")
}

fn store_error(error: &PgDatabaseError, remedy: Remedy) -> StoreError {
    let state = error.code();
    let database_code = DatabaseCode::Sqlstate(state.to_owned());
    if state == "53100" {
        return StoreError::Full { needed: None, database_code };
    }
    if matches!(remedy, Remedy::Retry | Remedy::RetryElsewhere) {
        let (reason, database_code) = (harmless_message(error), Some(database_code));
        return StoreError::Unavailable { timeout: None, reason, database_code };
    }
    if state == "22P05" {
        let message = "the database's encoding cannot hold a character of an id or a name; one in \
            UTF8 holds all"
            .to_owned();
        return StoreError::Database { message, database_code };
    }
    if state.starts_with("23") {
        return StoreError::Constraint { message: constraint_message(error), database_code };
    }
    StoreError::Database { message: harmless_message(error), database_code }
}

/// Whether it comes out of somebody's trigger, which may put whatever it likes into any field.
fn is_raised(error: &PgDatabaseError) -> bool {
    error.r#where().is_some()
}

/// The SDK tries an event again with the next index if the message says what SQLite's would.
fn constraint_message(error: &PgDatabaseError) -> String {
    if is_raised(error) {
        return harmless_message(error);
    }
    let table = error.table().unwrap_or("the table");
    let columns = error.detail().filter(|_| error.code() == "23505").and_then(unique_columns);
    match (columns, error.constraint(), error.column()) {
        (Some(columns), ..) => unique_message(table, &columns),
        (None, Some(constraint), _) => {
            format!("the constraint \"{constraint}\" of {table} refuses the row")
        }
        (None, None, Some(column)) => {
            format!("the column \"{column}\" of {table} refuses the row")
        }
        _ => format!("a constraint of {table} refuses the row"),
    }
}

/// In SQLite's words.
pub fn unique_message(table: &str, columns: &[&str]) -> String {
    let names: Vec<String> = columns.iter().map(|column| format!("{table}.{column}")).collect();
    format!("UNIQUE constraint failed: {}", names.join(", "))
}

/// The columns in `Key (session_id, event_index)=(…) already exists.`; never the values.
fn unique_columns(detail: &str) -> Option<Vec<&str>> {
    let (_, rest) = detail.split_once('(')?;
    let (columns, _) = rest.split_once(")=(")?;
    Some(columns.split(", ").collect())
}

/// What PostgreSQL says where it can't be quoting a value: about names and privileges, and of
/// itself.
fn harmless_message(error: &PgDatabaseError) -> String {
    let state = error.code();
    let is_about_names = state.starts_with("42") && state != "42601";
    let is_about_the_server = ["08", "25", "28", "3D", "40", "53", "55", "57", "58", "XX"]
        .iter()
        .any(|class| state.starts_with(class));
    if !is_raised(error) && (is_about_names || is_about_the_server) {
        return error.message().to_owned();
    }
    match error.column().filter(|_| !is_raised(error)) {
        Some(column) => format!("SQLSTATE {state}, in the column \"{column}\""),
        None => format!("SQLSTATE {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_that_passes_is_told_from_refusals() {
        for (state, expected) in [
            ("08006", Remedy::Retry),
            ("57P01", Remedy::Retry),
            ("57P03", Remedy::Retry),
            ("53300", Remedy::Retry),
            ("40001", Remedy::Retry),
            ("40P01", Remedy::Retry),
            ("25006", Remedy::RetryElsewhere),
            ("22P05", Remedy::Split),
            ("23505", Remedy::Split),
            ("28P01", Remedy::None),
            ("3D000", Remedy::None),
            ("42501", Remedy::Split),
            ("QU001", Remedy::Split),
            ("42P01", Remedy::None),
            ("57014", Remedy::Split),
            ("55P03", Remedy::Split),
            ("53100", Remedy::Split),
        ] {
            assert_eq!(remedy(state), expected, "{state}");
        }
    }

    #[test]
    fn a_refusal_that_is_known_to_stay_is_told_from_one_that_may_pass() {
        for (state, message, expected) in [
            ("28P01", "password authentication failed for user \"u\"", true),
            ("3D000", "database \"d\" does not exist", true),
            ("42501", "permission denied for database \"d\"", true),
            ("42704", "unrecognized configuration parameter \"x\"", true),
            // PgBouncer.
            ("08P01", "no such database: d", true),
            ("08P01", "no such user", true),
            ("08P01", "unsupported startup parameter: options", true),
            ("08P01", "server login failed: FATAL: password authentication failed", true),
            ("08P01", "pgbouncer cannot connect to server", false),
            ("08P01", "no more connections allowed (max_client_conn)", false),
            // Supavisor.
            ("XX000", "Tenant or user not found", true),
            ("XX000", "(ENOTFOUND) tenant/user postgres.x not found", true),
            ("XX000", "(EMAXCONNSESSION) max clients reached in session mode", false),
            ("XX000", "Max client connections reached", false),
            ("XX000", "{:badmatch, {:error, :timeout}}", false),
            // Neon's proxy.
            (
                "XX000",
                "The requested endpoint could not be found, or you don't have access to it.",
                true,
            ),
            ("XX000", "Endpoint ID is not specified. Either please upgrade the client", true),
            ("XX000", "Couldn't connect to compute node", false),
            // PgDog and pgcat.
            ("58000", "could not get connection from the pool - AllServersDown", false),
            ("58000", "connection pool is down", false),
            ("28000", "password for user \"u\" is wrong, or the database does not exist", true),
            // PostgreSQL itself.
            ("53300", "sorry, too many clients already", false),
            ("57P03", "the database system is starting up", false),
            ("55000", "database \"d\" is not currently accepting connections", false),
        ] {
            assert_eq!(is_final(state, message), expected, "{state} {message}");
        }
    }

    #[test]
    fn a_refused_certificate_comes_with_what_helps() {
        let failure = tls_failure("invalid peer certificate: UnknownIssuer");
        let expected = "the TLS connection failed: invalid peer certificate: UnknownIssuer: its \
            authority isn't trusted; give it as ssl.ca";
        assert_eq!(failure, expected);
        assert_eq!(tls_failure("odd"), "the TLS connection failed: odd");
    }

    #[test]
    fn the_columns_of_a_conflict_are_read_without_its_values() {
        let detail = "Key (session_id, event_index)=(a)=(b, 1) already exists.";
        assert_eq!(unique_columns(detail), Some(vec!["session_id", "event_index"]));
        assert_eq!(unique_columns("nothing of the kind"), None);
    }
}
