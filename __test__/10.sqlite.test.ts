/** What the SQLite driver adds to the contract. */
import assert from "node:assert/strict";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { test, type TestContext } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import Database from "better-sqlite3";
import { SQLiteSessionPersistDriver, type SessionEvent } from "../index.js";
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
import { TypeScriptSQLiteDriver } from "./support/typescript-driver.ts";

test("a read sees 1,000 inserts called before it and not awaited", async (t) => {
  const driver = open(t, { filename: file(t) });
  const inserts = [];
  for (let index = 1; index <= 1000; index += 1) {
    inserts.push(driver.insertEvent("s", event("s", index)));
  }
  const { items } = await driver.listEvents({ sessionId: "s", limit: 2000 });
  assert.equal(items.length, 1000);
  await Promise.all(inserts);
});

test("getSession and listSessions see updates called before them", async (t) => {
  const driver = open(t, { filename: file(t) });
  for (let round = 0; round < 50; round += 1) {
    const updated = driver.updateSession(session("s", { createdAt: round }));
    const [read, list] = await Promise.all([driver.getSession("s"), driver.listSessions()]);
    assert.equal(read!.createdAt, round);
    assert.equal(list.items[0]!.createdAt, round);
    await updated;
  }
});

test("writes of one id keep the order of the calls", async (t) => {
  const driver = open(t, { filename: file(t) });
  for (let payload = 0; payload < 500; payload += 1) {
    void driver.insertEvent("s", event("s", 1, { id: "same", payload }));
  }
  assert.equal((await driver.listEvents({ sessionId: "s" })).items[0]!.payload, 499);
});

test("getSession is answered at once while inserts are queued", async (t) => {
  const driver = open(t, { filename: file(t) });
  await driver.updateSession(session("s"));
  const order: string[] = [];
  const insert = driver.insertEvent("s", event("s", 1)).then(() => order.push("insert"));
  await driver.getSession("s").then(() => order.push("get"));
  await insert;
  assert.deepEqual(order, ["get", "insert"]);
});

test("in memory every call is settled in the turn it is made in", async (t) => {
  const driver = open(t);
  let settled = 0;
  void driver.insertEvent("s", event("s", 1)).then(() => (settled += 1));
  void driver.listEvents({ sessionId: "s" }).then(({ items }) => (settled += items.length));
  await null;
  await null;
  assert.equal(settled, 2);
});

test("an index conflict that the tables enforce says what the SDK looks for", async (t) => {
  const filename = file(t);
  new SQLiteSessionPersistDriver({ filename }).close();
  const database = new Database(filename);
  database.exec("CREATE UNIQUE INDEX one ON events(session_id, event_index)");
  database.close();
  const driver = open(t, { filename });
  const [stored, refused, other] = await Promise.allSettled([
    driver.insertEvent("s", event("s", 1)),
    driver.insertEvent("s", event("s", 1)),
    driver.insertEvent("s", event("s", 2)),
  ]);
  assert.equal(stored.status, "fulfilled");
  assert.equal(other.status, "fulfilled", "its batch-mates are stored");
  assert.ok(refused.status === "rejected");
  assert.match(refused.reason.message, /UNIQUE constraint failed: .*session_id, .*event_index/);
  assert.equal(refused.reason.code, "ERR_PERSIST_CONSTRAINT");
  assert.equal(refused.reason.sqliteCode, "SQLITE_CONSTRAINT_UNIQUE");
});

test("unknown fields of a newer SDK come back", async (t) => {
  const driver = open(t, { filename: file(t) });
  const newer = { later: { deep: [1, "\u0000\ud800"] }, "\ud800": 2, 7: null };
  const [sent, stored] = [
    { ...session("s"), ...newer },
    { ...event("s", 1), ...newer },
  ];
  await driver.updateSession(sent);
  await driver.insertEvent("s", stored);
  assert.deepEqual(await driver.getSession("s"), sent);
  assert.deepEqual((await driver.listEvents({ sessionId: "s" })).items, [stored]);
  await driver.updateSession(session("s"));
  assert.deepEqual(await driver.getSession("s"), session("s"), "and go with an update");
});

test("fields may come from a prototype", async (t) => {
  const driver = open(t);
  class Event {
    readonly #fields = event("s", 1, { id: "e" });
    get id() {
      return this.#fields.id;
    }
    get eventIndex() {
      return 1;
    }
    get sessionId() {
      return "s";
    }
    get createdAt() {
      return 5;
    }
    get connectionId() {
      return "c";
    }
    get sender() {
      return "client" as const;
    }
    get payload() {
      return { from: "a getter" };
    }
  }
  await driver.insertEvent(new Event());
  const [stored] = (await driver.listEvents({ sessionId: "s" })).items;
  assert.deepEqual([stored!.id, stored!.payload], ["e", { from: "a getter" }]);
});

test("a scan sees what others commit between two of its pages", async (t) => {
  const filename = file(t);
  const [driver, other] = [open(t, { filename }), open(t, { filename })];
  const stored = Array.from({ length: 50 }, (_, index) => event("s", index));
  await Promise.all(stored.map((each) => driver.insertEvent("s", each)));
  let cursor: string | undefined;
  for (let index = 0; index < 50; index += 1) {
    // Whatever a page ahead holds by now is out of date.
    const writer = index % 3 === 0 ? driver : other;
    await new Promise((resolve) => setTimeout(resolve, index % 5));
    const changed = writer.insertEvent("s", { ...stored[index]!, payload: `changed ${index}` });
    if (writer === other) await changed;
    const page = await driver.listEvents({ sessionId: "s", limit: 1, cursor });
    assert.equal(page.items[0]!.payload, `changed ${index}`);
    cursor = page.nextCursor;
  }
  assert.equal(cursor, undefined);
});

test("a scan that is repeated, mixed with another, or left, answers each call right", async (t) => {
  const driver = open(t, { filename: file(t) });
  for (const id of ["a", "b"]) {
    for (let index = 1; index <= 40; index += 1) void driver.insertEvent(id, event(id, index));
  }
  const first = await driver.listEvents({ sessionId: "a", limit: 10 });
  const page = (sessionId: string, cursor?: string, limit = 10) =>
    driver.listEvents({ sessionId, cursor, limit });
  const second = await page("a", first.nextCursor);
  await new Promise((resolve) => setTimeout(resolve, 20));
  const third = second.nextCursor;
  const indexes = async (call: ReturnType<typeof page>) =>
    (await call).items.map(({ eventIndex }) => eventIndex);
  assert.equal((await indexes(page("a", third, 5))).length, 5, "another limit");
  assert.deepEqual((await indexes(page("b", "10")))[0], 11, "another session");
  const twice = await Promise.all([indexes(page("a", third)), indexes(page("a", third))]);
  for (const read of twice) assert.deepEqual([read[0], read.at(-1)], [21, 30]);
});

test("the TypeScript driver reads and writes our file, and we read what it wrote", async (t) => {
  const filename = file(t);
  const ours = new SQLiteSessionPersistDriver({ filename });
  await ours.updateSession(session("s", { modes: null }));
  await ours.insertEvent("s", event("s", 1, { id: "a" }));
  ours.close();
  const theirs = new TypeScriptSQLiteDriver({ filename });
  assert.equal((await theirs.getSession("s"))!.modes, null);
  assert.equal((await theirs.listEvents({ sessionId: "s" })).items[0]!.id, "a");
  await theirs.insertEvent("s", event("s", 2, { id: "b" }));
  await theirs.updateSession(session("s", { agent: "theirs" }));
  theirs.close();
  const again = open(t, { filename });
  assert.equal((await again.getSession("s"))!.agent, "theirs");
  assert.deepEqual(
    (await allEvents(again, "s", 1)).map((item) => item.id),
    ["a", "b"],
  );
});

test("the file is in WAL mode and can give space back", async (t) => {
  const filename = file(t);
  const driver = new SQLiteSessionPersistDriver({ filename });
  await driver.insertEvent("s", event("s", 1));
  assert.ok(existsSync(`${filename}-wal`));
  driver.close();
  assert.ok(!existsSync(`${filename}-wal`), "close() leaves one file");
  const database = new Database(filename);
  assert.equal(database.pragma("journal_mode", { simple: true }), "wal");
  assert.equal(database.pragma("auto_vacuum", { simple: true }), 2);
  database.close();
});

for (const filename of ["file:a.db", "file:a?mode=memory", "sqlite:a.db"]) {
  test(`"${filename}" is a URL, and makes no file`, { skip: onWindows }, (t) => {
    const path = folder(t);
    const working = process.cwd();
    process.chdir(path);
    t.after(() => process.chdir(working));
    const message = `cannot open the database "${filename}": filename is a path, and this is a URL; for a file of that very name write "./${filename}"`;
    assert.throws(() => open(t, { filename }), { code: "ERR_PERSIST_CANNOT_OPEN", message });
    assert.deepEqual(readdirSync(path), []);
  });
}

test("a URL is refused without being repeated, for its password", () => {
  const filename = "postgres://u:secret@h/db";
  const message =
    "options.filename must be a path, not a URL (of a PostgreSQL database, PostgresSessionPersistDriver takes one)";
  const refused = { name: "TypeError", code: "ERR_PERSIST_INVALID_ARG", message };
  assert.throws(() => new SQLiteSessionPersistDriver({ filename }), refused);
});

test("what a trigger says of a row it refuses isn't repeated", async (t) => {
  const filename = file(t);
  new SQLiteSessionPersistDriver({ filename }).close();
  const other = new Database(filename);
  other.exec(`CREATE TRIGGER teller BEFORE INSERT ON events
    BEGIN SELECT raise(ABORT, 'no room for ' || new.payload_json); END`);
  other.close();
  const driver = open(t, { filename });
  const error = await rejection(driver.insertEvent("s", event("s", 1)));
  assert.equal(error.code, "ERR_PERSIST_CONSTRAINT");
  assert.equal(error.message, "a trigger of the table refuses the row");
});

test("a file that is named like a URL opens by its name", { skip: onWindows }, (t) => {
  const path = folder(t);
  const working = process.cwd();
  process.chdir(path);
  t.after(() => process.chdir(working));
  open(t, { filename: "./file:a.db" }).close();
  open(t, { filename: "file:a.db" }).close();
  assert.deepEqual(readdirSync(path), ["file:a.db"]);
});

for (const [options, expected] of [
  [{}, 0o600],
  [{ fileMode: 0o660 }, 0o660],
] as const) {
  const title = `a new file has exactly its mode, with its log: 0o${expected.toString(8)}`;
  test(title, { skip: onWindows }, async (t) => {
    const filename = file(t);
    const umask = process.umask(0o027);
    const driver = open(t, { filename, ...options });
    process.umask(umask);
    await driver.insertEvent("s", event("s", 1));
    for (const suffix of ["", "-wal", "-shm"]) {
      assert.equal(statSync(filename + suffix).mode & 0o777, expected, suffix);
    }
  });
}

test("a file that is there keeps its mode", { skip: onWindows }, (t) => {
  const filename = file(t);
  writeFileSync(filename, "");
  chmodSync(filename, 0o644);
  open(t, { filename, fileMode: 0o600 }).close();
  assert.equal(statSync(filename).mode & 0o777, 0o644);
});

test("a mode without which the file would be of no use is refused", (t) => {
  for (const fileMode of [0, 0o400, 0o1600, 600, 0.5, "0600", null]) {
    assert.throws(() => open(t, { filename: file(t), fileMode: fileMode as number }), {
      code: "ERR_PERSIST_INVALID_ARG",
      message: "options.fileMode must be a file's mode from 0o600 to 0o777, such as 0o640",
    });
  }
});

test("a driver keeps to its file when the working folder changes", async (t) => {
  const [first, second] = [folder(t), folder(t)];
  const working = process.cwd();
  t.after(() => process.chdir(working));
  process.chdir(first);
  const driver = open(t, { filename: "a.db" });
  process.chdir(second);
  await driver.insertEvent("s", event("s", 1));
  assert.equal((await allEvents(driver, "s")).length, 1);
  assert.ok(existsSync(`${first}/a.db`));
  assert.ok(!existsSync(`${second}/a.db`));
});

const unlessMovable = { skip: onWindows && "nobody can move an open file" };

/** A driver with an event, whose file was moved with these beside it, and the name that it had. */
async function openAndMove(t: TestContext, suffixes = ["", "-wal", "-shm"]) {
  const filename = file(t);
  const driver = open(t, { filename });
  await driver.insertEvent("s", event("s", 1));
  await driver.listEvents({ sessionId: "s" });
  for (const suffix of suffixes) renameSync(filename + suffix, `${filename}.old${suffix}`);
  return { driver, filename };
}

for (const replaced of [false, true]) {
  const name = `nothing is acknowledged into a ${replaced ? "replaced" : "deleted"} file`;
  test(name, unlessMovable, async (t) => {
    const { driver, filename } = await openAndMove(t);
    if (replaced) open(t, { filename });
    const error = await rejection(driver.insertEvent("s", event("s", 2)));
    assert.equal(error.code, "ERR_PERSIST_MOVED");
  });
}

for (const suffix of ["-wal", "-shm"]) {
  test(`nothing is acknowledged once the ${suffix} is gone`, unlessMovable, async (t) => {
    const { driver } = await openAndMove(t, [suffix]);
    const error = await rejection(driver.insertEvent("s", event("s", 2)));
    assert.equal(error.code, "ERR_PERSIST_MOVED");
  });

  test(
    `a driver whose ${suffix} is gone is closed before another opens`,
    unlessMovable,
    async (t) => {
      const { driver, filename } = await openAndMove(t, [suffix]);
      assert.throws(() => open(t, { filename }), { code: "ERR_PERSIST_CANNOT_OPEN" });
      driver.close();
      assert.equal((await allEvents(open(t, { filename }), "s")).length, 1);
    },
  );
}

test("close() leaves a backup that was put in the file's place", unlessMovable, async (t) => {
  const [backup, filename] = [file(t), file(t)];
  const old = open(t, { filename: backup });
  await old.insertEvent("s", event("s", 1));
  old.close();
  const driver = open(t, { filename });
  for (let index = 1; index <= 300; index++) await driver.insertEvent("s", event("s", index));
  copyFileSync(backup, filename);
  for (const suffix of ["-wal", "-shm"]) rmSync(filename + suffix);
  driver.close();
  assert.equal((await allEvents(open(t, { filename }), "s")).length, 1);
});

test("what is only in a deleted -wal is saved by the last driver", unlessMovable, async (t) => {
  const filename = file(t);
  const [driver, other] = [open(t, { filename }), open(t, { filename })];
  const { ctimeMs } = statSync(filename);
  await driver.insertEvent("s", event("s", 1));
  while (statSync(filename).ctimeMs === ctimeMs) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await driver.insertEvent("s", event("s", 2));
  rmSync(`${filename}-wal`);
  driver.close();
  other.close();
  assert.equal((await allEvents(open(t, { filename }), "s")).length, 2);
});

test("close() leaves the log that others have made", unlessMovable, async (t) => {
  const { driver, filename } = await openAndMove(t, ["-wal"]);
  writeFileSync(`${filename}-wal`, "others'");
  driver.close();
  assert.equal(readFileSync(`${filename}-wal`, "utf8"), "others'");
});

test("the folders that a name goes through may be removed", unlessMovable, async (t) => {
  const path = folder(t);
  mkdirSync(`${path}/release`);
  const driver = open(t, { filename: `${path}/release/../a.db` });
  rmdirSync(`${path}/release`);
  await driver.insertEvent("s", event("s", 1));
  assert.equal((await allEvents(driver, "s")).length, 1);
});

test("a log that another SQLite in the process deletes is missed", unlessMovable, async (t) => {
  const filename = file(t);
  const driver = open(t, { filename });
  await driver.insertEvent("s", event("s", 1));
  const other = new Database(filename);
  other.pragma("user_version");
  other.close();
  const error = await rejection(driver.insertEvent("s", event("s", 2)));
  assert.equal(error.code, "ERR_PERSIST_MOVED");
});

test("no list is of a file that took the place of one's own", unlessMovable, async (t) => {
  const { driver, filename } = await openAndMove(t);
  await open(t, { filename }).insertEvent("s", event("s", 2));
  const lists = [driver.listEvents({ sessionId: "s" }), driver.listSessions(), driver.replay("s")];
  const codes = (await Promise.all(lists.map(rejection))).map(({ code }) => code);
  assert.deepEqual(new Set(codes), new Set(["ERR_PERSIST_MOVED"]));
});

test("a driver whose file was moved keeps nobody from the new one", unlessMovable, async (t) => {
  const { driver, filename } = await openAndMove(t);
  new SQLiteSessionPersistDriver({ filename }).close();
  await rejection(driver.listEvents({ sessionId: "s" }));
  await open(t, { filename }).insertEvent("s", event("s", 2));
});

test("where a moved file's log is in use, no other file is opened", unlessMovable, async (t) => {
  const { driver, filename } = await openAndMove(t, [""]);
  const open = () => new SQLiteSessionPersistDriver({ filename });
  assert.throws(open, { code: "ERR_PERSIST_CANNOT_OPEN" });
  driver.close();
  open().close();
});

test("the text of an event is its payload's, whatever toJSON the event has", async (t) => {
  const driver = open(t);
  const sent = { ...event("s", 1, { id: "e" }), toJSON: () => event("s", 2, { id: "other" }) };
  await driver.insertEvent(sent);
  assert.equal((await allEvents(driver, "s"))[0]!.id, "e");
});

test("texts that are too large together are refused", async (t) => {
  const driver = open(t);
  const text = "x".repeat(300 * 1024 * 1024);
  const sent = { ...session("s", { sessionInit: { text }, modes: { text } }) };
  assert.equal((await rejection(driver.updateSession(sent))).code, "ERR_PERSIST_TOO_LARGE");
  assert.deepEqual(await driver.listSessions(), { items: [] });
});

test("after close() the file is free", async (t) => {
  const filename = file(t);
  const driver = new SQLiteSessionPersistDriver({ filename });
  void driver.insertEvent("s", event("s", 1));
  driver.close();
  rmSync(filename);
  const next = open(t, { filename });
  assert.deepEqual((await next.listEvents({ sessionId: "s" })).items, []);
});

test("the log stays bounded under a load that never pauses", async (t) => {
  const filename = file(t);
  const driver = open(t, { filename });
  const payload = { text: "x".repeat(2_000) };
  let largest = 0;
  const load = async (sessionId: string) => {
    for (let index = 1; index <= 2_500; index += 1) {
      await driver.insertEvent(sessionId, event(sessionId, index, { payload }));
      if (index % 50 === 0) largest = Math.max(largest, statSync(`${filename}-wal`).size);
    }
  };
  await Promise.all(["a", "b", "c", "d", "e", "f", "g", "h"].map(load));
  assert.ok(statSync(filename).size > 30e6, "much more was written than the log holds");
  assert.ok(largest < 32e6, `the log grew to ${largest} bytes`);
});

test("the log is emptied when nothing is written for a while", async (t) => {
  const filename = file(t);
  const driver = open(t, { filename });
  await driver.insertEvent("s", event("s", 1, { payload: "x".repeat(100_000) }));
  assert.ok(statSync(filename).size < 100_000, "the event is in the log alone");
  const end = Date.now() + 20_000;
  while (statSync(filename).size < 100_000 && Date.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.ok(statSync(filename).size > 100_000);
});

test("a page larger than a string can be arrives", async (t) => {
  const driver = open(t, { filename: file(t) });
  const text = "x".repeat(120 * 1024 * 1024);
  for (let index = 1; index <= 5; index += 1) {
    await driver.insertEvent("s", event("s", index, { payload: { text } }));
  }
  const { items, nextCursor } = await driver.listEvents({ sessionId: "s" });
  assert.equal(nextCursor, undefined);
  assert.deepEqual(
    items.map((item: SessionEvent) => [item.eventIndex, item.payload.text.length]),
    [1, 2, 3, 4, 5].map((index) => [index, text.length]),
  );
});

test("a row that holds no JSON is named, not quoted", async (t) => {
  const filename = file(t);
  const driver = open(t, { filename });
  await driver.insertEvent("s", event("s", 1));
  driver.close();
  const database = new Database(filename);
  database.exec(
    `INSERT INTO events SELECT 'broken', 2, session_id, 1, 'c', 'agent', '{"secret', NULL FROM events`,
  );
  database.close();
  const again = open(t, { filename });
  const error = await rejection(again.listEvents({ sessionId: "s" }));
  assert.equal(error.code, "ERR_PERSIST_CORRUPT");
  assert.match(error.message, /"broken"/);
  assert.doesNotMatch(error.message, /secret/);
  assert.equal((await again.listEvents({ sessionId: "s", limit: 1 })).items.length, 1);
});

test("durability normal stores as well", async (t) => {
  const filename = file(t);
  const driver = new SQLiteSessionPersistDriver({ filename, durability: "normal" });
  await driver.insertEvent("s", event("s", 1));
  driver.close();
  assert.equal((await allEvents(open(t, { filename }), "s")).length, 1);
});

test("a driver that is let go is closed without a call", async (t) => {
  const filename = file(t);
  await new SQLiteSessionPersistDriver({ filename }).insertEvent("s", event("s", 1));
  setFlagsFromString("--expose-gc");
  const collectGarbage = runInNewContext("gc");
  const isClosed = () => !existsSync(`${filename}-wal`);
  const end = Date.now() + 20_000;
  while (!isClosed() && Date.now() < end) {
    collectGarbage();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.ok(isClosed());
  assert.equal((await allEvents(open(t, { filename }), "s")).length, 1);
});
