//! The operation that a method's arguments stand for. The one place where operations are made.

use std::sync::Arc;

use napi::bindgen_prelude::{JsObjectValue, Unknown};
use napi::{Env, JsValue, ValueType};

use crate::binding::warning;
use crate::cursor::{self, List};
use crate::error::StoreError;
use crate::filter::{EventsFilter, Order};
use crate::model::{PageRequest, SessionEvent};
use crate::replay::ReplayOptions;
use crate::store::{
    Candidates, CandidatesQuery, CompactCursor, CompactStep, EventsQuery, FileProgress, Operation,
    Place, Prune, PruneStep, Query, ReplayForm, ReplayQuery, SessionsQuery, Write,
};

use super::error::CallError;
use super::options::Options;
use super::realm::Realm;
use super::requests::{Names, Request};
use super::{records, replay_options, sqlite_options, values};

/// What the arguments say, or what is wrong with them.
pub type Arguments = Result<Operation, CallError>;

/// `insertEvents` takes at most this many …
const MAX_EVENTS: u32 = 10_000;
/// … and this many bytes of them.
const MAX_EVENTS_BYTES: usize = 64 * 1024 * 1024;
/// A page of a stream has at most this many rows …
const STREAM_ROWS: u64 = 1_000;
/// … and about this many bytes, so that a stream of any length takes no more.
const STREAM_BYTES: usize = 1024 * 1024;
/// So many sessions are looked for at a time.
const PRUNE_CANDIDATES: u64 = 1_000;
/// `stats` says of at most this many sessions how large they are.
const MAX_LARGEST: u64 = 10_000;

/// `getSession(id)`.
pub fn get_session(id: Unknown<'_>) -> Arguments {
    Ok(Operation::Read(Query::Session { id: values::identifier(id, "id")? }))
}

/// `listSessions(request?)`.
pub fn list_sessions(env: &Env, request: Unknown<'_>) -> Arguments {
    let request = Request::of(request, Names::Sessions)?;
    warning::of_unknown_names(env, "listSessions", &request.unknown);
    Ok(Operation::Read(Query::Sessions(sessions_query(&request)?)))
}

/// `listEvents(request)`.
pub fn list_events(env: &Env, request: Unknown<'_>) -> Arguments {
    Ok(Operation::Read(Query::Events(events_query_of_list(env, request)?)))
}

/// A page of `streamSessions(request?)`.
pub fn read_sessions(request: Unknown<'_>) -> Arguments {
    let mut query = sessions_query(&Request::strictly_of(request, Names::Sessions)?)?;
    query.page.limit = STREAM_ROWS;
    query.page.max_bytes = Some(STREAM_BYTES);
    Ok(Operation::Read(Query::Sessions(query)))
}

/// A page of `streamEvents(request)`, of one session.
pub fn read_events(request: Unknown<'_>) -> Arguments {
    let mut query = events_query(&Request::strictly_of(request, Names::Events)?)?;
    query.page.limit = STREAM_ROWS;
    query.page.max_bytes = Some(STREAM_BYTES);
    Ok(Operation::Read(Query::Events(query)))
}

/// Ids of sessions that `streamEvents(request)` finds by their events alone. What else the request
/// asks for is checked here, as there may be no session to ask it of.
pub fn sessions_without_record(request: Unknown<'_>, after: Unknown<'_>) -> Arguments {
    let request = Request::strictly_of(request, Names::Events)?;
    request.events_filter()?;
    request.order()?;
    let after = match values::is_nullish(&after)? {
        true => None,
        false => Some(values::identifier(after, "after")?),
    };
    Ok(Operation::Read(Query::SessionsWithoutRecord { after, limit: STREAM_ROWS }))
}

/// `lastEvent(sessionId)`: a page of one.
pub fn last_event(session_id: Unknown<'_>) -> Arguments {
    Ok(Operation::Read(Query::Events(EventsQuery {
        session_id: values::identifier(session_id, "sessionId")?,
        filter: EventsFilter::default(),
        order: Order::Newest,
        page: PageRequest { limit: 1, cursor: None, max_bytes: None },
    })))
}

/// `countSessions(filter?)`.
pub fn count_sessions(filter: Unknown<'_>) -> Arguments {
    let filter = Request::strictly_of(filter, Names::SessionsFilter)?.sessions_filter()?;
    Ok(Operation::Read(Query::CountSessions(filter)))
}

/// `countEvents(filter?)`.
pub fn count_events(filter: Unknown<'_>) -> Arguments {
    let request = Request::strictly_of(filter, Names::EventsFilter)?;
    let (session_id, filter) = (request.optional_session_id()?, request.events_filter()?);
    Ok(Operation::Read(Query::CountEvents { session_id, filter }))
}

/// `backup(path, fileMode)`.
pub fn backup(path: Unknown<'_>, mode: Unknown<'_>, progress: Arc<FileProgress>) -> Arguments {
    let filename = values::identifier(path, "path")?;
    let mode = sqlite_options::file_mode(&mode)?;
    Ok(Operation::Read(Query::Backup { filename, mode, progress }))
}

/// `stats(options?)`.
pub fn stats(options: Unknown<'_>) -> Arguments {
    if values::is_nullish(&options)? {
        return Ok(Operation::Read(Query::Stats { largest: 0 }));
    }
    let options = Options::of(options, "options")?.only(&["largest"], &[])?;
    let largest = options.whole_number("largest", MAX_LARGEST)?.unwrap_or_default();
    Ok(Operation::Read(Query::Stats { largest }))
}

/// Sessions that may have to be pruned: those of more than `maxEvents`, or idle since `before`, which
/// may also have been destroyed before a time.
pub fn prune_candidates(of: Unknown<'_>, cursor: Unknown<'_>) -> Arguments {
    let of = Options::of(of, "of")?.only(&["maxEvents", "before", "destroyedBefore"], &[])?;
    let candidates = match of.whole_number("maxEvents", u64::MAX)? {
        Some(max_events) => Candidates::Large { max_events },
        None => Candidates::Idle {
            before: of.required_integer("before")?,
            destroyed_before: of.integer("destroyedBefore")?,
        },
    };
    let after = match cursor.get_type()? {
        ValueType::Undefined => None,
        _ => Place::parse(&values::identifier(cursor, "cursor")?),
    };
    let query = CandidatesQuery { of: candidates, after, limit: PRUNE_CANDIDATES };
    Ok(Operation::Read(Query::PruneCandidates(query)))
}

/// Prunes some of these sessions: the events of each but for the newest, or whole ones. With
/// `isDry`, says what would go.
pub fn prune(step: Unknown<'_>) -> Arguments {
    let names = ["sessions", "keep", "before", "destroyedBefore", "moreThan", "isDry"];
    let step = Options::of(step, "step")?.only(&names, &[])?;
    let what = match step.whole_number("keep", u64::MAX)? {
        Some(keep) => Prune::Events { keep, before: step.integer("before")? },
        None => Prune::Sessions {
            before: step.required_integer("before")?,
            destroyed_before: step.integer("destroyedBefore")?,
            more_than: step.whole_number("moreThan", u64::MAX)?,
        },
    };
    let is_dry = step.boolean("isDry")?.unwrap_or(false);
    let step = PruneStep { sessions: step.texts("sessions")?, what };
    Ok(match is_dry {
        true => Operation::Read(Query::Prunable(step)),
        false => Operation::Write(Write::Prune(Box::new(step))),
    })
}

/// Compacts some of a session, if its newest event is older than `idleBefore`. With `isDry`, says what
/// would become of it.
pub fn compact(step: Unknown<'_>) -> Arguments {
    let names = ["sessionId", "idleBefore", "keepNewest", "toolCalls", "cursor", "isDry"];
    let step = Options::of(step, "step")?.only(&names, &[])?;
    let keep = step.whole_number("keepNewest", u64::MAX)?.unwrap_or_default();
    let cursor = step.text("cursor")?.and_then(|cursor| CompactCursor::parse(&cursor));
    let is_dry = step.boolean("isDry")?.unwrap_or(false);
    let session_id = step.text("sessionId")?;
    let step = CompactStep {
        session_id: session_id.ok_or_else(|| CallError::expected("sessionId", "a string"))?,
        idle_before: step.required_integer("idleBefore")?,
        joins_tools: step.boolean("toolCalls")?.unwrap_or(false),
        from: cursor.unwrap_or_else(|| CompactCursor::start(keep)),
    };
    Ok(match is_dry {
        true => Operation::Read(Query::Compactable(step)),
        false => Operation::Write(Write::Compact(Box::new(step))),
    })
}

/// `updateSession(session)`.
pub fn update_session(env: &Env, realm: &Realm, session: Unknown<'_>) -> Arguments {
    Ok(Operation::Write(Write::Session(records::session(env, realm, session)?)))
}

/// `deleteSession(id)`.
pub fn delete_session(id: Unknown<'_>) -> Arguments {
    Ok(Operation::Write(Write::DeleteSession { id: values::identifier(id, "id")? }))
}

/// `insertEvent(event)`, as SDK 0.2 and 0.3 call it, or `insertEvent(sessionId, event)`, as 0.4
/// does.
pub fn insert_event(
    env: &Env,
    realm: &Realm,
    first: Unknown<'_>,
    second: Unknown<'_>,
) -> Arguments {
    if values::is_nullish(&second)? && !values::is_string(&first)? {
        return Ok(Operation::Write(Write::Event(records::event(env, realm, first, "event")?)));
    }
    let session_id = values::identifier(first, "sessionId")?;
    let event = records::event(env, realm, second, "event")?;
    if event.session_id != session_id {
        return Err(CallError::expected("event.sessionId", "the sessionId it is stored for"));
    }
    Ok(Operation::Write(Write::Event(event)))
}

/// `insertEvents(events)`.
pub fn insert_events(env: &Env, realm: &Realm, events: Unknown<'_>) -> Arguments {
    if !events.is_array()? {
        return Err(CallError::expected("events", "an array"));
    }
    let array = values::object(events, "events")?;
    let count = array.get_array_length()?;
    if count > MAX_EVENTS {
        return Err(too_many(count as usize, MAX_EVENTS as usize, "events"));
    }
    let mut read: Vec<SessionEvent> = Vec::new();
    let mut bytes = 0_usize;
    for index in 0..count {
        let name = format!("events[{index}]");
        let event = records::event(env, realm, array.get_element(index)?, &name)?;
        bytes = bytes.saturating_add(event.text_bytes());
        if bytes > MAX_EVENTS_BYTES {
            return Err(too_many(bytes, MAX_EVENTS_BYTES, "bytes"));
        }
        read.push(event);
    }
    Ok(Operation::Write(Write::Events(read)))
}

/// `replay(sessionId, options?)`.
pub fn replay(session_id: Unknown<'_>, options: Unknown<'_>) -> Arguments {
    let session_id = values::identifier(session_id, "sessionId")?;
    let options = replay_options::read(options)?;
    let form = ReplayForm::Replay;
    Ok(Operation::Read(Query::Replay(ReplayQuery { session_id, options, form })))
}

/// `listEvents(request)` of a view. The window is one page, whatever the limit. Who goes on by an
/// offset finds its end.
pub fn list_replayed_events(env: &Env, request: Unknown<'_>, options: &ReplayOptions) -> Arguments {
    let EventsQuery { session_id, filter, order, page } = events_query_of_list(env, request)?;
    let list = List { of: &session_id, question: filter.question(order) };
    let offset = cursor::parse(page.cursor.as_deref(), &list).offset;
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let form = ReplayForm::Events { filter, order, offset };
    let options = options.clone();
    Ok(Operation::Read(Query::Replay(ReplayQuery { session_id, options, form })))
}

fn events_query_of_list(env: &Env, request: Unknown<'_>) -> Result<EventsQuery, CallError> {
    let request = Request::of(request, Names::Events)?;
    warning::of_unknown_names(env, "listEvents", &request.unknown);
    events_query(&request)
}

fn events_query(request: &Request<'_>) -> Result<EventsQuery, CallError> {
    Ok(EventsQuery {
        session_id: request.session_id()?,
        filter: request.events_filter()?,
        order: request.order()?,
        page: request.page()?,
    })
}

fn sessions_query(request: &Request<'_>) -> Result<SessionsQuery, CallError> {
    Ok(SessionsQuery {
        filter: request.sessions_filter()?,
        order: request.order()?,
        page: request.page()?,
    })
}

fn too_many(size: usize, max: usize, unit: &'static str) -> CallError {
    StoreError::TooLarge { what: "a call of insertEvents", size, max, unit }.into()
}
