/* The types of sandbox-agent-persist. Self-contained: they need neither the SDK's nor Node's. */

declare global {
  interface SymbolConstructor {
    /** Where the runtime has it: `using driver = …` calls this method at the end of the block. */
    readonly dispose: unique symbol;
    /** Where the runtime has it: `await using driver = …` calls this method. */
    readonly asyncDispose: unique symbol;
  }
}

/** One session, as the `sandbox-agent` SDK describes it. */
export interface SessionRecord {
  /** The primary key. */
  id: string;
  /** The agent's name, such as `claude`. */
  agent: string;
  /** The id that the agent itself gave the session. */
  agentSessionId: string;
  /** The connection the session was last seen on. */
  lastConnectionId: string;
  /** Milliseconds since 1970; an integer. */
  createdAt: number;
  /** Milliseconds since 1970; missing while the session lives. */
  destroyedAt?: number;
  /** The sandbox the session runs in. SDK 0.4 and later. */
  sandboxId?: string;
  /** What the session was created with: any JSON. */
  sessionInit?: any;
  /** The agent's settings: any JSON. SDK 0.4 and later. */
  configOptions?: any;
  /** The agent's modes: any JSON; `null` is kept. SDK 0.4 and later. */
  modes?: any;
}

/** One envelope of a session, as the `sandbox-agent` SDK describes it. */
export interface SessionEvent {
  /** The primary key. */
  id: string;
  /** The place in the session, from 1; an integer. */
  eventIndex: number;
  /** The session it belongs to. */
  sessionId: string;
  /** Milliseconds since 1970; an integer. */
  createdAt: number;
  /** The connection it passed through. */
  connectionId: string;
  /** Who sent it. */
  sender: "client" | "agent";
  /** The JSON-RPC envelope: any JSON, up to 511 MiB of text. */
  payload: any;
}

/** From which end a list is read. */
export type ListOrder = "oldest" | "newest";

/**
 * Which sessions are wanted: those that satisfy all that is given. `undefined` is as good as
 * missing; a value of another type is a `TypeError`.
 */
export interface SessionsFilter {
  /** Those of this agent. */
  agent?: string | undefined;
  /** Those that run in this sandbox. */
  sandboxId?: string | undefined;
  /** `true`: those that were destroyed; `false`: those that weren't. */
  destroyed?: boolean | undefined;
  /** Those created later than this: milliseconds since 1970, an integer. */
  createdAfter?: number | undefined;
  /** Those created earlier than this: milliseconds since 1970, an integer. */
  createdBefore?: number | undefined;
}

/**
 * Which of a session's events are wanted: those that satisfy all that is given. `undefined` is as
 * good as missing; a value of another type is a `TypeError`.
 */
export interface EventsFilter {
  /** Those that it sent. */
  sender?: "client" | "agent" | undefined;
  /** Those whose envelope has this `method`, such as `session/update`. */
  method?: string | undefined;
  /** Those with a higher `eventIndex`; an integer. */
  afterIndex?: number | undefined;
  /** Those with a lower `eventIndex`; an integer. */
  beforeIndex?: number | undefined;
  /** Those created later than this: milliseconds since 1970, an integer. */
  createdAfter?: number | undefined;
  /** Those created earlier than this: milliseconds since 1970, an integer. */
  createdBefore?: number | undefined;
}

/** Which part of a list is wanted. */
export interface ListPageRequest {
  /**
   * `nextCursor` of the page before, or a decimal offset. Default, and for what can't be read, or
   * is of a list with another filter or order: the start.
   */
  cursor?: string | undefined;
  /** At most this many items. Default, and for anything that is no number from 1: 100. */
  limit?: number | undefined;
}

/** Which part of the sessions is wanted. A name that isn't known gives one warning of the process. */
export interface ListSessionsRequest extends ListPageRequest, SessionsFilter {
  /** By `createdAt`, then `id`: from the oldest on, or from the newest. Default: `"oldest"`. */
  order?: ListOrder | undefined;
}

/**
 * Which part of a session's events is wanted. A name that isn't known gives one warning of the
 * process.
 */
export interface ListEventsRequest extends ListPageRequest, EventsFilter {
  /** The session. */
  sessionId: string;
  /** By `eventIndex`, then `id`: from the oldest on, or from the newest. Default: `"oldest"`. */
  order?: ListOrder | undefined;
}

/** What of an `AbortSignal` is used. */
export interface AbortSignalLike {
  readonly aborted: boolean;
  readonly reason?: any;
  addEventListener(type: "abort", listener: () => void, options?: { once?: boolean }): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

/** Which sessions are streamed. */
export interface StreamSessionsRequest extends SessionsFilter {
  /** By `createdAt`, then `id`. Default: `"oldest"`. */
  order?: ListOrder | undefined;
  /** Once it is aborted, the iterator rejects with its `reason`. */
  signal?: AbortSignalLike | undefined;
}

/** Which events are streamed. */
export interface StreamEventsRequest extends EventsFilter {
  /**
   * The session. Default: all: sessions in order, each with its events; then the events that have
   * no session's record, by session.
   */
  sessionId?: string | undefined;
  /** By `eventIndex`, then `id`, within a session; also of sessions. Default: `"oldest"`. */
  order?: ListOrder | undefined;
  /** Once it is aborted, the iterator rejects with its `reason`. */
  signal?: AbortSignalLike | undefined;
}

/** Milliseconds that something took; 0 where it never happened. */
export interface LatencyMs {
  /** Half of them took no longer. */
  p50: number;
  /** All but a hundredth took no longer. */
  p99: number;
  /** The longest. */
  max: number;
}

/** What is in a store, and how the driver does. */
export interface StoreStats {
  /** How many sessions there are. */
  sessions: number;
  /** How many events there are. */
  events: number;
  /** Whether one of these is an estimate, as for a table of more than 100,000 rows. */
  isEstimate: boolean;
  bytes: {
    /** Of the database file; of PostgreSQL both tables with their indexes. */
    database: number;
    /** Of the WAL beside a SQLite file. */
    wal?: number;
    /**
     * Of the SQLite file: what deleted rows have left free. Of PostgreSQL, about: what deleted and replaced rows
     * take up until autovacuum comes.
     */
    reclaimable?: number;
  };
  /** Those with the most payload, if they were asked for; bytes of payload text. */
  largest?: { sessionId: string; events: number; bytes: number }[];
  /** Calls of this driver that aren't settled, and the bytes that wait to be written. */
  queue: { calls: number; bytes: number };
  /**
   * Transactions that wrote, how long they took, and the calls in them: `insertEvents` is one.
   */
  commits: { count: number; writes: number; latencyMs: LatencyMs };
  /**
   * From each call to its promise's end, and how many the database or the store rejected; calls
   * that were refused for their arguments aren't among them.
   */
  calls: { latencyMs: LatencyMs; rejected: number };
  /** PostgreSQL: attempts that were made again. */
  retries: number;
  /** PostgreSQL: connections made in place of lost ones. */
  reconnects: number;
  /** SQLite: how often another process's lock was waited for. */
  lockWaits: number;
}

/** Part of a list. */
export interface ListPage<T> {
  items: T[];
  /** Where the next page starts; missing on the last page. Safe in URLs. */
  nextCursor?: string;
}

/** The `code` of every error of this package. See docs/errors.md. */
export type PersistErrorCode =
  | "ERR_PERSIST_BUSY"
  | "ERR_PERSIST_CANNOT_OPEN"
  | "ERR_PERSIST_CLOSED"
  | "ERR_PERSIST_CONSTRAINT"
  | "ERR_PERSIST_CORRUPT"
  | "ERR_PERSIST_DATABASE"
  | "ERR_PERSIST_FOREIGN_TABLE"
  | "ERR_PERSIST_FULL"
  | "ERR_PERSIST_INCOMPLETE"
  | "ERR_PERSIST_INTERNAL"
  | "ERR_PERSIST_INVALID_ARG"
  | "ERR_PERSIST_MOVED"
  | "ERR_PERSIST_NOT_A_DATABASE"
  | "ERR_PERSIST_NOT_LOADED"
  | "ERR_PERSIST_OVERLOADED"
  | "ERR_PERSIST_READ_ONLY"
  | "ERR_PERSIST_SCHEMA"
  | "ERR_PERSIST_SYSTEM"
  | "ERR_PERSIST_TOO_LARGE"
  | "ERR_PERSIST_UNAVAILABLE";

/**
 * What constructors throw and promises reject with: an `Error`, or a `TypeError` with
 * `ERR_PERSIST_INVALID_ARG` for a wrong argument. Never holds a payload.
 */
export interface PersistError extends Error {
  code: PersistErrorCode;
  /** SQLite's own name of the error, such as `SQLITE_FULL`. */
  sqliteCode?: string;
  /** PostgreSQL's SQLSTATE, such as `53100`. */
  sqlState?: string;
}

/**
 * What is published of a call on the tracing channels `sandbox-agent-persist:write`, `:read`,
 * `:replay` and `:connect` of `node:diagnostics_channel`: one object for all events of the call.
 * Never holds a payload. See docs/telemetry.md.
 */
export interface TelemetryContext {
  /** The method's name, or `connect`. */
  readonly operation: string;
  /** The kind of database, as OpenTelemetry names it. */
  readonly system: "sqlite" | "postgresql";
  /** The session, where the call is for one. */
  readonly sessionId?: string;
  /** Once they are written or returned: how many sessions or events. */
  readonly rows?: number;
  /** The bytes of their texts. */
  readonly bytes?: number;
  /** Of an attempt to connect over a network: the host. */
  readonly serverAddress?: string;
  /** Of an attempt to connect over a network: its port. */
  readonly serverPort?: number;
  /** Once it has failed: what the call rejects with. */
  readonly error?: PersistError;
}

/**
 * What every driver has: `SessionPersistDriver` of the SDK, of versions 0.2 to 0.4.
 *
 * A read sees every write that was called before it on the same driver, awaited or not.
 * Fields that a newer SDK adds to a session or an event are stored and come back; in PostgreSQL
 * where the tables have a column `extra_json`, as those that this package makes.
 *
 * All methods reject with `ERR_PERSIST_CLOSED` after `close()`, and with a `TypeError`
 * (`ERR_PERSIST_INVALID_ARG`) that names a wrong argument; the driver goes on.
 */
export interface SessionPersistMethods {
  /**
   * The session with this id, or `undefined`. From SQLite answered at once, without a thread,
   * unless an update of this session is still being written.
   *
   * Rejects with `ERR_PERSIST_CORRUPT` if its row can't be read.
   */
  getSession(id: string): Promise<SessionRecord | undefined>;
  /** As SDK 0.2 and 0.3 declare it; a missing session resolves to `undefined` all the same. */
  getSession(id: string): Promise<SessionRecord | null>;

  /**
   * Sessions by `createdAt`, then `id`, oldest first unless `order` says otherwise. Any page costs
   * the same, but for the rows that a filter passes over.
   *
   * Rejects with `ERR_PERSIST_CORRUPT` if a row can't be read.
   */
  listSessions(request?: ListSessionsRequest): Promise<ListPage<SessionRecord>>;

  /**
   * Stores a session, in place of the one with its id if there is one. Resolves when it is
   * durable.
   *
   * Rejects with `ERR_PERSIST_OVERLOADED` if more than `maxQueuedBytes` wait to be written,
   * with `ERR_PERSIST_FULL` on a full disk, with `ERR_PERSIST_BUSY` if a SQLite database stays
   * locked by others for longer than `busyTimeoutMs`, with `ERR_PERSIST_UNAVAILABLE` if a
   * PostgreSQL server can't be reached for longer than `retryTimeoutMs`, and with
   * `ERR_PERSIST_READ_ONLY`.
   */
  updateSession(session: SessionRecord): Promise<void>;

  /**
   * A session's events by `eventIndex`, then `id`, oldest first unless `order` says otherwise. Any
   * page costs the same, but for the rows that a filter passes over. The first page, without a
   * `cursor`, of a session that has writes or `getSession`s outstanding, or had in this turn of the
   * event loop, waits until there are none, and so for what these lead to, at most 250 ms. In a
   * `replayView`, filters apply within the window.
   *
   * Rejects with `ERR_PERSIST_CORRUPT` if a row can't be read; the message names its id.
   */
  listEvents(request: ListEventsRequest): Promise<ListPage<SessionEvent>>;

  /**
   * Stores an event, in place of the one with its id if there is one. Resolves when it is
   * durable. The session itself may be stored later. As SDK 0.4 calls it: `sessionId` must be
   * the event's own.
   *
   * Rejects as `updateSession` does; with `ERR_PERSIST_CONSTRAINT` if a constraint that
   * somebody added to the table refuses the row, and with `ERR_PERSIST_TOO_LARGE`.
   */
  insertEvent(sessionId: string, event: SessionEvent): Promise<void>;
  /** As SDK 0.2 and 0.3 call it. */
  insertEvent(event: SessionEvent): Promise<void>;
}

/** What every driver has beyond the SDK's methods, to look into a store and to keep it small. */
export interface StoreMethods {
  /**
   * Stores events of any sessions, in one transaction: all of them or, if it rejects, none. In
   * order; of equal ids the last wins. At most 10,000 events and 64 MiB of text, else it rejects
   * with `ERR_PERSIST_TOO_LARGE`. Resolves when they are durable; rejects as `insertEvent` does.
   */
  insertEvents(events: readonly SessionEvent[]): Promise<void>;

  /**
   * Deletes a session and all of its events, those too that were called to be stored before and are
   * still waiting. What is called after it stays. A list that isn't settled yet may find nothing
   * any more. Resolves, when it is durable, to whether there was anything to delete; after a lost
   * connection `true` means that it is gone.
   *
   * Up to 10,000 events go in one transaction. A larger session goes oldest events first, in steps
   * between other writes, its record last: until it is done, later calls for this session wait, and
   * those that look at all sessions, such as `listSessions` and `stats`; others don't. `close()`
   * ends that with `ERR_PERSIST_CLOSED`, as does the end of the process; what is left can be
   * deleted again.
   *
   * Rejects as `updateSession` does; with `ERR_PERSIST_DATABASE` and the `sqlState` 42501 if the
   * PostgreSQL role may not DELETE.
   */
  deleteSession(id: string): Promise<boolean>;

  /** How many sessions there are. Counts them: that takes as long as there are many. */
  countSessions(filter?: SessionsFilter): Promise<number>;

  /**
   * How many events there are, of one session or of all. Counts them: that takes as long as there
   * are many.
   */
  countEvents(filter?: EventsFilter & { sessionId?: string | undefined }): Promise<number>;

  /**
   * Deletes what is too old or too much, in small steps between other calls. See docs/operations.md.
   *
   * No session with an event younger than an hour is removed, nor one that this driver was called for
   * within the last hour; and the event with the highest index of a session that stays is never removed,
   * so that numbering goes on. Of several processes one prunes at a time.
   *
   * Resolves to what went; with `done: false` if `signal` or `maxDurationMs` ended it: call it again. It
   * can be ended at any step, also by a crash. Rejects as `deleteSession` does; `close()` ends it with
   * `ERR_PERSIST_CLOSED`.
   */
  prune(options: PruneOptions): Promise<PruneResult>;

  /**
   * Makes one event of the chunks of a text that follow each other, in sessions that are at rest: fewer rows,
   * the same text. Those of `listEvents` and of a replay with `coalesce` are equal to the character; what
   * `replay` says of `firstEventIndex` may change. In small steps between other calls; see
   * docs/operations.md.
   *
   * The event that stays is the last one, with its `id`, `eventIndex` and `createdAt`. A text isn't joined
   * beyond 1 MiB, nor before the agent has answered the prompt. A list that is read meanwhile from the oldest
   * event on may show a text twice, never miss one; read from the newest on, it may miss one. Resolves and rejects as `prune` does.
   */
  compact(options?: CompactOptions): Promise<CompactResult>;

  /** The last event of a session, by `eventIndex`, then `id`; `undefined` if it has none. */
  lastEvent(sessionId: string): Promise<SessionEvent | undefined>;

  /**
   * Sessions, one after the other, any number of them in the memory of one page. Nothing is held
   * open between pages, each of which is as of its time; a session that is there throughout comes
   * exactly once. `break` ends it; so does an error, with which `next()` rejects, as for a wrong
   * argument.
   */
  streamSessions(request?: StreamSessionsRequest): AsyncIterableIterator<SessionRecord>;

  /** Events, as `streamSessions` does it. */
  streamEvents(request?: StreamEventsRequest): AsyncIterableIterator<SessionEvent>;

  /**
   * What is in the store, and how this driver does. Costs one round trip and scans nothing, unless
   * `largest` asks for that many of the largest sessions.
   */
  stats(options?: { largest?: number | undefined }): Promise<StoreStats>;
}

/**
 * A whole number of milliseconds from 1, or text such as `"90s"`, `"12h"` or `"30d"`: of `ms`, `s`, `m`, `h`
 * and `d`.
 */
export type Duration = number | string;

/** How much a store may hold. Counts are from 1. */
export interface Limits {
  /** The newest events that a session keeps. */
  maxEventsPerSession?: number | undefined;
  /** How many sessions may stay; the oldest by `createdAt`, then `id`, go first. */
  maxSessions?: number | undefined;
  /** Sessions go whose newest event is older, or of those without events, that were created earlier. */
  maxAge?: Duration | undefined;
  /** Sessions go that were destroyed longer ago. */
  destroyedFor?: Duration | undefined;
  /**
   * What the rows may take, without what is free in the file. The oldest sessions lose their events but for
   * the last one, then they go, and then sessions in use lose all but their newest 1,000. Of PostgreSQL it
   * is the number of rows, which are counted each time, times the mean size of some.
   */
  maxBytes?: number | undefined;
}

/** What `retention` takes. */
export interface Retention extends Limits {
  /** As `compact` does, of sessions that have been at rest for so long; from `"10m"`. Default: never. */
  compactAfter?: Duration | undefined;
}

/** What `prune` takes: at least one limit. */
export interface PruneOptions extends Limits {
  /**
   * Only says what would go. With `maxBytes` about, of events alone, and beside other limits some twice.
   * Default: `false`.
   */
  dryRun?: boolean | undefined;
  /** After so many milliseconds no further step is begun. Default: no end. */
  maxDurationMs?: number | undefined;
  /** No further step is begun once it is aborted. */
  signal?: AbortSignalLike | undefined;
  /** Is told what went so far, at most ten times a second, and once at the end. */
  onProgress?: ((progress: PruneProgress) => void) | undefined;
}

/** What went. */
export interface PruneProgress {
  sessions: number;
  events: number;
  /** Of the texts in the rows that went. */
  bytes: number;
}

/** What `prune` resolves to. */
export interface PruneResult extends PruneProgress {
  /** Whether it came to its end. */
  done: boolean;
}

/** What `compact` takes. */
export interface CompactOptions {
  /** One session. Default: all. */
  sessionId?: string | undefined;
  /**
   * Only sessions whose newest event is older; from `"10m"`, and more than `retryTimeoutMs`, as an insert
   * that is tried again would bring a chunk back. Default: `"1h"`.
   */
  idleFor?: Duration | undefined;
  /** So many of a session's newest events stay as they are. Default: 0. */
  keepNewest?: number | undefined;
  /** Whether tool calls become one with their updates, and lose the states in between. Default: `false`. */
  toolCalls?: boolean | undefined;
  /** Only says, about, what would go. Default: `false`. */
  dryRun?: boolean | undefined;
  /** As of `prune`. */
  maxDurationMs?: number | undefined;
  /** As of `prune`. */
  signal?: AbortSignalLike | undefined;
  /** As of `prune`. */
  onProgress?: ((progress: CompactProgress) => void) | undefined;
}

/** What was compacted. */
export interface CompactProgress {
  /** Sessions that were looked at. */
  sessions: number;
  /** Events in them before. */
  eventsBefore: number;
  /** Events in them after. */
  eventsAfter: number;
  /** Of the texts in the rows that went. */
  bytes: number;
}

/** What `compact` resolves to. */
export interface CompactResult extends CompactProgress {
  /** Whether it came to its end. */
  done: boolean;
}

/** What keeps a store small by itself; among the options of both drivers. */
export interface RetentionOptions {
  /**
   * What `prune` does, by itself: within seconds of this driver's first write, each minute, and when a
   * session that this driver writes has got a tenth more events than it may have. Never keeps the process
   * alive. `onError` is told of a failure, with the operation `"retention"`, and `health()` is `"degraded"`
   * until it succeeds. On a store that can't be written it has no effect, with one process warning.
   * Default: nothing is pruned.
   */
  retention?: Retention | null | undefined;
  /** As `retention.maxSessions`, and as the SDK's driver in memory names it. */
  maxSessions?: number | undefined;
  /** As `retention.maxEventsPerSession`. */
  maxEventsPerSession?: number | undefined;
}

/** What a replay may hold. Lengths are in UTF-16 units, as `length` counts. */
export interface ReplayOptions {
  /**
   * At most this many events; from 1, or `Infinity`. Not more than the SDK's own `replayMaxEvents`,
   * for a view. Default: 50, as the SDK's.
   */
  maxEvents?: number | undefined;
  /**
   * How long the text may be; from 1, or `Infinity`. Below 300, fitting is not promised. Not more
   * than the SDK's own `replayMaxChars`, for a view: else the SDK cuts the newest. Default: 12,000,
   * as the SDK's.
   */
  maxChars?: number | undefined;
  /**
   * Which end of the history is kept. `"newest"`: the newest events, as many as fit. `"oldest"`:
   * the last `maxEvents` events, of whose text the end is cut off, as the SDK does. Default:
   * `"newest"`.
   */
  keep?: "newest" | "oldest" | undefined;
  /**
   * Whether adjacent chunks of a text become one event, and a tool call and its updates. With
   * `keep: "oldest"`, `false` also leaves earlier replays in the prompts. Default: `true`.
   */
  coalesce?: boolean | undefined;
  /**
   * Each longer string in an event, but for the text of chunks, loses its middle; from 1, or
   * `Infinity`. Default: 2,000.
   */
  maxCharsPerEvent?: number | undefined;
}

/** What an agent is told of a session's history. */
export interface Replay {
  /** The text, as the SDK makes it of `events`. */
  text: string;
  /**
   * The events, oldest first. One that stands for several has the last one's `id`, `eventIndex` and
   * `createdAt`.
   */
  events: SessionEvent[];
  /** `eventIndex` of the first stored event of which something is in `events`. */
  firstEventIndex: number;
  /** `eventIndex` of the last of `events`, which is that of the last stored event. */
  lastEventIndex: number;
  /** Whether anything of the session is missing in `text`: earlier events, or parts of long ones. */
  truncated: boolean;
}

/** What every driver has beyond `SessionPersistMethods`. */
export interface ReplayMethods {
  /**
   * What an agent should be told of a session after a restore; `null` if it has no events. Reads no
   * more of the session than that, from its end. See docs/replay.md.
   *
   * Rejects as `listEvents` does, but not for a payload that can't be read: that event is left out,
   * or, if it is the newest, stands there as a stub.
   */
  replay(sessionId: string, options?: ReplayOptions): Promise<Replay | null>;

  /**
   * This driver for `SandboxAgent.connect({ persist })`: the SDK then restores any session at once,
   * with its newest context. All methods are the driver's own, but `listEvents` gives the events of
   * `replay` as if there were no others, in one page whatever the `limit`; a `cursor` counts within
   * these. So **`sdk.getEvents()` shows that window; the whole history is at the driver's own
   * `listEvents`.**
   *
   * If you give the SDK `replayMaxEvents` or `replayMaxChars`, give the same here as `maxEvents`
   * and `maxChars`. With more, the SDK itself cuts, and drops the newest. The SDK takes no
   * `Infinity`.
   *
   * @throws {TypeError} `ERR_PERSIST_INVALID_ARG`: an option is wrong or misspelt.
   */
  replayView(options?: ReplayOptions): ReplayView;
}

/** The SDK's methods, of the driver that it was made by, which is also what to close. */
export interface ReplayView extends SessionPersistMethods {}

/**
 * A driver whose lists of events are replay windows. It is open for as long as the driver that it
 * was made by.
 */
export declare class ReplayView {
  private constructor();
}

/** What every driver has for the program around it. */
export interface DriverMethods {
  /**
   * Resolves when no write and no `getSession` has been outstanding, and none has come, for
   * `quietMs` (default: 300), or when `timeoutMs` (default: 5,000) have passed. Lists and streams
   * don't count.
   *
   * The SDK hands a session's events over one after another, each once the one before is stored:
   * when `prompt()` resolves, the last of them may be still to come.
   */
  idle(options?: {
    quietMs?: number | undefined;
    timeoutMs?: number | undefined;
  }): Promise<{ timedOut: boolean }>;

  /**
   * Shows at a server's start that sessions can be stored: connects, makes the tables if they are
   * missing, and stores a session with an event, in a transaction that is rolled back. Rejects with
   * what is wrong: `ERR_PERSIST_READ_ONLY` for a file or a folder that can't be written and for a role
   * that lacks a privilege, else as any call. PostgreSQL that isn't there yet, or is a standby, is
   * waited for as long as `retryTimeoutMs` allows. `close()` and the end of the process don't wait
   * for it.
   */
  ready(): Promise<void>;

  /** How the driver is, told from how its calls end. Asks no database: made for a readiness probe. */
  health(): Health;
}

/** What `health()` returns; plain data, for `JSON.stringify`. */
export interface Health {
  /**
   * - `"ok"`
   * - `"failing"`: the last call has failed for a reason that lies with the database, in the last 30
   *   seconds. A read that succeeds says nothing of writes that failed. A row that a constraint or a
   *   trigger refuses is the row's fault, but not that of `ready()`.
   * - `"degraded"`: that was longer ago, and no call came since; or a call has been waiting for more
   *   than 2 seconds; or the last try to keep the store small has failed. Deletions, counts and filtered
   *   lists may take longer.
   * - `"closed"`
   */
  state: "ok" | "degraded" | "failing" | "closed";
  /** Since when, in milliseconds since 1970. */
  since: number;
  /** The last error that lay with the database, also if all is well by now. */
  lastError?: { code: string; message: string; operation: string; at: number };
  /** How many calls aren't settled. */
  queuedCalls: number;
  /** How long the oldest of them has been waiting, in milliseconds; 0 for none. */
  oldestQueuedMs: number;
}

/**
 * What an `onError` is told beside the error: never anything of a payload.
 *
 * `operation` is the method's name, or, for trouble that no call has failed from, `"retry"` (an
 * outage or a lock has lasted for more than 2 seconds; calls still wait) or `"checkpoint"` (SQLite's
 * WAL can't be copied into the file, and grows) or `"secureDelete"` (of what was deleted, something may be in
 * the WAL still). Of these it is told once, until they have passed. An
 * outage shows when an attempt fails: that of a server that says nothing, after `query_timeout`.
 */
export interface ErrorContext {
  operation: string;
  /** The session that the call was for, if it was for one. */
  sessionId?: string;
}

/** Options of `SQLiteSessionPersistDriver`. A name that isn't one of these is refused. */
export interface SQLiteSessionPersistDriverOptions extends RetentionOptions {
  /**
   * A path, relative to the working folder; its folder must exist. `":memory:"` is a database
   * of the driver's own in memory, `""` one in a temporary file. Default: `":memory:"`.
   */
  filename?: string | undefined;
  /**
   * What a resolved write survives. `"full"`: a loss of power. `"normal"`: the end of the
   * process, however it comes; a loss of power may take the last writes, never the database.
   * Default: `"full"`.
   */
  durability?: "full" | "normal" | undefined;
  /**
   * Who may read and write a database file that is made, whatever the umask; its `-wal` and `-shm` too. A
   * file that is there keeps its mode. Not on Windows. Default: `0o600`.
   */
  fileMode?: number | undefined;
  /**
   * Whether what is deleted is overwritten, and the `-wal` emptied of it, before the deletion resolves:
   * `deleteSession`, `prune`, `compact`. Where another process reads an old state for longer than
   * `busyTimeoutMs`, it resolves all the same, and `onError` is told with the operation `"secureDelete"`. What
   * else may hold it is in docs/operations.md. Default: `false`.
   */
  secureDelete?: boolean | undefined;
  /**
   * How long a write or a read waits while another process has the database locked, in
   * milliseconds, off the event loop. The constructor waits on it, for this long but at most
   * 5,000. Default: 30,000.
   */
  busyTimeoutMs?: number | undefined;
  /**
   * How much may wait to be written, in bytes. Further writes reject with
   * `ERR_PERSIST_OVERLOADED` until there is room; the only one never does. Matters to callers
   * that don't await. Default: 268,435,456 (256 MiB).
   */
  maxQueuedBytes?: number | undefined;
  /**
   * What becomes of an event whose `id` is stored already, as where several clients store what they all
   * see. `"replace"`: it takes the other's place, as in the SDK's drivers. `"keep"`: the stored one stays,
   * and the call resolves. A session's newest record counts in either case. Default: `"replace"`.
   */
  onDuplicateEvent?: "replace" | "keep" | undefined;
  /**
   * Is called with the error of each call that rejects, before its promise does, and with trouble in
   * the background. The SDK itself only prints a failed `insertEvent` on the console: this is where an
   * application hears of it. What it throws is a warning of the process. Don't store errors with the
   * driver that they come from: of errors of its own calls it isn't told.
   */
  onError?: ((error: Error, context: ErrorContext) => void) | null | undefined;
}

export interface SQLiteSessionPersistDriver
  extends SessionPersistMethods, StoreMethods, ReplayMethods, DriverMethods {}

/**
 * Stores sessions in a SQLite file: every write is durable when its promise resolves, and
 * nothing blocks the event loop.
 *
 * Several drivers, worker threads and processes may open the same file. Don't open it with
 * another copy of SQLite (`better-sqlite3`, `node:sqlite`) in the same process.
 */
export declare class SQLiteSessionPersistDriver {
  /**
   * Opens the database, creating it, its tables or what an older layout lacks. Synchronous,
   * like the driver it replaces; waits at most 5 seconds for another process's lock.
   *
   * @param options Default: a database in memory.
   * @throws {TypeError} `ERR_PERSIST_INVALID_ARG`: an option is wrong or misspelt.
   * @throws {PersistError} `ERR_PERSIST_CANNOT_OPEN`, `ERR_PERSIST_NOT_A_DATABASE`,
   * `ERR_PERSIST_FOREIGN_TABLE`, `ERR_PERSIST_BUSY`, `ERR_PERSIST_MOVED`: nothing in the file was
   * changed.
   */
  constructor(options?: SQLiteSessionPersistDriverOptions);
  /**
   * Writes what is queued, lets running reads finish, but for counts and filtered lists, rejects
   * these and queued reads with `ERR_PERSIST_CLOSED`, and frees the file. Synchronous: when it
   * returns, everything is durable and another driver, or `rm`, may have the file. A locked file is
   * waited for at most `busyTimeoutMs`. Calls after it reject with `ERR_PERSIST_CLOSED`, the first
   * of the process with a warning; a second `close()` does nothing. See `gracefulShutdown`.
   *
   * A driver needn't be closed: a process that ends, however it does, writes what is queued.
   */
  close(): void;
  /**
   * Makes the file as small as can be, by SQLite's own VACUUM, in place: for files of the TypeScript drivers,
   * which can't give space back in steps, and gives them that ability. Others shrink by themselves after
   * deletions, down to an eighth of free pages.
   *
   * Writes of all processes wait meanwhile, up to their `busyTimeoutMs`; reads go on. It needs twice the
   * room of what is stored, beside the file and among the temporary files: without, it rejects with
   * `ERR_PERSIST_FULL` and changes nothing; so does a crash. Rejects with the signal's reason once that is
   * aborted, with `ERR_PERSIST_BUSY` if another process has the file locked, and with `ERR_PERSIST_CLOSED`
   * if `close()` ends it.
   */
  shrink(options?: {
    signal?: AbortSignalLike | undefined;
    /** At most ten times a second, and once at the end: what is written so far. */
    onProgress?: ((progress: { bytes: number; totalBytes: number }) => void) | undefined;
  }): Promise<{ bytesBefore: number; bytesAfter: number }>;

  /**
   * Copies the whole database into a file that isn't there yet, as of one moment, while others go on
   * writing: it holds every write that was called before. The file is written beside its place, synced,
   * and gets its name in the end; aborted, nothing is left. Meanwhile the `-wal` grows by what is written.
   * `fileMode` is as in the options of the driver; `onProgress` is called some ten times a second, with
   * how large the copy is so far and, about, how large it will be. Tables that others have in the file are
   * copied too.
   *
   * Rejects with `ERR_PERSIST_CANNOT_OPEN` if there is a file of that name, or can't be one, with
   * `ERR_PERSIST_FULL`, with `ERR_PERSIST_CLOSED` if the driver is closed meanwhile, and with the signal's
   * `reason`.
   */
  backup(
    path: string,
    options?: {
      onProgress?: ((progress: { bytes: number; totalBytes: number }) => void) | undefined;
      signal?: AbortSignalLike | undefined;
      fileMode?: number | undefined;
    },
  ): Promise<void>;
  /** The same as `close()`. */
  [Symbol.dispose](): void;
  /** `close()`, after 100 ms of quiet, as of `idle()`, or 2 seconds at most. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * How to connect, in node-postgres' names and with its meaning. A name that isn't one of these is
 * refused.
 */
export interface PostgresPoolConfig {
  /**
   * As node-postgres 8 reads it, with libpq's lists of hosts and `target_session_attrs`:
   * `postgres://user:password@first,second:5433/database?target_session_attrs=read-write`. Its
   * fields win over the others here. What neither gives comes from `PGHOST`, `PGPORT`, `PGUSER`,
   * `PGPASSWORD`, `PGDATABASE`, `PGSSLMODE` and the other `PG*` variables.
   */
  connectionString?: string | undefined;
  /** A name, an address, or the folder of a socket; several, separated by commas. Default: `localhost`. */
  host?: string | undefined;
  /** Default: 5432. */
  port?: number | undefined;
  /** Default: the system's name of the user. */
  user?: string | undefined;
  /** A function is called for each new connection, as for tokens that expire. */
  password?: string | (() => string | Promise<string>) | undefined;
  /** Default: named as the user. */
  database?: string | undefined;
  /**
   * `true`, or `{ rejectUnauthorized, ca, cert, key, servername }`. `ca` adds to the built-in
   * authorities and those of `NODE_EXTRA_CA_CERTS`; `servername` must be the host. Default: plain
   * text.
   */
  ssl?: boolean | object | undefined;
  /**
   * The most connections that the driver has at a time. Default: 10. This and other numbers may also be
   * texts, as of environment variables.
   */
  max?: number | undefined;
  /** How many connections are kept however long they are idle. Default: 0. */
  min?: number | undefined;
  /** After how many milliseconds an idle connection is closed; 0: never. Default: 10,000. */
  idleTimeoutMillis?: number | null | undefined;
  /** How many milliseconds one attempt to connect may take. Default: 10,000. */
  connectionTimeoutMillis?: number | undefined;
  /** How many seconds a connection may live; 0: no end. Default: 0. */
  maxLifetimeSeconds?: number | undefined;
  /** How often a connection may be used. Default: `Infinity`. */
  maxUses?: number | undefined;
  /** Without effect: an idle driver never keeps the process alive. */
  allowExitOnIdle?: boolean | undefined;
  application_name?: string | undefined;
  fallback_application_name?: string | undefined;
  /** Milliseconds that the server gives a statement. Default: the server's. */
  statement_timeout?: false | number | undefined;
  /** Milliseconds until an unanswered attempt is made anew. Default: 15,000. */
  query_timeout?: number | undefined;
  /** Milliseconds that the server gives a statement to wait for a lock. Default: the server's. */
  lock_timeout?: number | undefined;
  /** Default: the server's. */
  idle_in_transaction_session_timeout?: number | undefined;
  /** Whether connections that were idle for long are asked first whether they still live. They are in any case. */
  keepAlive?: boolean | undefined;
  /** How long is long, in milliseconds, with `keepAlive`. Default: 30,000. */
  keepAliveInitialDelayMillis?: number | undefined;
  /** Must be UTF-8, which is the default. */
  client_encoding?: string | undefined;
  /** The server's command line, such as `-c work_mem=64MB`. Not through a pooler: it refuses it. */
  options?: string | undefined;
}

/** Options of `PostgresSessionPersistDriver`. A name that isn't one of these is refused. */
export interface PostgresSessionPersistDriverOptions extends RetentionOptions {
  /** Wins over the fields of `poolConfig`; a `connectionString` in `poolConfig` wins over this one. */
  connectionString?: string | undefined;
  /**
   * A `Pool` of node-postgres. Its settings are read, once; its connections are not used, and it is
   * never ended. `connectionString` and `poolConfig` are then ignored.
   */
  pool?: object | undefined;
  /** How to connect. */
  poolConfig?: PostgresPoolConfig | undefined;
  /** Where the tables are: letters, digits and underscores, at most 63. Default: `"public"`. */
  schema?: string | undefined;
  /**
   * Whether what the schema lacks is created by the first call. With `false` it rejects with
   * `ERR_PERSIST_SCHEMA` and says what is missing; see `postgresSchemaSql`. Default: `true`.
   */
  migrate?: boolean | undefined;
  /**
   * Whether statements are prepared once for each connection. Only for connections that no pooler
   * shares: behind PgBouncer in transaction mode, one client would run another's statement.
   * Default: `false`.
   */
  preparedStatements?: boolean | undefined;
  /**
   * How long trouble that passes by itself is ridden out, such as a restart or a fail-over, in
   * milliseconds, the first attempt included; then calls reject with `ERR_PERSIST_UNAVAILABLE`.
   * From 100. Default: 30,000.
   */
  retryTimeoutMs?: number | undefined;
  /** As for SQLite. Default: 268,435,456 (256 MiB). */
  maxQueuedBytes?: number | undefined;
  /** As for SQLite. Default: `"replace"`. */
  onDuplicateEvent?: "replace" | "keep" | undefined;
  /** As for SQLite. */
  onError?: ((error: Error, context: ErrorContext) => void) | null | undefined;
}

export interface PostgresSessionPersistDriver
  extends SessionPersistMethods, StoreMethods, ReplayMethods, DriverMethods {}

/**
 * Stores sessions in a PostgreSQL database: every write is committed when its promise resolves, and
 * nothing blocks the event loop.
 *
 * Works through poolers such as PgBouncer, and rides out lost connections, restarts and fail-overs.
 */
export declare class PostgresSessionPersistDriver {
  /**
   * Connects to nothing yet: the first call does, and looks at the schema.
   *
   * @param options Default: what node-postgres would take from the environment.
   * @throws {TypeError} `ERR_PERSIST_INVALID_ARG`: an option is wrong, misspelt, or can't be
   * honoured.
   */
  constructor(options?: PostgresSessionPersistDriverOptions);
  /**
   * Waits for 100 ms of quiet, as of `idle()`, 2 seconds at most: events may come in after a prompt
   * has been answered. Then writes what is queued, lets running reads finish, rejects queued reads
   * with `ERR_PERSIST_CLOSED`, and closes the connections. Resolves when that is done; a database
   * that can't be reached is waited for at most `retryTimeoutMs`. A pool that was passed in is left
   * as it is. Calls that come after the quiet reject with `ERR_PERSIST_CLOSED`, the first of the
   * process with a warning; a second `close()` waits for the first.
   *
   * A driver needn't be closed, but await your calls: a process that ends gives un-awaited writes
   * five seconds to reach the database.
   */
  close(): Promise<void>;
  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * The text that the SDK puts before the first prompt after a restore, character for character, made
 * of these events. `null` for none.
 *
 * @param maxChars The SDK's `replayMaxChars`, in UTF-16 units. Default: 12,000.
 * @throws {TypeError} `ERR_PERSIST_INVALID_ARG`: `events` isn't an array of objects that
 * `JSON.stringify` can print.
 * @throws {PersistError} `ERR_PERSIST_TOO_LARGE`: no string is that long.
 */
export declare function buildReplayText(
  events: readonly Pick<SessionEvent, "createdAt" | "sender" | "payload">[],
  maxChars?: number,
): string | null;

/**
 * The SQL that makes the tables and indexes of `PostgresSessionPersistDriver` in a schema, and adds
 * what SDK 0.2 and 0.3 didn't have. For those who run their own migrations, with `migrate: false`.
 * Running it again changes nothing.
 *
 * @param schema Default: `"public"`.
 * @throws {TypeError} `ERR_PERSIST_INVALID_ARG`: not a name that the driver takes, or a wrong option.
 */
export declare function postgresSchemaSql(
  schema?: string,
  options?: {
    /**
     * Whether row-level security is turned on, so that nobody has the rows but the tables' owner, roles
     * that bypass it, and `role`, whatever else is granted. Default: `false`.
     */
    rowLevelSecurity?: boolean | undefined;
    /** The role that the application logs in as, if it doesn't own the tables: gets what it needs. */
    role?: string | undefined;
  },
): string;

/**
 * The end of a server, in the right order: waits until the driver is idle, has the SDK take leave,
 * waits again, and closes the driver, all within `timeoutMs` (default: 8,000), of which each step
 * but the last takes at most half of what is left. Rejects, when all is done, with the first
 * failure. The second time for the same driver it gives the first promise.
 *
 * With `signals` it resolves at once, and does so when the first of them comes, and then ends the
 * process with code 0, or 1 after a failure; a second signal ends it at once, with 128 and its
 * number.
 *
 * @param sdk What `SandboxAgent.connect()` gave.
 * @param driver A driver, not its view.
 */
export declare function gracefulShutdown(
  sdk: { dispose(): Promise<void> },
  driver: SQLiteSessionPersistDriver | PostgresSessionPersistDriver,
  options?: {
    quietMs?: number | undefined;
    timeoutMs?: number | undefined;
    signals?: readonly ("SIGTERM" | "SIGINT")[] | undefined;
  },
): Promise<void>;

/** The version of the addon, which is the package's: another one's isn't loaded. */
export declare const VERSION: string;

/** What kind of addon was loaded. */
export declare const __napiBindingTarget: "native" | "wasm32-wasi" | "wasm32-wasip1";
