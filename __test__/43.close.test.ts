/** close(): what is queued is durable first, every promise settles, the file is free. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { SQLiteSessionPersistDriver } from "../index.js";
import { allEvents, event, everyCall, file, open, rejection } from "./support/fixtures.ts";

test("close() writes what is queued, synchronously, and settles every promise", async (t) => {
  const filename = file(t);
  const driver = new SQLiteSessionPersistDriver({ filename });
  const calls: Promise<unknown>[] = [];
  for (let index = 1; index <= 300; index += 1) {
    calls.push(driver.insertEvent("s", event("s", index)));
    if (index % 10 === 0) calls.push(driver.listEvents({ sessionId: "s" }));
  }
  const settled = Promise.allSettled(calls);
  driver.close();
  assert.ok(!existsSync(`${filename}-wal`));
  const stored = await allEvents(open(t, { filename }), "s");
  assert.equal(stored.length, 300, "durable before any promise is settled");
  for (const [at, outcome] of (await settled).entries()) {
    const isRead = at % 11 === 10;
    if (!isRead) assert.equal(outcome.status, "fulfilled");
    else if (outcome.status === "rejected") assert.equal(outcome.reason.code, "ERR_PERSIST_CLOSED");
  }
});

test("a read that waits for a write is rejected by close()", async (t) => {
  const driver = new SQLiteSessionPersistDriver({ filename: file(t) });
  const payload = "x".repeat(5_000_000);
  const written = driver.insertEvent("s", event("s", 1, { payload }));
  const read = rejection(driver.listEvents({ sessionId: "s" }));
  driver.close();
  await written;
  assert.equal((await read).code, "ERR_PERSIST_CLOSED");
});

for (const filename of [undefined, "", ":memory:", "file"]) {
  test(`after close() every call rejects: ${filename ?? "default"}`, async (t) => {
    const options = filename === "file" ? { filename: file(t) } : { filename };
    const driver = new SQLiteSessionPersistDriver(options);
    driver.close();
    driver.close();
    for (const call of everyCall(driver)) {
      const error = await rejection(call());
      assert.equal(error.code, "ERR_PERSIST_CLOSED");
      assert.equal(error.name, "Error");
    }
  });
}

test("using closes the driver where the runtime has Symbol.dispose", async (t) => {
  assert.ok(Symbol.dispose, "every Node from 20 on has it");
  const filename = file(t);
  let driver;
  {
    using scoped = new SQLiteSessionPersistDriver({ filename });
    driver = scoped;
    void scoped.insertEvent("s", event("s", 1));
  }
  assert.equal((await rejection(driver.getSession("s"))).code, "ERR_PERSIST_CLOSED");
  assert.equal((await allEvents(open(t, { filename }), "s")).length, 1);
});

test("close() of one driver leaves others on the same file alone", async (t) => {
  const filename = file(t);
  const [first, second] = [open(t, { filename }), open(t, { filename })];
  await first.insertEvent("s", event("s", 1));
  first.close();
  await second.insertEvent("s", event("s", 2));
  assert.equal((await allEvents(second, "s")).length, 2);
});
