/** How many connections a driver has and for how long, and the timeouts of what runs on them. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { event, session } from "./support/fixtures.ts";
import { runToEnd } from "./support/fork.ts";
import { client, databaseUrl, freshRole, freshSchema, sql } from "./support/postgres.ts";
import {
  beforeInsert,
  freshApplication,
  openPostgres,
  processesOf,
  whileHolding,
} from "./support/postgres-around.ts";
import { refused } from "./support/refusals.ts";
import { relayTo } from "./support/relay.ts";
import { timed, until } from "./support/waiting.ts";

describe("connections", () => {
  test("are never more than max", async (t) => {
    const application_name = freshApplication();
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema, poolConfig: { application_name, max: 3 } });
    await driver.listSessions();
    await whileHolding(`LOCK TABLE ${schema}.events`, async (release) => {
      const calls = Array.from({ length: 50 }, (_, index) =>
        index % 2
          ? driver.insertEvent(`s${index}`, event(`s${index}`, 1))
          : driver.listEvents({ sessionId: `r${index}` }),
      );
      await until(async () => (await processesOf(application_name)).length === 3);
      await sleep(100);
      assert.equal((await processesOf(application_name)).length, 3);
      await release();
      await Promise.all(calls);
    });
    assert.ok((await processesOf(application_name)).length <= 3);
  });

  test("one is enough for reads and writes at once", async (t) => {
    const application_name = freshApplication();
    const driver = openPostgres(t, { poolConfig: { application_name, max: 1 } });
    const calls = Array.from({ length: 60 }, (_, index) => [
      driver.insertEvent(`s${index % 9}`, event(`s${index % 9}`, index)),
      driver.listEvents({ sessionId: `s${index % 9}` }),
      driver.updateSession(session(`s${index}`)),
      driver.listSessions(),
    ]);
    await Promise.all(calls.flat());
    assert.equal((await processesOf(application_name)).length, 1);
  });

  test("that are idle for idleTimeoutMillis are closed, but for min", async (t) => {
    for (const min of [0, 1]) {
      const application_name = freshApplication();
      const poolConfig = { application_name, idleTimeoutMillis: 100, min };
      const driver = openPostgres(t, { poolConfig });
      await Promise.all(["a", "b", "c", "d"].map((id) => driver.getSession(id)));
      await until(async () => (await processesOf(application_name)).length === min);
      await sleep(200);
      assert.equal((await processesOf(application_name)).length, min);
      await driver.listSessions();
    }
  });

  test("are replaced after maxUses", async (t) => {
    const application_name = freshApplication();
    const driver = openPostgres(t, { poolConfig: { application_name, maxUses: 2, max: 1 } });
    const seen = new Set<number>();
    for (let call = 0; call < 8; call += 1) {
      await driver.listSessions();
      for (const pid of await processesOf(application_name)) seen.add(pid);
    }
    // The last may have been closed before anybody looked.
    assert.ok(seen.size >= 3 && seen.size <= 5, `${seen.size} connections`);
  });

  test("are replaced after maxLifetimeSeconds", async (t) => {
    const application_name = freshApplication();
    const poolConfig = { application_name, maxLifetimeSeconds: 1, max: 1 };
    const driver = openPostgres(t, { poolConfig });
    await driver.listSessions();
    const [first] = await processesOf(application_name);
    await driver.listSessions();
    assert.deepEqual(await processesOf(application_name), [first]);
    await sleep(1_050);
    await driver.listSessions();
    await until(async () => !(await processesOf(application_name)).includes(first!));
  });

  test("that were closed by age are taken leave of: the server logs no broken ones", async (t) => {
    const relay = await relayTo(t, databaseUrl());
    const poolConfig = { maxUses: 1 };
    const driver = openPostgres(t, { connectionString: relay.url, poolConfig });
    for (let call = 0; call < 3; call += 1) await driver.listSessions();
    await until(async () => relay.size <= 1);
  });

  test("carry the application's name, and the fallback only without one", async (t) => {
    const [given, fallback] = [freshApplication(), freshApplication()];
    const both = { application_name: given, fallback_application_name: fallback };
    await openPostgres(t, { poolConfig: both }).listSessions();
    assert.equal((await processesOf(given)).length, 1);
    assert.equal((await processesOf(fallback)).length, 0);
    const alone = { fallback_application_name: fallback };
    await openPostgres(t, { poolConfig: alone }).listSessions();
    assert.equal((await processesOf(fallback)).length, 1);
  });

  test("don't keep the process alive", async (t) => {
    const options = JSON.stringify({
      connectionString: databaseUrl(),
      schema: freshSchema(t),
      poolConfig: { idleTimeoutMillis: 0, min: 1 },
    });
    const begin = Date.now();
    const { code, stderr } = await runToEnd("idle", [options]);
    assert.equal(code, 0, stderr);
    assert.ok(Date.now() - begin < 8_000);
  });

  test("reads that are given up leave no server processes behind", async (t) => {
    const locker = await client(t);
    const schema = freshSchema(t);
    const application_name = randomUUID();
    const driver = openPostgres(t, {
      connectionString: databaseUrl(),
      schema,
      poolConfig: { application_name, max: 2, query_timeout: 300 },
    });
    await driver.insertEvent("s", event("s", 1));
    await locker.query("BEGIN");
    await locker.query(`LOCK TABLE ${schema}.events`);
    const lists = Array.from({ length: 4 }, () => driver.listEvents({ sessionId: "s" }));
    const settled = Promise.allSettled(lists);
    const counts: number[] = [];
    for (const end = Date.now() + 3000; Date.now() < end; await sleep(50)) {
      counts.push((await processesOf(application_name)).length);
    }
    // One that is given up may still be ending when its successor is there.
    assert.ok(Math.max(...counts) <= 4, `${counts}`);
    await locker.query("ROLLBACK");
    for (const outcome of await settled) {
      assert.ok(outcome.status === "fulfilled");
      assert.equal(outcome.value.items.length, 1);
    }
  });
});

describe("timeouts of the server", () => {
  const timeouts = { statement_timeout: "57014", lock_timeout: "55P03" };
  for (const [name, sqlState] of Object.entries(timeouts)) {
    for (const preparedStatements of [false, true]) {
      const title = `${name}${preparedStatements ? ", prepared statements" : ""}`;
      test(`${title}: the call rejects at once, and the driver goes on`, async (t) => {
        const schema = freshSchema(t);
        const poolConfig = { [name]: 100 };
        const driver = openPostgres(t, { schema, poolConfig, preparedStatements });
        await driver.listSessions();
        await whileHolding(`LOCK TABLE ${schema}.events`, async () => {
          const begin = Date.now();
          await refused(driver.insertEvent("s", event("s", 1)), "ERR_PERSIST_DATABASE", sqlState);
          const read = driver.listEvents({ sessionId: "s" });
          await refused(read, "ERR_PERSIST_DATABASE", sqlState);
          assert.ok(Date.now() - begin < 3_000);
        });
        await driver.insertEvent("s", event("s", 1));
        assert.equal((await driver.listEvents({ sessionId: "s" })).items.length, 1);
      });
    }
  }

  test("leave no state in the session, and aren't asked for at its start", async (t) => {
    const relay = await relayTo(t, databaseUrl());
    let sent = "";
    void relay.swallowAnswerAndCut((bytes) => {
      sent += bytes.toString("latin1");
      return false;
    });
    const poolConfig = {
      statement_timeout: 4_321,
      lock_timeout: 4_322,
      idle_in_transaction_session_timeout: 4_323,
    };
    const driver = openPostgres(t, { connectionString: relay.url, poolConfig });
    await driver.insertEvent("s", event("s", 1));
    await driver.listEvents({ sessionId: "s" });
    for (const [name, value] of Object.entries(poolConfig)) {
      assert.match(sent, new RegExp(`SET LOCAL ${name} = ${value};`));
    }
    assert.doesNotMatch(sent, /SET (?!LOCAL)(SESSION )?\w*timeout/i);
    assert.doesNotMatch(sent, /user\0.*(timeout|options|extra_float_digits)\0/);
  });

  test("hold for every statement", async (t) => {
    const schema = freshSchema(t);
    const poolConfig = { statement_timeout: 4_321, lock_timeout: 4_322 };
    const driver = openPostgres(t, { schema, poolConfig });
    await driver.listSessions();
    await sql(`CREATE TABLE ${schema}.log (statement TEXT, lock TEXT)`);
    await beforeInsert(
      schema,
      `INSERT INTO ${schema}.log
        VALUES (current_setting('statement_timeout'), current_setting('lock_timeout'));`,
      "sessions",
    );
    await driver.updateSession(session("s"));
    await driver.updateSession(session("t"));
    const expected = { statement: "4321ms", lock: "4322ms" };
    assert.deepEqual(await sql(`SELECT * FROM ${schema}.log`), [expected, expected]);
  });
});

test("calls that wait behind many slow ones are no outage", async (t) => {
  const schema = freshSchema(t);
  const { name, url } = await freshRole(t);
  await sql(`CREATE SCHEMA ${schema} AUTHORIZATION ${name}`);
  const driver = openPostgres(t, {
    connectionString: url,
    schema,
    poolConfig: { max: 1 },
    retryTimeoutMs: 1500,
  });
  await driver.insertEvent("s", event("s", 1));
  await driver.updateSession(session("s"));
  // To look at a row takes a tenth of a second.
  await sql(`
    CREATE POLICY slowly ON ${schema}.events USING (pg_sleep(0.1) IS NOT NULL) WITH CHECK (true);
    ALTER TABLE ${schema}.events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`);

  const lists = Array.from({ length: 20 }, () => timed(driver.listEvents({ sessionId: "s" })));
  const others = [
    timed(driver.insertEvent("t", event("t", 1))),
    timed(driver.getSession("s")),
    timed(driver.updateSession(session("t"))),
  ];
  const outcomes = await Promise.all([...lists, ...others]);
  assert.deepEqual(
    outcomes.flatMap(({ error }) => error ?? []),
    [],
  );
  const slowest = Math.max(...outcomes.map(({ milliseconds }) => milliseconds));
  assert.ok(slowest > 1700, `the slowest took ${slowest} ms: no longer than they may`);
});
