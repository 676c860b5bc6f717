/**
 * What stores batches of events without a driver, for comparison with `insertEvents`: in the tables
 * that the driver makes, one transaction a batch. Rows are inserted only, where the driver also
 * replaces those that are there.
 */
import { once } from "node:events";
import Database from "better-sqlite3";
import pg from "pg";
import { from } from "pg-copy-streams";
import { eventParameters } from "../__test__/support/typescript-rows.ts";
import { postgresSchemaSql, SQLiteSessionPersistDriver, type SessionEvent } from "../index.js";
import type { PostgresPlace, SQLitePlace } from "./drivers.ts";

export interface Batches {
  insertEvents(events: readonly SessionEvent[]): Promise<void>;
  close(): void | Promise<void>;
}

const COLUMNS = "id, event_index, session_id, created_at, connection_id, sender, payload_json";
/** A statement of PostgreSQL's has at most 65,535 parameters. */
const ROWS_A_STATEMENT = 1_000;

/** better-sqlite3's own transaction around a statement that is prepared once. */
export async function transactions({ filename }: SQLitePlace): Promise<Batches> {
  const layout = new SQLiteSessionPersistDriver({ filename });
  await layout.listSessions();
  layout.close();
  const database = new Database(filename);
  database.pragma("journal_mode = WAL");
  database.pragma("synchronous = FULL");
  const insert = database.prepare(`INSERT INTO events (${COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)`);
  const store = database.transaction((events: readonly SessionEvent[]) => {
    for (const event of events) insert.run(...eventParameters(event));
  });
  return {
    insertEvents: async (events) => store(events),
    close: () => void database.close(),
  };
}

/** One `COPY … FROM STDIN` a batch. */
export async function copies(place: PostgresPlace): Promise<Batches> {
  const { client, table } = await connect(place);
  const special = /[\\\n\r\t]/g;
  const escapes: Record<string, string> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };
  const field = (value: unknown) => String(value).replace(special, (found) => escapes[found]!);
  const line = (event: SessionEvent) => `${eventParameters(event).map(field).join("\t")}\n`;
  return {
    async insertEvents(events) {
      const stream = client.query(from(`COPY ${table} (${COLUMNS}) FROM STDIN`));
      stream.end(events.map(line).join(""));
      await once(stream, "finish");
    },
    close: () => client.end(),
  };
}

/** INSERTs of 1,000 rows and their parameters, between BEGIN and COMMIT. */
export async function multiRowInserts(place: PostgresPlace): Promise<Batches> {
  const { client, table } = await connect(place);
  const insert = async (events: readonly SessionEvent[]) => {
    const rows = events.map(eventParameters);
    const places = rows.map((row, index) => {
      const numbers = row.map((_, column) => `$${index * row.length + column + 1}`);
      return `(${numbers.join(", ")})`;
    });
    const text = `INSERT INTO ${table} (${COLUMNS}) VALUES ${places.join(", ")}`;
    await client.query(text, rows.flat());
  };
  return {
    async insertEvents(events) {
      await client.query("BEGIN");
      for (let start = 0; start < events.length; start += ROWS_A_STATEMENT) {
        await insert(events.slice(start, start + ROWS_A_STATEMENT));
      }
      await client.query("COMMIT");
    },
    close: () => client.end(),
  };
}

async function connect({ connectionString, schema }: PostgresPlace) {
  const client = new pg.Client({ connectionString });
  await client.connect();
  await client.query(postgresSchemaSql(schema));
  return { client, table: `${schema}.events` };
}
