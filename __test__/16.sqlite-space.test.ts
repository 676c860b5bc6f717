/** Space that comes back: in steps after deletions, and all at once on request. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { statSync } from "node:fs";
import { join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
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
import { start } from "./support/fork.ts";
import { until } from "./support/waiting.ts";

const EVENTS = 10_000;
const sizeOf = (filename: string) => statSync(filename).size;

/** Some megabytes of one session, and a little of another. */
async function fill(driver: SQLiteSessionPersistDriver, batches = 2) {
  for (let batch = 0; batch < batches; batch += 1) {
    const events = Array.from({ length: EVENTS }, (_, at) =>
      event("large", batch * EVENTS + at + 1),
    );
    await driver.insertEvents(events);
  }
  await driver.insertEvent(event("small", 1));
}

/** A file that can't shrink in steps, as the TypeScript drivers make it. */
async function oldFile(t: TestContext): Promise<string> {
  const filename = file(t);
  const made = new Database(filename);
  made.exec("CREATE TABLE somebody (a); DROP TABLE somebody;");
  made.close();
  const driver = new SQLiteSessionPersistDriver({ filename });
  await fill(driver);
  driver.close();
  return filename;
}

test("a file becomes smaller by itself after a deletion", async (t) => {
  const filename = file(t);
  const driver = open(t, { filename });
  await fill(driver);
  await until(() => sizeOf(filename) > 3_000_000);
  await driver.deleteSession("large");
  await until(() => sizeOf(filename) < 2_000_000);
  assert.equal((await allEvents(driver, "small")).length, 1);
});

test("a file that nobody closes becomes smaller while others write", async (t) => {
  const filename = file(t);
  const driver = open(t, { filename });
  await fill(driver);
  await until(() => sizeOf(filename) > 3_000_000);
  await driver.deleteSession("large");
  let index = 1;
  await until(async () => {
    for (let count = 0; count < 20; count += 1)
      await driver.insertEvent(event("small", (index += 1)));
    return sizeOf(filename) < 2_500_000;
  });
  assert.equal((await allEvents(driver, "small", 10_000)).length, index);
});

test("a file of the TypeScript driver's becomes smaller by shrink(), and then by itself", async (t) => {
  const filename = await oldFile(t);
  const driver = open(t, { filename });
  await driver.deleteSession("large");
  assert.ok((await driver.stats()).bytes.reclaimable! > 3_000_000);
  const { bytesBefore, bytesAfter } = await driver.shrink();
  assert.ok(bytesBefore > 3_000_000 && bytesAfter < 1_000_000, `${bytesBefore} → ${bytesAfter}`);
  assert.equal(sizeOf(filename), bytesAfter);
  await fill(driver);
  await until(() => sizeOf(filename) > 3_000_000);
  await driver.deleteSession("large");
  await until(() => sizeOf(filename) < 2_000_000);
});

test("what is written while a file is shrunk is stored, and reads go on", async (t) => {
  const filename = await oldFile(t);
  const driver = open(t, { filename });
  const shrinking = driver.shrink();
  let isOver = false;
  void shrinking.finally(() => (isOver = true));
  const written: Promise<void>[] = [];
  for (let index = 2; !isOver; index += 1) {
    written.push(driver.insertEvent(event("small", index)));
    await driver.getSession("none");
    await sleep(1);
  }
  await Promise.all([shrinking, ...written]);
  assert.equal((await allEvents(driver, "small", 10_000)).length, 1 + written.length);
  assert.equal(await driver.countEvents({ sessionId: "large" }), 2 * EVENTS);
});

test("shrink() tells how far it is", async (t) => {
  const driver = open(t, { filename: await oldFile(t) });
  const told: { bytes: number; totalBytes: number }[] = [];
  await driver.shrink({ onProgress: (progress) => told.push(progress) });
  const last = told.at(-1)!;
  assert.ok(last.bytes > 1_000_000 && last.totalBytes === last.bytes, JSON.stringify(last));
});

test("shrink() ends with its signal, leaving all as it was", async (t) => {
  const filename = await oldFile(t);
  const driver = open(t, { filename });
  const before = sizeOf(filename);
  const controller = new AbortController();
  const shrinking = rejection(driver.shrink({ signal: controller.signal }));
  const reason = new Error("enough");
  await sleep(1);
  controller.abort(reason);
  assert.equal(await shrinking, reason);
  assert.equal(await driver.countEvents(), 2 * EVENTS + 1);
  assert.equal(sizeOf(filename), before);
  assert.equal(await rejection(driver.shrink({ signal: AbortSignal.abort(reason) })), reason);
});

test("shrink() ends with its driver", async (t) => {
  const filename = await oldFile(t);
  const driver = open(t, { filename });
  const shrinking = rejection(driver.shrink());
  await sleep(5);
  driver.close();
  assert.equal((await shrinking).code, "ERR_PERSIST_CLOSED");
  assert.equal(await open(t, { filename }).countEvents(), 2 * EVENTS + 1);
});

test("shrink() waits for another process's lock as long as a call may", async (t) => {
  const filename = await oldFile(t);
  const driver = open(t, { filename, busyTimeoutMs: 200 });
  const other = start("hold-lock", [filename, "2000"]);
  await once(other, "message");
  assert.equal((await rejection(driver.shrink())).code, "ERR_PERSIST_BUSY");
  await once(other, "exit");
  await driver.shrink();
});

test("a process that is killed while it shrinks its file leaves it whole", async (t) => {
  const filename = await oldFile(t);
  for (const ms of [1, 10, 30]) {
    const child = start("shrink", [filename]);
    await once(child, "message");
    await sleep(ms);
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  const driver = open(t, { filename });
  assert.equal(await driver.countEvents(), 2 * EVENTS + 1);
  await driver.shrink();
  driver.close();
  const database = new Database(filename);
  t.after(() => database.close());
  assert.equal(database.pragma("integrity_check", { simple: true }), "ok");
});

const cannotMount = process.getuid?.() !== 0 && "mounting a small disk needs root";
test(
  "a full disk keeps nothing from being done when there is room again",
  { skip: cannotMount },
  async (t) => {
    const disk = folder(t, (path) => spawnSync("umount", ["-l", path]));
    const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=24m", "tmpfs", disk]);
    if (mounted.status !== 0) return t.skip(`mount: ${mounted.stderr}`);
    const driver = open(t, { filename: join(disk, "sessions.db") });
    await fill(driver, 1);
    const ballast = join(disk, "ballast");
    spawnSync("sh", ["-c", 'cat /dev/zero > "$1"', "sh", ballast]);
    const full = await rejection(driver.shrink());
    assert.equal(full.code, "ERR_PERSIST_FULL");
    assert.match(full.message, /the disk is full: this needs \d+ bytes/);
    // The log may have room for some of it.
    const limit = { maxEventsPerSession: 100 };
    const pruned = await driver.prune(limit).catch((error) => error);
    assert.ok(pruned.done || pruned.code === "ERR_PERSIST_FULL", String(pruned));
    const left = (await allEvents(driver, "large", 20_000)).map((each) => each.eventIndex);
    assert.deepEqual(
      left,
      Array.from(left, (_, at) => EVENTS + 1 - left.length + at),
    );
    spawnSync("rm", [ballast]);
    await driver.prune(limit);
    await driver.shrink();
    assert.equal(await driver.countEvents(), 101);
  },
);

test("a database in memory can be shrunk", async (t) => {
  const driver = open(t);
  await fill(driver, 1);
  await driver.deleteSession("large");
  const { bytesBefore, bytesAfter } = await driver.shrink();
  assert.ok(bytesAfter < bytesBefore, `${bytesBefore} → ${bytesAfter}`);
});

test("what isn't an option of shrink() is refused", async (t) => {
  const driver = open(t);
  for (const options of [5, { signal: 1 }, { onProgress: 1 }, { keep: 1 }]) {
    const refused = await rejection(driver.shrink(options as never));
    assert.deepEqual([refused.name, refused.code], ["TypeError", "ERR_PERSIST_INVALID_ARG"]);
  }
});

/** Whether a text is in the database or its log. Another process looks: it would drop this one's locks. */
const holds = (filename: string, text: string) =>
  [filename, `${filename}-wal`].some(
    (path) => spawnSync("grep", ["-qaF", text, path]).status === 0,
  );

describe("secureDelete", { skip: onWindows && "it has no grep" }, () => {
  const MARKER = "to-be-forgotten";
  const remember = async (driver: SQLiteSessionPersistDriver) => {
    const events = Array.from({ length: 50 }, (_, at) =>
      event("s", at + 1, { createdAt: 1, payload: { text: `${MARKER} ${at}` } }),
    );
    await driver.insertEvents(events);
    await driver.updateSession(session("s", { sessionInit: { cwd: MARKER, mcpServers: [] } }));
  };

  for (const [what, remove] of [
    ["deleteSession", (driver) => driver.deleteSession("s")],
    ["prune", (driver) => driver.prune({ maxEventsPerSession: 1 })],
  ] as [string, (driver: SQLiteSessionPersistDriver) => Promise<unknown>][]) {
    test(`leaves nothing of what ${what} has deleted`, async (t) => {
      const filename = file(t);
      const driver = open(t, { filename, secureDelete: true });
      await remember(driver);
      assert.ok(holds(filename, `${MARKER} 7`));
      await remove(driver);
      assert.equal(holds(filename, `${MARKER} 7`), false);
    });
  }

  test("is not the default", async (t) => {
    const filename = file(t);
    const driver = open(t, { filename });
    await remember(driver);
    await driver.deleteSession("s");
    assert.ok(holds(filename, `${MARKER} 7`));
  });

  test("tells of a reader that keeps the log, and goes on", async (t) => {
    const filename = file(t);
    const told: string[] = [];
    const onError = (_: Error, { operation }: { operation: string }) => told.push(operation);
    const driver = open(t, { filename, secureDelete: true, busyTimeoutMs: 300, onError });
    await remember(driver);
    const reader = start("hold-snapshot", [filename, "1500"]);
    await once(reader, "message");
    const deleted = driver.deleteSession("s");
    await driver.insertEvent(event("other", 1));
    assert.equal(await deleted, true);
    assert.deepEqual(told, ["secureDelete"]);
    await once(reader, "exit");
    await driver.deleteSession("other");
    assert.equal(holds(filename, `${MARKER} 7`), false);
  });
});
