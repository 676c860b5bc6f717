/** Stores of every kind, for tests of what both drivers do alike. */
import type { TestContext } from "node:test";
import Database from "better-sqlite3";
import { PostgresSessionPersistDriver, SQLiteSessionPersistDriver } from "../../index.js";
import { file } from "./fixtures.ts";
import { databaseUrl, freshSchema, sql } from "./postgres.ts";

export type Driver = SQLiteSessionPersistDriver | PostgresSessionPersistDriver;

/** A place of a test's own where drivers store. */
export type Store = {
  /** What opens a driver elsewhere. */
  options: object;
  /** A driver that is closed after the test. */
  open: (options?: object) => Driver;
  /** Runs statements while no driver is open. In these, a table is called `$sessions` or `$events`, and JSON `$json`. */
  run: (statements: string) => Promise<Record<string, unknown>[]>;
};

const sqlite = (t: TestContext): Store => {
  const filename = file(t);
  return {
    options: { filename },
    open: (options) => closing(t, new SQLiteSessionPersistDriver({ filename, ...options })),
    run: async (statements) => {
      const database = new Database(filename);
      try {
        const text = statements.replaceAll("$json", "TEXT").replaceAll("$", "");
        if (text.startsWith("SELECT")) return database.prepare(text).all() as never;
        database.exec(text);
        return [];
      } finally {
        database.close();
      }
    },
  };
};

const postgres =
  (more = {}) =>
  (t: TestContext): Store => {
    const options = { connectionString: databaseUrl(), schema: freshSchema(t), ...more };
    return {
      options,
      open: (chosen) => closing(t, new PostgresSessionPersistDriver({ ...options, ...chosen })),
      run: async (statements) => {
        await sql(`CREATE SCHEMA IF NOT EXISTS ${options.schema}`);
        const text = statements.replaceAll("$json", "JSONB");
        return sql(text.replaceAll("$", `${options.schema}.`));
      },
    };
  };

function closing<Driver extends { close(): unknown }>(t: TestContext, driver: Driver): Driver {
  t.after(() => driver.close());
  return driver;
}

/** One of each kind. */
export const stores: Record<string, (t: TestContext) => Store> = {
  SQLite: sqlite,
  Postgres: postgres(),
  "Postgres, prepared statements": postgres({ preparedStatements: true }),
};
