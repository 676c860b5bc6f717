/**
 * The classes that users see. A method is one call of the addon's: it checks arguments, and makes
 * the promise.
 */
"use strict";

const { backup, shrink } = require("./files.js");
const { calledWithNew, closedBy } = require("./classes.js");
const { invalidArgument } = require("./errors.js");
const { handleOf, hold, holds } = require("./handle.js");
const addon = require("./realm.js");
const { compact } = require("./compact.js");
const { retentionOf } = require("./limits.js");
const { prune } = require("./prune.js");
const { keepWithin } = require("./retention.js");
const { endAllWaits, endWaits, idle, isQuiet, listEvents, waitTogether } = require("./rest.js");
const { streamEvents, streamSessions } = require("./streams.js");
const { attemptListeners, openTraced, reads, replays, writes } = require("./telemetry.js");

const INSPECT = Symbol.for("nodejs.util.inspect.custom");
/** Events trail the answer to a prompt: a close that may wait waits for this much quiet. */
const QUIET_BEFORE_CLOSE = { quietMs: 100, timeoutMs: 2_000 };

/** `SessionPersistMethods` of index.d.ts: of drivers and views. */
class SessionMethods {
  getSession(id) {
    return reads.of(handleOf(this)).getSession(id);
  }

  listSessions(request) {
    return reads.of(handleOf(this)).listSessions(request);
  }

  updateSession(session) {
    return writes.of(handleOf(this)).updateSession(session);
  }

  listEvents(request) {
    return listEvents(reads, handleOf(this), request);
  }

  /** Or `(event)`, as SDK 0.2 and 0.3 call it. */
  insertEvent(sessionId, event) {
    return writes.of(handleOf(this)).insertEvent(sessionId, event);
  }
}

/** What drivers have beyond that. */
class Driver extends SessionMethods {
  constructor(handle, limits) {
    super();
    hold(this, handle);
    if (limits !== undefined) keepWithin(limits, handle);
  }

  insertEvents(events) {
    return writes.of(handleOf(this)).insertEvents(events);
  }

  deleteSession(id) {
    const handle = handleOf(this);
    endWaits(handle, id);
    return writes.of(handle).deleteSession(id);
  }

  countSessions(filter) {
    return reads.of(handleOf(this)).countSessions(filter);
  }

  countEvents(filter) {
    return reads.of(handleOf(this)).countEvents(filter);
  }

  lastEvent(sessionId) {
    const page = reads.of(handleOf(this)).lastEvent(sessionId);
    return page.then(({ items }) => items[0]);
  }

  streamSessions(request) {
    const handle = handleOf(this);
    return streamSessions(() => reads.of(handle, "streamSessions"), request);
  }

  streamEvents(request) {
    const handle = handleOf(this);
    return streamEvents(() => reads.of(handle, "streamEvents"), request);
  }

  stats(options) {
    const handle = handleOf(this);
    const stored = reads.of(handle).stats(options);
    return stored.then((stored) => ({ ...stored, ...handle.metrics() }));
  }

  prune(options) {
    const handle = handleOf(this);
    return prune(handle, writes.of(handle, "prune"), options);
  }

  compact(options) {
    const handle = handleOf(this);
    return compact(handle, writes.of(handle), options);
  }

  idle(options) {
    return idle(handleOf(this), options);
  }

  ready() {
    return writes.of(handleOf(this)).ready();
  }

  health() {
    return handleOf(this).health();
  }

  /** What `console.log` shows. */
  [INSPECT](depth, options, inspect) {
    const { name } = this.constructor;
    const handle = holds(this) ? handleOf(this) : undefined;
    if (handle === undefined || depth < 0) return `[${name}]`;
    return `${name} ${inspect({ ...handle.database(), state: handle.health().state }, options)}`;
  }

  replay(sessionId, options) {
    return replays.of(handleOf(this)).replay(sessionId, options);
  }

  replayView(options) {
    const handle = handleOf(this);
    const view = handle.replayView(options);
    waitTogether(view, handle);
    return hold(Object.create(ReplayView.prototype), view);
  }
}

class ReplayView extends SessionMethods {
  constructor() {
    throw invalidArgument("a ReplayView is made by a driver's replayView()");
  }

  listEvents(request) {
    return listEvents(replays, handleOf(this), request);
  }
}

class SQLiteSessionPersistDriver extends Driver {
  constructor(options) {
    const limits = retentionOf(options);
    super(
      openTraced("sqlite", () => addon.openSqlite(options)),
      limits,
    );
  }

  backup(path, options) {
    const handle = handleOf(this);
    return backup(handle, reads.of(handle), path, options);
  }

  shrink(options) {
    const handle = handleOf(this);
    return shrink(handle, writes.of(handle), options);
  }

  close() {
    const handle = handleOf(this);
    endAllWaits(handle);
    handle.close();
  }
}

class PostgresSessionPersistDriver extends Driver {
  constructor(options) {
    const limits = retentionOf(options);
    super(addon.openPostgres(options, ...attemptListeners("postgresql")), limits);
  }

  close() {
    const handle = handleOf(this);
    const close = () => {
      endAllWaits(handle);
      return handle.closeLater();
    };
    return isQuiet(handle, QUIET_BEFORE_CLOSE)
      ? close()
      : idle(handle, QUIET_BEFORE_CLOSE).then(close);
  }
}

closedBy(Symbol.dispose, SQLiteSessionPersistDriver);
closedBy(Symbol.asyncDispose, SQLiteSessionPersistDriver, async (driver) => {
  await idle(handleOf(driver), QUIET_BEFORE_CLOSE);
  driver.close();
});
closedBy(Symbol.asyncDispose, PostgresSessionPersistDriver);

module.exports = {
  SQLiteSessionPersistDriver: calledWithNew(SQLiteSessionPersistDriver),
  PostgresSessionPersistDriver: calledWithNew(PostgresSessionPersistDriver),
  ReplayView,
};
