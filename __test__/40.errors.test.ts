/** Wrong arguments: a TypeError that names the field, and a driver that goes on. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import Database from "better-sqlite3";
import { SQLiteSessionPersistDriver } from "../index.js";
import { allEvents, event, file, open, rejection, session } from "./support/fixtures.ts";

const notAnIdentifier = [undefined, null, 5, {}, [], Symbol("s"), 5n, "a\0b", "\ud800", "a\udc00"];
const notAnInteger = [undefined, null, "5", Number.NaN, Number.POSITIVE_INFINITY, 1.5, 2 ** 53, 5n];

async function isRefused(call: Promise<unknown>, name: string, what: unknown) {
  const error = await rejection(call);
  assert.ok(error instanceof TypeError, `${name} = ${inspect(what)}: ${error}`);
  assert.equal(error.code, "ERR_PERSIST_INVALID_ARG");
  assert.ok(error.message.startsWith(`${name} must be `), error.message);
}

test("fields of an event", async (t) => {
  const driver = open(t, { filename: file(t) });
  const wrong: Record<string, unknown[]> = {
    id: notAnIdentifier,
    sessionId: notAnIdentifier,
    connectionId: notAnIdentifier,
    eventIndex: notAnInteger,
    createdAt: notAnInteger,
    sender: [undefined, null, "server", 1],
    payload: [undefined, () => {}, Symbol("s"), 5n, { deep: [5n] }],
  };
  for (const [field, values] of Object.entries(wrong)) {
    for (const value of values) {
      const sent = event("s", 1, { [field]: value });
      await isRefused(driver.insertEvent(sent), `event.${field}`, value);
    }
  }
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  await isRefused(
    driver.insertEvent("s", event("s", 1, { payload: cycle })),
    "event.payload",
    "a cycle",
  );
  assert.deepEqual(await allEvents(driver, "s"), [], "nothing was written");
  await driver.insertEvent("s", event("s", 1));
  assert.equal((await allEvents(driver, "s")).length, 1, "the driver goes on");
});

test("what a payload's toJSON throws, whatever it is", async (t) => {
  const driver = open(t, { filename: file(t) });
  const circle = new Error("in a circle");
  circle.cause = circle;
  const unspeakable = {
    toString: () => {
      throw circle;
    },
    get cause() {
      throw circle;
    },
  };
  for (const thrown of [circle, Symbol("s"), null, unspeakable]) {
    const toJSON = () => {
      throw thrown;
    };
    const sent = event("s", 1, { payload: { toJSON } });
    await isRefused(driver.insertEvent("s", sent), "event.payload", "a toJSON that throws");
  }
});

test("a payload whose toJSON stores another without an end", async (t) => {
  const driver = open(t, { filename: file(t) });
  const toJSON = () => {
    driver.insertEvent("s", event("s", 1, { payload: { toJSON } })).catch(() => {});
    return 1;
  };
  await driver.insertEvent("s", event("s", 1, { payload: { toJSON } })).catch(() => {});
  await driver.insertEvent("t", event("t", 1));
  assert.equal((await allEvents(driver, "t")).length, 1, "the driver goes on");
});

test("a warning that the application lets nobody make keeps no call from its end", async (t) => {
  const driver = open(t, { filename: file(t) });
  const { emitWarning } = process;
  process.emitWarning = () => {
    throw new Error("no warnings");
  };
  t.after(() => (process.emitWarning = emitWarning));
  const request = { onlyOfThisTest: 1 } as {};
  assert.deepEqual(await driver.listSessions(request), { items: [] });
});

test("an error that the application lets nobody make keeps no promise from its end", async (t) => {
  const filename = file(t);
  new SQLiteSessionPersistDriver({ filename }).close();
  const other = new Database(filename);
  other.exec(`CREATE TRIGGER refuse BEFORE INSERT ON events WHEN new.event_index = 1
    BEGIN SELECT raise(ABORT, 'no'); END`);
  other.close();
  const driver = open(t, { filename });
  const thrown = new Error("no codes");
  Object.defineProperty(Error.prototype, "code", {
    configurable: true,
    set() {
      throw thrown;
    },
  });
  const calls = [1, 2, 3].map((index) => driver.insertEvent("s", event("s", index)));
  const outcomes = await Promise.allSettled(calls).finally(
    () => delete (Error.prototype as { code?: unknown }).code,
  );
  assert.deepEqual(outcomes[0], { status: "rejected", reason: thrown });
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ["rejected", "fulfilled", "fulfilled"],
  );
});

test("fields of a session", async (t) => {
  const driver = open(t, { filename: file(t) });
  const wrong: Record<string, unknown[]> = {
    id: notAnIdentifier,
    agent: notAnIdentifier,
    agentSessionId: notAnIdentifier,
    lastConnectionId: notAnIdentifier,
    createdAt: notAnInteger,
    destroyedAt: notAnInteger.slice(2),
    sandboxId: notAnIdentifier.slice(2),
    sessionInit: [() => {}, 5n],
    configOptions: [Symbol("s"), [5n]],
    modes: [() => {}, 5n],
  };
  for (const [field, values] of Object.entries(wrong)) {
    for (const value of values) {
      const sent = session("s", { [field]: value });
      await isRefused(driver.updateSession(sent), `session.${field}`, value);
    }
  }
  assert.equal(await driver.getSession("s"), undefined);
});

test("arguments", async (t) => {
  const driver = open(t) as any;
  for (const wrong of notAnIdentifier) {
    await isRefused(driver.getSession(wrong), "id", wrong);
    await isRefused(driver.listEvents({ sessionId: wrong }), "request.sessionId", wrong);
  }
  for (const wrong of [undefined, null, "s", 5, () => {}]) {
    await isRefused(driver.updateSession(wrong), "session", wrong);
    await isRefused(driver.listEvents(wrong), "request", wrong);
    await isRefused(driver.insertEvent("s", wrong), "event", wrong);
  }
  for (const wrong of ["s", 5]) await isRefused(driver.listSessions(wrong), "request", wrong);
  for (const wrong of [undefined, null, 5])
    await isRefused(driver.insertEvent(wrong), "event", wrong);
  await isRefused(driver.insertEvent(5, event("s", 1)), "sessionId", 5);
  await isRefused(driver.insertEvent("t", event("s", 1)), "event.sessionId", "s");
  assert.deepEqual(await driver.listSessions(null), { items: [] });
});

test("an error that a getter throws is the caller's own", async (t) => {
  const driver = open(t);
  const thrown = new RangeError("from a getter");
  const sent = {
    ...event("s", 1),
    get id(): string {
      throw thrown;
    },
  };
  assert.equal(await rejection(driver.insertEvent(sent)), thrown);
});

test("options", () => {
  const refused = (options: unknown, message: RegExp) =>
    assert.throws(() => new SQLiteSessionPersistDriver(options as {}), {
      name: "TypeError",
      code: "ERR_PERSIST_INVALID_ARG",
      message,
    });
  refused(null, /^options must be an object/);
  refused("sessions.db", /^options must be an object/);
  refused({ fileName: "a.db" }, /^options.fileName is not an option; the options are filename, /);
  refused({ filename: 5 }, /^options.filename must be a string/);
  refused({ filename: "a\0b" }, /^options.filename must be a string/);
  refused({ durability: "off" }, /^options.durability must be "full" or "normal"/);
  for (const wrong of [-1, 1.5, Number.NaN, "5", 2 ** 31]) {
    refused({ busyTimeoutMs: wrong }, /^options.busyTimeoutMs must be a whole number from 0/);
  }
  for (const wrong of [-1, 1.5, "5", 2 ** 53]) {
    refused({ maxQueuedBytes: wrong }, /^options.maxQueuedBytes must be a whole number from 0/);
  }
  new SQLiteSessionPersistDriver({ filename: undefined, durability: undefined }).close();
});

test("a class is called with new", () => {
  const call = SQLiteSessionPersistDriver as unknown as (options: object) => unknown;
  const persist = { call };
  for (const withoutNew of [() => call({}), () => persist.call({})]) {
    assert.throws(withoutNew, { name: "TypeError", code: "ERR_PERSIST_INVALID_ARG" });
  }
});

test("no error quotes a payload", async (t) => {
  const driver = open(t);
  const payload = { secret: "sesame", big: 5n };
  const error = await rejection(driver.insertEvent(event("s", 1, { payload })));
  assert.doesNotMatch(inspect(error), /sesame/);
  assert.doesNotMatch(inspect(driver, { depth: 9, showHidden: true }), /sesame/);
});

test("a method on something else is refused", () => {
  const { getSession } = SQLiteSessionPersistDriver.prototype;
  assert.throws(() => getSession.call({} as SQLiteSessionPersistDriver, "s"));
});
