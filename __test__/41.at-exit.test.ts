/** Every call made is stored, however the process ends; an idle driver never keeps it alive. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { allEvents, file, open } from "./support/fixtures.ts";
import { runToEnd } from "./support/fork.ts";

for (const [end, code, events] of [
  ["process.exit()", 0, 500],
  ["uncaught exception", 1, 500],
  ["unhandled rejection", 1, 500],
  ["natural end", 0, 500],
  ["reallyExit", 0, 500],
  ["exit listener", 0, 501],
] as const) {
  test(`calls that nobody awaited are stored: ${end}`, async (t) => {
    const filename = file(t);
    const ended = await runToEnd("insert-and-exit", [filename, end]);
    assert.equal(ended.code, code, ended.stderr);
    assert.equal((await allEvents(open(t, { filename }), "s")).length, events);
  });
}

test("a process with an idle driver ends by itself and leaves one file", async (t) => {
  const filename = file(t);
  const { code, stderr } = await runToEnd("idle", [JSON.stringify({ filename })]);
  assert.equal(code, 0, stderr);
  assert.ok(!existsSync(`${filename}-wal`));
});

test("a call made while the arguments of another are read keeps the process alive", async (t) => {
  const filename = file(t);
  const { code, stderr, messages } = await runToEnd("reentrant", [filename]);
  assert.equal(code, 0, stderr);
  assert.deepEqual(messages.sort(), ["inner is stored", "outer is refused"]);
});
