//! Which rows are wanted, out of the requests that an application gives.

use napi::bindgen_prelude::Unknown;
use napi::{JsValue, ValueType};

use crate::cursor;
use crate::filter::{EventsFilter, Order, SessionsFilter};
use crate::model::PageRequest;

use super::error::CallError;
use super::event_text;
use super::options::Options;
use super::values;

const PAGE: [&str; 2] = ["cursor", "limit"];
const ORDER: [&str; 1] = ["order"];
const SESSION_ID: [&str; 1] = ["sessionId"];
const SESSIONS_FILTER: [&str; 5] =
    ["agent", "sandboxId", "destroyed", "createdAfter", "createdBefore"];
const EVENTS_FILTER: [&str; 6] =
    ["sender", "method", "afterIndex", "beforeIndex", "createdAfter", "createdBefore"];

/// What a method's request may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Of a list of sessions, or a stream of them.
    Sessions,
    /// Of a list of a session's events, or a stream.
    Events,
    /// Of a number of sessions.
    SessionsFilter,
    /// Of a number of events.
    EventsFilter,
}

impl Names {
    fn are(self) -> Vec<&'static str> {
        match self {
            Self::Sessions => [&PAGE[..], &ORDER, &SESSIONS_FILTER].concat(),
            Self::Events => [&PAGE[..], &ORDER, &SESSION_ID, &EVENTS_FILTER].concat(),
            Self::SessionsFilter => SESSIONS_FILTER.to_vec(),
            Self::EventsFilter => [&SESSION_ID[..], &EVENTS_FILTER].concat(),
        }
    }

    /// Those of a method that no SDK calls: a stream turns its pages by itself.
    fn offered(self) -> Vec<&'static str> {
        self.are().into_iter().filter(|name| !PAGE.contains(name)).collect()
    }
}

/// A request, and the names in it that mean nothing.
pub struct Request<'env> {
    /// `None` where there is no request at all.
    fields: Option<Options<'env>>,
    /// What this version doesn't know; a newer SDK may.
    pub unknown: Vec<String>,
}

impl<'env> Request<'env> {
    /// Reads which names it has.
    pub fn of(request: Unknown<'env>, names: Names) -> Result<Self, CallError> {
        if values::is_nullish(&request)? {
            return Ok(Self { fields: None, unknown: Vec::new() });
        }
        let fields = Options::of(request, "request")?;
        let unknown = fields.unknown_names(&names.are())?;
        Ok(Self { fields: Some(fields), unknown })
    }

    /// As [`Self::of`], for a method that no SDK calls: an unknown name is misspelt.
    pub fn strictly_of(request: Unknown<'env>, names: Names) -> Result<Self, CallError> {
        let request = Self::of(request, names)?;
        match request.unknown.first() {
            Some(name) => Err(CallError::InvalidArgument(format!(
                "request.{name} is not known; what may be given is {}",
                names.offered().join(", ")
            ))),
            None => Ok(request),
        }
    }

    /// The session that must be there.
    pub fn session_id(&self) -> Result<String, CallError> {
        match self.optional_session_id()? {
            Some(id) => Ok(id),
            None if self.fields.is_none() => Err(CallError::expected("request", "an object")),
            None => Err(CallError::expected("request.sessionId", "a string")),
        }
    }

    /// The session, if it is given.
    pub fn optional_session_id(&self) -> Result<Option<String>, CallError> {
        self.text("sessionId")
    }

    /// `{ cursor?, limit? }`, as leniently as the SDK's drivers read it.
    pub fn page(&self) -> Result<PageRequest, CallError> {
        let limit = match self.get("limit")? {
            Some(limit) if limit.get_type()? == ValueType::Number => {
                Some(values::read_number(&limit)?)
            }
            _ => None,
        };
        let cursor = match self.get("cursor")? {
            Some(cursor) => read_cursor(&cursor)?,
            None => None,
        };
        Ok(PageRequest { limit: cursor::page_items(limit), cursor, max_bytes: None })
    }

    /// `"oldest"`, the default, or `"newest"`.
    pub fn order(&self) -> Result<Order, CallError> {
        match self.text("order")?.as_deref() {
            None | Some("oldest") => Ok(Order::Oldest),
            Some("newest") => Ok(Order::Newest),
            Some(_) => Err(CallError::expected("request.order", "\"oldest\" or \"newest\"")),
        }
    }

    /// Which sessions are wanted.
    pub fn sessions_filter(&self) -> Result<SessionsFilter, CallError> {
        Ok(SessionsFilter {
            agent: self.text("agent")?,
            sandbox_id: self.text("sandboxId")?,
            is_destroyed: self.boolean("destroyed")?,
            created_after: self.integer("createdAfter")?,
            created_before: self.integer("createdBefore")?,
        })
    }

    /// Which events are wanted.
    pub fn events_filter(&self) -> Result<EventsFilter, CallError> {
        let sender = self.text("sender")?;
        if sender.as_deref().is_some_and(|sender| !event_text::is_sender(sender)) {
            return Err(CallError::expected("request.sender", "\"client\" or \"agent\""));
        }
        Ok(EventsFilter {
            sender,
            method: self.text("method")?,
            after_index: self.integer("afterIndex")?,
            before_index: self.integer("beforeIndex")?,
            created_after: self.integer("createdAfter")?,
            created_before: self.integer("createdBefore")?,
        })
    }

    /// `None` where it is missing or undefined.
    fn get(&self, name: &str) -> Result<Option<Unknown<'env>>, CallError> {
        self.fields.as_ref().map_or(Ok(None), |fields| fields.get(name))
    }

    fn text(&self, name: &str) -> Result<Option<String>, CallError> {
        let value = self.get(name)?;
        value.map(|value| values::identifier(value, &full_name(name))).transpose()
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, CallError> {
        self.get(name)?.map(|value| values::integer(value, || full_name(name))).transpose()
    }

    fn boolean(&self, name: &str) -> Result<Option<bool>, CallError> {
        let Some(value) = self.get(name)? else { return Ok(None) };
        match value.get_type()? {
            ValueType::Boolean => Ok(Some(values::read_boolean(&value)?)),
            _ => Err(CallError::expected(&full_name(name), "true or false")),
        }
    }
}

fn full_name(name: &str) -> String {
    format!("request.{name}")
}

fn read_cursor(cursor: &Unknown<'_>) -> Result<Option<String>, CallError> {
    Ok(match cursor.get_type()? {
        ValueType::String => Some(values::read_text(cursor)?),
        ValueType::Number => Some(values::read_text(&cursor.coerce_to_string()?.to_unknown())?),
        _ => None,
    })
}
