/** Drivers on the run's database, and what goes on around them there. */
import { randomBytes } from "node:crypto";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import {
  PostgresSessionPersistDriver,
  type PostgresSessionPersistDriverOptions,
} from "../../index.js";
import { databaseUrl, freshSchema, sql } from "./postgres.ts";
import { TypeScriptPostgresDriver } from "./typescript-postgres-driver.ts";

const UNTIL_MS = 10_000;

/** A driver that is closed after the test, by default on a schema of the test's own. */
export function openPostgres(
  t: TestContext,
  options: PostgresSessionPersistDriverOptions = {},
): PostgresSessionPersistDriver {
  const schema = options.schema ?? freshSchema(t);
  const driver = new PostgresSessionPersistDriver({
    ...(!options.pool && { connectionString: databaseUrl() }),
    ...options,
    schema,
  });
  t.after(() => driver.close());
  return driver;
}

/** A driver in the TypeScript manner that is closed after the test. */
export function openTypeScript(t: TestContext, schema: string): TypeScriptPostgresDriver {
  const driver = new TypeScriptPostgresDriver({ connectionString: databaseUrl(), schema });
  t.after(() => driver.close());
  return driver;
}

/** A role of the test's own, dropped with its privileges after the test. */
export async function freshRole(t: TestContext, attributes = "") {
  const name = `role_${randomBytes(8).toString("hex")}`;
  await sql(`CREATE ROLE ${name} LOGIN ${attributes}`);
  t.after(async () => {
    await sql(`DROP OWNED BY ${name} CASCADE`);
    await sql(`DROP ROLE ${name}`);
  });
  const url = new URL(databaseUrl());
  url.username = name;
  return { name, url: url.href };
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

/** Resolves when the condition holds, or fails. */
export async function until(condition: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + UNTIL_MS;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`it did not happen: ${condition}`);
    await sleep(10);
  }
}

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
