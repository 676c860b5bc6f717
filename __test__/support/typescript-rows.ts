/** What drivers in the TypeScript manner share, whatever their database. */
import type { ListPageRequest, SessionEvent, SessionRecord } from "../../index.js";

export type EventsRequest = ListPageRequest & { sessionId: string };
export type Row = Record<string, any>;

const SESSION_COLUMNS = [
  ...["id", "agent", "agent_session_id", "last_connection_id", "created_at", "destroyed_at"],
  ...["sandbox_id", "session_init_json", "config_options_json", "modes_json"],
];
const EVENT_COLUMNS = [
  ...["id", "event_index", "session_id", "created_at", "connection_id", "sender"],
  "payload_json",
];

/** Inserts a row or replaces the one with its id. `place` writes a parameter, counted from 1. */
function upsert(table: string, columns: string[], place: (number: number) => string): string {
  const places = columns.map((_, index) => place(index + 1));
  const updates = columns.slice(1).map((name) => `${name} = excluded.${name}`);
  return `INSERT INTO ${table} (${columns.join(", ")}) VALUES (${places.join(", ")})
    ON CONFLICT(id) DO UPDATE SET ${updates.join(", ")}`;
}
export const upsertSession = (table: string, place: (number: number) => string) =>
  upsert(table, SESSION_COLUMNS, place);
export const upsertEvent = (table: string, place: (number: number) => string) =>
  upsert(table, EVENT_COLUMNS, place);

/** Both ways to call `insertEvent`. */
export const eventOf = (args: [string, SessionEvent] | [SessionEvent]): SessionEvent =>
  args.length === 1 ? args[0] : args[1];

export const offsetOf = (cursor?: string) => {
  const offset = Number.parseInt(cursor ?? "", 10);
  return offset > 0 ? Math.min(offset, Number.MAX_SAFE_INTEGER) : 0;
};
export const limitOf = (limit?: number) =>
  Number.isFinite(limit) && limit! >= 1 ? Math.floor(limit!) : 100;

export const sessionParameters = (session: SessionRecord) => [
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
export const eventParameters = (event: SessionEvent) => [
  event.id,
  event.eventIndex,
  event.sessionId,
  event.createdAt,
  event.connectionId,
  event.sender,
  JSON.stringify(event.payload),
];
export const toSession = (row: Row): SessionRecord => ({
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
export const toEvent = (row: Row): SessionEvent => ({
  id: String(row.id),
  eventIndex: row.event_index,
  sessionId: row.session_id,
  createdAt: row.created_at,
  connectionId: row.connection_id,
  sender: row.sender,
  payload: JSON.parse(row.payload_json),
});
