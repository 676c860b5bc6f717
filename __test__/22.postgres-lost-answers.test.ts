/** A write whose fate is unknown is never stored over a newer one. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { allEvents, event, session } from "./support/fixtures.ts";
import {
  client,
  freshDatabase,
  freshRole,
  freshSchema,
  ownServer,
  sql,
  urlOf,
} from "./support/postgres.ts";
import {
  lockRow,
  openWith,
  processesOf,
  untilEnded,
  waitingProcess,
} from "./support/postgres-around.ts";
import { relayed, relayTo } from "./support/relay.ts";
import { timed } from "./support/waiting.ts";

for (const awaits of [false, true]) {
  for (const kind of ["event", "session"]) {
    const calls = awaits ? "awaited" : "made at once";
    test(`a write whose answer is lost isn't stored over a newer one: ${kind}, ${calls}`, async (t) => {
      const { relay, options } = await relayed(t);
      const driver = openWith(t, options);
      const id = randomUUID();
      const write = (agent: string) =>
        kind === "event"
          ? driver.insertEvent("s", event("s", 1, { id, payload: agent }))
          : driver.updateSession(session(id, { agent }));
      await write("oldest");
      let newer: Promise<void> | undefined;
      const swallowed = relay.swallowAnswerAndCut((bytes) => {
        const isSent = bytes.includes("older");
        // While the older one is on its way; what is called before that goes in its stead.
        if (isSent && !awaits) newer = write("newer");
        return isSent;
      });
      await Promise.all([write("older"), swallowed]);
      await (newer ?? write("newer"));
      const [{ value }] = await sql(
        kind === "event"
          ? `SELECT payload_json #>> '{}' AS value FROM ${options.schema}.events`
          : `SELECT agent AS value FROM ${options.schema}.sessions`,
      );
      assert.equal(value, "newer");
    });
  }
}

/**
 * A driver by a relay, and a server process of it that waits to write an event, which another
 * locks.
 */
async function stuckWrite(t: TestContext, preparedStatements = false) {
  const locker = await client(t);
  const { relay, options, straight } = await relayed(t);
  const application_name = randomUUID();
  const poolConfig = { application_name };
  const driver = openWith(t, { ...options, poolConfig, preparedStatements });
  const write = (payload: string) =>
    driver.insertEvent("s", event("s", 1, { id: "contested", payload }));
  await write("oldest");
  await lockRow(locker, `${options.schema}.events`, "contested");
  const older = write("older");
  const pid = await waitingProcess(application_name);
  const stored = async () =>
    (await sql(`SELECT payload_json #>> '{}' AS payload FROM ${options.schema}.events`))[0].payload;
  return { relay, straight, write, older, locker, pid, stored };
}

for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? ", with prepared statements" : "";
  test(`a server process that still waits to write an older value is ended${how}`, async (t) => {
    const { relay, write, older, locker, pid, stored } = await stuckWrite(t, preparedStatements);
    relay.cutClients();
    const newer = write("newer");
    await untilEnded(pid);
    await locker.query("ROLLBACK");
    await Promise.all([older, newer]);
    assert.equal(await stored(), "newer");
  });
}

test("ending a server process of one driver leaves another driver's alone", async (t) => {
  const { relay, straight, write, older, locker, pid } = await stuckWrite(t);
  const application_name = randomUUID();
  const other = openWith(t, { ...straight, poolConfig: { application_name } });
  const others = ["a", "b", "c"].map((id) => other.insertEvent(id, event(id, 1)));
  await Promise.all(others);
  const stuck = other.insertEvent("d", event("d", 1, { id: "contested", payload: "other" }));
  await waitingProcess(application_name);
  const before = await processesOf(application_name);
  relay.cutClients();
  const newer = write("newer");
  await untilEnded(pid);
  // There may be one more: it was being opened for a call that another has served.
  const after = await processesOf(application_name);
  assert.deepEqual(
    before.filter((process) => !after.includes(process)),
    [],
  );
  await locker.query("ROLLBACK");
  await Promise.all([older, newer, stuck]);
});

// On a stopped process the message waits in the socket: as on a slow network, it lands late.
const withoutSignals = process.platform === "win32" && "needs signals";
for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? ", with prepared statements" : "";
  test(
    `a newer write isn't acknowledged while an older one may still land${how}`,
    { skip: withoutSignals },
    async (t) => {
      const server = await ownServer(t);
      const relay = await relayTo(t, server.url);
      const application_name = randomUUID();
      const poolConfig = { application_name, max: 1 };
      const driver = openWith(t, {
        connectionString: relay.url,
        poolConfig,
        preparedStatements,
      });
      const write = (payload: string) =>
        driver.insertEvent("s", event("s", 1, { id: "contested", payload }));
      await write("oldest");
      const [{ pid }] = await server.query(
        `SELECT pid FROM pg_stat_activity WHERE application_name = '${application_name}'`,
      );
      process.kill(pid, "SIGSTOP");
      const older = write("older");
      await sleep(50);
      relay.cutClients();
      let isAcknowledged = false;
      const newer = write("newer").then(() => (isAcknowledged = true));
      await sleep(300);
      const wasEarly = isAcknowledged;
      process.kill(pid, "SIGCONT");
      await Promise.all([older, newer]);
      await sleep(100);
      const [{ payload }] = await server.query(
        "SELECT payload_json #>> '{}' AS payload FROM public.events",
      );
      assert.equal(payload, "newer");
      assert.equal(wasEarly, false);
    },
  );
}

test("what arrives from a black hole after its end doesn't undo what came later", async (t) => {
  const { relay, options } = await relayed(t);
  const poolConfig = { query_timeout: 200, connectionTimeoutMillis: 150 };
  const driver = openWith(t, { ...options, poolConfig });
  const write = (payload: string) => driver.insertEvent("s", event("s", 1, { id: "one", payload }));
  await write("oldest");
  relay.blackHole(true);
  const calls = [write("older"), write("newer")];
  await sleep(700);
  relay.blackHole(false);
  await Promise.all(calls);
  await sleep(200);
  assert.equal((await allEvents(driver, "s"))[0]!.payload, "newer");
});

for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? ", with prepared statements" : "";
  test(`a role that takes another on ends its old server processes${how}`, async (t) => {
    const locker = await client(t);
    const schema = freshSchema(t);
    const { name: owner } = await freshRole(t);
    const app = await freshRole(t, `IN ROLE ${owner}`);
    await sql(`ALTER ROLE ${app.name} SET role = '${owner}'`);
    await sql(`CREATE SCHEMA ${schema} AUTHORIZATION ${owner}`);
    const relay = await relayTo(t, app.url);
    const application_name = randomUUID();
    const poolConfig = { application_name };
    const options = { connectionString: relay.url, schema, poolConfig, preparedStatements };
    const driver = openWith(t, options);
    const write = (payload: string) =>
      driver.insertEvent("s", event("s", 1, { id: "contested", payload }));

    await write("oldest");
    await lockRow(locker, `${schema}.events`, "contested");
    const older = write("older");
    const pid = await waitingProcess(application_name);
    relay.cutClients();
    const newer = write("newer");
    await untilEnded(pid);
    await locker.query("ROLLBACK");
    await Promise.all([older, newer]);
    const [{ payload }] = await sql(
      `SELECT payload_json #>> '{}' AS payload FROM ${schema}.events`,
    );
    assert.equal(payload, "newer");
  });
}

for (const [what, cut] of [
  ["on both sides", "cutAll"],
  ["for the client alone", "cutClients"],
] as const) {
  test(`a role that may not end server processes is served after a connection is cut ${what}`, async (t) => {
    const database = await freshDatabase(t);
    const { name: role } = await freshRole(t);
    const admin = await client(t, urlOf({ database }));
    const terminating = "FUNCTION pg_terminate_backend(integer, bigint)";
    await admin.query(`REVOKE EXECUTE ON ${terminating} FROM PUBLIC`);
    await admin.query(`CREATE SCHEMA s AUTHORIZATION ${role}`);
    const relay = await relayTo(t, urlOf({ role, database }));
    const application_name = randomUUID();
    const driver = openWith(t, {
      connectionString: relay.url,
      schema: "s",
      poolConfig: { application_name },
      retryTimeoutMs: 3000,
    });
    const write = (payload: string) =>
      driver.insertEvent("s", event("s", 1, { id: "contested", payload }));

    await write("oldest");
    await lockRow(admin, "s.events", "contested");
    const older = write("older");
    await waitingProcess(application_name);
    relay[cut]();
    await sleep(100);
    await admin.query("ROLLBACK");
    assert.equal((await timed(older)).error, undefined);
    for (const payload of ["newer", "newest"]) {
      const { error, milliseconds } = await timed(write(payload));
      assert.equal(error, undefined);
      assert.ok(milliseconds < 2000, `${milliseconds} ms`);
    }
    assert.equal((await driver.listEvents({ sessionId: "s" })).items[0]!.payload, "newest");
  });
}
