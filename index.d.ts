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

/** Which part of a list is wanted. */
export interface ListPageRequest {
  /**
   * `nextCursor` of the page before, or a decimal offset. Default, and for what can't be read:
   * the start.
   */
  cursor?: string | undefined;
  /** At most this many items. Default, and for anything that is no number from 1: 100. */
  limit?: number | undefined;
}

/** Which part of a session's events is wanted. */
export interface ListEventsRequest extends ListPageRequest {
  /** The session. */
  sessionId: string;
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
  | "ERR_PERSIST_INTERNAL"
  | "ERR_PERSIST_INVALID_ARG"
  | "ERR_PERSIST_MOVED"
  | "ERR_PERSIST_NOT_A_DATABASE"
  | "ERR_PERSIST_NOT_LOADED"
  | "ERR_PERSIST_OVERLOADED"
  | "ERR_PERSIST_READ_ONLY"
  | "ERR_PERSIST_SCHEMA"
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
   * Sessions, oldest first: by `createdAt`, then `id`. Any page costs the same.
   *
   * Rejects with `ERR_PERSIST_CORRUPT` if a row can't be read.
   */
  listSessions(request?: ListPageRequest): Promise<ListPage<SessionRecord>>;

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
   * A session's events by `eventIndex`, then `id`. Any page costs the same.
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

/** What a replay may hold. Lengths are in UTF-16 units, as `length` counts. */
export interface ReplayOptions {
  /**
   * At most this many events; from 1, or `Infinity`. Not more than the SDK's own `replayMaxEvents`, for
   * a view. Default: 50, as the SDK's.
   */
  maxEvents?: number | undefined;
  /**
   * How long the text may be; from 1, or `Infinity`. Below 300, fitting is not promised. Not more than
   * the SDK's own `replayMaxChars`, for a view: else the SDK cuts the newest. Default: 12,000, as the
   * SDK's.
   */
  maxChars?: number | undefined;
  /**
   * Which end of the history is kept. `"newest"`: the newest events, as many as fit. `"oldest"`: the
   * last `maxEvents` events, of whose text the end is cut off, as the SDK does. Default: `"newest"`.
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
   * If you give the SDK `replayMaxEvents` or `replayMaxChars`, give the same here as `maxEvents` and
   * `maxChars`. With more, the SDK itself cuts, and drops the newest. The SDK takes no `Infinity`.
   *
   * @throws {TypeError} `ERR_PERSIST_INVALID_ARG`: an option is wrong or misspelt.
   */
  replayView(options?: ReplayOptions): ReplayView;
}

/** The SDK's methods, of the driver that it was made by, which is also what to close. */
export interface ReplayView extends SessionPersistMethods {}

/** Options of `SQLiteSessionPersistDriver`. A name that isn't one of these is refused. */
export interface SQLiteSessionPersistDriverOptions {
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
}

export interface SQLiteSessionPersistDriver extends SessionPersistMethods, ReplayMethods {
  /** The same as `close()`. */
  [Symbol.dispose](): void;
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
  /** The most connections that the driver has at a time. Default: 10. */
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
export interface PostgresSessionPersistDriverOptions {
  /** See `PostgresPoolConfig`; one in `poolConfig` wins. */
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
   * milliseconds, the first attempt included; then calls reject with `ERR_PERSIST_UNAVAILABLE`. From
   * 100. Default: 30,000.
   */
  retryTimeoutMs?: number | undefined;
  /** As for SQLite. Default: 268,435,456 (256 MiB). */
  maxQueuedBytes?: number | undefined;
}

export interface PostgresSessionPersistDriver extends SessionPersistMethods, ReplayMethods {
  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Which binding artifact the generated loader actually loaded: `'native'` for
 * a native addon, otherwise the `platformArchABI` of the WASI flavor. Every
 * flavor napi-rs can build is listed, because `NAPI_RS_NATIVE_LIBRARY_PATH`
 * can point the loader at a WASI artifact this package does not build itself.
 */
export declare const __napiBindingTarget: 'native' | 'wasm32-wasi' | 'wasm32-wasip1'

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
  constructor(options?: PostgresSessionPersistDriverOptions)
  /**
   * Writes what is queued, lets running reads finish, rejects queued reads with
   * `ERR_PERSIST_CLOSED`, and closes the connections. Resolves when that is done; a database that
   * can't be reached is waited for at most `retryTimeoutMs`. A pool that was passed in is left as
   * it is. Calls after it reject with `ERR_PERSIST_CLOSED`; a second `close()` waits for the first.
   *
   * A driver needn't be closed, but await your calls: a process that ends gives un-awaited writes
   * five seconds to reach the database.
   */
  close(): Promise<void>
}

/**
 * A driver whose lists of events are replay windows. It is open for as long as the driver that it
 * was made by.
 */
export declare class ReplayView {}

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
   * `ERR_PERSIST_FOREIGN_TABLE`, `ERR_PERSIST_BUSY`, `ERR_PERSIST_MOVED`: nothing in the file was changed.
   */
  constructor(options?: SQLiteSessionPersistDriverOptions)
  /**
   * Writes what is queued, lets running reads finish, rejects queued reads with
   * `ERR_PERSIST_CLOSED`, and frees the file. Synchronous: when it returns, everything is
   * durable and another driver, or `rm`, may have the file. A locked file is waited for at
   * most `busyTimeoutMs`. Calls after it reject with `ERR_PERSIST_CLOSED`; a second
   * `close()` does nothing.
   *
   * A driver needn't be closed: a process that ends, however it does, writes what is queued.
   */
  close(): void
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
export declare function buildReplayText(events: readonly Pick<SessionEvent, "createdAt" | "sender" | "payload">[], maxChars?: number): string | null

/**
 * The SQL that makes the tables and indexes of `PostgresSessionPersistDriver` in a schema, and adds
 * what SDK 0.2 and 0.3 didn't have. For those who run their own migrations, with `migrate: false`.
 * Running it again changes nothing.
 *
 * @param schema Default: `"public"`.
 * @throws {TypeError} `ERR_PERSIST_INVALID_ARG`: not a name that the driver takes.
 */
export declare function postgresSchemaSql(schema?: string): string

/** The version of the addon, which is the package's: another one's isn't loaded. */
export declare const VERSION: string
