/** A driver on node-postgres in the manner of the TypeScript drivers that this package replaces. */
import pg from "pg";
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

const CONNECTIONS = 10;
const { builtins } = pg.types;

/** BIGINT as a number. JSONB as its text, for what reads a row reads JSON text. */
const types: pg.CustomTypesConfig = {
  getTypeParser: (oid, format): any => {
    if (oid === builtins.INT8) return Number;
    if (oid === builtins.JSONB || oid === builtins.JSON) return String;
    return pg.types.getTypeParser(oid, format);
  },
};

const schemaOf = (name: string) => `
CREATE SCHEMA IF NOT EXISTS "${name}";
CREATE TABLE IF NOT EXISTS "${name}".sessions (
  id TEXT PRIMARY KEY,
  agent TEXT NOT NULL,
  agent_session_id TEXT NOT NULL,
  last_connection_id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  destroyed_at BIGINT,
  sandbox_id TEXT,
  session_init_json JSONB,
  config_options_json JSONB,
  modes_json JSONB
);
CREATE TABLE IF NOT EXISTS "${name}".events (
  id TEXT PRIMARY KEY,
  event_index BIGINT NOT NULL,
  session_id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  connection_id TEXT NOT NULL,
  sender TEXT NOT NULL,
  payload_json JSONB NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_events_session_order
  ON "${name}".events(session_id, event_index, id);
`;

/** A pool of connections, unnamed statements, OFFSET and COUNT(*) for every page. */
export class TypeScriptPostgresDriver {
  readonly #pool: pg.Pool;
  readonly #schema: string;
  #created: Promise<unknown> | undefined;

  constructor({
    connectionString,
    schema = "public",
  }: {
    connectionString: string;
    schema?: string;
  }) {
    this.#pool = new pg.Pool({ connectionString, max: CONNECTIONS, types });
    // Unheard, the loss of an idle connection would end the process.
    this.#pool.on("error", () => {});
    this.#schema = schema;
  }

  async getSession(id: string): Promise<SessionRecord | undefined> {
    const [row] = await this.#query(`SELECT * FROM ${this.#table("sessions")} WHERE id = $1`, [id]);
    return row && toSession(row);
  }

  async updateSession(session: SessionRecord): Promise<void> {
    const text = upsertSession(this.#table("sessions"), (number) => `$${number}`);
    await this.#query(text, sessionParameters(session));
  }

  async insertEvent(...args: [string, SessionEvent] | [SessionEvent]): Promise<void> {
    const text = upsertEvent(this.#table("events"), (number) => `$${number}`);
    await this.#query(text, eventParameters(eventOf(args)));
  }

  async listSessions(request: ListPageRequest = {}): Promise<ListPage<SessionRecord>> {
    return this.#page("sessions", "TRUE", [], "created_at, id", request, toSession);
  }

  async listEvents(request: EventsRequest): Promise<ListPage<SessionEvent>> {
    const order = "event_index, id";
    return this.#page("events", "session_id = $1", [request.sessionId], order, request, toEvent);
  }

  #table(name: string): string {
    return `"${this.#schema}".${name}`;
  }

  async #query(text: string, parameters: unknown[]): Promise<Row[]> {
    this.#created ??= this.#pool.query(schemaOf(this.#schema));
    await this.#created;
    return (await this.#pool.query(text, parameters)).rows;
  }

  async #page<T>(
    name: string,
    where: string,
    parameters: string[],
    order: string,
    request: ListPageRequest,
    read: (row: Row) => T,
  ): Promise<ListPage<T>> {
    const from = `FROM ${this.#table(name)} WHERE ${where}`;
    const [limit, offset] = [limitOf(request.limit), offsetOf(request.cursor)];
    const places = `LIMIT $${parameters.length + 1} OFFSET $${parameters.length + 2}`;
    const text = `SELECT * ${from} ORDER BY ${order} ${places}`;
    const rows = await this.#query(text, [...parameters, limit, offset]);
    const [counted] = await this.#query(`SELECT COUNT(*) AS count ${from}`, parameters);
    const next = offset + rows.length;
    return { items: rows.map(read), nextCursor: next < counted!.count ? String(next) : undefined };
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }
}
