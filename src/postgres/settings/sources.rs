//! Where a setting comes from: the connection string before `poolConfig`, `poolConfig`
//! before the environment, and an empty text from none of them.

use std::time::Duration;

use super::connection_string::Fields;
use super::error::SettingsError;

/// PostgreSQL's timeouts count to this.
const MAX_SERVER_TIMEOUT_MS: u64 = 2_147_483_647;

/// What every text must be.
pub(super) const WITHOUT_NUL: &str = "without U+0000";

/// The places to look, but for `poolConfig`, whose options come as they are asked for.
pub(super) struct Sources<'a> {
    pub(super) fields: Fields,
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
}

/// A value, and how the user knows the place that it is from.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) text: String,
}

impl Sources<'_> {
    /// The setting that `poolConfig` and the connection string both call `name`.
    pub(super) fn text(
        &self,
        name: &str,
        option: Option<String>,
        variable: Option<&str>,
    ) -> Result<Option<Named>, SettingsError> {
        let configured = match self.fields.get(name) {
            Some(value) => Named::unless_empty(parameter(name), value.to_owned()),
            None => Named::unless_empty(format!("poolConfig.{name}"), option.unwrap_or_default()),
        };
        let found = configured.or_else(|| variable.and_then(|variable| self.variable(variable)));
        found.map(Named::without_nul).transpose()
    }

    /// As [`Self::text`], for who doesn't care where it is from.
    pub(super) fn bare_text(
        &self,
        name: &str,
        option: Option<String>,
        variable: Option<&str>,
    ) -> Result<Option<String>, SettingsError> {
        Ok(self.text(name, option, variable)?.map(|found| found.text))
    }

    /// One of the server's timeouts. `poolConfig`'s 0 leaves it to the server, while the
    /// connection string's turns it off.
    pub(super) fn server_timeout(
        &self,
        name: &str,
        option: Option<u64>,
    ) -> Result<Option<Duration>, SettingsError> {
        let option = option.filter(|ms| *ms > 0).map(|ms| ms.to_string());
        let Some(found) = self.text(name, option, None)? else { return Ok(None) };
        let ms = found.whole_number().filter(|ms| *ms <= MAX_SERVER_TIMEOUT_MS);
        let expectation = "a whole number of milliseconds, at most 2147483647";
        let ms = ms.ok_or_else(|| SettingsError::expected(found.name, expectation))?;
        Ok(Some(Duration::from_millis(ms)))
    }

    /// A timeout that is kept here rather than by the server; 0 is never.
    pub(super) fn own_timeout(
        &self,
        name: &str,
        option: Option<u64>,
    ) -> Result<Option<Duration>, SettingsError> {
        let option = option.map(|ms| ms.to_string());
        let Some(found) = self.text(name, option, None)? else { return Ok(None) };
        let ms = found
            .whole_number()
            .ok_or_else(|| SettingsError::expected(found.name, "a whole number of milliseconds"))?;
        Ok(positive(ms).map(Duration::from_millis))
    }

    /// The connection string's `name`, or the environment's `variable`.
    pub(super) fn parameter_or_variable(&self, name: &str, variable: &str) -> Option<Named> {
        self.parameter(name).or_else(|| self.variable(variable))
    }

    /// The connection string's `name`.
    pub(super) fn parameter(&self, name: &str) -> Option<Named> {
        self.fields.value(name).and_then(|value| Named::unless_empty(parameter(name), value.into()))
    }

    /// An environment variable.
    pub(super) fn variable(&self, name: &str) -> Option<Named> {
        (self.environment)(name).and_then(|value| Named::unless_empty(name.to_owned(), value))
    }
}

impl Named {
    /// Digits alone: JavaScript's `parseInt` would take a `5s` for five milliseconds.
    pub(super) fn whole_number(&self) -> Option<u64> {
        self.text.trim().parse().ok()
    }

    fn unless_empty(name: String, text: String) -> Option<Self> {
        (!text.is_empty()).then_some(Self { name, text })
    }

    /// The protocol ends texts with U+0000: what came behind it would be read as a setting.
    fn without_nul(self) -> Result<Self, SettingsError> {
        if self.text.contains('\0') {
            return Err(SettingsError::expected(self.name, WITHOUT_NUL));
        }
        Ok(self)
    }
}

/// `None` for 0, which means "without".
pub(super) fn positive(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

fn parameter(name: &str) -> String {
    format!("connectionString's {name}")
}
