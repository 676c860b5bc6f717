/** Every older layout in the field opens without loss. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import Database from "better-sqlite3";
import { allEvents, event, file, open, session } from "./support/fixtures.ts";

const SESSIONS_0_2 = `CREATE TABLE sessions (
  id TEXT PRIMARY KEY, agent TEXT NOT NULL, agent_session_id TEXT NOT NULL,
  last_connection_id TEXT NOT NULL, created_at INTEGER NOT NULL, destroyed_at INTEGER,
  session_init_json TEXT)`;
const REST = `session_id TEXT NOT NULL, created_at INTEGER NOT NULL, connection_id TEXT NOT NULL,
  sender TEXT NOT NULL, payload_json TEXT NOT NULL`;

function database(t: TestContext, ...sql: string[]): string {
  const filename = file(t);
  const made = new Database(filename);
  for (const statement of sql) made.exec(statement);
  made.close();
  return filename;
}

test("0.2 and 0.3: sessions without the columns of 0.4", async (t) => {
  const filename = database(
    t,
    SESSIONS_0_2,
    `INSERT INTO sessions VALUES ('s', 'mock', 'as', 'c', 5, NULL, '{"cwd":"/"}')`,
    `CREATE TABLE events (id TEXT PRIMARY KEY, event_index INTEGER NOT NULL, ${REST})`,
    `INSERT INTO events VALUES ('e', 1, 's', 7, 'c', 'client', '{"a":1}')`,
  );
  const driver = open(t, { filename });
  assert.deepEqual(await driver.getSession("s"), {
    id: "s",
    agent: "mock",
    agentSessionId: "as",
    lastConnectionId: "c",
    createdAt: 5,
    sessionInit: { cwd: "/" },
  });
  assert.deepEqual((await allEvents(driver, "s"))[0]!.payload, { a: 1 });
  await driver.updateSession(session("s", { sandboxId: "box", configOptions: [], modes: null }));
  const stored = await driver.getSession("s");
  assert.deepEqual([stored!.sandboxId, stored!.configOptions, stored!.modes], ["box", [], null]);
});

test("integer ids become text, and the order is the time's", async (t) => {
  const filename = database(
    t,
    SESSIONS_0_2,
    `CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, ${REST})`,
    `INSERT INTO events VALUES (10, 's', 3, 'c', 'agent', '"third"'), (2, 's', 3, 'c', 'agent', '"second"'),
       (30, 's', 1, 'c', 'client', '"first"'), (4, 't', 9, 'c', 'client', '"alone"')`,
  );
  const driver = open(t, { filename });
  assert.deepEqual(
    (await allEvents(driver, "s")).map(({ id, eventIndex, payload }) => [id, eventIndex, payload]),
    [
      ["30", 1, "first"],
      ["2", 2, "second"],
      ["10", 3, "third"],
    ],
  );
  assert.equal((await allEvents(driver, "t"))[0]!.eventIndex, 1);
  await driver.insertEvent("s", event("s", 4, { id: "text" }));
  await driver.insertEvent("s", event("s", 9, { id: "2" }));
  assert.deepEqual(
    (await allEvents(driver, "s")).map(({ id }) => id),
    ["30", "10", "text", "2"],
  );
});

test("an index that is NULL in places is filled in; present ones stay", async (t) => {
  const filename = database(
    t,
    SESSIONS_0_2,
    `CREATE TABLE events (id TEXT PRIMARY KEY, event_index INTEGER, ${REST})`,
    `INSERT INTO events VALUES ('a', NULL, 's', 1, 'c', 'agent', '1'),
       ('b', 7, 's', 2, 'c', 'agent', '2'), ('c', NULL, 's', 3, 'c', 'agent', '3')`,
  );
  assert.deepEqual(
    (await allEvents(open(t, { filename }), "s")).map(({ id, eventIndex }) => [id, eventIndex]),
    [
      ["a", 1],
      ["c", 3],
      ["b", 7],
    ],
  );
});

test("columns, indexes and triggers that others added survive the upgrade", async (t) => {
  const filename = database(
    t,
    SESSIONS_0_2,
    `CREATE TABLE events (id TEXT PRIMARY KEY, event_index INTEGER, ${REST}, "note ""x""" TEXT,
       tenant VARCHAR(5) NOT NULL DEFAULT 'x')`,
    `CREATE INDEX theirs ON events(sender)`,
    `CREATE TABLE log (id TEXT)`,
    `CREATE TRIGGER logged AFTER INSERT ON events BEGIN INSERT INTO log VALUES (new.id); END`,
    `CREATE VIEW newest AS SELECT max(created_at) FROM events`,
    `INSERT INTO events VALUES ('a', NULL, 's', 1, 'c', 'agent', '1', 'kept', 'y')`,
  );
  const driver = open(t, { filename });
  await driver.insertEvent("s", event("s", 2, { id: "b" }));
  driver.close();
  const upgraded = new Database(filename);
  t.after(() => upgraded.close());
  const column = (sql: string) => upgraded.prepare(sql).pluck().all();
  assert.deepEqual(column(`SELECT "note ""x""" FROM events ORDER BY id`), ["kept", null]);
  assert.deepEqual(column(`SELECT tenant FROM events ORDER BY id`), ["y", "x"]);
  assert.deepEqual(column(`SELECT id FROM log`), ["a", "b"]);
  assert.deepEqual(column(`SELECT count(*) FROM newest`), [1]);
  assert.deepEqual(column(`SELECT name FROM sqlite_schema WHERE name = 'theirs'`), ["theirs"]);
});

test("an upgrade that fails leaves the file as it was", async (t) => {
  const filename = database(
    t,
    SESSIONS_0_2,
    `CREATE TABLE events (id TEXT PRIMARY KEY, event_index INTEGER, session_id TEXT,
       created_at INTEGER, connection_id TEXT, sender TEXT, payload_json TEXT)`,
    `INSERT INTO events VALUES ('a', NULL, 's', 1, 'c', 'agent', NULL)`,
  );
  assert.throws(() => open(t, { filename }), { code: "ERR_PERSIST_CONSTRAINT" });
  const untouched = new Database(filename);
  t.after(() => untouched.close());
  assert.deepEqual(untouched.prepare("SELECT id, event_index FROM events").all(), [
    { id: "a", event_index: null },
  ]);
  const columns = untouched.pragma("table_info(sessions)") as { name: string }[];
  assert.ok(!columns.some(({ name }) => name === "sandbox_id"));
});

test("a generated column that an upgrade would lose is refused", (t) => {
  const filename = database(
    t,
    SESSIONS_0_2,
    `CREATE TABLE events (id INTEGER PRIMARY KEY, ${REST}, size AS (length(payload_json)))`,
    `CREATE INDEX by_size ON events(size)`,
  );
  assert.throws(() => open(t, { filename }), {
    code: "ERR_PERSIST_CANNOT_OPEN",
    message: /generated column "size"/,
  });
});

test("numbers that other writers stored as fractions come back", async (t) => {
  const filename = database(
    t,
    SESSIONS_0_2,
    `CREATE TABLE events (id TEXT PRIMARY KEY, event_index INTEGER NOT NULL, ${REST})`,
    `INSERT INTO events VALUES ('a', 1.5, 's', 2.25, 'c', 'agent', '1'), ('b', 1, 's', 3, 'c', 'agent', '1')`,
  );
  const items = await allEvents(open(t, { filename }), "s", 1);
  assert.deepEqual(
    items.map(({ eventIndex, createdAt }) => [eventIndex, createdAt]),
    [
      [1, 3],
      [1.5, 2.25],
    ],
  );
});
