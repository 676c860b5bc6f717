/** Stores with many rows, made by SQL, and looked at past their drivers. */
import type { TestContext } from "node:test";
import Database from "better-sqlite3";
import { PostgresSessionPersistDriver, SQLiteSessionPersistDriver } from "../../index.js";
import { file } from "./fixtures.ts";
import type { OurDriver } from "./operations.ts";
import { databaseUrl, freshSchema, sql } from "./postgres.ts";
import { freshApplication, processesOf, whileHolding } from "./postgres-around.ts";
import { until } from "./waiting.ts";

/** About as large as an envelope of a chunk. */
const PAYLOAD = JSON.stringify({
  jsonrpc: "2.0",
  method: "session/update",
  params: { text: "x".repeat(300) },
});
const EVENT_COLUMNS =
  "(id, event_index, session_id, created_at, connection_id, sender, payload_json)";
const SESSION_COLUMNS = "(id, agent, agent_session_id, last_connection_id, created_at)";

export interface LargeStore {
  /** What a driver of it is opened with. */
  options:
    | { filename: string }
    | { connectionString: string; schema: string; poolConfig: { application_name: string } };
  /** A driver of it; the caller closes it. */
  open(): OurDriver;
  /** Adds so many events, of so many sessions alike. No driver in this process may be open. */
  addEvents(sessionIds: string[], eventsOfEach: number): Promise<void>;
  addSessions(count: number): Promise<void>;
  /** How many events a session has. No driver in this process may be open. */
  count(sessionId: string): Promise<number>;
  /** Runs `body`; until it releases it, no deletion that may be fast gets beyond this event. */
  keeping(
    sessionId: string,
    eventIndex: number,
    body: (release: () => Promise<void>) => Promise<void>,
  ): Promise<void>;
  /** Resolves when nothing is done any more for processes that ended. */
  settled(): Promise<void>;
}

/** One in a file. */
export function largeSqlite(t: TestContext): LargeStore {
  const filename = file(t);
  const open = () => new SQLiteSessionPersistDriver({ filename });
  open().close();
  const run = async <T>(body: (database: Database.Database) => T): Promise<T> => {
    const database = new Database(filename);
    try {
      return body(database);
    } finally {
      database.close();
    }
  };
  const series = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT ?)";
  return {
    options: { filename },
    open,
    addEvents: (sessionIds, count) =>
      run((database) => {
        const insert = database.prepare(
          `${series} INSERT INTO events ${EVENT_COLUMNS}
           SELECT ? || n, n, ?, n, 'c', iif(n % 2, 'agent', 'client'), ? FROM s`,
        );
        database.transaction(() => {
          for (const id of sessionIds) insert.run(count, `${id} `, id, PAYLOAD);
        })();
      }),
    addSessions: (count) =>
      run((database) => {
        database
          .prepare(
            `${series} INSERT INTO sessions ${SESSION_COLUMNS}
             SELECT 's' || n, 'agent' || n % 7, 'a', 'c', n / 3 FROM s`,
          )
          .run(count);
      }),
    count: (sessionId) =>
      run((database) => {
        const counted = database.prepare("SELECT count(*) FROM events WHERE session_id = ?");
        return counted.pluck().get(sessionId) as number;
      }),
    keeping: (_sessionId, _eventIndex, body) => body(async () => {}),
    settled: async () => {},
  };
}

/** One in a schema. */
export async function largePostgres(t: TestContext): Promise<LargeStore & { schema: string }> {
  const schema = freshSchema(t);
  const application_name = freshApplication();
  const options = { connectionString: databaseUrl(), schema, poolConfig: { application_name } };
  const open = () => new PostgresSessionPersistDriver(options);
  const first = open();
  await first.countEvents();
  await first.close();
  return {
    options,
    schema,
    open,
    addEvents: async (sessionIds, count) => {
      await sql(
        `INSERT INTO ${schema}.events ${EVENT_COLUMNS}
         SELECT id || ' ' || n, n, id, n, 'c', CASE n % 2 WHEN 0 THEN 'client' ELSE 'agent' END, $3
         FROM unnest($1::text[]) AS id, generate_series(1, $2::int) AS n`,
        [sessionIds, count, PAYLOAD],
      );
    },
    addSessions: async (count) => {
      await sql(
        `INSERT INTO ${schema}.sessions ${SESSION_COLUMNS}
         SELECT 's' || n, 'agent' || n % 7, 'a', 'c', n / 3 FROM generate_series(1, $1::int) AS n`,
        [count],
      );
    },
    count: async (sessionId) => {
      const text = `SELECT count(*)::int FROM ${schema}.events WHERE session_id = $1`;
      return (await sql(text, [sessionId]))[0].count;
    },
    keeping: (sessionId, eventIndex, body) => {
      const id = `${sessionId} ${eventIndex}`;
      return whileHolding(`SELECT FROM ${schema}.events WHERE id = '${id}' FOR UPDATE`, body);
    },
    settled: () => until(async () => (await processesOf(application_name)).length === 0),
  };
}
