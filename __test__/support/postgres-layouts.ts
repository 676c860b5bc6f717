/** The tables of older drivers, and what a schema holds. */
import type { TestContext } from "node:test";
import type { SessionEvent } from "../../index.js";
import { openTypeScript } from "./postgres-around.ts";
import { freshSchema, sql } from "./postgres.ts";

export const SESSIONS_0_3 = `id TEXT PRIMARY KEY, agent TEXT NOT NULL, agent_session_id TEXT NOT NULL,
  last_connection_id TEXT NOT NULL, created_at BIGINT NOT NULL, destroyed_at BIGINT,
  session_init_json JSONB`;
/** The columns of events that have always been as they are. */
export const REST = `session_id TEXT NOT NULL, created_at BIGINT NOT NULL, connection_id TEXT NOT NULL,
  sender TEXT NOT NULL, payload_json JSONB NOT NULL`;
export const EVENTS_0_3 = `id TEXT PRIMARY KEY, event_index BIGINT NOT NULL, ${REST}`;

/** A schema with tables of the definitions, which `rows` fills. */
export async function oldSchema(
  t: TestContext,
  { sessions = SESSIONS_0_3, events = EVENTS_0_3, rows = "" } = {},
): Promise<string> {
  const schema = freshSchema(t);
  await sql(`
    CREATE SCHEMA ${schema};
    CREATE TABLE ${schema}.sessions (${sessions});
    CREATE TABLE ${schema}.events (${events});
    CREATE INDEX idx_events_session_created ON ${schema}.events (session_id, created_at);
    ${rows.replaceAll("INTO ", `INTO ${schema}.`)}`);
  return schema;
}

/** A schema as a TypeScript driver of SDK 0.4 makes it. */
export async function schema0_4(t: TestContext): Promise<string> {
  const schema = freshSchema(t);
  await openTypeScript(t, schema).getSession("none");
  return schema;
}

/** The types of a table's columns by their names; "!" is for NOT NULL. */
export const columnsOf = async (schema: string, table: string) => {
  const rows = await sql(
    `SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS needed
     FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`,
    [`${schema}.${table}`],
  );
  return new Map(rows.map(({ name, type, needed }) => [name, needed ? `${type}!` : type]));
};

/** What an upgrade may change of events. */
export const indexed = (events: SessionEvent[]) =>
  events.map(({ id, eventIndex, payload }) => [id, eventIndex, payload]);

/**
 * What the catalog and the tables of a schema hold, down to the transaction that wrote each row:
 * equal ones mean that nothing was changed in between, not even to what it was.
 */
export async function snapshot(schema: string): Promise<unknown> {
  const relations = await sql(
    `SELECT oid::text, relname, relkind, xmin::text FROM pg_class
     WHERE relnamespace = to_regnamespace($1) ORDER BY oid`,
    [schema],
  );
  const attributes = await sql(
    `SELECT attrelid::text, attnum, attname, pg_attribute.xmin::text FROM pg_attribute
     JOIN pg_class ON pg_class.oid = attrelid
     WHERE relnamespace = to_regnamespace($1) ORDER BY attrelid, attnum`,
    [schema],
  );
  const tables = relations.filter(({ relkind }) => relkind === "r");
  const rows = tables.map(({ relname }) =>
    sql(`SELECT ctid::text, xmin::text AS writer, row::text FROM ${schema}.${relname} AS row`),
  );
  return { relations, attributes, rows: await Promise.all(rows) };
}
