/** What a program learns of a driver's trouble: `ready`, `health` and `onError`, of every driver. */
import assert from "node:assert/strict";
import { describe, test, type TestContext } from "node:test";
import type { ErrorContext } from "../index.js";
import { contractOf } from "./support/contract.ts";
import { openEither } from "./support/either.ts";
import { event, file, open, rejection, session } from "./support/fixtures.ts";
import { databaseUrl, freshSchema } from "./support/postgres.ts";
import { openPostgres } from "./support/postgres-around.ts";
import { warningsOf } from "./support/warnings.ts";

type Told = [message: string, context: ErrorContext];

const optionsOf = {
  "SQLite in memory": () => ({ filename: ":memory:" }),
  "SQLite in a file": (t: TestContext) => ({ filename: file(t) }),
  PostgreSQL: (t: TestContext) => ({ connectionString: databaseUrl(), schema: freshSchema(t) }),
};

for (const [name, options] of Object.entries(optionsOf)) {
  describe(name, () => {
    const contract = contractOf((t) => openEither(options(t)));

    contract("is ready, and has stored nothing by it", async (driver) => {
      assert.equal(await driver.ready(), undefined);
      assert.deepEqual(await driver.listSessions(), { items: [] });
      assert.equal(await driver.countEvents(), 0);
    });

    contract("is ready while it writes", async (driver) => {
      const calls = [1, 2, 3].map((index) => driver.insertEvent("s", event("s", index)));
      await Promise.all([driver.ready(), ...calls, driver.ready()]);
      assert.equal(await driver.countEvents(), 3);
    });

    contract("says that it is well", async (driver) => {
      const before = Date.now();
      await driver.updateSession(session("s"));
      const { since, ...health } = driver.health();
      assert.deepEqual(health, { state: "ok", queuedCalls: 0, oldestQueuedMs: 0 });
      assert.ok(since <= Date.now() && since > before - 60_000);
    });

    test("says that it is closed, and since when", async (t) => {
      const driver = openEither(options(t));
      const before = Date.now();
      await driver.close();
      const { state, since } = driver.health();
      assert.equal(state, "closed");
      assert.ok(since >= before - 1 && since <= Date.now() + 1);
    });

    test("tells onError of each call that rejects, before its promise does", async (t) => {
      const told: Told[] = [];
      const onError = ({ message }: Error, context: ErrorContext) => told.push([message, context]);
      const driver = openEither({ ...options(t), onError });
      await driver.updateSession(session("s"));
      assert.deepEqual(told, []);
      await driver.close();
      await warningsOf(async () => {
        const call = driver.insertEvent("s", event("s", 1));
        const seen = call.catch(() => told.length);
        assert.equal(await seen, 1);
      });
      await rejection(driver.replayView().listEvents({ sessionId: "s" }));
      await rejection(driver.getSession(1 as never));
      assert.deepEqual(told, [
        ["the driver is closed", { operation: "insertEvent", sessionId: "s" }],
        ["the driver is closed", { operation: "listEvents", sessionId: "s" }],
        ["id must be a string", { operation: "getSession" }],
      ]);
    });

    test("refuses an onError that is no function", (t) => {
      const onError = "console.error" as never;
      assert.throws(() => openEither({ ...options(t), onError }), {
        code: "ERR_PERSIST_INVALID_ARG",
        message: "options.onError must be a function",
      });
    });
  });
}

test("what onError throws, or rejects with, is a warning once, and the call's error its own", async (t) => {
  const fail = () => {
    throw new Error("sink");
  };
  const failLater = async () => fail();
  const messages = await warningsOf(async () => {
    for (const onError of [fail, failLater]) {
      const driver = open(t, { onError });
      const { code } = await rejection(driver.getSession(1 as never));
      assert.equal(code, "ERR_PERSIST_INVALID_ARG");
    }
  });
  assert.deepEqual(messages, ["onError failed: Error: sink"]);
});

test("an onError whose own calls fail isn't told of that, which would never end", async () => {
  const told: string[] = [];
  const driver: ReturnType<typeof openEither> = openEither({
    filename: ":memory:",
    onError: ({ message }) => {
      told.push(message);
      driver.updateSession(session("log")).catch(() => {});
      driver.getSession(1 as never).catch(() => {});
    },
  });
  driver.close();
  const messages = await warningsOf(() => rejection(driver.getSession("s")));
  assert.deepEqual(told, ["the driver is closed"]);
  assert.ok(messages.some((message) => message.startsWith("onError called a driver, and that")));
});

test("a driver that was opened with an onError has a view and a stream that tell it too", async () => {
  const told: string[] = [];
  const onError = (_: Error, { operation }: ErrorContext) => told.push(operation);
  const driver = openEither({ filename: ":memory:", onError });
  driver.close();
  await warningsOf(async () => {
    for (const stream of [driver.streamSessions(), driver.streamEvents({ sessionId: "s" })]) {
      await rejection(stream.next());
    }
  });
  assert.deepEqual(told, ["streamSessions", "streamEvents"]);
});

test("a call whose arguments were wrong says nothing of the database", async (t) => {
  const driver = openPostgres(t);
  await rejection(driver.getSession(1 as never));
  assert.equal(driver.health().state, "ok");
});
