/** The databases that are compared on: places for trials, and histories to read. */
import { randomBytes } from "node:crypto";
import { copyFileSync, statfsSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import pg from "pg";
import { TunedSQLiteDriver } from "../__test__/support/typescript-driver.ts";
import { TypeScriptPostgresDriver } from "../__test__/support/typescript-postgres-driver.ts";
import { eventParameters } from "../__test__/support/typescript-rows.ts";
import type { DatabaseName, PostgresPlace, SQLitePlace } from "./drivers.ts";
import { benchmarkEvent } from "./trial.ts";

const ROWS_A_STATEMENT = 1_000;
const TMPFS_MAGIC = 0x01021994;

export interface BenchmarkDatabase {
  /** What figures depend on, for the reader. */
  description: string;
  /** Makes a history of that many events, for all drivers alike. */
  fillHistory(events: number): Promise<void>;
  /**
   * A trial's place: in its folder, if anywhere; empty, or with a history of so many events, which is
   * its own if it changes it.
   */
  place(
    folder: string,
    history?: { events: number; isChanged: boolean },
  ): Promise<{ place: SQLitePlace | PostgresPlace; release: () => Promise<void> }>;
  stop(): Promise<void>;
}

/** In batches of up to so many. */
function* historyRows(events: number, batch: number) {
  for (let first = 1; first <= events; first += batch) {
    const row = (_: unknown, at: number) => eventParameters(benchmarkEvent("history", first + at));
    yield Array.from({ length: Math.min(batch, events - first + 1) }, row);
  }
}

/** Files in a folder; histories are laid out by the tuned driver, and each trial has a copy. */
async function startSQLite(folder: string): Promise<BenchmarkDatabase> {
  const memory = new Database(":memory:");
  const version = memory.prepare("SELECT sqlite_version()").pluck().get();
  memory.close();
  const historyFile = (events: number) => join(folder, `history-${events}.db`);
  return {
    description: `better-sqlite3's SQLite ${version}`,

    async fillHistory(events) {
      const filename = historyFile(events);
      new TunedSQLiteDriver({ filename }).close();
      const database = new Database(filename);
      const insert = database.prepare("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)");
      database.transaction(() => {
        for (const rows of historyRows(events, ROWS_A_STATEMENT)) {
          for (const row of rows) insert.run(...row);
        }
      })();
      database.pragma("wal_checkpoint(TRUNCATE)");
      database.close();
    },

    async place(own, history) {
      const filename = join(own, "sessions.db");
      if (history !== undefined) copyFileSync(historyFile(history.events), filename);
      return { place: { filename }, release: async () => {} };
    },

    async stop() {},
  };
}

/** Where to connect to, and how to end it; a server is started unless TEST_DATABASE_URL names one. */
async function startServer() {
  const url = process.env.TEST_DATABASE_URL;
  if (url) return { url, remark: "at TEST_DATABASE_URL", stop: async () => {} };
  const { startPostgres } = await import("../scripts/postgres.mjs");
  const server = await startPostgres();
  const isInMemory = statfsSync(server.folder).type === TMPFS_MAGIC;
  return {
    url: server.url,
    remark: isInMemory
      ? "but with its data in memory, where a sync costs nothing: set TMPDIR to a folder on a disk"
      : "started for this run with its default settings",
    stop: () => server.stop(),
  };
}

/** Schemas of a server; histories have the TypeScript driver's layout, and all trials read one. */
async function startPostgres(): Promise<BenchmarkDatabase> {
  const server = await startServer();
  // A lost connection rejects the query; unheard, it would end the process as well.
  const pool = new pg.Pool({ connectionString: server.url, max: 1 }).on("error", () => {});
  const schemas = new Set<string>();
  const prefix = `bench_${randomBytes(4).toString("hex")}`;
  const placeOf = (name: string): PostgresPlace => {
    schemas.add(name);
    return { connectionString: server.url, schema: name };
  };
  const historySchema = (events: number) => `${prefix}_history_${events}`;
  const drop = async (schema: string) => {
    await pool.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`);
    schemas.delete(schema);
  };
  const fill = async (place: PostgresPlace, events: number) => {
    const layout = new TypeScriptPostgresDriver(place);
    await layout.listSessions();
    await layout.close();
    const table = `${place.schema}.events`;
    const insert = `INSERT INTO ${table} SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[],
      $4::bigint[], $5::text[], $6::text[], $7::jsonb[])`;
    for (const rows of historyRows(events, ROWS_A_STATEMENT)) {
      const columns = rows[0]!.map((_, column) => rows.map((row) => row[column]));
      await pool.query(insert, columns);
    }
    // Otherwise the first to read would do what the server leaves to readers after an insert, and
    // autovacuum would come in the middle of a trial.
    await pool.query(`VACUUM (ANALYZE) ${table}`);
  };
  const setting = async (name: string) => (await pool.query(`SHOW ${name}`)).rows[0][name];
  const settings = ["fsync", "synchronous_commit"];
  const shown = await Promise.all(settings.map(async (name) => `${name}=${await setting(name)}`));
  const version = await setting("server_version");
  let places = 0;
  return {
    description: `PostgreSQL ${version}, ${shown.join(", ")}, ${server.remark}`,

    fillHistory: (events) => fill(placeOf(historySchema(events)), events),

    async place(_own, history) {
      if (history !== undefined && !history.isChanged) {
        return { place: placeOf(historySchema(history.events)), release: async () => {} };
      }
      places += 1;
      const place = placeOf(`${prefix}_${places}`);
      if (history !== undefined) await fill(place, history.events);
      return { place, release: () => drop(place.schema) };
    },

    async stop() {
      for (const schema of schemas) await drop(schema);
      await pool.end();
      await server.stop();
    },
  };
}

export const DATABASES: Record<DatabaseName, (folder: string) => Promise<BenchmarkDatabase>> = {
  SQLite: startSQLite,
  Postgres: startPostgres,
};
