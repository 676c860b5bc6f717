/** Calls that aren't awaited: what they see of each other, and how many may wait. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { allEvents, event, session } from "./support/fixtures.ts";
import { freshSchema, sql } from "./support/postgres.ts";
import { openPostgres, whileHolding } from "./support/postgres-around.ts";
import { assertRefused, refused } from "./support/refusals.ts";
import { until } from "./support/waiting.ts";

describe("calls that aren't awaited", () => {
  test("a read sees 1,000 inserts called before it", async (t) => {
    const driver = openPostgres(t);
    const inserts = [];
    for (let index = 1; index <= 1_000; index += 1) {
      inserts.push(driver.insertEvent("s", event("s", index)));
    }
    const { items } = await driver.listEvents({ sessionId: "s", limit: 2_000 });
    assert.deepEqual(
      items.map(({ eventIndex }) => eventIndex),
      Array.from({ length: 1_000 }, (_, index) => index + 1),
    );
    await Promise.all(inserts);
  });

  test("the last write of an event wins", async (t) => {
    const driver = openPostgres(t);
    const writes = [];
    for (let payload = 0; payload < 500; payload += 1) {
      writes.push(driver.insertEvent("s", event("s", 1, { id: "same", payload })));
    }
    assert.equal((await driver.listEvents({ sessionId: "s" })).items[0]!.payload, 499);
    await Promise.all(writes);
    assert.equal((await allEvents(driver, "s"))[0]!.payload, 499);
  });

  test("the last write of an id wins, whatever session it moves to", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    const writes = [];
    for (let round = 0; round < 300; round += 1) {
      const sessionId = `s${round % 7}`;
      writes.push(driver.insertEvent(sessionId, event(sessionId, round, { id: "same" })));
    }
    await Promise.all(writes);
    const rows = await sql(`SELECT session_id, event_index::int FROM ${schema}.events`);
    assert.deepEqual(rows, [{ session_id: "s5", event_index: 299 }]);
  });

  test("an event that moves away is gone from its session", async (t) => {
    const driver = openPostgres(t);
    await driver.insertEvent("from", event("from", 1, { id: "same" }));
    void driver.insertEvent("to", event("to", 1, { id: "same" }));
    await driver.listEvents({ sessionId: "to" });
    assert.deepEqual((await driver.listEvents({ sessionId: "from" })).items, []);
  });

  test("getSession and listSessions see the updates called before them", async (t) => {
    const driver = openPostgres(t);
    for (let round = 0; round < 50; round += 1) {
      const updated = driver.updateSession(session("s", { createdAt: round }));
      const [read, list] = await Promise.all([driver.getSession("s"), driver.listSessions()]);
      assert.equal(read!.createdAt, round);
      assert.equal(list.items[0]!.createdAt, round);
      await updated;
    }
  });

  test("listSessions sees 200 updates of different sessions", async (t) => {
    const driver = openPostgres(t);
    const updates = Array.from({ length: 200 }, (_, index) =>
      driver.updateSession(session(`s${index}`)),
    );
    assert.equal((await driver.listSessions({ limit: 500 })).items.length, 200);
    await Promise.all(updates);
  });

  test("promises of a session settle in the order of the calls", async (t) => {
    const driver = openPostgres(t);
    const settled = new Map<string, number[]>();
    const writes = Array.from({ length: 600 }, (_, index) => {
      const id = `s${index % 6}`;
      const order = settled.get(id) ?? [];
      settled.set(id, order);
      return driver.insertEvent(id, event(id, index)).then(() => order.push(index));
    });
    await Promise.all(writes);
    for (const order of settled.values()) {
      assert.deepEqual(
        order,
        [...order].sort((a, b) => a - b),
      );
    }
  });

  test("writes of other sessions pass one that waits for a lock", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.insertEvent("held", event("held", 1, { id: "held" }));
    await whileHolding(
      `SELECT FROM ${schema}.events WHERE id = 'held' FOR UPDATE`,
      async (release) => {
        const waiting = driver.insertEvent("held", event("held", 2, { id: "held" }));
        await until(async () => {
          const text = `SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1`;
          return (await sql(text, [`%${schema}%`])).length > 0;
        });
        await driver.insertEvent("free", event("free", 1));
        await release();
        await waiting;
      },
    );
  });
});

test("maxQueuedBytes refuses calls while a lock holds up writes, until there is room", async (t) => {
  const schema = freshSchema(t);
  const driver = openPostgres(t, { schema, maxQueuedBytes: 100_000 });
  await driver.listSessions();
  const payload = "sesame ".repeat(1_000);
  let outcomes: PromiseSettledResult<void>[] = [];
  await whileHolding(`LOCK TABLE ${schema}.events`, async (release) => {
    const calls = Array.from({ length: 40 }, (_, index) =>
      driver.insertEvent("s", event("s", index, { payload })),
    );
    const settled = Promise.allSettled(calls);
    const first = driver.insertEvent("s", event("s", 41, { payload }));
    await refused(first, "ERR_PERSIST_OVERLOADED");
    await release();
    outcomes = await settled;
  });
  const stored = outcomes.filter(({ status }) => status === "fulfilled").length;
  assert.ok(stored >= 5 && stored <= 14, `${stored} were stored`);
  for (const outcome of outcomes.slice(stored))
    assertRefused(outcome, "ERR_PERSIST_OVERLOADED", undefined);
  assert.equal((await allEvents(driver, "s")).length, stored);
  await driver.insertEvent("s", event("s", 42, { payload }));
});

test("maxQueuedBytes never refuses the only call", async (t) => {
  const driver = openPostgres(t, { maxQueuedBytes: 0 });
  await driver.insertEvent("s", event("s", 1));
  await driver.updateSession(session("s"));
});
