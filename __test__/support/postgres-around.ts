/** Drivers on the run's database, and what goes on around them there. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import type { TestContext } from "node:test";
import pg from "pg";
import {
  PostgresSessionPersistDriver,
  type PostgresSessionPersistDriverOptions,
} from "../../index.js";
import { databaseUrl, freshSchema, sql } from "./postgres.ts";
import { TypeScriptPostgresDriver } from "./typescript-postgres-driver.ts";
import { until } from "./waiting.ts";

const SOON_MS = 5_000;

/** A driver with these options and no others, which is closed after the test. */
export function openWith(t: TestContext, options: PostgresSessionPersistDriverOptions) {
  const driver = new PostgresSessionPersistDriver(options);
  t.after(() => driver.close());
  return driver;
}

/** One that is, by default, on the run's database and a schema of the test's own. */
export function openPostgres(t: TestContext, options: PostgresSessionPersistDriverOptions = {}) {
  const schema = options.schema ?? freshSchema(t);
  const connection = !options.pool && { connectionString: databaseUrl() };
  return openWith(t, { ...connection, ...options, schema });
}

/** A driver in the TypeScript manner that is closed after the test. */
export function openTypeScript(t: TestContext, schema: string): TypeScriptPostgresDriver {
  const driver = new TypeScriptPostgresDriver({ connectionString: databaseUrl(), schema });
  t.after(() => driver.close());
  return driver;
}

/** A name by which the server tells the connections of a driver from others. */
export const freshApplication = () => `test ${randomBytes(8).toString("hex")}`;

/** The server processes of an application, oldest first. */
export async function processesOf(application: string): Promise<number[]> {
  const rows = await sql(
    "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY backend_start",
    [application],
  );
  return rows.map(({ pid }) => pid);
}

/** Ends the server processes of an application; a row for each. */
export const terminate = (application: string) =>
  sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", [
    application,
  ]);

/** How many server processes wait for a lock on a table of the schema. */
export async function waitersIn(schema: string): Promise<number> {
  const [row] = await sql(
    `SELECT count(DISTINCT pid)::int AS waiters FROM pg_locks
     JOIN pg_class ON pg_class.oid = pg_locks.relation
     WHERE NOT granted AND relnamespace = to_regnamespace($1)`,
    [schema],
  );
  return row.waiters;
}

/** Waits until a server process of the application waits for a lock; which one. */
export async function waitingProcess(application: string): Promise<number> {
  const text =
    "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'";
  let pid: number | undefined;
  const isWaiting = async () => {
    pid = (await sql(text, [application]))[0]?.pid;
    return pid !== undefined;
  };
  await until(isWaiting, "a statement waits for a lock", SOON_MS);
  return pid!;
}

const isAlive = async (pid: number) =>
  (await sql("SELECT FROM pg_stat_activity WHERE pid = $1", [pid])).length > 0;

/** Ends every other connection to the server. */
export const TERMINATE_OTHERS = `
  SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`;

export const untilEnded = (pid: number) =>
  until(async () => !(await isAlive(pid)), "the old server process ends", SOON_MS);

/** Locks the rows of a table with this id, until the client's transaction ends. */
export async function lockRow(locker: pg.Client, table: string, id: string): Promise<void> {
  await locker.query("BEGIN");
  const { rows } = await locker.query(`SELECT FROM ${table} WHERE id = $1 FOR UPDATE`, [id]);
  assert.equal(rows.length, 1);
}

/** Has the statements of a trigger run before each insert into a table of the schema. */
export const beforeInsert = (schema: string, statements: string, table = "events") =>
  sql(`
    CREATE FUNCTION ${schema}.before_insert() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        ${statements}
        RETURN new;
      END $$;
    CREATE TRIGGER before_insert BEFORE INSERT ON ${schema}.${table} FOR EACH ROW
      EXECUTE FUNCTION ${schema}.before_insert()`);

/** Runs `body` while another transaction holds what `statement` takes. */
export async function whileHolding<T>(
  statement: string,
  body: (release: () => Promise<void>) => Promise<T>,
): Promise<T> {
  const client = new pg.Client({ connectionString: databaseUrl() });
  await client.connect();
  let released: Promise<unknown> | undefined;
  const release = async () => void (await (released ??= client.query("ROLLBACK")));
  try {
    await client.query("BEGIN");
    await client.query(statement);
    return await body(release);
  } finally {
    await release();
    await client.end();
  }
}
