/**
 * Two drivers on better-sqlite3, for comparison: one in the manner of the TypeScript drivers
 * that this package replaces, one tuned as far as a synchronous driver goes.
 */
import Database from "better-sqlite3";
import type { ListPage, ListPageRequest, SessionEvent, SessionRecord } from "../../index.js";

type EventsRequest = ListPageRequest & { sessionId: string };
type Row = Record<string, any>;

const SCHEMA = `
CREATE TABLE IF NOT EXISTS sessions (
  id TEXT PRIMARY KEY,
  agent TEXT NOT NULL,
  agent_session_id TEXT NOT NULL,
  last_connection_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  destroyed_at INTEGER,
  sandbox_id TEXT,
  session_init_json TEXT,
  config_options_json TEXT,
  modes_json TEXT
);
CREATE TABLE IF NOT EXISTS events (
  id TEXT PRIMARY KEY,
  event_index INTEGER NOT NULL,
  session_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  connection_id TEXT NOT NULL,
  sender TEXT NOT NULL,
  payload_json TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_events_session_order ON events(session_id, event_index, id);
`;

const UPSERT_SESSION = `INSERT INTO sessions
  (id, agent, agent_session_id, last_connection_id, created_at, destroyed_at, sandbox_id,
   session_init_json, config_options_json, modes_json)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
  ON CONFLICT(id) DO UPDATE SET agent = excluded.agent,
   agent_session_id = excluded.agent_session_id, last_connection_id = excluded.last_connection_id,
   created_at = excluded.created_at, destroyed_at = excluded.destroyed_at,
   sandbox_id = excluded.sandbox_id, session_init_json = excluded.session_init_json,
   config_options_json = excluded.config_options_json, modes_json = excluded.modes_json`;

const UPSERT_EVENT = `INSERT INTO events
  (id, event_index, session_id, created_at, connection_id, sender, payload_json)
  VALUES (?, ?, ?, ?, ?, ?, ?)
  ON CONFLICT(id) DO UPDATE SET event_index = excluded.event_index,
   session_id = excluded.session_id, created_at = excluded.created_at,
   connection_id = excluded.connection_id, sender = excluded.sender,
   payload_json = excluded.payload_json`;

const offsetOf = (cursor?: string) => {
  const offset = Number.parseInt(cursor ?? "", 10);
  return offset > 0 ? Math.min(offset, Number.MAX_SAFE_INTEGER) : 0;
};
const limitOf = (limit?: number) =>
  Number.isFinite(limit) && limit! >= 1 ? Math.floor(limit!) : 100;

const sessionParameters = (session: SessionRecord) => [
  session.id,
  session.agent,
  session.agentSessionId,
  session.lastConnectionId,
  session.createdAt,
  session.destroyedAt ?? null,
  session.sandboxId ?? null,
  session.sessionInit ? JSON.stringify(session.sessionInit) : null,
  session.configOptions ? JSON.stringify(session.configOptions) : null,
  session.modes !== undefined ? JSON.stringify(session.modes) : null,
];
const eventParameters = (event: SessionEvent) => [
  event.id,
  event.eventIndex,
  event.sessionId,
  event.createdAt,
  event.connectionId,
  event.sender,
  JSON.stringify(event.payload),
];
const toSession = (row: Row): SessionRecord => ({
  id: row.id,
  agent: row.agent,
  agentSessionId: row.agent_session_id,
  lastConnectionId: row.last_connection_id,
  createdAt: row.created_at,
  destroyedAt: row.destroyed_at ?? undefined,
  sandboxId: row.sandbox_id ?? undefined,
  sessionInit: row.session_init_json ? JSON.parse(row.session_init_json) : undefined,
  configOptions: row.config_options_json ? JSON.parse(row.config_options_json) : undefined,
  modes: row.modes_json ? JSON.parse(row.modes_json) : undefined,
});
const toEvent = (row: Row): SessionEvent => ({
  id: String(row.id),
  eventIndex: row.event_index,
  sessionId: row.session_id,
  createdAt: row.created_at,
  connectionId: row.connection_id,
  sender: row.sender,
  payload: JSON.parse(row.payload_json),
});

/** Statements prepared a call, a rollback journal, OFFSET and COUNT(*) for every page. */
export class TypeScriptSQLiteDriver {
  readonly #db: Database.Database;

  constructor({ filename = ":memory:" }: { filename?: string } = {}) {
    this.#db = new Database(filename);
    this.#db.exec(SCHEMA);
  }

  async getSession(id: string): Promise<SessionRecord | undefined> {
    const row = this.#db.prepare("SELECT * FROM sessions WHERE id = ?").get(id) as Row | undefined;
    return row && toSession(row);
  }

  async updateSession(session: SessionRecord): Promise<void> {
    this.#db.prepare(UPSERT_SESSION).run(...sessionParameters(session));
  }

  async insertEvent(...args: [string, SessionEvent] | [SessionEvent]): Promise<void> {
    const event = args.length === 1 ? args[0] : args[1];
    this.#db.prepare(UPSERT_EVENT).run(...eventParameters(event));
  }

  async listSessions(request: ListPageRequest = {}): Promise<ListPage<SessionRecord>> {
    return this.#page("sessions", "1 = 1", [], "created_at, id", request, toSession);
  }

  async listEvents(request: EventsRequest): Promise<ListPage<SessionEvent>> {
    const order = "event_index, id";
    return this.#page("events", "session_id = ?", [request.sessionId], order, request, toEvent);
  }

  #page<T>(
    table: string,
    where: string,
    parameters: string[],
    order: string,
    request: ListPageRequest,
    read: (row: Row) => T,
  ): ListPage<T> {
    const offset = offsetOf(request.cursor);
    const rows = this.#db
      .prepare(`SELECT * FROM ${table} WHERE ${where} ORDER BY ${order} LIMIT ? OFFSET ?`)
      .all(...parameters, limitOf(request.limit), offset) as Row[];
    const { count } = this.#db
      .prepare(`SELECT COUNT(*) AS count FROM ${table} WHERE ${where}`)
      .get(...parameters) as { count: number };
    const next = offset + rows.length;
    return { items: rows.map(read), nextCursor: next < count ? String(next) : undefined };
  }

  close(): void {
    this.#db.close();
  }
}

/** WAL with `synchronous=FULL`, every statement prepared once, keyset pages. */
export class TunedSQLiteDriver {
  readonly #db: Database.Database;
  readonly #get;
  readonly #update;
  readonly #insert;
  readonly #sessions;
  readonly #events;

  constructor({ filename = ":memory:" }: { filename?: string } = {}) {
    this.#db = new Database(filename);
    this.#db.pragma("journal_mode = WAL");
    this.#db.pragma("synchronous = FULL");
    this.#db.exec(SCHEMA);
    this.#get = this.#db.prepare("SELECT * FROM sessions WHERE id = ?");
    this.#update = this.#db.prepare(UPSERT_SESSION);
    this.#insert = this.#db.prepare(UPSERT_EVENT);
    this.#sessions = this.#db.prepare("SELECT * FROM sessions ORDER BY created_at, id");
    this.#events = this.#db.prepare(
      `SELECT * FROM events WHERE session_id = ? AND (event_index, id) > (?, ?)
       ORDER BY event_index, id LIMIT ?`,
    );
  }

  async getSession(id: string): Promise<SessionRecord | undefined> {
    const row = this.#get.get(id) as Row | undefined;
    return row && toSession(row);
  }

  async updateSession(session: SessionRecord): Promise<void> {
    this.#update.run(...sessionParameters(session));
  }

  async insertEvent(...args: [string, SessionEvent] | [SessionEvent]): Promise<void> {
    const event = args.length === 1 ? args[0] : args[1];
    this.#insert.run(...eventParameters(event));
  }

  async listSessions(): Promise<ListPage<SessionRecord>> {
    return { items: (this.#sessions.all() as Row[]).map(toSession) };
  }

  async listEvents(request: EventsRequest): Promise<ListPage<SessionEvent>> {
    const limit = limitOf(request.limit);
    const [index, id] = request.cursor ? JSON.parse(request.cursor) : [-1, ""];
    const rows = this.#events.all(request.sessionId, index, id, limit + 1) as Row[];
    const items = rows.slice(0, limit).map(toEvent);
    const last = items.at(-1);
    return {
      items,
      nextCursor: rows.length > limit ? JSON.stringify([last!.eventIndex, last!.id]) : undefined,
    };
  }

  close(): void {
    this.#db.close();
  }
}
