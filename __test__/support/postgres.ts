/** The database of the test run, and servers of a test's own. */
import { randomBytes } from "node:crypto";
import type { TestContext } from "node:test";
import pg from "pg";
import { startPostgres } from "../../scripts/postgres.mjs";

export { Postgres, startPostgres } from "../../scripts/postgres.mjs";

// A drop waits for locks that a driver left behind; a test should say so and not hang.
const LOCK_TIMEOUT_MS = 10_000;
/** That of the roles that tests make. */
const PASSWORD = "right";

/** The URL of the run's database, which scripts/test.mjs starts. */
export function databaseUrl(): string {
  const url = process.env.TEST_DATABASE_URL;
  if (!url) throw new Error("TEST_DATABASE_URL isn't set: run the tests with npm test");
  return url;
}

/** The parts of the run's database's URL, as `poolConfig` has them. */
export function databaseParts() {
  const url = new URL(databaseUrl());
  return {
    host: url.hostname,
    port: Number(url.port),
    user: url.username,
    database: url.pathname.slice(1),
  };
}

/** The environment, in which these and no others choose a database. */
export function environmentWith(parts: ReturnType<typeof databaseParts>, more = {}) {
  const others = Object.entries(process.env).filter(([name]) => !name.startsWith("PG"));
  return {
    ...Object.fromEntries(others),
    PGHOST: parts.host,
    PGPORT: String(parts.port),
    PGUSER: parts.user,
    PGDATABASE: parts.database,
    ...more,
  };
}

type Login = { role?: string; password?: string; database?: string };

/** The run's database by another role, or another database of its server. */
export function urlOf({ role, password = PASSWORD, database }: Login): string {
  const url = new URL(databaseUrl());
  if (role) [url.username, url.password] = [role, password];
  if (database) url.pathname = `/${database}`;
  return url.href;
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

/** A connection of the test's own, closed after it. */
export async function client(t: TestContext, connectionString = databaseUrl()) {
  const connection = new pg.Client({ connectionString });
  connection.on("error", () => {});
  await connection.connect();
  t.after(() => connection.end());
  return connection;
}

const freshName = (what: string) => `${what}_${randomBytes(8).toString("hex")}`;

/** The name of a schema of the test's own: not created, dropped after the test. */
export function freshSchema(t: TestContext): string {
  const name = freshName("test");
  t.after(() => sql(`DROP SCHEMA IF EXISTS ${name} CASCADE`));
  return name;
}

/** A role of the test's own, dropped with its privileges after the test. */
export async function freshRole(t: TestContext, attributes = "") {
  const name = freshName("role");
  await sql(`CREATE ROLE ${name} LOGIN PASSWORD '${PASSWORD}' ${attributes}`);
  t.after(async () => {
    await sql(`DROP OWNED BY ${name} CASCADE`);
    await sql(`DROP ROLE ${name}`);
  });
  return { name, url: urlOf({ role: name }) };
}

/** A database of the test's own, dropped after it with all connections to it. */
export async function freshDatabase(t: TestContext, clause = ""): Promise<string> {
  const name = freshName("test");
  await sql(`CREATE DATABASE ${name} ${clause}`);
  t.after(() => sql(`DROP DATABASE ${name} WITH (FORCE)`));
  return name;
}

/** A server of the test's own, which it may stop and kill. */
export async function ownServer(t: TestContext, options?: Parameters<typeof startPostgres>[0]) {
  const server = await startPostgres(options);
  t.after(() => server.stop("immediate"));
  return server;
}
