/** Connections that can't be had, or are forgotten on the way, and calls that need one. */
import assert from "node:assert/strict";
import { describe, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { PostgresPoolConfig } from "../index.js";
import { event, rejection, session } from "./support/fixtures.ts";
import { openPostgres, openWith } from "./support/postgres-around.ts";
import { relayed, type Refusal } from "./support/relay.ts";
import { until } from "./support/waiting.ts";

function* forEver(refusal: Refusal) {
  for (;;) yield refusal;
}
const times = (count: number, refusal: Refusal) => Array<Refusal>(count).fill(refusal).values();

const PASSING: Refusal[] = [
  { state: "XX000", message: "(EMAXCONNSESSION) max clients reached in session mode" },
  { severity: "ERROR", state: "XX000", message: "Couldn't connect to compute node" },
  { state: "58000", message: "could not get connection from the pool" },
  { state: "53300", message: "sorry, too many clients already" },
  { state: "08P01", message: "pgbouncer cannot connect to server" },
];
const FINAL: Refusal[] = [
  { state: "XX000", message: "Tenant or user not found" },
  { state: "08P01", message: "no such database: d" },
  { state: "08P01", message: "password authentication failed" },
  { severity: "ERROR", state: "XX000", message: "The requested endpoint could not be found" },
];

describe("a refusal to open a further connection", () => {
  for (const refusal of [...PASSING, ...FINAL]) {
    test(`fails no call that an open one serves: ${refusal.message}`, async (t) => {
      const { relay, options } = await relayed(t);
      const driver = openWith(t, options);
      await driver.updateSession(session("s"));
      relay.refusals = forEver(refusal);
      const calls = Array.from({ length: 300 }, (_, at) => [
        driver.insertEvent(`s${at % 16}`, event(`s${at % 16}`, at)),
        driver.getSession("s"),
      ]);
      await Promise.all(calls.flat());
      assert.equal(await driver.countEvents(), 300);
      assert.ok(relay.accepted > 1, "none was refused");
    });
  }
});

/** A driver with at least five connections, all of them idle. */
async function withIdleConnections(t: TestContext, poolConfig: PostgresPoolConfig = {}) {
  const { relay, options } = await relayed(t);
  const driver = openPostgres(t, { ...options, poolConfig });
  await driver.ready();
  const filters = { sessionId: "s", method: "none" };
  await until(async () => {
    await Promise.all(Array.from({ length: 60 }, () => driver.listEvents(filters)));
    return relay.size >= 5;
  });
  return { relay, driver };
}

test("of connections that are opened together, one that is refused for good fails no call", async (t) => {
  const { relay, driver } = await withIdleConnections(t);
  relay.delayMs = 20;
  relay.refusals = times(1, { state: "28000", message: "PAM authentication failed" });
  relay.cutAll();
  const calls = Array.from({ length: 60 }, (_, at) => [
    driver.insertEvent(`s${at % 16}`, event(`s${at % 16}`, at)),
    driver.getSession("s"),
    driver.listSessions(),
  ]);
  await Promise.all(calls.flat());
});

test("a further connection that is silent keeps no call from one that is open", async (t) => {
  const { relay, options } = await relayed(t);
  const driver = openWith(t, { ...options, retryTimeoutMs: 5_000 });
  await driver.updateSession(session("s"));
  relay.isSilent = true;
  const calls = Array.from({ length: 300 }, (_, at) => [
    driver.insertEvent(`s${at % 16}`, event(`s${at % 16}`, at)),
    driver.getSession("s"),
    driver.listSessions(),
  ]);
  await Promise.all(calls.flat());
  assert.ok(relay.accepted > 1, "none was tried");
});

test("a connection that broke takes no living one along, where there are no others", async (t) => {
  const { relay, driver } = await withIdleConnections(t);
  relay.refusals = forEver(PASSING[0]!);
  const open = relay.size;
  for (let broken = 1; broken < open; broken += 1) {
    relay.cutFirst();
    await driver.insertEvent("s", event("s", broken));
  }
  assert.equal(await driver.countEvents(), open - 1);
});

test("a connection that went silent holds up no call while others live", async (t) => {
  const poolConfig = { keepAlive: true, keepAliveInitialDelayMillis: 50, idleTimeoutMillis: 0 };
  const { relay, driver } = await withIdleConnections(t, poolConfig);
  await sleep(100);
  relay.refusals = forEver(PASSING[0]!);
  relay.freezeOpen(relay.size - 1);
  const began = Date.now();
  await driver.insertEvent("s", event("s", 1));
  assert.ok(Date.now() - began < 4_000, "each that is asked is waited for for 5 seconds");
});

describe("a refusal of the first connection", () => {
  for (const refusal of PASSING) {
    test(`that may pass is tried again: ${refusal.message}`, async (t) => {
      const { relay, options } = await relayed(t);
      relay.refusals = times(3, refusal);
      const driver = openWith(t, options);
      await driver.updateSession(session("s"));
      assert.ok(relay.accepted >= 4, "each of the three was met");
    });

    test(`that doesn't pass is told in the end: ${refusal.message}`, async (t) => {
      const { relay, options } = await relayed(t);
      relay.refusals = forEver(refusal);
      const driver = openWith(t, { ...options, retryTimeoutMs: 200 });
      const error = await rejection(driver.getSession("s"));
      assert.deepEqual([error.code, error.sqlState], ["ERR_PERSIST_UNAVAILABLE", refusal.state]);
      assert.ok(error.message.includes(refusal.message), error.message);
      assert.ok(relay.accepted > 1);
    });
  }

  for (const refusal of FINAL) {
    test(`that is known to stay rejects at once: ${refusal.message}`, async (t) => {
      const { relay, options } = await relayed(t);
      relay.refusals = forEver(refusal);
      const driver = openWith(t, options);
      const error = await rejection(driver.getSession("s"));
      assert.deepEqual([error.code, error.sqlState], ["ERR_PERSIST_CANNOT_OPEN", refusal.state]);
      assert.ok(error.message.includes(refusal.message), error.message);
      assert.equal(relay.accepted, 1);
    });
  }
});

test("of connections that were forgotten while they were idle, one call tries a new one", async (t) => {
  const poolConfig = { keepAlive: true, keepAliveInitialDelayMillis: 50, idleTimeoutMillis: 0 };
  const { relay, driver } = await withIdleConnections(t, poolConfig);
  await sleep(100);
  relay.freezeOpen();
  relay.accepted = 0;
  const began = Date.now();
  await driver.insertEvent("s", event("s", 1));
  await driver.insertEvent("s", event("s", 2));
  assert.ok(relay.accepted <= 2, `${relay.accepted} new connections`);
  assert.ok(Date.now() - began < 4_000, "each that is asked is waited for for 5 seconds");
});
