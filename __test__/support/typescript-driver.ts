/**
 * Two drivers on better-sqlite3, for comparison: one in the manner of the TypeScript drivers
 * that this package replaces, one tuned as far as a synchronous driver goes.
 */
import Database from "better-sqlite3";
import type { ListPage, ListPageRequest, SessionEvent, SessionRecord } from "../../index.js";
import {
  eventOf,
  eventParameters,
  limitOf,
  offsetOf,
  sessionParameters,
  toEvent,
  toSession,
  upsertEvent,
  upsertSession,
  type EventsRequest,
  type Row,
} from "./typescript-rows.ts";

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

const UPSERT_SESSION = upsertSession("sessions", () => "?");
const UPSERT_EVENT = upsertEvent("events", () => "?");

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
    this.#db.prepare(UPSERT_EVENT).run(...eventParameters(eventOf(args)));
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
    this.#insert.run(...eventParameters(eventOf(args)));
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
