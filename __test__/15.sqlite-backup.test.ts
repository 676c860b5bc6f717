/** `backup()`: a copy as of one moment, while others go on. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
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
import { until } from "./support/waiting.ts";

/** A store of some 60 MB, whose copy takes a while. */
async function largeStore(t: TestContext) {
  const filename = file(t);
  const driver = open(t, { filename });
  const payload = "x".repeat(1_000_000);
  for (let index = 1; index <= 60; index += 1) {
    await driver.insertEvent("s", event("s", index, { payload }));
  }
  return { driver, filename, copy: join(folder(t), "copy.db") };
}

test("a backup holds all that was called before, awaited or not", async (t) => {
  const driver = open(t, { filename: file(t) });
  const copy = file(t);
  const calls = [driver.updateSession(session("s"))];
  for (let index = 1; index <= 500; index += 1)
    calls.push(driver.insertEvent("s", event("s", index)));
  await driver.backup(copy);
  await Promise.all(calls);
  const restored = open(t, { filename: copy });
  assert.deepEqual(await restored.getSession("s"), session("s"));
  assert.deepEqual(await allEvents(restored, "s"), await allEvents(driver, "s"));
  await restored.insertEvent("s", event("s", 501));
});

test("a backup beside sixteen sessions that write is of one moment", async (t) => {
  const driver = open(t, { filename: file(t) });
  const copy = file(t);
  let isOver = false;
  const ids = Array.from({ length: 16 }, (_, at) => `s${at}`);
  const stored = new Map(ids.map((id) => [id, 0]));
  const writing = ids.map(async (id) => {
    for (let index = 1; !isOver; index += 1) {
      await driver.insertEvent(id, event(id, index, { payload: "x".repeat(10_000) }));
      stored.set(id, index);
    }
  });
  while (Math.min(...stored.values()) < 20) await driver.idle({ timeoutMs: 5 });
  const before = new Map(stored);
  await driver.backup(copy);
  isOver = true;
  await Promise.all(writing);
  const restored = open(t, { filename: copy });
  for (const id of ids) {
    const indexes = (await allEvents(restored, id)).map(({ eventIndex }) => eventIndex);
    assert.deepEqual(
      indexes,
      indexes.map((_, at) => at + 1),
    );
    assert.ok(indexes.length >= before.get(id)!, `${id} lacks what was acknowledged before`);
  }
});

test("a database in memory can be kept so", async (t) => {
  const driver = new SQLiteSessionPersistDriver();
  await driver.insertEvent("s", event("s", 1));
  const copy = file(t);
  await driver.backup(copy);
  driver.close();
  assert.equal((await allEvents(open(t, { filename: copy }), "s")).length, 1);
});

test("a backup replaces nothing", async (t) => {
  const driver = open(t, { filename: file(t) });
  await driver.insertEvent("s", event("s", 1));
  const copy = file(t);
  writeFileSync(copy, "another's");
  const { code, message } = await rejection(driver.backup(copy));
  assert.equal(code, "ERR_PERSIST_CANNOT_OPEN");
  assert.equal(message, `cannot open the database "${copy}": there is a file of that name already`);
  assert.equal(readFileSync(copy, "utf8"), "another's");
  const missing = await rejection(driver.backup(join(dirname(copy), "none", "copy.db")));
  assert.match(missing.message, /its folder does not exist$/);
});

for (const end of ["-journal", "-wal", "-shm"]) {
  test(`a backup has no name that SQLite deletes: ${end}`, async (t) => {
    const driver = open(t, { filename: file(t) });
    const refused = await rejection(driver.backup(`${file(t)}${end}`));
    assert.equal(refused.code, "ERR_PERSIST_CANNOT_OPEN");
    assert.match(refused.message, /SQLite deletes files of such a name/);
  });
}

test("a backup may have as long a name as any file", async (t) => {
  const driver = open(t, { filename: file(t) });
  await driver.backup(join(folder(t), "b".repeat(250)));
});

test("a backup tells how far it is", async (t) => {
  const { driver, copy } = await largeStore(t);
  const seen: { bytes: number; totalBytes: number }[] = [];
  await driver.backup(copy, { onProgress: (progress) => seen.push(progress) });
  const { size } = statSync(copy);
  assert.deepEqual(seen.at(-1), { bytes: size, totalBytes: size });
  const bytes = seen.map((progress) => progress.bytes);
  assert.deepEqual(
    bytes,
    bytes.toSorted((one, other) => one - other),
  );
});

test("a backup rejects with what its onProgress throws, leaving nothing", async (t) => {
  const { driver, copy } = await largeStore(t);
  const reason = new Error("enough");
  const onProgress = () => {
    throw reason;
  };
  assert.equal(await rejection(driver.backup(copy, { onProgress })), reason);
});

test("a backup ends with its signal, leaving nothing", async (t) => {
  const { driver, copy } = await largeStore(t);
  for (const isAborted of [true, false]) {
    const controller = new AbortController();
    const reason = new Error("enough");
    if (isAborted) controller.abort(reason);
    const backup = rejection(driver.backup(copy, { signal: controller.signal }));
    if (!isAborted) await until(() => readdirSync(dirname(copy)).length > 0);
    controller.abort(reason);
    assert.equal(await backup, reason);
    assert.deepEqual(readdirSync(dirname(copy)), []);
  }
  await driver.insertEvent("s", event("s", 61));
});

test("a backup ends with its driver, leaving nothing", async (t) => {
  const { driver, copy } = await largeStore(t);
  const backup = rejection(driver.backup(copy));
  await until(() => readdirSync(dirname(copy)).length > 0);
  driver.close();
  assert.equal((await backup).code, "ERR_PERSIST_CLOSED");
  assert.deepEqual(readdirSync(dirname(copy)), []);
});

test("a backup has exactly its mode", { skip: onWindows }, async (t) => {
  const driver = open(t, { filename: file(t) });
  for (const [options, mode] of [
    [{}, 0o600],
    [{ fileMode: 0o640 }, 0o640],
  ] as const) {
    const copy = file(t);
    await driver.backup(copy, options);
    assert.equal(statSync(copy).mode & 0o777, mode);
  }
});

test("what isn't an option of a backup is refused", async (t) => {
  const driver = open(t);
  const copy = file(t);
  for (const [options, message] of [
    [{ signal: 5 }, "options.signal must be an AbortSignal"],
    [{ onProgress: 5 }, "options.onProgress must be a function"],
    [
      { overwrite: true },
      "options.overwrite is not an option; the options are onProgress, signal, fileMode",
    ],
    [{ fileMode: 5 }, "options.fileMode must be a file's mode from 0o600 to 0o777, such as 0o640"],
    [null, "options must be an object"],
  ] as const) {
    const error = await rejection(driver.backup(copy, options as never));
    assert.deepEqual([error.code, error.message], ["ERR_PERSIST_INVALID_ARG", message]);
  }
  assert.equal((await rejection(driver.backup(5 as never))).message, "path must be a string");
  assert.ok(!existsSync(copy));
});
