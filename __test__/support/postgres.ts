/** The database of the test run, and servers of a test's own. */
import { randomBytes } from "node:crypto";
import type { TestContext } from "node:test";
import pg from "pg";

export { Postgres, startPostgres } from "../../scripts/postgres.mjs";

// A drop waits for locks that a driver left behind; a test should say so and not hang.
const LOCK_TIMEOUT_MS = 10_000;

/** The URL of the run's database, which scripts/test.mjs starts. */
export function databaseUrl(): string {
  const url = process.env.TEST_DATABASE_URL;
  if (!url) throw new Error("TEST_DATABASE_URL isn't set: run the tests with npm test");
  return url;
}

/** The same database at another port of this machine, such as a relay's. */
export function atPort(url: string, port: number): string {
  const moved = new URL(url);
  moved.hostname = "127.0.0.1";
  moved.port = String(port);
  return moved.href;
}

/** Host and port of a URL. */
export function addressOf(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url);
  return { host: hostname.replace(/^\[|\]$/g, ""), port: Number(port || 5432) };
}

let pool: pg.Pool | undefined;
function sharedPool(): pg.Pool {
  pool ??= new pg.Pool({
    connectionString: databaseUrl(),
    allowExitOnIdle: true,
    lock_timeout: LOCK_TIMEOUT_MS,
  }).on("error", () => {});
  return pool;
}

/** The rows of a statement on the run's database. */
export async function sql(text: string, parameters?: unknown[]): Promise<any[]> {
  return (await sharedPool().query(text, parameters)).rows;
}

/** The name of a schema of the test's own: not created, dropped after the test. */
export function freshSchema(t: TestContext): string {
  const name = `test_${randomBytes(8).toString("hex")}`;
  t.after(() => sql(`DROP SCHEMA IF EXISTS ${name} CASCADE`));
  return name;
}
