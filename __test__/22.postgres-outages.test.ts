/** Servers and connections that go away are ridden out, or every call rejects in time. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { PostgresSessionPersistDriver } from "../index.js";
import { allEvents, event, session } from "./support/fixtures.ts";
import { startLoad } from "./support/load.ts";
import { databaseUrl, freshSchema, ownServer, type Postgres } from "./support/postgres.ts";
import { openWith, terminate, TERMINATE_OTHERS } from "./support/postgres-around.ts";
import { relayed } from "./support/relay.ts";
import { timed, until } from "./support/waiting.ts";

const UNAVAILABLE = { name: "Error", code: "ERR_PERSIST_UNAVAILABLE" };

for (const [what, everyMs, durationMs] of [
  ["five times a second", 200, 2000],
  ["fifty times a second", 20, 600],
] as const) {
  test(`all connections are cut ${what}, and nothing is lost`, async (t) => {
    const { relay, options, straight } = await relayed(t);
    const load = startLoad(openWith(t, options), 16);
    await load.progress(1);
    relay.cutEvery(everyMs);
    await sleep(durationMs);
    relay.cutEvery(0);
    await load.progress(1);
    await load.finish(openWith(t, straight));
  });
}

for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? ", with prepared statements" : "";
  test(`connections that a middlebox forgets, and the server doesn't, lose nothing${how}`, async (t) => {
    const { relay, options, straight } = await relayed(t);
    const load = startLoad(openWith(t, { ...options, preparedStatements }), 16);
    for (let round = 0; round < 10; round += 1) {
      await load.progress(1);
      relay.cutClients();
    }
    await load.progress(1);
    await load.finish(openWith(t, straight));
  });
}

for (const [what, down, downMs] of [
  ["is stopped for three seconds", (server: Postgres) => server.stop("immediate"), 3000],
  ["restarts in an orderly way", (server: Postgres) => server.stop("fast"), 0],
  ["is killed", (server: Postgres) => server.kill(), 0],
] as const) {
  test(`a server that ${what} under load is ridden out`, async (t) => {
    const server = await ownServer(t);
    const load = startLoad(openWith(t, { connectionString: server.url }), 8);
    await load.progress(5);
    await down(server);
    await sleep(downMs);
    await server.start();
    await load.progress(5);
    await load.finish(openWith(t, { connectionString: server.url }));
  });
}

test("connections that an administrator ends are replaced: busy ones", async (t) => {
  const application_name = randomUUID();
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const load = startLoad(openWith(t, { ...options, poolConfig: { application_name } }), 16);
  for (let round = 0; round < 15; round += 1) {
    await load.progress(1);
    await terminate(application_name);
  }
  await load.progress(1);
  await load.finish(openWith(t, options));
});

test("connections that an administrator ends are replaced: idle ones", async (t) => {
  const application_name = randomUUID();
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const driver = openWith(t, { ...options, poolConfig: { application_name } });
  for (let round = 1; round <= 5; round += 1) {
    await Promise.all(
      ["a", "b", "c", "d", "e", "f"].map(async (id) => {
        await driver.insertEvent(id, event(id, round));
        assert.equal((await allEvents(driver, id)).length, round);
      }),
    );
    assert.ok((await terminate(application_name)).length > 0);
    await sleep(20);
  }
  assert.deepEqual(await driver.listSessions(), { items: [] });
});

test("a server that is down at first is waited for", async (t) => {
  const server = await ownServer(t);
  await server.stop("immediate");
  const driver = openWith(t, { connectionString: server.url });
  const calls = Promise.all([
    driver.updateSession(session("s")),
    driver.insertEvent("s", event("s", 1)),
    driver.getSession("s"),
    driver.listEvents({ sessionId: "s" }),
    driver.listSessions(),
    driver.getSession("none"),
  ]);
  await sleep(1000);
  await server.start();
  const [, , found, events, sessions, none] = await calls;
  assert.equal(found?.id, "s");
  assert.equal(events.items.length, 1);
  assert.equal(sessions.items.length, 1);
  assert.equal(none, undefined);
});

for (const when of ["at first", "later"]) {
  test(`a server that is down for too long ${when} rejects every call in time, and none afterwards`, async (t) => {
    const { relay, options } = await relayed(t);
    const driver = openWith(t, { ...options, retryTimeoutMs: 500 });
    if (when === "later") await driver.insertEvent("s", event("s", 1));
    await relay.refuse(true);
    relay.cutAll();
    const reads = [
      driver.getSession("none"),
      driver.listSessions(),
      driver.listEvents({ sessionId: "none" }),
    ];
    const writes = Array.from({ length: 20 }, (_, at) => [
      driver.insertEvent("s", event("s", 2 + at)),
      driver.updateSession(session("s", { createdAt: at })),
      driver.insertEvent(`s${at}`, event(`s${at}`, 1)),
    ]);
    const held = [driver.getSession("s"), driver.listEvents({ sessionId: "s" })];
    const outcomes = await Promise.all([...reads, ...writes.flat(), ...held].map(timed));
    for (const { error } of outcomes) {
      assert.equal(error?.name, UNAVAILABLE.name);
      assert.equal(error?.code, UNAVAILABLE.code);
    }
    const taken = outcomes.map(({ milliseconds }) => milliseconds);
    const ofReads = taken.slice(0, reads.length);
    const ofWrites = taken.slice(reads.length, -held.length);
    const ofHeld = taken.slice(-held.length);
    // A pause that would go beyond the end is not begun: it may come somewhat earlier.
    assert.ok(Math.min(...taken) >= 200, `not given up at once: ${taken}`);
    assert.ok(Math.max(...ofReads) < 900, `reads: ${ofReads}`);
    assert.ok(Math.max(...ofWrites) < 900, `writes: ${ofWrites}`);
    assert.ok(Math.max(...ofHeld) < 900, `reads that wait for writes: ${ofHeld}`);

    await relay.refuse(false);
    await driver.insertEvent("s", event("s", 100));
    const indexes = (await allEvents(driver, "s")).map(({ eventIndex }) => eventIndex);
    assert.deepEqual(indexes, when === "later" ? [1, 100] : [100]);
  });
}

test("calls made all through an outage that is too long settle in time", async (t) => {
  const { relay, options } = await relayed(t);
  const driver = openWith(t, { ...options, retryTimeoutMs: 500 });
  await driver.insertEvent("s", event("s", 1));
  await relay.refuse(true);
  relay.cutAll();
  const calls: ReturnType<typeof timed>[] = [];
  for (let index = 2; index <= 100; index += 1) {
    calls.push(timed(driver.insertEvent("s", event("s", index))));
    calls.push(timed(driver.listEvents({ sessionId: "s" })));
    await sleep(10);
  }
  const outcomes = await Promise.all(calls);
  assert.ok(outcomes.every(({ error }) => error?.code === UNAVAILABLE.code));
  const slowest = Math.max(...outcomes.map(({ milliseconds }) => milliseconds));
  assert.ok(slowest < 1100, `the slowest took ${slowest} ms`);
  await relay.refuse(false);
  await driver.insertEvent("s", event("s", 101));
});

test("what an outage leaves waiting has a ceiling", async (t) => {
  const { relay, options } = await relayed(t);
  const driver = openWith(t, { ...options, maxQueuedBytes: 10_000 });
  await driver.insertEvent("s", event("s", 1));
  await relay.refuse(true);
  relay.cutAll();
  const calls = Array.from({ length: 30 }, (_, at) =>
    driver.insertEvent("s", event("s", 2 + at, { payload: "x".repeat(1000) })),
  );
  const settled = Promise.allSettled(calls);
  await sleep(100);
  await relay.refuse(false);
  const outcomes = await settled;
  const refused = outcomes.findIndex(({ status }) => status === "rejected");
  assert.ok(refused > 3, `${refused} were taken`);
  for (const outcome of outcomes.slice(refused)) {
    assert.ok(outcome.status === "rejected");
    assert.equal(outcome.reason.name, "Error");
    assert.equal(outcome.reason.code, "ERR_PERSIST_OVERLOADED");
  }
  await driver.insertEvent("s", event("s", 100));
  const indexes = (await allEvents(driver, "s")).map(({ eventIndex }) => eventIndex);
  assert.deepEqual(indexes, [...Array.from({ length: refused + 1 }, (_, at) => at + 1), 100]);
});

test("an attempt to connect that nobody answers is given up and made anew", async (t) => {
  const { relay, options } = await relayed(t);
  relay.blackHole(true);
  const poolConfig = { connectionTimeoutMillis: 150 };
  const driver = openWith(t, { ...options, poolConfig });
  const calls = Promise.all([driver.insertEvent("s", event("s", 1)), driver.getSession("s")]);
  await until(() => relay.size >= 4, "each call tries again", 5_000);
  relay.blackHole(false);
  await calls;
});

test("a query that nobody answers is given up and made anew", async (t) => {
  const { relay, options } = await relayed(t);
  const driver = openWith(t, { ...options, poolConfig: { query_timeout: 300 } });
  await driver.insertEvent("s", event("s", 1));
  await driver.updateSession(session("s"));
  relay.freezeOpen();
  const { error, milliseconds } = await timed(
    Promise.all([
      driver.insertEvent("s", event("s", 2)),
      driver.getSession("s"),
      driver.listSessions(),
    ]),
  );
  assert.equal(error, undefined);
  assert.ok(milliseconds >= 250 && milliseconds < 2000, `${milliseconds} ms`);
  assert.equal((await allEvents(driver, "s")).length, 2);
});

test("a server that never answers rejects in time", async (t) => {
  const { relay, options } = await relayed(t);
  const driver = openWith(t, { ...options, retryTimeoutMs: 500 });
  await driver.insertEvent("s", event("s", 1));
  relay.blackHole(true);
  for (const { error, milliseconds } of await Promise.all([
    timed(driver.insertEvent("s", event("s", 2))),
    timed(driver.getSession("s")),
  ])) {
    assert.equal(error?.code, UNAVAILABLE.code);
    assert.ok(milliseconds < 900, `${milliseconds} ms`);
  }
  relay.blackHole(false);
  await driver.insertEvent("s", event("s", 3));
});

test("close() during an outage settles every call in time", async (t) => {
  const { relay, options } = await relayed(t);
  const driver = new PostgresSessionPersistDriver({ ...options, retryTimeoutMs: 500 });
  await driver.insertEvent("s", event("s", 1));
  await relay.refuse(true);
  relay.cutAll();
  const writes = Array.from({ length: 10 }, (_, at) =>
    timed(driver.insertEvent("s", event("s", 2 + at))),
  );
  const read = timed(driver.listEvents({ sessionId: "s" }));
  await sleep(20);
  const closed = await timed(driver.close());
  assert.equal(closed.error, undefined);
  assert.ok(closed.milliseconds < 900, `${closed.milliseconds} ms`);
  for (const { error } of await Promise.all(writes)) assert.equal(error?.code, UNAVAILABLE.code);
  const { error } = await read;
  assert.ok(["ERR_PERSIST_CLOSED", UNAVAILABLE.code].includes(String(error?.code)), error?.message);
});

test("close() during an outage that ends stores what was called before", async (t) => {
  const { relay, options, straight } = await relayed(t);
  const driver = new PostgresSessionPersistDriver(options);
  await driver.insertEvent("s", event("s", 1));
  await relay.refuse(true);
  relay.cutAll();
  const write = driver.insertEvent("s", event("s", 2));
  const closed = driver.close();
  await sleep(200);
  await relay.refuse(false);
  await Promise.all([write, closed]);
  assert.equal((await allEvents(openWith(t, straight), "s")).length, 2);
});

test("a database that is read-only for a second is ridden out", async (t) => {
  const server = await ownServer(t);
  const setReadOnly = (value: string) =>
    server.query(
      `BEGIN READ WRITE; ALTER DATABASE postgres SET default_transaction_read_only = ${value}; COMMIT`,
    );
  const load = startLoad(openWith(t, { connectionString: server.url }), 8);
  await load.progress(2);
  await setReadOnly("on");
  await server.query(TERMINATE_OTHERS);
  await sleep(700);
  await setReadOnly("off");
  await load.progress(2);
  await load.finish(openWith(t, { connectionString: server.url }));
});
