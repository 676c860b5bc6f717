/** PgBouncer in transaction mode between a driver and its server. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { allEvents, event, rejection, session } from "./support/fixtures.ts";
import { startLoad } from "./support/load.ts";
import { pooled, withoutPgBouncer } from "./support/pgbouncer.ts";
import { client, databaseUrl, freshSchema, ownServer, sql } from "./support/postgres.ts";
import { openWith, TERMINATE_OTHERS, untilEnded } from "./support/postgres-around.ts";
import { relayTo } from "./support/relay.ts";
import { until } from "./support/waiting.ts";

const skip = withoutPgBouncer;

test("two drivers share two connections, and no row crosses", { skip }, async (t) => {
  const { url, log } = await pooled(t, { poolSize: 2 });
  const schemas = [freshSchema(t), freshSchema(t)];
  const loads = schemas.map((schema) =>
    startLoad(openWith(t, { connectionString: url, schema }), 16),
  );
  await sleep(2500);
  await Promise.all(
    loads.map((load, at) =>
      load.finish(openWith(t, { connectionString: databaseUrl(), schema: schemas[at]! })),
    ),
  );
  for (const [at, schema] of schemas.entries()) {
    const [{ count }] = await sql(`SELECT count(*)::integer FROM ${schema}.events`);
    assert.equal(count, loads[at]!.acknowledged);
  }
  const written = readFileSync(log, "utf8");
  assert.doesNotMatch(written, /unsupported startup parameter|client_login|WARNING|ERROR/);
});

test("four drivers at once create one schema through it", { skip }, async (t) => {
  const { url } = await pooled(t, { poolSize: 2 });
  const options = { connectionString: url, schema: freshSchema(t) };
  const drivers = Array.from({ length: 4 }, () => openWith(t, options));
  await Promise.all(drivers.map((driver, at) => driver.insertEvent("s", event("s", at + 1))));
  for (const driver of drivers) assert.equal((await allEvents(driver, "s")).length, 4);
});

test("a driver's timeouts don't reach the pooler's other clients", { skip }, async (t) => {
  const { url } = await pooled(t, { poolSize: 1 });
  const driver = openWith(t, {
    connectionString: url,
    schema: freshSchema(t),
    poolConfig: {
      statement_timeout: 1234,
      lock_timeout: 1235,
      idle_in_transaction_session_timeout: 1236,
    },
  });
  const other = await client(t, url);
  const load = startLoad(driver, 4);
  for (let round = 0; round < 100; round += 1) {
    for (const name of [
      "statement_timeout",
      "lock_timeout",
      "idle_in_transaction_session_timeout",
    ]) {
      const { rows } = await other.query(`SHOW ${name}`);
      assert.deepEqual(rows, [{ [name]: "0" }]);
    }
  }
  await load.finish(driver);
});

test("a driver's timeouts hold through it", { skip }, async (t) => {
  const locker = await client(t);
  const { url } = await pooled(t);
  const schema = freshSchema(t);
  const poolConfig = { statement_timeout: 100 };
  const driver = openWith(t, { connectionString: url, schema, poolConfig });
  await driver.insertEvent("s", event("s", 1, { id: "locked" }));
  await locker.query("BEGIN");
  await locker.query(`SELECT FROM ${schema}.events FOR UPDATE`);
  const error = await rejection(driver.insertEvent("s", event("s", 1, { id: "locked" })));
  assert.equal(error.name, "Error");
  assert.equal(error.code, "ERR_PERSIST_DATABASE");
  assert.equal(error.sqlState, "57014");
  await driver.insertEvent("s", event("s", 2));
});

test("its connections to the server are ended under load", { skip }, async (t) => {
  const server = await ownServer(t);
  const { url } = await pooled(t, { target: server.url, poolSize: 3 });
  const load = startLoad(openWith(t, { connectionString: url }), 16);
  for (let round = 0; round < 10; round += 1) {
    await load.progress(1);
    await server.query(TERMINATE_OTHERS);
  }
  await load.progress(1);
  await load.finish(openWith(t, { connectionString: server.url }));
});

test("it restarts under load", { skip }, async (t) => {
  const pooler = await pooled(t);
  const schema = freshSchema(t);
  const load = startLoad(openWith(t, { connectionString: pooler.url, schema }), 16);
  await load.progress(5);
  await pooler.stop();
  await sleep(300);
  await pooled(t, { port: pooler.port });
  await load.progress(5);
  await load.finish(openWith(t, { connectionString: databaseUrl(), schema }));
});

test("the server behind it restarts under load", { skip }, async (t) => {
  const server = await ownServer(t);
  // By default it doesn't try again for 15 seconds.
  const settings = { server_login_retry: 1 };
  const { url } = await pooled(t, { target: server.url, settings });
  const load = startLoad(openWith(t, { connectionString: url }), 8);
  await load.progress(5);
  await server.stop("immediate");
  await sleep(500);
  await server.start();
  await load.progress(5);
  await load.finish(openWith(t, { connectionString: server.url }));
});

test("connections to it are cut under load", { skip }, async (t) => {
  const { url } = await pooled(t, { poolSize: 3 });
  const relay = await relayTo(t, url);
  const schema = freshSchema(t);
  const load = startLoad(openWith(t, { connectionString: relay.url, schema }), 16);
  await load.progress(1);
  relay.cutEvery(100);
  await sleep(1500);
  relay.cutEvery(0);
  await load.progress(1);
  await load.finish(openWith(t, { connectionString: databaseUrl(), schema }));
});

test("it takes fewer clients than the driver wants", { skip }, async (t) => {
  const { url } = await pooled(t, { settings: { max_client_conn: 2 } });
  const schema = freshSchema(t);
  const load = startLoad(openWith(t, { connectionString: url, schema }), 8);
  await load.progress(20);
  await load.finish(openWith(t, { connectionString: databaseUrl(), schema }));
});

test("a server process that still waits to write an older value is ended", { skip }, async (t) => {
  const locker = await client(t);
  const { url } = await pooled(t);
  const relay = await relayTo(t, url);
  const schema = freshSchema(t);
  const driver = openWith(t, { connectionString: relay.url, schema });
  const marker = randomUUID();
  const write = (agent: string) => driver.updateSession(session("contested", { agent }));
  await write("oldest");
  await locker.query("BEGIN");
  await locker.query(`SELECT FROM ${schema}.sessions FOR UPDATE`);
  const older = write(marker);
  const waiting = () =>
    sql("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1", [
      `%${marker}%`,
    ]);
  await until(async () => (await waiting()).length > 0, "the write waits for the lock", 5_000);
  const [{ pid }] = await waiting();
  relay.cutAll();
  const newer = write("newer");
  await untilEnded(pid);
  await locker.query("ROLLBACK");
  await Promise.all([older, newer]);
  assert.equal((await driver.getSession("contested"))?.agent, "newer");
});
