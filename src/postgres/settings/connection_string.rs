//! Connection strings as node-postgres 8 reads them, plus libpq's lists of hosts.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::error::SettingsError;

/// The field's name in errors.
const CONNECTION_STRING: &str = "connectionString";
const EXPECTED_FORM: &str = "a postgres:// or postgresql:// URL, with a port up to 65535 and a \
    percent-encoded password, socket:/folder?db=name, or a folder and a database";
const EXPECTED_SCHEME: &str = "a postgres:// or postgresql:// URL: this one is another program's";
const EXPECTED_ESCAPES: &str = "free of broken %-escapes in its user, password, host and database";
const EXPECTED_CREDENTIALS: &str =
    "a URL whose password is percent-encoded: an @ follows what was read as its host";

/// What stands for a host that isn't read from the URL itself. In URLs that aren't a
/// browser's any name will do.
const PLACEHOLDER_HOST: &str = "_";

/// What JavaScript's `encodeURI` escapes, save brackets: they belong to IPv6 addresses.
const ESCAPED_BY_ENCODE_URI: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b';')
    .remove(b',')
    .remove(b'/')
    .remove(b'?')
    .remove(b':')
    .remove(b'@')
    .remove(b'&')
    .remove(b'=')
    .remove(b'+')
    .remove(b'$')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'#')
    .remove(b'[')
    .remove(b']');

/// What JavaScript's `decodeURI` leaves escaped.
const KEPT_BY_DECODE_URI: &[u8] = b";/?:@&=+$,#";

/// What node-postgres is given beside `postgres`, which it takes for the same as any other scheme:
/// shorter names, those of other languages' libraries, and of servers that speak the protocol.
const SCHEMES: [&str; 11] = [
    "postgres",
    "postgresql",
    "pg",
    "pgsql",
    "psql",
    "postgis",
    "cockroach",
    "cockroachdb",
    "redshift",
    "timescaledb",
    "yugabyte",
];

/// Every parameter that means something, here or to node-postgres.
const KNOWN_PARAMETERS: [&str; 23] = [
    "user",
    "password",
    "host",
    "port",
    "ssl",
    "sslmode",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslnegotiation",
    "uselibpqcompat",
    "application_name",
    "fallback_application_name",
    "options",
    "client_encoding",
    "encoding",
    "db",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "query_timeout",
    "connect_timeout",
    "target_session_attrs",
];

/// A name longer than this in a warning would rather be something else.
const MAX_NAME_BYTES: usize = 40;

/// The fields of a connection string, by the names of its parameters. A field that is
/// here without a value hides `poolConfig`'s all the same.
#[derive(Clone, Default)]
pub(super) struct Fields {
    by_name: BTreeMap<String, String>,
    unknown: Unknown,
}

/// Parameters that mean nothing here. A name that may be part of a password is only counted.
#[derive(Clone, Default)]
struct Unknown {
    names: Vec<String>,
    unnamed: usize,
}

impl Fields {
    /// Reads a connection string.
    pub(super) fn parse(text: &str) -> Result<Self, SettingsError> {
        let text = text.trim_start_matches(|first: char| first <= ' ');
        if text.starts_with('/') && !text.starts_with("//") {
            return Ok(Self::of_folder(text));
        }
        let text = escape_as_node_postgres_does(text);
        let (text, list) = match take_host_list(&text) {
            Some((text, list)) => (text, Some(list)),
            None => (text, None),
        };
        let (url, has_host) = parse_url(&text)?;
        if has_rest_of_password(&url) {
            return Err(SettingsError::expected(CONNECTION_STRING, EXPECTED_CREDENTIALS));
        }
        if url.scheme() != "socket" && !is_of_postgres(url.scheme()) {
            return Err(SettingsError::expected(CONNECTION_STRING, EXPECTED_SCHEME));
        }
        let mut fields = Self::of_parameters(&url);
        fields.set_if_empty("user", || decode_component(url.username()))?;
        fields.set_if_empty("password", || decode_component(url.password().unwrap_or_default()))?;
        if url.scheme() == "socket" {
            fields.read_socket(&url)?;
        } else {
            fields.read_server(&url, has_host, list.as_deref())?;
        }
        Ok(fields)
    }

    /// The value, `Some("")` where the field is there and empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(String::as_str)
    }

    /// The value, unless it is empty.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// One line about the parameters that mean nothing here, if there are any.
    pub(super) fn warning(&self) -> Option<String> {
        let Unknown { names, unnamed } = &self.unknown;
        let mut parts = names.clone();
        if *unnamed > 0 {
            parts.push(format!("{unnamed} not shown"));
        }
        (!parts.is_empty()).then(|| {
            format!("parameters of connectionString that have no effect: {}", parts.join(", "))
        })
    }

    /// `/folder database`.
    fn of_folder(text: &str) -> Self {
        let mut words = text.split(' ');
        let mut fields = Self::default();
        fields.set("host", words.next().unwrap_or_default().to_owned());
        fields.set("database", words.next().unwrap_or_default().to_owned());
        fields
    }

    fn of_parameters(url: &Url) -> Self {
        let mut fields = Self::default();
        // Behind a password with a raw `?` or `&`, a name may be the rest of the password.
        let mut may_be_secret = url.query().is_some_and(|query| query.contains('@'));
        for (name, value) in url.query_pairs() {
            if KNOWN_PARAMETERS.contains(&name.as_ref()) {
                may_be_secret |= name == "password";
                fields.set(&name, value.into_owned());
            } else {
                let is_plain = !may_be_secret && !value.is_empty() && is_plain_name(&name);
                fields.unknown.add(&name, is_plain);
            }
        }
        fields
    }

    /// `socket:/folder?db=name&encoding=utf8`.
    fn read_socket(&mut self, url: &Url) -> Result<(), SettingsError> {
        self.set("host", decode_uri(url.path())?);
        self.set("database", self.get("db").unwrap_or_default().to_owned());
        self.set("client_encoding", self.get("encoding").unwrap_or_default().to_owned());
        Ok(())
    }

    /// What is between the credentials and the parameters. `list` is what was cut out.
    fn read_server(
        &mut self,
        url: &Url,
        has_host: bool,
        list: Option<&str>,
    ) -> Result<(), SettingsError> {
        let (host, port) = match list {
            Some(list) => read_host_list(list)?,
            None if has_host => read_host(url)?,
            None => (String::new(), String::new()),
        };
        self.set_if_empty("host", || Ok(host))?;
        self.set_if_empty("port", || Ok(port))?;
        let path = url.path();
        self.set("database", decode_uri(path.strip_prefix('/').unwrap_or(path))?);
        Ok(())
    }

    fn set(&mut self, name: &str, value: String) {
        self.by_name.insert(name.to_owned(), value);
    }

    fn set_if_empty(
        &mut self,
        name: &str,
        value: impl FnOnce() -> Result<String, SettingsError>,
    ) -> Result<(), SettingsError> {
        if self.value(name).is_none() {
            self.set(name, value()?);
        }
        Ok(())
    }
}

impl Unknown {
    fn add(&mut self, name: &str, is_plain: bool) {
        if !is_plain {
            self.unnamed += 1;
        } else if !self.names.iter().any(|known| known == name) {
            self.names.push(name.to_owned());
        }
    }
}

/// Whether it looks like a parameter's name.
fn is_plain_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Where there is a space or a `%` that begins no escape, node-postgres escapes the whole
/// text, then takes that back for escapes of two decimal digits.
fn escape_as_node_postgres_does(text: &str) -> String {
    if !text.contains(' ') && !has_raw_percent(text) {
        return text.to_owned();
    }
    let escaped = utf8_percent_encode(text, ESCAPED_BY_ENCODE_URI).to_string();
    let mut parts = escaped.split("%25");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut next = part.bytes();
        let is_decimal = [next.next(), next.next()]
            .iter()
            .all(|byte| byte.is_some_and(|byte| byte.is_ascii_digit()));
        result.push_str(if is_decimal { "%" } else { "%25" });
        result.push_str(part);
    }
    result
}

/// At the end of the text a torn escape doesn't count, as in node-postgres.
fn has_raw_percent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let begins_no_escape =
        |at: usize| bytes[at + 1..].iter().take(2).any(|byte| !byte.is_ascii_hexdigit());
    text.match_indices('%').any(|(at, _)| begins_no_escape(at))
}

/// Cuts a list of hosts out: URLs know only one. What remains has a placeholder there.
fn take_host_list(text: &str) -> Option<(String, String)> {
    let (scheme, rest) = text.split_once("//")?;
    if scheme.contains(['/', '?', '#']) {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (credentials, hosts) = match authority.rfind('@') {
        Some(at) => authority.split_at(at + 1),
        None => ("", authority),
    };
    let without = || format!("{scheme}//{credentials}{PLACEHOLDER_HOST}{tail}");
    hosts.contains(',').then(|| (without(), hosts.to_owned()))
}

/// The URL, and whether its host is the user's. Credentials without a host are no URL:
/// node-postgres then reads it with a dummy.
fn parse_url(text: &str) -> Result<(Url, bool), SettingsError> {
    let invalid = || SettingsError::expected(CONNECTION_STRING, EXPECTED_FORM);
    let base = Url::parse("postgres://base").expect("a URL");
    let parser = Url::options().base_url(Some(&base));
    let (url, has_host) = match parser.parse(text) {
        Ok(url) => (url, true),
        Err(_) => {
            let with_dummy = text.replacen("@/", &format!("@{PLACEHOLDER_HOST}/"), 1);
            (parser.parse(&with_dummy).map_err(|_| invalid())?, false)
        }
    };
    if has_scheme(text) && !url.cannot_be_a_base() { Ok((url, has_host)) } else { Err(invalid()) }
}

/// Whether a password with a raw `#`, `/` or `?` ended the host too early: a part of it was then
/// taken for the host, which errors show.
fn has_rest_of_password(url: &Url) -> bool {
    let has_credentials = !url.username().is_empty() || url.password().is_some();
    let names = url.query().unwrap_or_default().split('&');
    let mut names = names.map(|pair| pair.split('=').next().unwrap_or_default());
    let is_in_path = !has_credentials && url.path().contains('@');
    let is_in_fragment = url.fragment().is_some_and(|fragment| fragment.contains('@'));
    url.scheme() != "socket"
        && (is_in_path || is_in_fragment || names.any(|name| name.contains('@')))
}

fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// Whether it is a scheme of PostgreSQL's, as also in `postgresql+driver`.
fn is_of_postgres(scheme: &str) -> bool {
    SCHEMES.contains(&scheme.split('+').next().unwrap_or_default())
}

fn read_host(url: &Url) -> Result<(String, String), SettingsError> {
    let name = url.host_str().unwrap_or_default();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let port = url.port().map(|port| port.to_string()).unwrap_or_default();
    Ok((decode_component(bare)?, port))
}

/// Hosts and ports as libpq lists them, an empty port being the default one.
fn read_host_list(list: &str) -> Result<(String, String), SettingsError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for member in list.split(',') {
        let (host, port) = read_member(member)?;
        hosts.push(host);
        ports.push(port);
    }
    let ports = if ports.iter().all(String::is_empty) { String::new() } else { ports.join(",") };
    Ok((hosts.join(","), ports))
}

fn read_member(member: &str) -> Result<(String, String), SettingsError> {
    if member.is_empty() {
        return Ok((String::new(), String::new()));
    }
    let url = Url::parse(&format!("postgres://{member}"))
        .map_err(|_| SettingsError::expected(CONNECTION_STRING, EXPECTED_FORM))?;
    read_host(&url)
}

fn decode_component(text: &str) -> Result<String, SettingsError> {
    decode(text, b"")
}

fn decode_uri(text: &str) -> Result<String, SettingsError> {
    decode(text, KEPT_BY_DECODE_URI)
}

/// JavaScript's `decodeURI` and `decodeURIComponent`, which differ in what they leave.
fn decode(text: &str, kept: &[u8]) -> Result<String, SettingsError> {
    decode_escapes(text, kept)
        .ok_or_else(|| SettingsError::expected(CONNECTION_STRING, EXPECTED_ESCAPES))
}

fn decode_escapes(text: &str, kept: &[u8]) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits =
            part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        if kept.contains(&byte) {
            bytes.push(b'%');
            bytes.extend_from_slice(part.as_bytes());
        } else {
            bytes.push(byte);
            bytes.extend_from_slice(&part.as_bytes()[digits.len()..]);
        }
    }
    String::from_utf8(bytes).ok()
}
