//! What node-postgres 8 makes of the same input, except where a test's name says otherwise.

use std::io;
use std::time::Duration;

use super::error::SettingsError;
use super::resolve::Timeouts;
use super::tls::ClientCertificate;
use super::*;

type Variables<'a> = &'a [(&'a str, &'a str)];

const CA: &str = "-----BEGIN CERTIFICATE----- of an authority";
const CERT: &str = "-----BEGIN CERTIFICATE----- of ours";
const KEY: &str = "-----BEGIN PRIVATE KEY-----";
const OPERATING_SYSTEM_USER: &str = "os-user";
const ALL_VARIABLES: Variables<'static> = &[
    ("PGHOST", "env-host"),
    ("PGPORT", "7777"),
    ("PGUSER", "env-user"),
    ("PGPASSWORD", "env-password"),
    ("PGDATABASE", "env-database"),
    ("PGAPPNAME", "env-app"),
    ("PGOPTIONS", "-c env=1"),
];

fn read_file(path: &str) -> io::Result<String> {
    match path {
        "/ca" => Ok(CA.to_owned()),
        "/cert" => Ok(CERT.to_owned()),
        "/key" => Ok(KEY.to_owned()),
        "/text" => Ok("no certificate".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn resolve_with(given: Given, variables: Variables<'_>) -> Result<Settings, SettingsError> {
    let environment = |name: &str| {
        let mut variables = variables.iter();
        let found = variables.find(|(known, _)| *known == name).map(|(_, value)| *value);
        let user = matches!(name, "USER" | "USERNAME").then_some(OPERATING_SYSTEM_USER);
        found.or(user).map(str::to_owned)
    };
    resolve(given, &environment, &read_file)
}

fn string(text: &str) -> Given {
    Given { connection_string: Some(text.into()), ..Given::default() }
}

fn of_string(text: &str) -> Settings {
    resolve_with(string(text), &[]).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error_of(given: Given, variables: Variables<'_>) -> String {
    resolve_with(given, variables).expect_err("refused").to_string()
}

fn error_of_string(text: &str) -> String {
    error_of(string(text), &[])
}

fn siblings() -> Given {
    Given {
        host: Some("its-host".to_owned()),
        port: Some(1111),
        user: Some("its-user".to_owned()),
        password: Some(text("its-password")),
        database: Some("its-database".to_owned()),
        ..Given::default()
    }
}

fn text(password: &str) -> Password {
    Password::Text(password.to_owned())
}

/// User, password, hosts and database, as they came out.
fn summary(settings: &Settings) -> String {
    let password = match &settings.password {
        Some(Password::Text(text)) => text,
        Some(Password::Function) => "<function>",
        None => "-",
    };
    let hosts: Vec<String> = settings
        .hosts
        .iter()
        .map(|host| match &host.address {
            Address::Tcp { host, port } => format!("{host}:{port}"),
            Address::Socket { folder, port } => format!("[{folder}]:{port}"),
        })
        .collect();
    format!("{} {password} {} {}", settings.user, hosts.join(","), settings.database)
}

fn full(roots: &[&str]) -> Tls {
    Tls::Full { roots: roots.iter().copied().map(str::to_owned).collect(), client: None }
}

fn client() -> Option<ClientCertificate> {
    Some(ClientCertificate { certificate: CERT.to_owned(), key: KEY.into() })
}

#[test]
fn connection_strings_are_read_as_node_postgres_does() {
    for (given, expected) in [
        ("postgres://u:p@h:1234/db", "u p h:1234 db"),
        ("postgresql://u:p@h/db", "u p h:5432 db"),
        ("POSTGRES://u:p@H/db", "u p H:5432 db"),
        ("pg://u:p@h/db", "u p h:5432 db"),
        ("postgresql+psycopg2://u:p@h/db", "u p h:5432 db"),
        ("postgres://h", "os-user - h:5432 os-user"),
        ("postgres://u@h/", "u - h:5432 u"),
        ("postgres:///db", "os-user - localhost:5432 db"),
        ("postgres://u:p@/db", "u p localhost:5432 db"),
        ("\n postgres://u:p@h/db\n", "u p h:5432 db"),
        ("postgres://u:p@h/a/b?user=x&password=y&port=7#z", "x y h:7 a/b"),
        // Escapes.
        ("postgres://u:p%40%2F%3A@h/db", "u p@/: h:5432 db"),
        ("postgres://%C3%BC:p@h/%C3%BC", "ü p h:5432 ü"),
        ("postgres://u:p%zz@h/db", "u p%zz h:5432 db"),
        ("postgres://u:100%@h/db", "u 100% h:5432 db"),
        ("postgres://u:%%41@h/db", "u %A h:5432 db"),
        ("postgres://u:p w@h/d b", "u p w h:5432 d b"),
        ("postgres://u:%41%2F w@h/db", "u A%2F w h:5432 db"),
        ("postgres://u:p@ss:w@h/db", "u p@ss:w h:5432 db"),
        ("postgres://u:p+q@h/d+b", "u p+q h:5432 d+b"),
        ("postgres://u:p@h/a%2Fb%20c", "u p h:5432 a%2Fb c"),
        ("postgres://u:p@h/a@b", "u p h:5432 a@b"),
        ("socket:/a@b?db=x", "os-user - [/a@b]:5432 x"),
        // IPv6.
        ("postgres://u:p@[::1]:5433/db", "u p ::1:5433 db"),
        ("postgres://u:p w@[::1]/db", "u p w ::1:5432 db"),
        // Sockets.
        ("socket:/a/folder?db=x&encoding=utf8", "os-user - [/a/folder]:5432 x"),
        ("socket:/a folder/?db=x", "os-user - [/a folder/]:5432 x"),
        ("socket://u:p@/folder?db=x", "u p [/folder]:5432 x"),
        ("/a/folder db", "os-user - [/a/folder]:5432 db"),
        ("/a/folder", "os-user - [/a/folder]:5432 os-user"),
        ("postgres://u:p@%2Fvar%2Frun:5433/db", "u p [/var/run]:5433 db"),
        ("postgres://u:p@/db?host=/var/run", "u p [/var/run]:5432 db"),
        ("postgres://h:1/db?host=x&port=2", "os-user - x:2 db"),
        ("", "os-user - localhost:5432 os-user"),
    ] {
        assert_eq!(summary(&of_string(given)), expected, "{given}");
    }
}

#[test]
fn a_part_of_a_password_is_not_taken_for_the_host() {
    for given in [
        "postgres://u:p@secret#x@h/db",
        "postgres://u:1/secret@h/db",
        "postgres://u:1?secret@h/db",
        "postgres://u:1?a=b&secret@h/db",
    ] {
        let error = resolve_with(string(given), &[]).err().unwrap().to_string();
        assert!(error.contains("percent-encoded"), "{given}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn hosts_are_listed_as_in_libpq() {
    for (given, variables, expected) in [
        ("postgres://u:p@h1:1,h2,h3:3/db", &[][..], "u p h1:1,h2:5432,h3:3 db"),
        ("postgres://h1,h2", &[], "os-user - h1:5432,h2:5432 os-user"),
        ("postgres://h1,h2/db", &[("PGPORT", "9")], "os-user - h1:9,h2:9 db"),
        ("postgres://u:a,b@[::1]:1,%2Ftmp:2/db", &[], "u a,b ::1:1,[/tmp]:2 db"),
        ("postgres:///db?host=h1,h2&port=1,2", &[], "os-user - h1:1,h2:2 db"),
        ("postgres:///db?host=h1,h2&port=9", &[], "os-user - h1:9,h2:9 db"),
        (
            "postgres:///db?host=h1,,/tmp&port=1,,3",
            &[],
            "os-user - h1:1,localhost:5432,[/tmp]:3 db",
        ),
        ("", &[("PGHOST", "h1,h2"), ("PGPORT", "1, 2")], "os-user - h1:1,h2:2 os-user"),
    ] {
        let settings = resolve_with(string(given), variables).unwrap();
        assert_eq!(summary(&settings), expected, "{given}");
    }
}

#[test]
fn the_connection_string_comes_before_options_and_they_before_the_environment() {
    let with_siblings = |text: &str| Given { connection_string: Some(text.into()), ..siblings() };
    for (given, variables, expected) in [
        (Given::default(), ALL_VARIABLES, "env-user env-password env-host:7777 env-database"),
        (siblings(), ALL_VARIABLES, "its-user its-password its-host:1111 its-database"),
        (with_siblings("postgres://u:p@h:1/db"), ALL_VARIABLES, "u p h:1 db"),
        // What the string leaves empty is hidden from the options, too.
        (with_siblings("postgres://h"), ALL_VARIABLES, "env-user env-password h:7777 env-database"),
        (with_siblings("/f"), ALL_VARIABLES, "its-user its-password [/f]:1111 env-database"),
        (with_siblings("socket:/f?db=x"), ALL_VARIABLES, "env-user env-password [/f]:1111 x"),
        (
            Given { port: Some(0), host: Some(String::new()), ..Given::default() },
            ALL_VARIABLES,
            "env-user env-password env-host:7777 env-database",
        ),
    ] {
        assert_eq!(
            summary(&resolve_with(given.clone(), variables).unwrap()),
            expected,
            "{given:?}"
        );
    }
}

#[test]
fn hidden_options_are_warned_of() {
    let given = Given {
        connection_string: Some("postgres://u:p@h?sslmode=require".into()),
        ssl: Some(Ssl::With {
            reject_unauthorized: false,
            ca: Vec::new(),
            cert: None,
            key: None,
            servername: None,
        }),
        ..siblings()
    };
    assert_eq!(
        resolve_with(given, &[]).unwrap().warnings,
        [
            "options that have no effect beside connectionString, as in node-postgres: poolConfig.port, poolConfig.database, poolConfig.ssl"
        ]
    );
}

#[test]
fn a_password_option_serves_a_connection_string_without_one() {
    let given = |password| Given {
        connection_string: Some("postgres://u@h/db".into()),
        password: Some(password),
        ..Given::default()
    };
    let password =
        |given, variables| resolve_with(given, variables).expect("settings").password.unwrap();
    assert_eq!(password(given(Password::Function), &[]), Password::Function);
    assert_eq!(password(given(text("x")), &[]), text("x"));
    assert_eq!(password(given(text("x")), ALL_VARIABLES), text("env-password"));
    let function = Given { password: Some(Password::Function), ..Given::default() };
    assert_eq!(password(function, ALL_VARIABLES), Password::Function);
}

#[test]
fn tls_of_connection_strings() {
    let unverified = Tls::Unverified { client: None };
    for (parameters, expected) in [
        ("", Tls::Off),
        ("ssl=true", full(&[])),
        ("ssl=1", full(&[])),
        ("ssl=0", Tls::Off),
        ("ssl=", Tls::Off),
        ("ssl=no-verify", unverified.clone()),
        ("sslmode=disable", Tls::Off),
        ("sslmode=disable&ssl=1&sslrootcert=/missing", Tls::Off),
        ("sslmode=prefer", full(&[])),
        ("sslmode=require&ssl=0", full(&[])),
        ("sslmode=verify-ca", full(&[])),
        ("sslmode=verify-full", full(&[])),
        ("sslmode=no-verify", unverified.clone()),
        ("sslmode=misspelt", full(&[])),
        ("sslrootcert=/ca", full(&[CA])),
        ("sslcert=/cert&sslkey=/key", Tls::Full { roots: Vec::new(), client: client() }),
        ("sslcert=/cert&sslkey=/key&sslmode=no-verify", Tls::Unverified { client: client() }),
        ("sslnegotiation=direct", full(&[])),
        ("uselibpqcompat=true", Tls::Off),
        ("uselibpqcompat=1&sslmode=require", full(&[])),
        ("uselibpqcompat=true&sslmode=disable", Tls::Off),
        ("uselibpqcompat=true&sslmode=prefer", unverified.clone()),
        ("uselibpqcompat=true&sslmode=require", unverified.clone()),
        ("uselibpqcompat=true&sslmode=require&sslrootcert=/ca", full(&[CA])),
        ("uselibpqcompat=true&sslmode=verify-ca&sslrootcert=/ca", full(&[CA])),
        ("uselibpqcompat=true&sslmode=verify-full&sslrootcert=/ca", full(&[CA])),
    ] {
        let given = string(&format!("postgres://h/db?{parameters}"));
        assert_eq!(resolve_with(given, &[]).unwrap().tls, expected, "{parameters}");
    }
}

#[test]
fn ssl_false_is_off_where_node_postgres_breaks() {
    assert_eq!(of_string("postgres://h/db?ssl=false").tls, Tls::Off);
}

#[test]
fn tls_of_options_and_of_the_environment() {
    let with = |reject_unauthorized, ca: &[&str]| Ssl::With {
        reject_unauthorized,
        ca: ca.iter().copied().map(str::to_owned).collect(),
        cert: Some(CERT.to_owned()),
        key: Some(KEY.into()),
        servername: None,
    };
    for (ssl, mode, expected) in [
        (None, "disable", Tls::Off),
        (None, "require", full(&[])),
        (None, "no-verify", Tls::Unverified { client: None }),
        (None, "allow", Tls::Off),
        (None, "", Tls::Off),
        (Some(Ssl::Off), "require", Tls::Off),
        (Some(Ssl::On), "disable", full(&[])),
        (Some(with(false, &[CA])), "", Tls::Unverified { client: client() }),
        (
            Some(with(true, &[CA, ""])),
            "",
            Tls::Full { roots: vec![CA.to_owned()], client: client() },
        ),
    ] {
        let given = Given { ssl: ssl.clone(), ..Given::default() };
        let settings = resolve_with(given, &[("PGSSLMODE", mode)]).unwrap();
        assert_eq!(settings.tls, expected, "{ssl:?} {mode}");
    }
    let hidden = resolve_with(string("postgres://h?ssl=0"), &[("PGSSLMODE", "require")]);
    assert_eq!(hidden.unwrap().tls, Tls::Off);
}

#[test]
fn node_extra_ca_certs_is_trusted_where_everything_is_verified() {
    let tls = |parameters: &str, file| {
        let given = string(&format!("postgres://h?{parameters}"));
        let settings = resolve_with(given, &[("NODE_EXTRA_CA_CERTS", file)]).unwrap();
        (settings.tls, settings.warnings)
    };
    assert_eq!(tls("ssl=1", "/ca"), (full(&[CA]), Vec::new()));
    let (_, warnings) = tls("ssl=1", "/missing");
    assert_eq!(
        warnings,
        ["NODE_EXTRA_CA_CERTS has no effect: its file can't be read (entity not found)"]
    );
    assert_eq!(tls("ssl=0", "/missing"), (Tls::Off, Vec::new()));
    let (verify_ca, _) = tls("uselibpqcompat=true&sslmode=verify-ca&sslrootcert=/ca", "/cert");
    assert_eq!(verify_ca, full(&[CA, CERT]));
}

#[test]
fn target_sessions_have_libpqs_names() {
    for (name, expected) in [
        ("any", TargetSession::Any),
        ("read-write", TargetSession::ReadWrite),
        ("read-only", TargetSession::ReadOnly),
        ("primary", TargetSession::Primary),
        ("standby", TargetSession::Standby),
        ("prefer-standby", TargetSession::PreferStandby),
    ] {
        let of_string = of_string(&format!("postgres://h?target_session_attrs={name}"));
        assert_eq!(of_string.target, expected);
        let of_variable = resolve_with(Given::default(), &[("PGTARGETSESSIONATTRS", name)]);
        assert_eq!(of_variable.unwrap().target, expected);
    }
    assert_eq!(of_string("postgres://h").target, TargetSession::Any);
}

#[test]
fn timeouts_and_names() {
    let settings = of_string(
        "postgres://h?statement_timeout=1&lock_timeout=2&idle_in_transaction_session_timeout=3&query_timeout=4&application_name=a+b&options=-c%20x%3Dy&client_encoding=utf-8",
    );
    assert_eq!(settings.timeouts.statement, Some(Duration::from_millis(1)));
    assert_eq!(settings.timeouts.lock, Some(Duration::from_millis(2)));
    assert_eq!(settings.timeouts.idle_in_transaction, Some(Duration::from_millis(3)));
    assert_eq!(settings.timeouts.query, Some(Duration::from_millis(4)));
    assert_eq!(settings.application_name.as_deref(), Some("a b"));
    assert_eq!(settings.options.as_deref(), Some("-c x=y"));
    assert!(settings.warnings.is_empty());

    let off = of_string("postgres://h?statement_timeout=0&query_timeout=0").timeouts;
    assert_eq!(off, Timeouts { statement: Some(Duration::ZERO), ..Timeouts::default() });
    let given = Given { statement_timeout_ms: Some(0), ..Given::default() };
    assert_eq!(resolve_with(given, &[]).unwrap().timeouts, Timeouts::default());
}

#[test]
fn the_fallback_name_serves_when_nobody_gives_another() {
    let name = |own: Option<&str>, variables| {
        let given = Given {
            application_name: own.map(str::to_owned),
            fallback_application_name: Some("fallback".to_owned()),
            ..Given::default()
        };
        resolve_with(given, variables).unwrap().application_name.unwrap()
    };
    assert_eq!(name(Some("own"), ALL_VARIABLES), "own");
    assert_eq!(name(None, ALL_VARIABLES), "env-app");
    assert_eq!(name(None, &[]), "fallback");
}

#[test]
fn pool_limits_have_the_defaults_of_pg_pool() {
    let defaults = PoolLimits {
        max: 10,
        min: 0,
        idle_timeout: Some(Duration::from_secs(10)),
        connection_timeout: None,
        max_lifetime: None,
        max_uses: None,
    };
    assert_eq!(resolve_with(Given::default(), &[]).unwrap().pool, defaults);
    let given = Given {
        max: Some(2),
        min: Some(3),
        idle_timeout_ms: Some(0),
        connection_timeout_ms: Some(0),
        max_lifetime_s: Some(0),
        max_uses: Some(0),
        ..Given::default()
    };
    let limits = PoolLimits { max: 2, min: 2, idle_timeout: None, ..defaults };
    assert_eq!(resolve_with(given, &[("PGCONNECT_TIMEOUT", "5")]).unwrap().pool, limits);
}

#[test]
fn connect_timeout_is_read_as_libpq_does() {
    for (parameters, option_ms, variable, expected_ms) in [
        ("", None, "", None),
        ("", None, "5", Some(5_000)),
        ("", Some(1_500), "5", Some(1_500)),
        ("connect_timeout=3", Some(1_500), "5", Some(3_000)),
        ("connect_timeout=0", Some(1_500), "5", None),
        ("connect_timeout=-1", None, "5", None),
    ] {
        let given = Given {
            connection_timeout_ms: option_ms,
            ..string(&format!("postgres://h?{parameters}"))
        };
        let pool = resolve_with(given, &[("PGCONNECT_TIMEOUT", variable)]).unwrap().pool;
        assert_eq!(pool.connection_timeout, expected_ms.map(Duration::from_millis), "{parameters}");
    }
}

#[test]
fn keep_alive_is_off_unless_asked_for() {
    let keep_alive = |keep_alive, keep_alive_initial_delay_ms| {
        let given = Given { keep_alive, keep_alive_initial_delay_ms, ..Given::default() };
        resolve_with(given, &[]).unwrap().keep_alive
    };
    assert_eq!(keep_alive(None, Some(5)), None);
    assert_eq!(keep_alive(Some(false), Some(5)), None);
    assert_eq!(keep_alive(Some(true), None), Some(Duration::ZERO));
    assert_eq!(keep_alive(Some(true), Some(5)), Some(Duration::from_millis(5)));
}

#[test]
fn parameters_without_effect_are_one_warning() {
    for (parameters, expected) in [
        ("pgbouncer=true&channel_binding=prefer&pgbouncer=1", "pgbouncer, channel_binding"),
        ("database=x&pgbouncer", "database, 1 not shown"),
        ("rest=of-a-password@h/db", "1 not shown"),
        ("x=1&password=a&b=secret&c", "x, 2 not shown"),
    ] {
        assert_eq!(
            of_string(&format!("postgres://h/db?{parameters}")).warnings,
            [format!("parameters of connectionString that have no effect: {expected}")]
        );
    }
    assert_eq!(of_string("postgres://h?sslmode=misspelt").warnings.len(), 1);
    assert_eq!(of_string("postgres://h?sslnegotiation=direct").warnings.len(), 1);
}

#[test]
fn errors_name_the_field() {
    for (given, expected) in [
        ("mydb", "connectionString must be a postgres:// or postgresql:// URL"),
        ("host=h dbname=x", "connectionString must be a postgres:// or postgresql:// URL"),
        ("localhost:5432/db", "connectionString must be a postgres:// or postgresql:// URL"),
        ("//u:p@h/db", "connectionString must be a postgres:// or postgresql:// URL"),
        ("postgres:db", "connectionString must be a postgres:// or postgresql:// URL"),
        ("postgres://h:99999/db", "connectionString must be a postgres:// or postgresql:// URL"),
        ("postgres://h1:x,h2/db", "connectionString must be a postgres:// or postgresql:// URL"),
        ("postgres://u:%FF@h/db", "connectionString must be free of broken %-escapes"),
        ("postgres://u:p@h/db%", "connectionString must be free of broken %-escapes"),
        ("postgres://u:%00@h/db", "connectionString's password must be without U+0000"),
        ("postgres://h:0/db", "connectionString's port must be a whole number from 1 to 65535"),
        ("postgres://h?port=5432x", "connectionString's port must be a whole number"),
        ("postgres://h?port=1,2", "connectionString's port must be one port, or one for each host"),
        ("postgres://h?ssl=maybe", "connectionString's ssl must be true, false, 1, 0 or no-verify"),
        ("postgres://h?sslcert=/cert", "connectionString's sslcert and sslkey must be given as"),
        (
            "postgres://h?sslrootcert=/missing",
            "connectionString's sslrootcert names a file that can't be read: there is none of that name",
        ),
        (
            "postgres://h?sslrootcert=/text",
            "connectionString's sslrootcert must be the name of a file in PEM",
        ),
        (
            "postgres://h?uselibpqcompat=true&sslmode=verify-ca",
            "connectionString's sslmode must be verify-full where sslrootcert is missing",
        ),
        ("postgres://h?sslnegotiation=x", "connectionString's sslnegotiation must be postgres or"),
        (
            "postgres://h?ssl=0&sslnegotiation=direct",
            "connectionString's sslnegotiation must be postgres where TLS is off",
        ),
        (
            "postgres://h?target_session_attrs=x",
            "connectionString's target_session_attrs must be any,",
        ),
        ("postgres://h?client_encoding=latin1", "connectionString's client_encoding must be UTF8"),
        (
            "postgres://h?statement_timeout=5s",
            "connectionString's statement_timeout must be a whole",
        ),
        (
            "postgres://h?connect_timeout=x",
            "connectionString's connect_timeout must be a whole number",
        ),
    ] {
        let error = error_of_string(given);
        assert!(error.starts_with(expected), "{given}: {error}");
    }
}

#[test]
fn another_programs_url_is_refused() {
    for url in [
        "mysql://u:p@h/db",
        "mongodb+srv://u:p@h/db",
        "http://h/db",
        "file:///a.db",
        "sqlite://a.db",
        "prisma+postgres://h/?api_key=k",
    ] {
        let expected = "connectionString must be a postgres:// or postgresql:// URL: this one is \
            another program's";
        assert_eq!(error_of_string(url), expected, "{url}");
    }
}

#[test]
fn a_host_that_nobody_named_is_known_for_it() {
    assert!(of_string("postgres:///db").is_default_host);
    assert!(!of_string("postgres://localhost/db").is_default_host);
    let by_variable = resolve_with(Given::default(), &[("USER", "u"), ("PGHOST", "h")]);
    assert!(!by_variable.unwrap().is_default_host);
}

#[test]
fn errors_name_the_option_or_the_variable() {
    let with = |servername: Option<&str>, cert: Option<&str>| Given {
        ssl: Some(Ssl::With {
            reject_unauthorized: true,
            ca: Vec::new(),
            cert: cert.map(str::to_owned),
            key: None,
            servername: servername.map(str::to_owned),
        }),
        ..siblings()
    };
    for (given, variables, expected) in [
        (Given { max: Some(0), ..Given::default() }, &[][..], "poolConfig.max must be at least 1"),
        (with(Some("other"), None), &[], "poolConfig.ssl.servername must be the host's own name"),
        (
            with(None, Some("C")),
            &[],
            "poolConfig.ssl.cert and poolConfig.ssl.key must be given as a",
        ),
        (
            Given { client_encoding: Some("SQL_ASCII".to_owned()), ..Given::default() },
            &[],
            "poolConfig.client_encoding must be UTF8",
        ),
        (
            Given { statement_timeout_ms: Some(u64::MAX), ..Given::default() },
            &[],
            "poolConfig.statement_timeout must be a whole number",
        ),
        (
            Given { password: Some(text("a\0b")), ..Given::default() },
            &[],
            "poolConfig.password must be without U+0000",
        ),
        (Given::default(), &[("PGPORT", "abc")], "PGPORT must be a whole number from 1 to 65535"),
        (Given::default(), &[("PGPORT", "1,2")], "PGPORT must be one port, or one for each host"),
        (Given::default(), &[("PGTARGETSESSIONATTRS", "x")], "PGTARGETSESSIONATTRS must be any,"),
        (
            Given::default(),
            &[("PGCONNECT_TIMEOUT", "x")],
            "PGCONNECT_TIMEOUT must be a whole number",
        ),
        (Given::default(), &[("USER", ""), ("USERNAME", "")], "no user to connect as"),
    ] {
        let error = error_of(given, variables);
        assert!(error.starts_with(expected), "{expected}: {error}");
    }
    assert!(resolve_with(with(Some("ITS-host"), None), &[]).is_ok());
}

#[test]
fn nothing_prints_a_secret() {
    let given = Given {
        connection_string: Some("postgres://u:hush-1@h/db?ssl=1".into()),
        password: Some(text("hush-2")),
        ssl: Some(Ssl::With {
            reject_unauthorized: true,
            ca: Vec::new(),
            cert: Some("C".to_owned()),
            key: Some("hush-3".into()),
            servername: None,
        }),
        ..Given::default()
    };
    assert!(!format!("{given:?}").contains("hush"));
    let own = Given { connection_string: None, ..given.clone() };
    for given in [given, own] {
        let settings = resolve_with(given, &[]).unwrap();
        assert!(!format!("{settings:?}").contains("hush"));
    }
}

#[test]
fn addresses_are_shown_as_one_would_write_them() {
    for (given, expected) in [
        ("postgres://h:1", "h:1"),
        ("postgres://[::1]:1", "[::1]:1"),
        ("/folder", "/folder/.s.PGSQL.5432"),
    ] {
        assert_eq!(of_string(given).hosts[0].address.to_string(), expected);
    }
}

#[test]
fn only_timeouts_that_are_asked_for_are_set() {
    let sql = |text| of_string(text).timeouts_sql("LOCAL");
    assert_eq!(sql("postgres://h?query_timeout=1"), "");
    assert_eq!(
        sql("postgres://h?statement_timeout=5&lock_timeout=0"),
        "SET LOCAL statement_timeout = 5; SET LOCAL lock_timeout = 0; "
    );
}

proptest::proptest! {
    #[test]
    fn any_connection_string_is_read_without_a_panic(text in ".*") {
        let _ = resolve_with(string(&text), &[]);
    }

    #[test]
    fn anything_like_a_connection_string_is_read_without_a_panic(
        text in "(postgres|socket|http|x)?:?/{0,3}([a%2F0:@,\\[\\]]{0,9}@)?([h\\[:1,%\\]]{0,9})/?[%a-z ]{0,4}(\\?[a-z=&%,]{0,20})?",
    ) {
        let _ = resolve_with(string(&text), &[]);
    }

    #[test]
    fn no_error_nor_warning_repeats_a_password(
        password in "[#-~]{0,4}HUSH[!-~]{0,4}",
        host in "h|h1:1,h2|h:x|\\[::1\\]|\\[:|",
        tail in "|/db|/d%|\\?port=x|\\?ssl=x|/db\\?sslcert=/x",
    ) {
        for text in [
            format!("postgres://u:{password}@{host}{tail}"),
            format!("postgres://{host}/db?password={password}"),
            format!("u:{password}@{host}{tail}"),
        ] {
            let printed = match resolve_with(string(&text), &[]) {
                Ok(settings) => settings.warnings.join("\n"),
                Err(error) => format!("{error} {error:?}"),
            };
            proptest::prop_assert!(!printed.contains("HUSH"), "{} {}", text, printed);
        }
    }

    #[test]
    fn an_escaped_password_comes_back_whole(password in "[^\0]+") {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        let escaped = utf8_percent_encode(&password, NON_ALPHANUMERIC);
        let settings = of_string(&format!("postgres://u:{escaped}@h1:1,h2:2/db"));
        proptest::prop_assert_eq!(settings.password, Some(text(&password)));
        proptest::prop_assert_eq!(settings.hosts.len(), 2);
    }
}
