/** Worker threads: each has an environment, and an end, of its own. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { allEvents, file, open } from "./support/fixtures.ts";
import { startWorker } from "./support/fork.ts";

test("a worker terminated mid-insert, 20 times: no crash, nothing acknowledged is lost", async (t) => {
  const filename = file(t);
  for (let round = 0; round < 20; round += 1) {
    const sessionId = `s${round}`;
    const worker = startWorker({ options: { filename }, sessionId, count: 1_000_000 });
    const acknowledged: string[] = [];
    const enough = new Promise<void>((resolve, reject) => {
      worker.on("error", reject);
      worker.on("message", (id) => {
        acknowledged.push(id);
        if (acknowledged.length === 1 + round * 5) resolve();
      });
    });
    await enough;
    await worker.terminate();
    const driver = open(t, { filename });
    const stored = new Set((await allEvents(driver, sessionId, 1000)).map(({ id }) => id));
    assert.deepEqual(
      acknowledged.filter((id) => !stored.has(id)),
      [],
    );
    driver.close();
    assert.ok(!existsSync(`${filename}-wal`), "the worker's connections are closed");
  }
});

test("two workers and the main thread write one file", async (t) => {
  const filename = file(t);
  const driver = open(t, { filename });
  const workers = ["a", "b"].map((sessionId) =>
    startWorker({ options: { filename }, sessionId, count: 100 }),
  );
  await Promise.all(workers.map((worker) => once(worker, "exit")));
  for (const sessionId of ["a", "b"]) {
    assert.equal((await allEvents(driver, sessionId)).length, 100);
  }
});
