/** Deletions and batches while connections are lost, through a pooler, and without the privilege. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import type { PostgresSessionPersistDriver } from "../index.js";
import { event, session } from "./support/fixtures.ts";
import { largePostgres } from "./support/large.ts";
import { pooled, withoutPgBouncer } from "./support/pgbouncer.ts";
import {
  client,
  databaseUrl,
  freshDatabase,
  freshRole,
  freshSchema,
  ownServer,
  sql,
  urlOf,
} from "./support/postgres.ts";
import { lockRow, openPostgres, openWith, TERMINATE_OTHERS } from "./support/postgres-around.ts";
import { refused } from "./support/refusals.ts";
import { relayed, relayTo } from "./support/relay.ts";
import { until } from "./support/waiting.ts";

const BATCH = 30;

/**
 * Stores and deletes sessions, several at a time, until it is told to finish: then no call has
 * rejected, and the reader finds what was acknowledged.
 */
function startWork(driver: PostgresSessionPersistDriver, workers: number) {
  const [kept, gone]: [string[], string[]] = [[], []];
  let [isEnding, rounds] = [false, 0];
  const work = async (worker: number) => {
    for (let round = 0; !isEnding; round += 1) {
      const id = `s${worker} ${round}`;
      const events = Array.from({ length: BATCH }, (_, at) => event(id, at, { id: `${id} ${at}` }));
      const calls = [driver.updateSession(session(id)), driver.insertEvents(events)];
      if (round % 3 === 0) await Promise.all(calls);
      if (round % 3 === 2) {
        await Promise.all(calls);
        kept.push(id);
      } else {
        assert.equal(await driver.deleteSession(id), true);
        await Promise.all(calls);
        gone.push(id);
      }
      rounds += 1;
    }
  };
  const working = Promise.all(Array.from({ length: workers }, (_, worker) => work(worker)));
  // It is awaited later.
  working.catch(() => (isEnding = true));
  return {
    progress: async (more: number) => {
      const wanted = rounds + more;
      while (rounds < wanted && !isEnding) await sleep(5);
    },
    finish: async (reader: PostgresSessionPersistDriver) => {
      isEnding = true;
      await working;
      assert.equal(await reader.countSessions(), kept.length);
      assert.equal(await reader.countEvents(), kept.length * BATCH);
      for (const id of kept) assert.equal(await reader.countEvents({ sessionId: id }), BATCH);
      assert.ok(kept.length > 0 && gone.length > 0);
    },
  };
}

for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? ", with prepared statements" : "";

  test(`connections are cut under deletions and batches${how}`, async (t) => {
    const { relay, options, straight } = await relayed(t);
    const work = startWork(openWith(t, { ...options, preparedStatements }), 8);
    await work.progress(8);
    relay.cutEvery(60);
    await sleep(1500);
    relay.cutEvery(0);
    await work.progress(8);
    await work.finish(openWith(t, straight));
  });

  test(`a deletion whose answer is lost resolves to true, and the session is gone${how}`, async (t) => {
    const { relay, options } = await relayed(t);
    const driver = openWith(t, { ...options, preparedStatements });
    await driver.updateSession(session("s"));
    await driver.insertEvents([event("s", 1), event("other", 1)]);
    const swallowed = relay.swallowAnswerAndCut((bytes) => bytes.includes("DELETE FROM"));
    const calls = [driver.deleteSession("s"), driver.insertEvent(event("s", 2))] as const;
    const [deleted] = await Promise.all(calls);
    await swallowed;
    assert.equal(deleted, true);
    assert.equal(await driver.getSession("s"), undefined);
    assert.equal((await driver.lastEvent("s"))?.eventIndex, 2, "what was called later stays");
    assert.equal(await driver.countEvents(), 2);
  });

  test(`a batch whose answer is lost is stored once${how}`, async (t) => {
    const { relay, options } = await relayed(t);
    const driver = openWith(t, { ...options, preparedStatements });
    await driver.insertEvent(event("s", 0));
    const swallowed = relay.swallowAnswerAndCut((bytes) => bytes.includes("in the batch"));
    const batch = [1, 2, 3].map((index) => event("s", index, { payload: "in the batch" }));
    await Promise.all([driver.insertEvents(batch), swallowed]);
    assert.equal(await driver.countEvents(), 4);
  });

  test(`a large session is deleted while connections are cut${how}`, async (t) => {
    const { options, addEvents, count } = await largePostgres(t);
    await addEvents(["large"], 30_000);
    await addEvents(["other"], 100);
    const relay = await relayTo(t, databaseUrl());
    const through = { ...options, connectionString: relay.url, preparedStatements };
    const driver = openWith(t, through as { connectionString: string; schema: string });
    await driver.updateSession(session("large"));
    let isSettled = false;
    const calls = [driver.deleteSession("large"), driver.insertEvent(event("large", 1))] as const;
    const settled = Promise.allSettled(calls).then(() => (isSettled = true));
    // Each time that some more has gone.
    for (let [cuts, left] = [0, 30_000]; cuts < 8 && !isSettled; cuts += 1) {
      const before = left;
      await until(async () => isSettled || (left = await count("large")) < before);
      relay.cutAll();
    }
    const [deleted] = await Promise.all(calls);
    await settled;
    assert.equal(deleted, true);
    assert.equal(await driver.getSession("large"), undefined);
    assert.equal(await driver.countEvents({ sessionId: "large" }), 1);
    assert.equal(await driver.countEvents({ sessionId: "other" }), 100);
  });
}

test("stats count attempts that were made again, and connections in place of lost ones", async (t) => {
  const { relay, options } = await relayed(t);
  const driver = openWith(t, options);
  await driver.insertEvent(event("s", 1));
  const swallowed = relay.swallowAnswerAndCut((bytes) => bytes.includes("twice"));
  await driver.insertEvent(event("s", 2, { payload: "twice" }));
  await swallowed;
  const { retries, reconnects, commits } = await driver.stats();
  assert.ok(retries >= 1 && reconnects >= 1, `${retries}, ${reconnects}`);
  assert.equal(commits.writes, 2);
});

test("a batch that waits for one row has stored none of the others", async (t) => {
  const locker = await client(t);
  const { relay, options, straight } = await relayed(t);
  const driver = openWith(t, options);
  const reader = openWith(t, straight);
  await driver.insertEvent(event("s", 0, { id: "locked" }));
  await lockRow(locker, `${options.schema}.events`, "locked");
  const batch = ["a", "locked", "z"].map((id, index) => event("s", index, { id }));
  const inserted = driver.insertEvents(batch);
  await until(async () => (await waitersFor(options.schema)) > 0, "the batch waits");
  assert.equal(await reader.countEvents(), 1);
  relay.cutAll();
  await sleep(50);
  assert.equal(await reader.countEvents(), 1);
  await locker.query("ROLLBACK");
  await inserted;
  assert.equal(await reader.countEvents(), 3);
});

/** How many server processes wait for a row that somebody locks, writing to the schema. */
async function waitersFor(schema: string): Promise<number> {
  const rows = await sql(
    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1",
    [`%${schema}%`],
  );
  return rows.length;
}

test("two drivers that store and delete the same sessions don't deadlock", async (t) => {
  const database = await freshDatabase(t);
  const drivers = [false, true].map((preparedStatements) =>
    openWith(t, { connectionString: urlOf({ database }), preparedStatements }),
  );
  const names = ["a", "b", "c"];
  const work = async (driver: PostgresSessionPersistDriver, seed: number) => {
    for (let round = 0; round < 30; round += 1) {
      // Of both drivers' events, as their ids are the same, in another order.
      const events = names.flatMap((id, at) =>
        [0, 1, 2].map((index) =>
          event(names[(at + round + seed) % 3]!, index, { id: `${id}${index}` }),
        ),
      );
      if (seed % 2 === 1) events.reverse();
      const deleted = names[(round + seed) % 3]!;
      await Promise.all([
        driver.insertEvents(events),
        driver.deleteSession(deleted),
        driver.updateSession(session(deleted)),
        driver.insertEvent(events[round % 9]!),
      ]);
    }
  };
  await Promise.all(drivers.flatMap((driver) => [0, 1].map((seed) => work(driver, seed))));
  await Promise.all(drivers.map((driver) => driver.close()));
  // The server counts them when its processes end.
  const processes = () => sql("SELECT FROM pg_stat_activity WHERE datname = $1", [database]);
  await until(async () => (await processes()).length === 0);
  const counted = "SELECT deadlocks::int FROM pg_stat_database WHERE datname = $1";
  assert.deepEqual(await sql(counted, [database]), [{ deadlocks: 0 }]);
});

test("a role that may not DELETE is told so, and the session stays", async (t) => {
  const schema = freshSchema(t);
  const owner = openPostgres(t, { schema });
  await owner.updateSession(session("s"));
  await owner.insertEvents([event("s", 1), event("s", 2)]);
  const role = await freshRole(t);
  await sql(`GRANT USAGE ON SCHEMA ${schema} TO ${role.name}`);
  await sql(`GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA ${schema} TO ${role.name}`);
  for (const preparedStatements of [false, true]) {
    const driver = openWith(t, { connectionString: role.url, schema, preparedStatements });
    await driver.insertEvents([event("other", 1)]);
    await refused(driver.deleteSession("s"), "ERR_PERSIST_DATABASE", "42501");
    // What comes behind it isn't held up.
    await driver.insertEvent(event("other", 2));
    assert.equal((await driver.getSession("s"))?.id, "s");
    assert.equal(await driver.countEvents({ sessionId: "s" }), 2);
  }
});

test("a trigger that keeps a large session's events doesn't keep its deletion going", async (t) => {
  const { schema, addEvents, open } = await largePostgres(t);
  await addEvents(["large"], 10_001);
  await sql(`
    CREATE FUNCTION ${schema}.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER keep BEFORE DELETE ON ${schema}.events FOR EACH ROW
      EXECUTE FUNCTION ${schema}.keep()`);
  const driver = open();
  await refused(driver.deleteSession("large"), "ERR_PERSIST_DATABASE", "42501");
  assert.equal(await driver.countEvents(), 10_001);
  await driver.close();
});

test("two drivers delete one large session at the same time", async (t) => {
  const { addEvents, open } = await largePostgres(t);
  await addEvents(["large"], 20_000);
  const drivers = [open(), open()];
  const deleted = await Promise.all(drivers.map((driver) => driver.deleteSession("large")));
  assert.ok(deleted.includes(true));
  assert.equal(await drivers[0]!.countEvents(), 0);
  for (const driver of drivers) await driver.close();
});

test("what another driver deletes at the same time doesn't end a deletion", async (t) => {
  const { addEvents, open } = await largePostgres(t);
  await addEvents(["large"], 60_000);
  const drivers = [open(), open(), open()];
  // Several steps of each are waiting for the same rows.
  const deleted = await Promise.all(drivers.map((driver) => driver.deleteSession("large")));
  assert.ok(deleted.includes(true));
  assert.equal(await drivers[0]!.countEvents(), 0);
  for (const driver of drivers) await driver.close();
});

const skip = withoutPgBouncer;

test("a pooler's connections are ended under deletions and batches", { skip }, async (t) => {
  const server = await ownServer(t);
  const { url } = await pooled(t, { target: server.url, poolSize: 3 });
  const work = startWork(openWith(t, { connectionString: url }), 8);
  for (let round = 0; round < 10; round += 1) {
    await work.progress(4);
    await server.query(TERMINATE_OTHERS);
  }
  await work.progress(4);
  await work.finish(openWith(t, { connectionString: server.url }));
});

test("connections to a pooler are cut under deletions and batches", { skip }, async (t) => {
  const { url } = await pooled(t, { poolSize: 3 });
  const relay = await relayTo(t, url);
  const schema = freshSchema(t);
  const work = startWork(openWith(t, { connectionString: relay.url, schema }), 8);
  await work.progress(8);
  relay.cutEvery(100);
  await sleep(1500);
  relay.cutEvery(0);
  await work.progress(8);
  await work.finish(openWith(t, { connectionString: databaseUrl(), schema }));
});
