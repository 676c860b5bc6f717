/** What trouble with the file gets. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import Database from "better-sqlite3";
import { SQLiteSessionPersistDriver } from "../index.js";
import {
  allEvents,
  event,
  file,
  folder,
  onWindows,
  open,
  rejection,
  session,
} from "./support/fixtures.ts";
import { runToEnd, start } from "./support/fork.ts";

const isRoot = process.getuid?.() === 0;
const skip = onWindows && "who may write isn't said by a file's mode";

test("a file that is no database is refused and left alone", (t) => {
  const filename = file(t);
  writeFileSync(filename, "no database, and longer than the header of one ".repeat(50));
  const before = readFileSync(filename);
  assert.throws(() => open(t, { filename }), {
    name: "Error",
    code: "ERR_PERSIST_NOT_A_DATABASE",
    sqliteCode: "SQLITE_NOTADB",
  });
  assert.deepEqual(readFileSync(filename), before);
  assert.deepEqual(readdirSync(dirname(filename)), ["sessions.db"]);
});

test(
  "a file that another SQLite in the process has open is refused",
  { skip: onWindows && "locks are each handle's own" },
  (t) => {
    const filename = file(t);
    const other = new Database(filename);
    other.exec("CREATE TABLE others (id)");
    const refused = {
      code: "ERR_PERSIST_CANNOT_OPEN",
      message: /this process has it open already/,
    };
    assert.throws(() => open(t, { filename }), refused);
    other.close();
    open(t, { filename });
  },
);

test("a folder that doesn't exist, and a folder for a file, are refused", (t) => {
  const path = folder(t);
  const refused = { name: "Error", code: "ERR_PERSIST_CANNOT_OPEN" };
  assert.throws(() => open(t, { filename: join(path, "no", "a.db") }), {
    ...refused,
    message: /its folder does not exist/,
  });
  assert.throws(() => open(t, { filename: path }), { ...refused, message: /it is a folder/ });
});

for (const [what, table, sql] of [
  ["columns of its own", "sessions", "CREATE TABLE sessions (sid TEXT PRIMARY KEY, data TEXT)"],
  ["columns of its own", "events", "CREATE TABLE events (id TEXT PRIMARY KEY, title TEXT)"],
  [
    "another key",
    "sessions",
    `CREATE TABLE Sessions (id TEXT, agent TEXT, agent_session_id TEXT, last_connection_id TEXT,
       created_at INTEGER, destroyed_at INTEGER, session_init_json TEXT)`,
  ],
  [
    "integer ids",
    "sessions",
    `CREATE TABLE sessions (id INTEGER PRIMARY KEY, agent TEXT, agent_session_id TEXT,
       last_connection_id TEXT, created_at INTEGER, destroyed_at INTEGER, session_init_json TEXT)`,
  ],
  [
    "a column that needs a value",
    "events",
    `CREATE TABLE events (id TEXT PRIMARY KEY, event_index INTEGER, session_id TEXT,
       created_at INTEGER, connection_id TEXT, sender TEXT, payload_json TEXT, tenant TEXT NOT NULL)`,
  ],
  [
    "a view",
    "events",
    `CREATE VIEW events AS SELECT '1' AS id, 1 AS event_index, '1' AS session_id, 1 AS created_at,
       '1' AS connection_id, '1' AS sender, '1' AS payload_json`,
  ],
] as const) {
  test(`somebody else's table is refused and left alone: ${table} with ${what}`, (t) => {
    const filename = file(t);
    const theirs = new Database(filename);
    theirs.exec(sql);
    theirs.close();
    const before = readFileSync(filename);
    assert.throws(() => open(t, { filename }), {
      name: "Error",
      code: "ERR_PERSIST_FOREIGN_TABLE",
      message: new RegExp(`"${table}"`),
    });
    assert.deepEqual(readFileSync(filename), before, "not even switched to WAL");
    assert.deepEqual(readdirSync(dirname(filename)), ["sessions.db"]);
  });
}

test("a busy file is waited for", async (t) => {
  const filename = file(t);
  const driver = open(t, { filename });
  await driver.updateSession(session("s"));
  const other = start("hold-lock", [filename, "400"]);
  await once(other, "message");
  const insert = driver.insertEvent("s", event("s", 1));
  assert.ok(await driver.getSession("s"), "readers don't wait");
  await insert;
  assert.equal((await allEvents(driver, "s")).length, 1);
});

test("a file that stays busy rejects, and writes go on afterwards", async (t) => {
  const filename = file(t);
  const driver = open(t, { filename, busyTimeoutMs: 50 });
  const other = start("hold-lock", [filename, "700"]);
  await once(other, "message");
  const [first, second] = await Promise.all([
    rejection(driver.insertEvent("s", event("s", 1))),
    rejection(driver.insertEvent("s", event("s", 2))),
  ]);
  for (const error of [first, second]) {
    assert.equal(error.code, "ERR_PERSIST_BUSY");
    assert.equal(error.sqliteCode, "SQLITE_BUSY");
  }
  await once(other, "exit");
  await driver.insertEvent("s", event("s", 3));
  assert.deepEqual(
    (await allEvents(driver, "s")).map(({ eventIndex }) => eventIndex),
    [3],
  );
});

test("more than maxQueuedBytes rejects, and writes go on when there is room", async (t) => {
  const filename = file(t);
  const driver = open(t, { filename, maxQueuedBytes: 100_000 });
  const other = start("hold-lock", [filename, "400"]);
  await once(other, "message");
  const payload = "x".repeat(60_000);
  const first = driver.insertEvent("s", event("s", 1, { payload: "x".repeat(500_000) }));
  const refused = rejection(driver.insertEvent("s", event("s", 2, { payload })));
  await first;
  assert.equal((await refused).code, "ERR_PERSIST_OVERLOADED");
  await driver.insertEvent("s", event("s", 3, { payload }));
  assert.equal((await allEvents(driver, "s")).length, 2);
});

test("a constructor opens a current file while others write it", async (t) => {
  const filename = file(t);
  new SQLiteSessionPersistDriver({ filename }).close();
  const other = start("hold-lock", [filename, "400"]);
  await once(other, "message");
  open(t, { filename, busyTimeoutMs: 0 });
  await once(other, "exit");
});

/** A database without our tables, which another process has locked for a while. */
async function lockedDatabase(t: TestContext) {
  const filename = file(t);
  const made = new Database(filename);
  made.exec("CREATE TABLE other (x)");
  made.close();
  const other = start("hold-lock", [filename, "400"]);
  await once(other, "message");
  return { filename, other };
}

test("a constructor that may not wait says that the file is busy", async (t) => {
  const { filename, other } = await lockedDatabase(t);
  assert.throws(() => open(t, { filename, busyTimeoutMs: 10 }), { code: "ERR_PERSIST_BUSY" });
  await once(other, "exit");
});

test("a constructor waits for a busy file", async (t) => {
  const { filename } = await lockedDatabase(t);
  await open(t, { filename }).insertEvent("s", event("s", 1));
});

const cannotMount = !isRoot && "mounting a small disk needs root";
test(
  "a full disk rejects, and writes work again when there is room",
  { skip: cannotMount },
  async (t) => {
    const disk = folder(t, (path) => spawnSync("umount", ["-l", path]));
    const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]);
    if (mounted.status !== 0) return t.skip(`mount: ${mounted.stderr}`);
    const driver = open(t, { filename: join(disk, "sessions.db") });
    await driver.insertEvent("s", event("s", 1));
    writeFileSync(join(disk, "ballast"), Buffer.alloc(700_000));
    const payload = "x".repeat(300_000);
    const [large, small] = await Promise.allSettled([
      driver.insertEvent("s", event("s", 2, { payload })),
      driver.insertEvent("s", event("s", 3)),
    ]);
    assert.ok(large.status === "rejected");
    assert.equal(large.reason.code, "ERR_PERSIST_FULL");
    assert.equal(large.reason.sqliteCode, "SQLITE_FULL");
    assert.equal(small.status, "fulfilled", "what fits is stored");
    spawnSync("rm", [join(disk, "ballast")]);
    await driver.insertEvent("s", event("s", 4, { payload }));
    assert.deepEqual(
      (await allEvents(driver, "s")).map(({ eventIndex }) => eventIndex),
      [1, 3, 4],
    );
  },
);

test("a file that may not grow is a full disk, as under a quota", { skip: onWindows }, (t) => {
  const filename = file(t);
  const program = fileURLToPath(new URL("support/processes/limited-size.ts", import.meta.url));
  const command = `ulimit -f 2000; exec "$@"`;
  const node = [process.execPath, "--import", "tsx", program, filename];
  const { stdout, stderr } = spawnSync("sh", ["-c", command, "sh", ...node], { encoding: "utf8" });
  const message = `the disk is full ("${filename}")`;
  const expected = { code: "ERR_PERSIST_FULL", message, isAllThere: true };
  assert.deepEqual(JSON.parse(stdout || "{}"), expected, stderr);
});

/** A store with one session and one event, cleanly closed, readable by anybody. */
async function closedStore(path: string) {
  const filename = join(path, "sessions.db");
  const driver = new SQLiteSessionPersistDriver({ filename });
  await driver.updateSession(session("s"));
  await driver.insertEvent("s", event("s", 1));
  driver.close();
  chmodSync(path, 0o755);
  return filename;
}

const canRead = (filename: string, reason: string) => ({
  events: 1,
  session: "s",
  code: "ERR_PERSIST_READ_ONLY",
  sqliteCode: "SQLITE_READONLY",
  message: `the database is read-only: the process may not write ${reason} ("${filename}")`,
  notReady: `the database is read-only: the process may not write ${reason} ("${filename}")`,
  afterClose: "ERR_PERSIST_CLOSED",
});

test("a read-only file in a read-only folder gives reads", { skip }, async (t) => {
  const filename = await closedStore(folder(t));
  chmodSync(filename, 0o444);
  if (!isRoot) chmodSync(dirname(filename), 0o555);
  const { messages, stderr } = await runToEnd("read-only", [`/${filename}`]);
  if (!isRoot) chmodSync(dirname(filename), 0o755);
  assert.deepEqual(messages, [canRead(`/${filename}`, "the file")], stderr);
  assert.deepEqual(readdirSync(dirname(filename)), ["sessions.db"]);
});

test("retention leaves a read-only file alone, and says so once", { skip }, async (t) => {
  const filename = await closedStore(folder(t));
  chmodSync(filename, 0o444);
  const { code, messages } = await runToEnd("retention-read-only", [filename]);
  const warning =
    "the store is read-only, so its retention has no effect: another driver must prune it";
  assert.deepEqual([code, messages], [0, [warning]]);
});

test("a read-only file in a folder that can be written gives reads", { skip }, async (t) => {
  const path = folder(t);
  const filename = await closedStore(path);
  chmodSync(filename, 0o444);
  if (isRoot) chownSync(path, 65534, 65534);
  const { messages, stderr } = await runToEnd("read-only", [filename]);
  assert.deepEqual(messages, [canRead(filename, "the file")], stderr);
  assert.deepEqual(readdirSync(path), ["sessions.db"]);
});

test("a file in a folder that can't be written isn't ready", { skip }, async (t) => {
  const path = folder(t);
  const filename = await closedStore(path);
  chmodSync(filename, 0o666);
  if (!isRoot) chmodSync(path, 0o555);
  const { messages, stderr } = await runToEnd("read-only", [filename]);
  if (!isRoot) chmodSync(path, 0o755);
  assert.deepEqual(messages, [canRead(filename, "the file's folder")], stderr);
  assert.deepEqual(readdirSync(path), ["sessions.db"]);
});

test("a file that may not be read is blamed for itself", { skip }, async (t) => {
  const path = folder(t);
  const filename = await closedStore(path);
  chmodSync(filename, 0o000);
  if (isRoot) chownSync(path, 65534, 65534);
  const { messages } = await runToEnd("read-only", [filename]);
  assert.equal(messages[0].error.code, "ERR_PERSIST_CANNOT_OPEN");
  assert.match(messages[0].error.message, /": the process may not read the file$/);
});

test("a read-only file of an old layout says what to do", { skip }, async (t) => {
  const path = folder(t);
  const filename = join(path, "sessions.db");
  const old = new Database(filename);
  old.exec(`CREATE TABLE events (id INTEGER PRIMARY KEY, session_id TEXT, created_at INTEGER,
    connection_id TEXT, sender TEXT, payload_json TEXT)`);
  old.close();
  chmodSync(path, 0o755);
  chmodSync(filename, 0o444);
  if (!isRoot) chmodSync(path, 0o555);
  const { messages } = await runToEnd("read-only", [filename]);
  if (!isRoot) chmodSync(path, 0o755);
  assert.equal(messages[0].error.code, "ERR_PERSIST_CANNOT_OPEN");
  assert.match(messages[0].error.message, /read-only; open it once where it can be written/);
});

test("nothing is left beside a file that was closed", async (t) => {
  const filename = await closedStore(folder(t));
  assert.deepEqual(readdirSync(dirname(filename)), ["sessions.db"]);
});
