//! The class `Driver`, which the classes that users see are made of.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use napi::Env;
use napi::bindgen_prelude::{Object, ToNapiValue, Unknown};
use napi_derive::napi;

use crate::binding::convert::database::Database;
use crate::binding::convert::operations::{self, Arguments};
use crate::binding::convert::realm::{Kept, Realm};
use crate::binding::convert::{outcomes, replay_options};
use crate::binding::promise::bridge::{self, Listener};
use crate::binding::promise::environment::Environment;
use crate::binding::promise::handle::{Handle, RETENTION};
use crate::replay::ReplayOptions;
use crate::store::{FileProgress, Operation, Probe, Query, SessionStore, Write};

use super::calls::Calls;
use super::traced_call::TracedCall;

/// An open database, or a view of one.
#[napi]
pub struct Driver {
    calls: Calls,
    /// What kind of database it is.
    system: &'static str,
    /// Of a view, whose lists of events are replay windows: what these may hold.
    window: Option<ReplayOptions>,
    /// Whether its methods give a [`TracedCall`] to submit.
    is_traced: bool,
    /// Whether nobody but retention calls it.
    is_of_retention: bool,
}

/// Work under way that writes a file.
#[napi]
pub struct FileJob {
    progress: Arc<FileProgress>,
}

#[napi]
impl FileJob {
    /// How large it is so far.
    #[napi]
    pub fn bytes(&self) -> f64 {
        outcomes::number(self.progress.bytes())
    }

    /// Ends it.
    #[napi]
    pub fn cancel(&self) {
        self.progress.cancel();
    }
}

/// An open store, and what belongs to it.
pub struct Opened {
    /// What calls are made on.
    pub store: Arc<dyn SessionStore>,
    /// Which it is.
    pub database: Database,
    /// Is told of errors.
    pub on_error: Option<Kept>,
    /// Whom the store tells.
    pub listener: Arc<Listener>,
}

impl Driver {
    /// Of an open store.
    pub fn new(
        environment: Rc<Environment>,
        realm: Rc<Realm>,
        system: &'static str,
        Opened { store, database, on_error, listener }: Opened,
    ) -> Self {
        environment.add(&store);
        let handle = Rc::new(Handle::new(realm, database, store, on_error));
        environment.bridge.watch(&handle, listener);
        Self {
            calls: Calls { environment, handle },
            system,
            window: None,
            is_traced: false,
            is_of_retention: false,
        }
    }

    fn realm(&self) -> &Realm {
        &self.calls.handle.realm
    }

    /// A promise of what the operation gives, or the call that is to be submitted for it. A wrong
    /// argument gives a promise that is rejected.
    ///
    /// Arguments are read before: a getter or a toJSON of one may call this driver, or close it.
    fn submit<'env>(
        &self,
        env: &'env Env,
        name: &'static str,
        arguments: Arguments,
    ) -> napi::Result<Unknown<'env>> {
        let name = if self.is_of_retention { RETENTION } else { name };
        match arguments {
            Ok(operation) if self.is_traced => {
                TracedCall::new(self.calls.clone(), name, operation).into_unknown(env)
            }
            Ok(operation) => self.calls.submit(env, name, operation, None),
            Err(error) => bridge::rejected(env, &self.calls.handle, name, error),
        }
    }
}

#[napi]
impl Driver {
    /// `SessionPersistMethods.getSession`.
    #[napi]
    pub fn get_session<'env>(
        &self,
        env: &'env Env,
        id: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::get_session(id);
        self.submit(env, "getSession", arguments)
    }

    /// `SessionPersistMethods.listSessions`.
    #[napi]
    pub fn list_sessions<'env>(
        &self,
        env: &'env Env,
        request: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::list_sessions(env, request);
        self.submit(env, "listSessions", arguments)
    }

    /// `SessionPersistMethods.updateSession`.
    #[napi]
    pub fn update_session<'env>(
        &self,
        env: &'env Env,
        session: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::update_session(env, self.realm(), session);
        self.submit(env, "updateSession", arguments)
    }

    /// `SessionPersistMethods.listEvents`, of a view its window.
    #[napi]
    pub fn list_events<'env>(
        &self,
        env: &'env Env,
        request: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = match &self.window {
            None => operations::list_events(env, request),
            Some(options) => operations::list_replayed_events(env, request, options),
        };
        self.submit(env, "listEvents", arguments)
    }

    /// `SessionPersistMethods.insertEvent`, in either shape.
    #[napi]
    pub fn insert_event<'env>(
        &self,
        env: &'env Env,
        first: Unknown<'_>,
        second: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::insert_event(env, self.realm(), first, second);
        self.submit(env, "insertEvent", arguments)
    }

    /// `ReplayMethods.replay`.
    #[napi]
    pub fn replay<'env>(
        &self,
        env: &'env Env,
        session_id: Unknown<'_>,
        options: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::replay(session_id, options);
        self.submit(env, "replay", arguments)
    }

    /// `StoreMethods.insertEvents`.
    #[napi]
    pub fn insert_events<'env>(
        &self,
        env: &'env Env,
        events: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::insert_events(env, self.realm(), events);
        self.submit(env, "insertEvents", arguments)
    }

    /// `StoreMethods.deleteSession`.
    #[napi]
    pub fn delete_session<'env>(
        &self,
        env: &'env Env,
        id: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::delete_session(id);
        self.submit(env, "deleteSession", arguments)
    }

    /// A page of one event, or of none.
    #[napi]
    pub fn last_event<'env>(
        &self,
        env: &'env Env,
        session_id: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::last_event(session_id);
        self.submit(env, "lastEvent", arguments)
    }

    /// `StoreMethods.countSessions`.
    #[napi]
    pub fn count_sessions<'env>(
        &self,
        env: &'env Env,
        filter: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::count_sessions(filter);
        self.submit(env, "countSessions", arguments)
    }

    /// `StoreMethods.countEvents`.
    #[napi]
    pub fn count_events<'env>(
        &self,
        env: &'env Env,
        filter: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::count_events(filter);
        self.submit(env, "countEvents", arguments)
    }

    /// A page of a stream of sessions.
    #[napi]
    pub fn read_sessions<'env>(
        &self,
        env: &'env Env,
        request: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::read_sessions(request);
        self.submit(env, "streamSessions", arguments)
    }

    /// A page of a stream of a session's events.
    #[napi]
    pub fn read_events<'env>(
        &self,
        env: &'env Env,
        request: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::read_events(request);
        self.submit(env, "streamEvents", arguments)
    }

    /// Ids of sessions that have events and no record, after this one, for a stream of all events.
    #[napi]
    pub fn sessions_without_record<'env>(
        &self,
        env: &'env Env,
        request: Unknown<'_>,
        after: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::sessions_without_record(request, after);
        self.submit(env, "streamEvents", arguments)
    }

    /// How much is stored.
    #[napi]
    pub fn stats<'env>(&self, env: &'env Env, options: Unknown<'_>) -> napi::Result<Unknown<'env>> {
        let arguments = operations::stats(options);
        self.submit(env, "stats", arguments)
    }

    /// What `backup` or `shrink` is told to begin.
    #[napi]
    pub fn new_file_job(&self) -> FileJob {
        FileJob { progress: Arc::default() }
    }

    /// Copies a SQLite database into a file.
    #[napi]
    pub fn backup<'env>(
        &self,
        env: &'env Env,
        path: Unknown<'_>,
        mode: Unknown<'_>,
        job: &FileJob,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::backup(path, mode, Arc::clone(&job.progress));
        self.submit(env, "backup", arguments)
    }

    /// Makes a SQLite file as small as can be.
    #[napi]
    pub fn shrink<'env>(&self, env: &'env Env, job: &FileJob) -> napi::Result<Unknown<'env>> {
        let shrink = Write::Shrink(Arc::clone(&job.progress));
        self.submit(env, "shrink", Ok(Operation::Write(shrink)))
    }

    /// A page of ids of sessions that may have to be pruned.
    #[napi]
    pub fn prune_candidates<'env>(
        &self,
        env: &'env Env,
        of: Unknown<'_>,
        cursor: Unknown<'_>,
    ) -> napi::Result<Unknown<'env>> {
        let arguments = operations::prune_candidates(of, cursor);
        self.submit(env, "prune", arguments)
    }

    /// Compacts some of a session, or says what would become of it.
    #[napi]
    pub fn compact<'env>(&self, env: &'env Env, step: Unknown<'_>) -> napi::Result<Unknown<'env>> {
        let arguments = operations::compact(step);
        self.submit(env, "compact", arguments)
    }

    /// About how many bytes the rows take that there are.
    #[napi]
    pub fn live_bytes<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        self.submit(env, "prune", Ok(Operation::Read(Query::LiveBytes)))
    }

    /// Prunes some sessions, or says what would go.
    #[napi]
    pub fn prune<'env>(&self, env: &'env Env, step: Unknown<'_>) -> napi::Result<Unknown<'env>> {
        let arguments = operations::prune(step);
        self.submit(env, "prune", arguments)
    }

    /// Whether rows could be stored.
    #[napi]
    pub fn ready<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        self.submit(env, "ready", Ok(Operation::Write(Write::Probe(Box::new(Probe::new())))))
    }

    /// How the driver is, told from how its calls end.
    #[napi(ts_return_type = "object")]
    pub fn health<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let Calls { environment, handle } = &self.calls;
        let report = handle.health(environment.bridge.oldest_calls(handle));
        outcomes::health(env, self.realm(), report)
    }

    /// Which database it is, without a secret.
    #[napi(ts_return_type = "object")]
    pub fn database<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.calls.handle.database.to_js(env, self.realm())
    }

    /// Whether no write and no `getSession` of this session is outstanding.
    #[napi]
    pub fn is_at_rest(&self, session_id: String) -> bool {
        self.calls.handle.is_at_rest(&session_id)
    }

    /// Whether this driver was called for the session within the last hour.
    #[napi]
    pub fn was_used_lately(&self, session_id: String) -> bool {
        self.calls.handle.was_used_lately(&session_id)
    }

    /// Whether all calls so far were answered at once, as they are in memory.
    #[napi]
    pub fn answers_at_once(&self) -> bool {
        self.calls.handle.answers_at_once()
    }

    /// For how many milliseconds there has been no write and no `getSession`, `Infinity` if ever or
    /// once it is closed; `null` while one is outstanding.
    #[napi]
    pub fn quiet_ms(&self) -> Option<f64> {
        let quiet = self.calls.handle.quiet()?;
        Some(if quiet == Duration::MAX { f64::INFINITY } else { quiet.as_secs_f64() * 1_000.0 })
    }

    /// How the driver does.
    #[napi(ts_return_type = "object")]
    pub fn metrics<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let handle = &self.calls.handle;
        let store = handle.store_metrics();
        outcomes::metrics(env, self.realm(), &store, &handle.call_metrics())
    }

    /// A view of the same database.
    #[napi]
    pub fn replay_view(&self, env: &Env, options: Unknown<'_>) -> napi::Result<Self> {
        let options = replay_options::read(options);
        let options = options.map_err(|error| error.into_thrown(env, self.realm()))?;
        Ok(Self { calls: self.calls.clone(), window: Some(options), ..*self })
    }

    /// The same, but that its methods give a call to submit instead of the promise.
    #[napi]
    pub fn traced(&self) -> Self {
        let window = self.window.clone();
        Self { calls: self.calls.clone(), window, is_traced: true, ..*self }
    }

    /// The same, for calls that nobody has made.
    #[napi]
    pub fn for_retention(&self) -> Self {
        let calls = self.calls.clone();
        Self { calls, window: None, is_traced: false, is_of_retention: true, ..*self }
    }

    /// Sessions that have got so many events more are remembered.
    #[napi]
    pub fn watch_growth(&self, events: f64) {
        self.calls.handle.watch_growth(events);
    }

    /// The ids of sessions that have got any event since the last call, where growth is watched; `null`
    /// if they were too many.
    #[napi]
    pub fn take_written(&self) -> Option<Vec<String>> {
        self.calls.handle.take_written()
    }

    /// The ids of these sessions since the last call.
    #[napi]
    pub fn take_grown(&self) -> Vec<String> {
        self.calls.handle.take_grown()
    }

    /// What kind of database it is, as OpenTelemetry names it.
    #[napi(getter)]
    pub fn system(&self) -> &'static str {
        self.system
    }

    /// For so many milliseconds more locks and servers are waited for: the end is near.
    #[napi]
    pub fn end_within(&self, milliseconds: f64) {
        let left = Duration::try_from_secs_f64(milliseconds / 1_000.0).unwrap_or_default();
        self.calls.handle.end_by(Instant::now() + left);
    }

    /// Blocks until everything is written and the database is free.
    #[napi]
    pub fn close(&self, env: &Env) -> napi::Result<()> {
        self.calls.handle.close();
        self.calls.environment.bridge.settle_arrived(env)
    }

    /// As `close`, but on a thread, with a promise: for a database that may be far away.
    #[napi]
    pub fn close_later<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        let Calls { environment, handle } = &self.calls;
        let bridge = &environment.bridge;
        let call = bridge.begin(env, handle, None, None)?;
        let result = handle.close_later(call.ticket, bridge.listener());
        bridge.follow(env, call, result)
    }
}
