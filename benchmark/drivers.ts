/**
 * The drivers that are compared, by database. Each is loaded only in the processes that use it.
 * They are created with a place: where the database is, in the drivers' own options.
 */
import type { ListPage, SessionEvent, SessionPersistMethods, StoreMethods } from "../index.js";

export type DatabaseName = "SQLite" | "Postgres";
export type DriverName =
  | "native"
  | "native, view"
  | "native, prepared"
  | "native, insertEvent"
  | "native, listEvents"
  | "tuned"
  | "typescript"
  | "transaction"
  | "COPY"
  | "multi-row INSERT";
export type SQLitePlace = { filename: string };
export type PostgresPlace = { connectionString: string; schema: string };

export type Driver = SessionPersistMethods &
  Pick<StoreMethods, "insertEvents" | "deleteSession" | "streamEvents"> & {
    listEvents(request: {
      sessionId: string;
      cursor?: string;
      limit?: number;
    }): Promise<ListPage<SessionEvent>>;
    close(): void | Promise<void>;
  };

/** Peers have of a driver what their workloads call. */
type Drivers<Place> = Partial<Record<DriverName, (place: Place) => Promise<any>>>;

const sqlite: Drivers<SQLitePlace> = {
  native: async (place) => {
    const { SQLiteSessionPersistDriver } = await import("../index.js");
    return new SQLiteSessionPersistDriver(place);
  },
  /** What the SDK is given to restore sessions at once. */
  "native, view": async (place) => viewOf(await sqlite.native!(place)),
  "native, insertEvent": async (place) => withEventsOneByOne(await sqlite.native!(place)),
  "native, listEvents": async (place) => withPages(await sqlite.native!(place)),
  /** better-sqlite3, WAL, synchronous=FULL, cached statements, keyset pages. */
  tuned: async (place) => {
    const { TunedSQLiteDriver } = await import("../__test__/support/typescript-driver.ts");
    return new TunedSQLiteDriver(place);
  },
  /** better-sqlite3 in the manner of the TypeScript drivers. */
  typescript: async (place) => {
    const { TypeScriptSQLiteDriver } = await import("../__test__/support/typescript-driver.ts");
    return new TypeScriptSQLiteDriver(place);
  },
  transaction: async (place) => (await import("./batches.ts")).transactions(place),
};

const postgres: Drivers<PostgresPlace> = {
  native: async (place) => {
    const { PostgresSessionPersistDriver } = await import("../index.js");
    return new PostgresSessionPersistDriver(place);
  },
  "native, view": async (place) => viewOf(await postgres.native!(place)),
  "native, insertEvent": async (place) => withEventsOneByOne(await postgres.native!(place)),
  "native, listEvents": async (place) => withPages(await postgres.native!(place)),
  "native, prepared": async (place) => {
    const { PostgresSessionPersistDriver } = await import("../index.js");
    return new PostgresSessionPersistDriver({ ...place, preparedStatements: true });
  },
  /** node-postgres in the manner of the TypeScript drivers: a pool of ten, unnamed statements. */
  typescript: async (place) => {
    const peer = await import("../__test__/support/typescript-postgres-driver.ts");
    return new peer.TypeScriptPostgresDriver(place);
  },
  COPY: async (place) => (await import("./batches.ts")).copies(place),
  "multi-row INSERT": async (place) => (await import("./batches.ts")).multiRowInserts(place),
};

function viewOf(driver: any): Driver {
  return Object.assign(driver.replayView(), { close: () => driver.close() });
}

/** Stores a batch without `insertEvents`: one call an event, none of them awaited by itself. */
function withEventsOneByOne(driver: Driver): Driver {
  return Object.assign(driver, {
    async insertEvents(events: readonly SessionEvent[]) {
      await Promise.all(events.map((event) => driver.insertEvent(event)));
    },
  });
}

/** Goes through events without `streamEvents`, as many a page as that reads. */
function withPages(driver: Driver): Driver {
  return Object.assign(driver, {
    async *streamEvents({ sessionId }: { sessionId: string }) {
      let cursor: string | undefined;
      do {
        const page = await driver.listEvents({ sessionId, cursor, limit: 1_000 });
        yield* page.items;
        cursor = page.nextCursor;
      } while (cursor);
    },
  });
}

/** Any place fits here: a trial gets database and place from the same comparison. */
const DRIVERS: Record<DatabaseName, Drivers<any>> = { SQLite: sqlite, Postgres: postgres };

export async function createDriver(
  database: DatabaseName,
  name: DriverName,
  place: SQLitePlace | PostgresPlace,
): Promise<Driver> {
  const create = DRIVERS[database][name];
  if (!create) throw new Error(`${database} has no driver ${name}`);
  return create(place);
}
