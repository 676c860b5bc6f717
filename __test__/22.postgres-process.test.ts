/** What the process has of it: its end in any way, and what reaches it beside its calls. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { allEvents, onWindows } from "./support/fixtures.ts";
import { runToEnd, start, startWorker } from "./support/fork.ts";
import { databaseUrl, freshSchema, sql } from "./support/postgres.ts";
import { openWith, terminate } from "./support/postgres-around.ts";
import { relayed, relayTo } from "./support/relay.ts";

test("no trouble reaches the process that isn't a call's", async (t) => {
  const { relay, options } = await relayed(t);
  const application_name = randomUUID();
  const connectionString = `${options.connectionString}?application_name=${application_name}`;
  const child = start("postgres-unheard", [JSON.stringify({ ...options, connectionString })]);
  let stderr = "";
  child.stderr!.on("data", (data) => (stderr += data));
  const [ready] = await once(child, "message");
  assert.equal(ready, "idle");
  assert.ok((await terminate(application_name)).length > 0);
  await sleep(100);
  relay.cutAll();
  child.send("go on");
  const [[report], [code]] = await Promise.all([once(child, "message"), once(child, "close")]);
  assert.deepEqual(report, { unheard: [] });
  assert.equal(code, 0, stderr);
  assert.equal(stderr, "");
});

test("time in which the process was frozen is nobody's wait", { skip: onWindows }, async (t) => {
  const { relay, options } = await relayed(t);
  const retryTimeoutMs = 1_000;
  const child = start("write", [JSON.stringify({ ...options, retryTimeoutMs }), "s", "300"]);
  let stderr = "";
  child.stderr!.on("data", (data) => (stderr += data));
  await once(child, "message");
  // A write is under way, and its answer never comes.
  relay.freezeOpen();
  await sleep(200);
  child.kill("SIGSTOP");
  await sleep(4_000);
  child.kill("SIGCONT");
  const [code] = await once(child, "close");
  assert.equal(code, 0, stderr);
  assert.equal((await allEvents(openWith(t, options), "s", 1000)).length, 300);
});

test("a process.emitWarning that throws holds up no promise", async (t) => {
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  await openWith(t, options).listSessions();
  await sql(`ALTER TABLE ${options.schema}.events DROP COLUMN extra_json`);
  const { messages, stderr } = await runToEnd("postgres-warned", [JSON.stringify(options)]);
  const expected = {
    warnings: 1,
    states: {
      insertEvent: "resolved",
      getSession: "resolved",
      listSessions: "resolved",
      afterwards: "resolved",
    },
  };
  assert.deepEqual(messages[0], expected, stderr);
});

for (const [end, code] of [
  ["process.exit()", 0],
  ["uncaught exception", 1],
  ["natural end", 0],
] as const) {
  test(`calls that nobody awaited are stored: ${end}`, async (t) => {
    const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
    const ended = await runToEnd("postgres-insert-and-exit", [JSON.stringify(options), end]);
    assert.equal(ended.code, code, ended.stderr);
    assert.equal((await allEvents(openWith(t, options), "s", 1000)).length, 500);
  });
}

test("a process whose database is down ends within seconds", async (t) => {
  const { relay, options } = await relayed(t);
  await relay.refuse(true);
  const args = [JSON.stringify(options), "process.exit()"];
  const ended = await runToEnd("postgres-insert-and-exit", args);
  const milliseconds = Date.now() - ended.messages[0].ends;
  assert.equal(ended.code, 0, ended.stderr);
  assert.ok(milliseconds < 6500, `${milliseconds} ms`);
});

test("process.exit() waits for a server that is silent, but only for so long", async (t) => {
  const relay = await relayTo(t, databaseUrl());
  const options = { connectionString: relay.url, schema: freshSchema(t) };
  const child = start("postgres-write-and-exit", [JSON.stringify(options)]);
  const ended = once(child, "close");
  const [message] = await Promise.race([once(child, "message"), ended]);
  assert.equal(message, "ready");
  relay.blackHole(true);
  const begin = Date.now();
  child.send("go on");
  const [code] = await ended;
  const milliseconds = Date.now() - begin;
  assert.equal(code, 0);
  assert.ok(milliseconds < 7000, `${milliseconds} ms`);
});

test("workers that are terminated mid-insert lose nothing that was acknowledged", async (t) => {
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const reader = openWith(t, options);
  for (let round = 0; round < 5; round += 1) {
    const sessionId = `s${round}`;
    const worker = startWorker({ options, sessionId, count: 100_000 });
    const acknowledged: string[] = [];
    await new Promise<void>((resolve, reject) => {
      worker.on("error", reject).on("message", (id) => {
        if (acknowledged.push(id) === 10 + 17 * round) resolve();
      });
    });
    await worker.terminate();
    const stored = new Set((await allEvents(reader, sessionId, 1000)).map(({ id }) => id));
    assert.ok(acknowledged.every((id) => stored.has(id)));
  }
});

test("kill -9 at any moment loses nothing that was acknowledged", async (t) => {
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const reader = openWith(t, options);
  for (let round = 0; round < 3; round += 1) {
    const sessionId = `s${round}`;
    const child = start("write", [JSON.stringify(options), sessionId, "100000"]);
    const acknowledged: string[] = [];
    child.on("message", ({ stored }: { stored: string }) => {
      if (acknowledged.push(stored) === 20 + 61 * round) child.kill("SIGKILL");
    });
    await once(child, "close");
    assert.ok(acknowledged.length >= 20 + 61 * round);
    const stored = new Set((await allEvents(reader, sessionId, 1000)).map(({ id }) => id));
    assert.ok(acknowledged.every((id) => stored.has(id)));
  }
});
