/** Connections that can't be had, or are forgotten on the way, and calls that need one. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { event, rejection, session } from "./support/fixtures.ts";
import { openPostgres, openWith } from "./support/postgres-around.ts";
import { relayed, type Refusal } from "./support/relay.ts";

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

test("of connections that were forgotten while they were idle, one is asked and the rest believed", async (t) => {
  const { relay, options } = await relayed(t);
  const poolConfig = { keepAlive: true, keepAliveInitialDelayMillis: 50, idleTimeoutMillis: 0 };
  const driver = openPostgres(t, { ...options, poolConfig });
  await driver.ready();
  const filters = { sessionId: "s", method: "none" };
  await Promise.all(Array.from({ length: 60 }, () => driver.listEvents(filters)));
  const open = relay.size;
  assert.ok(open >= 3, `${open} connections`);
  await sleep(100);
  relay.freezeOpen();
  relay.accepted = 0;
  const began = Date.now();
  await driver.insertEvent("s", event("s", 1));
  await driver.insertEvent("s", event("s", 2));
  assert.ok(relay.accepted <= 2, `${relay.accepted} new connections`);
  assert.ok(Date.now() - began < 4_000, "each that is asked is waited for for 5 seconds");
});
