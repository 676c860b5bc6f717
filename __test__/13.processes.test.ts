/** Many processes, and processes that are killed. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { allEvents, file, open } from "./support/fixtures.ts";
import { runToEnd, start } from "./support/fork.ts";

test("kill -9 at any moment loses nothing that was acknowledged", async (t) => {
  const filename = file(t);
  for (let round = 0; round < 8; round += 1) {
    const sessionId = `s${round}`;
    const child = start("write", [JSON.stringify({ filename }), sessionId, "100000"]);
    const acknowledged: string[] = [];
    const enough = 20 + 37 * round;
    child.on("message", ({ stored }: { stored?: string }) => {
      if (stored) acknowledged.push(stored);
      if (acknowledged.length === enough) child.kill("SIGKILL");
    });
    await once(child, "close");
    assert.ok(acknowledged.length >= enough);
    const driver = open(t, { filename });
    const stored = new Set((await allEvents(driver, sessionId, 1000)).map(({ id }) => id));
    assert.deepEqual(
      acknowledged.filter((id) => !stored.has(id)),
      [],
    );
    driver.close();
  }
});

test("four processes write one file", async (t) => {
  const filename = file(t);
  const sessions = ["a", "b", "c", "d"];
  const ended = await Promise.all(
    sessions.map((id) => runToEnd("write", [JSON.stringify({ filename }), id, "150"])),
  );
  for (const { code, stderr } of ended) assert.equal(code, 0, stderr);
  const driver = open(t, { filename });
  for (const id of sessions) assert.equal((await allEvents(driver, id)).length, 150);
});

test("twelve processes start on one new file", async (t) => {
  const filename = file(t);
  const sessions = Array.from({ length: 12 }, (_, index) => `s${index}`);
  const ended = await Promise.all(
    sessions.map((id) => runToEnd("write", [JSON.stringify({ filename }), id, "2"])),
  );
  for (const { code, stderr } of ended) assert.equal(code, 0, stderr);
  const driver = open(t, { filename });
  for (const id of sessions) assert.equal((await allEvents(driver, id)).length, 2);
});
