/** close(): what is queued is durable first, every promise settles, no connection is left. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { PostgresSessionPersistDriver } from "../index.js";
import { event, everyCall } from "./support/fixtures.ts";
import { databaseUrl, freshSchema, sql } from "./support/postgres.ts";
import {
  freshApplication,
  openPostgres,
  processesOf,
  waitersIn,
  whileHolding,
} from "./support/postgres-around.ts";
import { assertRefused, refused } from "./support/refusals.ts";
import { until } from "./support/waiting.ts";

describe("close()", () => {
  test("makes what is queued durable first, and settles every promise", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    const calls: Promise<unknown>[] = [];
    for (let index = 1; index <= 300; index += 1) {
      calls.push(driver.insertEvent("s", event("s", index)));
      if (index % 10 === 0) calls.push(driver.listEvents({ sessionId: "s" }));
    }
    const settled = Promise.allSettled(calls);
    await driver.close();
    const [row] = await sql(`SELECT count(*)::int AS count FROM ${schema}.events`);
    assert.equal(row.count, 300);
    for (const [at, outcome] of (await settled).entries()) {
      if (at % 11 !== 10) assert.equal(outcome.status, "fulfilled");
      else if (outcome.status === "rejected") {
        assertRefused(outcome, "ERR_PERSIST_CLOSED", undefined);
      }
    }
  });

  test("rejects queued reads at once, and waits for writes", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.listSessions();
    await whileHolding(`LOCK TABLE ${schema}.events`, async (release) => {
      const written = driver.insertEvent("s", event("s", 1));
      const read = driver.listEvents({ sessionId: "s" });
      const closed = driver.close();
      await refused(read, "ERR_PERSIST_CLOSED");
      await release();
      await Promise.all([written, closed]);
    });
    const [row] = await sql(`SELECT count(*)::int AS count FROM ${schema}.events`);
    assert.equal(row.count, 1);
  });

  test("lets a running read finish", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.insertEvent("s", event("s", 1));
    await whileHolding(`LOCK TABLE ${schema}.events`, async (release) => {
      const read = driver.listEvents({ sessionId: "s" });
      await until(async () => (await waitersIn(schema)) > 0);
      const closed = driver.close();
      await release();
      assert.equal((await read).items.length, 1);
      await closed;
    });
  });

  for (const when of ["before any call", "after one"]) {
    test(`${when}: later calls reject, and a second one is fine`, async (t) => {
      const driver = openPostgres(t);
      if (when === "after one") await driver.listSessions();
      const closing = [driver.close(), driver.close()];
      for (const call of everyCall(driver)) {
        await refused(call(), "ERR_PERSIST_CLOSED");
      }
      assert.deepEqual(await Promise.all(closing), [undefined, undefined]);
      await refused(driver.listSessions(), "ERR_PERSIST_CLOSED");
      await driver.close();
    });
  }

  test("a second one waits for the first", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.listSessions();
    await whileHolding(`LOCK TABLE ${schema}.events`, async (release) => {
      const written = driver.insertEvent("s", event("s", 1));
      const order: string[] = [];
      const first = driver.close().then(() => order.push("first"));
      const second = driver.close().then(() => order.push("second"));
      await sleep(50);
      assert.deepEqual(order, []);
      await release();
      await Promise.all([written, first, second]);
    });
  });

  test("is what `await using` calls", async (t) => {
    assert.ok(Symbol.asyncDispose, "every Node from 20 on has it");
    const schema = freshSchema(t);
    let driver;
    {
      await using scoped = new PostgresSessionPersistDriver({
        connectionString: databaseUrl(),
        schema,
      });
      driver = scoped;
      void scoped.insertEvent("s", event("s", 1));
    }
    await refused(driver.getSession("s"), "ERR_PERSIST_CLOSED");
    assert.equal((await sql(`SELECT FROM ${schema}.events`)).length, 1);
  });

  test("leaves no connection", async (t) => {
    const application_name = freshApplication();
    const driver = openPostgres(t, { poolConfig: { application_name } });
    await Promise.all(
      Array.from({ length: 50 }, (_, index) => driver.listEvents({ sessionId: `s${index}` })),
    );
    assert.ok((await processesOf(application_name)).length > 0);
    await driver.close();
    // A server process takes a moment to end.
    await until(async () => (await processesOf(application_name)).length === 0);
  });

  test("leaves a pool that was passed in alone, which was never connected", async (t) => {
    const pool = new pg.Pool({ connectionString: databaseUrl(), max: 3 });
    t.after(() => pool.end());
    const driver = openPostgres(t, { pool });
    await driver.insertEvent("s", event("s", 1));
    assert.equal(pool.totalCount, 0);
    await driver.close();
    assert.equal(pool.totalCount, 0);
    assert.deepEqual((await pool.query("SELECT 1 AS one")).rows, [{ one: 1 }]);
  });
});
