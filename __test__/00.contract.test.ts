/** The contract, on every driver alike: ours, and the TypeScript manner that it must equal. */
import assert from "node:assert/strict";
import { describe, test, type TestContext } from "node:test";
import fc from "fast-check";
import {
  PostgresSessionPersistDriver,
  SQLiteSessionPersistDriver,
  type SessionEvent,
} from "../index.js";
import { contractOf } from "./support/contract.ts";
import { allEvents, event, file, session } from "./support/fixtures.ts";
import { databaseUrl, freshSchema } from "./support/postgres.ts";
import { TypeScriptSQLiteDriver } from "./support/typescript-driver.ts";
import { TypeScriptPostgresDriver } from "./support/typescript-postgres-driver.ts";

type Driver =
  | SQLiteSessionPersistDriver
  | PostgresSessionPersistDriver
  | TypeScriptSQLiteDriver
  | TypeScriptPostgresDriver;

const postgres = (t: TestContext) => ({
  connectionString: databaseUrl(),
  schema: freshSchema(t),
});
const drivers: Record<string, (t: TestContext) => Driver> = {
  "SQLite file": (t) => new SQLiteSessionPersistDriver({ filename: file(t) }),
  "SQLite in memory": () => new SQLiteSessionPersistDriver(),
  "SQLite temporary": () => new SQLiteSessionPersistDriver({ filename: "" }),
  "SQLite, TypeScript manner": (t) => new TypeScriptSQLiteDriver({ filename: file(t) }),
  Postgres: (t) => new PostgresSessionPersistDriver(postgres(t)),
  "Postgres, prepared statements": (t) =>
    new PostgresSessionPersistDriver({ ...postgres(t), preparedStatements: true }),
  "Postgres, TypeScript manner": (t) => new TypeScriptPostgresDriver(postgres(t)),
};
/** `jsonb` refuses what JSON may hold, and sorts keys. */
const KEEPS_JSON = Object.keys(drivers).filter((name) => name !== "Postgres, TypeScript manner");

/** Absent and undefined fields are the same to the contract. */
const plain = <T>(value: T): T => JSON.parse(JSON.stringify(value));

for (const [name, create] of Object.entries(drivers)) {
  describe(name, () => {
    const contract = contractOf<Driver>(create);
    const contractOfJson = KEEPS_JSON.includes(name) ? contract : () => {};

    contract("a missing session is falsy", async (driver) => {
      assert.equal(await driver.getSession("none"), undefined);
    });

    contract("an empty store has empty pages without a cursor", async (driver) => {
      assert.deepEqual(plain(await driver.listSessions()), { items: [] });
      assert.deepEqual(plain(await driver.listEvents({ sessionId: "s" })), { items: [] });
    });

    contract("a session comes back with all of its fields", async (driver) => {
      const full = session("s", {
        destroyedAt: 1_700_000_000_001,
        sandboxId: "box",
        sessionInit: { cwd: "/", mcpServers: [] },
        configOptions: [{ id: "model", value: "x" }],
        modes: { currentModeId: "plan" },
      });
      await driver.updateSession(full);
      assert.deepEqual(plain(await driver.getSession("s")), full);
    });

    contract("null modes are kept, absent ones stay absent", async (driver) => {
      await driver.updateSession(session("null", { modes: null }));
      await driver.updateSession(session("none"));
      assert.equal((await driver.getSession("null"))!.modes, null);
      assert.equal((await driver.getSession("none"))!.modes, undefined);
    });

    contract("an update replaces the session, its absent fields too", async (driver) => {
      await driver.updateSession(session("s", { destroyedAt: 5, sandboxId: "box" }));
      await driver.updateSession(session("s", { agent: "other" }));
      assert.deepEqual(plain(await driver.getSession("s")), session("s", { agent: "other" }));
      assert.equal((await driver.listSessions()).items.length, 1);
    });

    contract("sessions are listed by createdAt, then id", async (driver) => {
      for (const [id, createdAt] of [
        ["b", 2],
        ["a", 2],
        ["z", 1],
        ["B", 2],
      ] as const) {
        await driver.updateSession(session(id, { createdAt }));
      }
      const { items } = await driver.listSessions();
      assert.deepEqual(
        items.map((item) => item.id),
        ["z", "B", "a", "b"],
      );
    });

    contract("events are listed by eventIndex, then id", async (driver) => {
      for (const [index, id] of [
        [10, "j"],
        [2, "b"],
        [2, "a"],
        [-1, "n"],
      ] as const) {
        await driver.insertEvent("s", event("s", index, { id }));
      }
      const { items } = await driver.listEvents({ sessionId: "s" });
      assert.deepEqual(
        items.map((item) => item.id),
        ["n", "a", "b", "j"],
      );
    });

    contract("both shapes of insertEvent store", async (driver) => {
      const [first, second] = [event("s", 1), event("s", 2)];
      await driver.insertEvent(first);
      await driver.insertEvent("s", second);
      assert.deepEqual(plain((await driver.listEvents({ sessionId: "s" })).items), [first, second]);
    });

    contract("an event may come before its session", async (driver) => {
      await driver.insertEvent("later", event("later", 1));
      await driver.updateSession(session("later"));
      assert.equal((await driver.listEvents({ sessionId: "later" })).items.length, 1);
    });

    contract("an event with a known id replaces it, in any session", async (driver) => {
      await driver.insertEvent("s", event("s", 1, { id: "e" }));
      await driver.insertEvent("t", event("t", 7, { id: "e", payload: 5 }));
      assert.deepEqual((await driver.listEvents({ sessionId: "s" })).items, []);
      assert.equal((await driver.listEvents({ sessionId: "t" })).items[0]!.payload, 5);
    });

    contract("limits and cursors are read by the SDK's rules", async (driver) => {
      for (let index = 1; index <= 120; index += 1)
        await driver.insertEvent("s", event("s", index));
      const read = async (limit: unknown, cursor?: unknown) => {
        const request = { sessionId: "s", limit: limit as number, cursor: cursor as string };
        const { items, nextCursor } = await driver.listEvents(request);
        return [items[0]?.eventIndex, items.length, nextCursor && Number.parseInt(nextCursor, 10)];
      };
      for (const limit of [
        undefined,
        null,
        Number.NaN,
        Number.POSITIVE_INFINITY,
        0,
        -4,
        0.5,
        "7",
      ]) {
        assert.deepEqual(await read(limit), [1, 100, 100], String(limit));
      }
      assert.deepEqual(await read(7.9), [1, 7, 7]);
      assert.deepEqual(await read(120), [1, 120, undefined]);
      assert.deepEqual(await read(1e9), [1, 120, undefined]);
      for (const cursor of ["", "junk", "-5", "0", null, "0x10"]) {
        assert.deepEqual(await read(5, cursor), [1, 5, 5], String(cursor));
      }
      assert.deepEqual(await read(5, " 10abc"), [11, 5, 15]);
      assert.deepEqual(await read(5, "+10"), [11, 5, 15]);
      assert.deepEqual(await read(5, "118"), [119, 2, undefined]);
      assert.deepEqual(await read(5, "120"), [undefined, 0, undefined]);
      assert.deepEqual(await read(5, "99999999999999999999"), [undefined, 0, undefined]);
    });

    contract("pages make up the whole, for any limit", async (driver) => {
      const stored: SessionEvent[] = [];
      for (let index = 1; index <= 23; index += 1) {
        stored.push(event("s", Math.floor(index / 3), { id: `e${100 + index}` }));
        await driver.insertEvent("s", stored.at(-1)!);
        await driver.insertEvent("other", event("other", index));
      }
      for (const limit of [1, 2, 3, 22, 23, 24]) {
        assert.deepEqual(plain(await allEvents(driver, "s", limit)), stored, `limit ${limit}`);
      }
    });

    contract("sessions are paged as events are", async (driver) => {
      for (let index = 0; index < 7; index += 1) {
        await driver.updateSession(session(`s${index}`, { createdAt: index >> 1 }));
      }
      const ids: string[] = [];
      let cursor: string | undefined;
      do {
        const page = await driver.listSessions({ limit: 2, cursor });
        ids.push(...page.items.map((item) => item.id));
        cursor = page.nextCursor;
      } while (cursor);
      assert.deepEqual(ids, ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]);
    });

    contractOfJson("what JSON preserves comes back, keys in order", async (driver) => {
      const payload = {
        z: 1,
        a: '\u0000 \ud800 \udc00\ud800 \ufffd \u2028 é 😀 \\ " </script>',
        10: "integer-like keys go first",
        numbers: [1e21, 1e-7, 5e-324, 9007199254740993, 0.1],
        nested: { "": [[], {}, null, true, ""] },
      };
      Object.defineProperty(payload, "__proto__", { value: { own: 1 }, enumerable: true });
      await driver.insertEvent("s", event("s", 1, { payload }));
      const [stored] = (await driver.listEvents({ sessionId: "s" })).items;
      assert.equal(JSON.stringify(stored!.payload), JSON.stringify(payload));
    });

    contract("minus zero, NaN and toJSON become what JSON makes of them", async (driver) => {
      const payload = { zero: -0, nan: Number.NaN, gone: undefined, date: new Date(0) };
      await driver.insertEvent("s", event("s", 1, { payload }));
      const [stored] = (await driver.listEvents({ sessionId: "s" })).items;
      assert.deepEqual(stored!.payload, { zero: 0, nan: null, date: "1970-01-01T00:00:00.000Z" });
      assert.ok(Object.is(stored!.payload.zero, 0));
    });

    contract("20 MB of text come back", async (driver) => {
      const text = "ü😀\n".repeat(2_500_000);
      await driver.insertEvent("s", event("s", 1, { payload: { text } }));
      const [stored] = (await driver.listEvents({ sessionId: "s" })).items;
      assert.ok(stored!.payload.text === text);
    });

    contractOfJson("any JSON and any identifier come back", async (driver) => {
      const identifier = fc
        .string({ unit: "binary" })
        .filter((text) => !text.includes("\0") && text.isWellFormed());
      const anyEvent = fc.record({
        id: identifier,
        connectionId: identifier,
        sender: fc.constantFrom("client" as const, "agent" as const),
        createdAt: fc.maxSafeInteger(),
        payload: fc.json().map((text) => JSON.parse(text)),
      });
      let sessions = 0;
      await fc.assert(
        fc.asyncProperty(anyEvent, identifier, async (fields, suffix) => {
          const sessionId = `${(sessions += 1)}${suffix}`;
          const stored = event(sessionId, 1, fields);
          await driver.insertEvent(sessionId, stored);
          const { items } = await driver.listEvents({ sessionId });
          assert.equal(JSON.stringify(items), JSON.stringify([stored]));
        }),
        { numRuns: 60 },
      );
    });
  });
}

test("random operations leave the same pages as the TypeScript manner", async () => {
  const ids = fc.constantFrom("a", "b", "c", "d");
  const number = fc.integer({ min: -2, max: 4 });
  const operation = fc.oneof(
    fc.record({ kind: fc.constant("event" as const), id: ids, sessionId: ids, index: number }),
    fc.record({ kind: fc.constant("session" as const), id: ids, createdAt: number }),
    fc.record({
      kind: fc.constant("events" as const),
      sessionId: ids,
      limit: fc.oneof(number, fc.constant(undefined)),
      offset: fc.oneof(fc.integer({ min: -1, max: 6 }).map(String), fc.constant(undefined)),
    }),
    fc.record({ kind: fc.constant("sessions" as const), limit: number }),
    fc.record({ kind: fc.constant("get" as const), id: ids }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 40 }), async (operations) => {
      const [ours, theirs] = [new SQLiteSessionPersistDriver(), new TypeScriptSQLiteDriver()];
      let count = 0;
      const apply = async (driver: Driver, step: (typeof operations)[number], payload: number) => {
        if (step.kind === "event") {
          const { id, sessionId, index } = step;
          return driver.insertEvent(sessionId, event(sessionId, index, { id, payload }));
        }
        if (step.kind === "session") {
          const { id, createdAt } = step;
          return driver.updateSession(session(id, { createdAt, sessionInit: [payload] }));
        }
        if (step.kind === "get") return driver.getSession(step.id);
        const page =
          step.kind === "events"
            ? await driver.listEvents({ ...step, cursor: step.offset })
            : await driver.listSessions({ limit: step.limit });
        const { items, nextCursor } = page;
        return { items, next: nextCursor && Number.parseInt(nextCursor, 10) };
      };
      for (const step of operations) {
        count += 1;
        const [left, right] = [await apply(ours, step, count), await apply(theirs, step, count)];
        assert.equal(JSON.stringify(left && sorted(left)), JSON.stringify(right && sorted(right)));
      }
      ours.close();
      theirs.close();
    }),
    { numRuns: 150 },
  );
});

/** The drivers write a session's fields in different orders, which means nothing. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, field]) => [key, sorted(field)] as const);
  return Object.fromEntries(entries.sort(([left], [right]) => (left < right ? -1 : 1)));
}
