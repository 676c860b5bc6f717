//! Whether and how connections are encrypted.
//!
//! The modes keep node-postgres' meaning, not libpq's: `prefer`, `require` and `verify-ca`
//! verify everything unless `uselibpqcompat=true` is asked for, and nothing ever falls
//! back to plain text.

use std::io;

use super::error::SettingsError;
use super::given::Ssl;
use super::hosts::{Address, Host};
use super::secret::Secret;
use super::sources::Sources;

/// What begins each part of a file in PEM.
const PEM_BEGIN: &str = "-----BEGIN ";
const EXPECTED_SSL: &str = "true, false, 1, 0 or no-verify";
const EXPECTED_PAIR: &str = "given as a pair, a certificate and its private key";
const EXPECTED_NEGOTIATION: &str = "postgres or direct";

/// How connections are encrypted. A server that can't is an error; there is no falling back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// Plain text.
    Off,
    /// Encrypted; the server may be anybody.
    Unverified {
        /// Who we are, if the server asks.
        client: Option<ClientCertificate>,
    },
    /// The certificate must come from a trusted authority and be for the host. So it is for libpq's
    /// `verify-ca` too: sqlx trusts the built-in authorities, so without the name anybody's
    /// certificate would do.
    Full {
        /// PEM texts of authorities to trust beside the built-in ones.
        roots: Vec<String>,
        /// Who we are, if the server asks.
        client: Option<ClientCertificate>,
    },
}

/// The certificate that a client shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// In PEM.
    pub certificate: String,
    /// Its private key, in PEM.
    pub key: Secret,
}

/// How the outside world is reached.
pub(super) type ReadFile<'a> = &'a dyn Fn(&str) -> io::Result<String>;

/// The connection string decides if it speaks of TLS, then `poolConfig`, then `PGSSLMODE`.
pub(super) fn tls(
    sources: &Sources<'_>,
    ssl: Option<Ssl>,
    hosts: &[Host],
    read_file: ReadFile<'_>,
    warnings: &mut Vec<String>,
) -> Result<Tls, SettingsError> {
    let tls = if is_in_connection_string(sources) {
        of_connection_string(sources, read_file, warnings)?
    } else {
        match ssl {
            Some(ssl) => of_option(ssl, hosts)?,
            None => of_environment(sources, warnings),
        }
    };
    check_negotiation(sources, &tls, warnings)?;
    Ok(with_extra_roots(sources, tls, read_file, warnings))
}

/// Whether the connection string leaves nothing of TLS to the other sources.
pub(super) fn is_in_connection_string(sources: &Sources<'_>) -> bool {
    sources.fields.get("ssl").is_some()
        || has_ssl_parameters(sources)
        || sources.fields.value("sslnegotiation") == Some("direct")
}

fn has_ssl_parameters(sources: &Sources<'_>) -> bool {
    ["sslmode", "sslcert", "sslkey", "sslrootcert"]
        .iter()
        .any(|name| sources.fields.value(name).is_some())
}

fn of_connection_string(
    sources: &Sources<'_>,
    read_file: ReadFile<'_>,
    warnings: &mut Vec<String>,
) -> Result<Tls, SettingsError> {
    if has_ssl_parameters(sources) {
        return of_ssl_parameters(sources, read_file, warnings);
    }
    match sources.fields.get("ssl") {
        // Without `ssl`, it is `sslnegotiation=direct` that speaks of TLS.
        None | Some("true" | "1") => Ok(Tls::Full { roots: Vec::new(), client: None }),
        Some("false" | "0" | "") => Ok(Tls::Off),
        Some("no-verify") => Ok(Tls::Unverified { client: None }),
        Some(_) => Err(SettingsError::expected("connectionString's ssl", EXPECTED_SSL)),
    }
}

fn of_ssl_parameters(
    sources: &Sources<'_>,
    read_file: ReadFile<'_>,
    warnings: &mut Vec<String>,
) -> Result<Tls, SettingsError> {
    let fields = &sources.fields;
    let mode = fields.value("sslmode");
    if mode == Some("disable") {
        return Ok(Tls::Off);
    }
    let file = |parameter| {
        let path = fields.value(parameter);
        path.map(|path| named_file(parameter, path, read_file)).transpose()
    };
    let certificate = file("sslcert")?;
    let key = file("sslkey")?.map(Secret::from);
    let client = pair(certificate, key, "connectionString's sslcert and sslkey")?;
    let roots: Vec<String> = file("sslrootcert")?.into_iter().collect();
    if fields.value("uselibpqcompat") == Some("true") {
        return of_libpq_mode(mode, roots, client, warnings);
    }
    if mode == Some("no-verify") {
        return Ok(Tls::Unverified { client });
    }
    warn_of_unknown_mode(mode, warnings);
    Ok(Tls::Full { roots, client })
}

/// As node-postgres does with `uselibpqcompat=true`, where `prefer` doesn't fall back to
/// plain text either.
fn of_libpq_mode(
    mode: Option<&str>,
    roots: Vec<String>,
    client: Option<ClientCertificate>,
    warnings: &mut Vec<String>,
) -> Result<Tls, SettingsError> {
    match mode {
        Some("prefer") => Ok(Tls::Unverified { client }),
        Some("require") if roots.is_empty() => Ok(Tls::Unverified { client }),
        Some("require") => Ok(Tls::Full { roots, client }),
        Some("verify-ca") if roots.is_empty() => Err(SettingsError::expected(
            "connectionString's sslmode",
            "verify-full where sslrootcert is missing: verify-ca would trust anybody's certificate",
        )),
        Some("verify-ca") => Ok(Tls::Full { roots, client }),
        _ => {
            warn_of_unknown_mode(mode, warnings);
            Ok(Tls::Full { roots, client })
        }
    }
}

fn warn_of_unknown_mode(mode: Option<&str>, warnings: &mut Vec<String>) {
    if !matches!(mode, None | Some("prefer" | "require" | "verify-ca" | "verify-full")) {
        let line = "connectionString's sslmode is unknown here and taken for verify-full";
        warnings.push(line.to_owned());
    }
}

fn of_option(ssl: Ssl, hosts: &[Host]) -> Result<Tls, SettingsError> {
    let (reject_unauthorized, ca, cert, key, servername) = match ssl {
        Ssl::Off => return Ok(Tls::Off),
        Ssl::On => return Ok(Tls::Full { roots: Vec::new(), client: None }),
        Ssl::With { reject_unauthorized, ca, cert, key, servername } => {
            (reject_unauthorized, ca, cert, key, servername)
        }
    };
    check_server_name(servername.as_deref(), hosts)?;
    let cert = cert.filter(|cert| !cert.is_empty());
    let key = key.filter(|key| !key.is_empty());
    let client = pair(cert, key, "poolConfig.ssl.cert and poolConfig.ssl.key")?;
    if !reject_unauthorized {
        return Ok(Tls::Unverified { client });
    }
    let roots = ca.into_iter().filter(|pem| !pem.is_empty()).collect();
    Ok(Tls::Full { roots, client })
}

/// A mode that node-postgres doesn't know is plain text, as it is there.
fn of_environment(sources: &Sources<'_>, warnings: &mut Vec<String>) -> Tls {
    let Some(mode) = sources.variable("PGSSLMODE") else { return Tls::Off };
    match mode.text.as_str() {
        "disable" => Tls::Off,
        "prefer" | "require" | "verify-ca" | "verify-full" => {
            Tls::Full { roots: Vec::new(), client: None }
        }
        "no-verify" => Tls::Unverified { client: None },
        _ => {
            warnings.push("PGSSLMODE is unknown here and taken for disable".to_owned());
            Tls::Off
        }
    }
}

/// The name that is verified is the host's; another one can't be honoured.
fn check_server_name(server_name: Option<&str>, hosts: &[Host]) -> Result<(), SettingsError> {
    let Some(server_name) = server_name.filter(|name| !name.is_empty()) else { return Ok(()) };
    let is_other = |host: &Host| matches!(&host.address, Address::Tcp { host, .. } if !host.eq_ignore_ascii_case(server_name));
    if hosts.iter().any(is_other) {
        return Err(SettingsError::expected("poolConfig.ssl.servername", "the host's own name"));
    }
    Ok(())
}

/// Direct negotiation only saves a round trip: a server that offers it also takes the
/// other, so it is not worth failing for.
fn check_negotiation(
    sources: &Sources<'_>,
    tls: &Tls,
    warnings: &mut Vec<String>,
) -> Result<(), SettingsError> {
    let Some(found) = sources.parameter_or_variable("sslnegotiation", "PGSSLNEGOTIATION") else {
        return Ok(());
    };
    match found.text.as_str() {
        "postgres" => Ok(()),
        "direct" if *tls == Tls::Off => {
            Err(SettingsError::expected(found.name, "postgres where TLS is off"))
        }
        "direct" => {
            warnings.push(format!("{} has no effect: TLS is asked for first", found.name));
            Ok(())
        }
        _ => Err(SettingsError::expected(found.name, EXPECTED_NEGOTIATION)),
    }
}

/// Adds what Node itself would trust. A file that can't be read is a warning, as in Node.
fn with_extra_roots(
    sources: &Sources<'_>,
    tls: Tls,
    read_file: ReadFile<'_>,
    warnings: &mut Vec<String>,
) -> Tls {
    let Tls::Full { mut roots, client } = tls else { return tls };
    if let Some(path) = sources.variable("NODE_EXTRA_CA_CERTS") {
        match read_file(&path.text) {
            Ok(pem) => roots.push(pem),
            Err(error) => warnings.push(format!(
                "NODE_EXTRA_CA_CERTS has no effect: its file can't be read ({})",
                error.kind()
            )),
        }
    }
    Tls::Full { roots, client }
}

fn named_file(
    parameter: &'static str,
    path: &str,
    read_file: ReadFile<'_>,
) -> Result<String, SettingsError> {
    let text = read_file(path)
        .map_err(|error| SettingsError::UnreadableFile { parameter, reason: error.kind() })?;
    if !text.contains(PEM_BEGIN) {
        return Err(SettingsError::expected(
            format!("connectionString's {parameter}"),
            "the name of a file in PEM",
        ));
    }
    Ok(text)
}

fn pair(
    certificate: Option<String>,
    key: Option<Secret>,
    names: &'static str,
) -> Result<Option<ClientCertificate>, SettingsError> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(ClientCertificate { certificate, key })),
        (None, None) => Ok(None),
        _ => Err(SettingsError::expected(names, EXPECTED_PAIR)),
    }
}
