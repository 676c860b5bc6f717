/** The operations beyond the SDK's, on every driver of ours alike. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import Database from "better-sqlite3";
import type { SessionEvent } from "../index.js";
import { contractOf } from "./support/contract.ts";
import { event, file, open, rejection, session } from "./support/fixtures.ts";
import { collect, ids, ourDrivers, plain, refuses, type OurDriver } from "./support/operations.ts";
import { freshSchema, sql } from "./support/postgres.ts";
import { openPostgres } from "./support/postgres-around.ts";

for (const [name, create] of Object.entries(ourDrivers)) {
  describe(name, () => {
    const contract = contractOf(create);

    // deleteSession

    contract("a deletion takes the session and its events, and no others", async (driver) => {
      for (const id of ["s", "other"]) {
        await driver.updateSession(session(id));
        await driver.insertEvents([event(id, 1), event(id, 2)]);
      }
      assert.equal(await driver.deleteSession("s"), true);
      assert.equal(await driver.getSession("s"), undefined);
      assert.deepEqual((await driver.listEvents({ sessionId: "s" })).items, []);
      assert.deepEqual(ids((await driver.listSessions()).items), ["other"]);
      assert.equal((await driver.listEvents({ sessionId: "other" })).items.length, 2);
    });

    contract("a deletion says whether there was anything", async (driver) => {
      assert.equal(await driver.deleteSession("s"), false);
      await driver.updateSession(session("s"));
      assert.equal(await driver.deleteSession("s"), true);
      await driver.insertEvent(event("s", 1));
      assert.equal(await driver.deleteSession("s"), true);
      assert.equal(await driver.deleteSession("s"), false);
    });

    contract(
      "what is called before a deletion goes, what is called later stays",
      async (driver) => {
        const [first, second] = [event("s", 1), event("s", 2)];
        const calls = [
          driver.insertEvent(first),
          driver.updateSession(session("s")),
          driver.deleteSession("s"),
          driver.getSession("s"),
          driver.insertEvent(second),
          driver.listEvents({ sessionId: "s" }),
        ] as const;
        const [, , deleted, found, , listed] = await Promise.all(calls);
        assert.deepEqual([deleted, found, ids(listed.items)], [true, undefined, [second.id]]);
        assert.equal(await driver.countEvents(), 1);
      },
    );

    contract("a wrong id is refused", async (driver) => {
      for (const id of [undefined, null, 5, {}, "a\0", "\ud800"]) {
        await refuses(() => driver.deleteSession(id as string), /^id must be a string/);
        await refuses(() => driver.lastEvent(id as string), /^sessionId must be a string/);
      }
    });

    // insertEvents

    contract("insertEvents stores events of any sessions", async (driver) => {
      const events = [event("s", 2), event("t", 1), event("s", 1)];
      assert.equal(await driver.insertEvents(events), undefined);
      const { items } = await driver.listEvents({ sessionId: "s" });
      assert.deepEqual(plain(items), [events[2], events[0]]);
      assert.deepEqual(plain((await driver.listEvents({ sessionId: "t" })).items), [events[1]]);
    });

    contract("of equal ids the last wins, whatever session it is of", async (driver) => {
      await driver.insertEvent(event("s", 1, { id: "known" }));
      await driver.insertEvents([
        event("s", 1, { id: "e", payload: 1 }),
        event("s", 2, { id: "known", payload: 2 }),
        event("t", 3, { id: "e", payload: 3 }),
        event("t", 4, { id: "e", payload: 4 }),
      ]);
      const of = async (sessionId: string) =>
        (await driver.listEvents({ sessionId })).items.map((item) => [item.id, item.payload]);
      assert.deepEqual(await of("s"), [["known", 2]]);
      assert.deepEqual(await of("t"), [["e", 4]]);
    });

    contract("insertEvents of none resolves", async (driver) => {
      assert.equal(await driver.insertEvents([]), undefined);
      assert.equal(await driver.countEvents(), 0);
    });

    contract("a batch follows and precedes single calls in order", async (driver) => {
      const write = (payload: number) => event("s", 1, { id: "e", payload });
      await Promise.all([
        driver.insertEvent(write(1)),
        driver.insertEvents([write(2), event("t", 1)]),
        driver.insertEvent(write(3)),
        driver.insertEvents([write(4)]),
      ]);
      assert.equal((await driver.lastEvent("s"))!.payload, 4);
    });

    contract("10,000 events are stored, 10,001 are too many", async (driver) => {
      const many = Array.from({ length: 10_000 }, (_, at) => event("s", at, { payload: at }));
      const error = await rejection(driver.insertEvents([...many, event("s", 0)]));
      assert.deepEqual([error.name, error.code], ["Error", "ERR_PERSIST_TOO_LARGE"]);
      assert.equal(await driver.countEvents({ sessionId: "s" }), 0);
      await driver.insertEvents(many);
      assert.equal(await driver.countEvents({ sessionId: "s" }), 10_000);
      assert.equal((await driver.lastEvent("s"))!.payload, 9_999);
      assert.equal(await driver.deleteSession("s"), true);
      assert.equal(await driver.countEvents(), 0);
    });

    contract(
      "what is wrong with one of many events is named, and none is stored",
      async (driver) => {
        const good = event("s", 1);
        const wrong = (field: string, value: unknown) => [
          good,
          good,
          good,
          { ...good, [field]: value },
        ];
        for (const [field, value] of [
          ["id", 5],
          ["sender", "user"],
          ["eventIndex", 0.5],
          ["payload", undefined],
          ["payload", 5n],
        ] as const) {
          const events = wrong(field, value) as SessionEvent[];
          await refuses(
            () => driver.insertEvents(events),
            new RegExp(`^events\\[3\\]\\.${field} must be`),
          );
        }
        const holes = [good, null] as SessionEvent[];
        await refuses(() => driver.insertEvents(holes), /^events\[1\] must be an object/);
        for (const events of [undefined, good, "s", { length: 0 }]) {
          await refuses(
            () => driver.insertEvents(events as SessionEvent[]),
            /^events must be an array/,
          );
        }
        assert.equal(await driver.countEvents(), 0);
      },
    );

    // Counts and the last event

    contract("counts are of what was called before", async (driver) => {
      assert.deepEqual([await driver.countSessions(), await driver.countEvents()], [0, 0]);
      const calls = [
        driver.updateSession(session("s")),
        driver.insertEvents([event("s", 1), event("s", 2), event("t", 1)]),
      ];
      const counts = await Promise.all([
        driver.countSessions(),
        driver.countEvents(),
        driver.countEvents({ sessionId: "s" }),
        driver.countEvents({ sessionId: "none" }),
        driver.countEvents({ beforeIndex: 2 }),
        driver.countSessions({ agent: "none" }),
      ]);
      assert.deepEqual(counts, [1, 3, 2, 0, 2, 0]);
      await Promise.all(calls);
    });

    contract("the last event is that with the highest index, then id", async (driver) => {
      assert.equal(await driver.lastEvent("s"), undefined);
      const [first, last, tied] = [
        event("s", 1),
        event("s", 7, { id: "b" }),
        event("s", 7, { id: "a" }),
      ];
      await driver.insertEvents([last, event("t", 9), tied, first]);
      assert.deepEqual(plain(await driver.lastEvent("s")), last);
      const inserted = driver.insertEvent(event("s", 8, { id: "newest" }));
      assert.equal((await driver.lastEvent("s"))!.id, "newest");
      await inserted;
    });

    // Stats

    contract("stats count each write, however many are written together", async (driver) => {
      await Promise.all(
        Array.from({ length: 2_000 }, (_, index) => driver.insertEvent(event("s", index))),
      );
      assert.equal((await driver.stats()).commits.writes, 2_000);
    });

    contract("stats are of this shape, and right", async (driver) => {
      const latencies = (of: object) => {
        assert.deepEqual(Object.keys(of), ["p50", "p99", "max"]);
        const [p50, p99, max] = Object.values(of) as number[];
        assert.ok(0 <= p50! && p50! <= p99! && p99! <= max!, JSON.stringify(of));
        return max!;
      };
      const fresh = await driver.stats();
      assert.deepEqual([fresh.sessions, fresh.events, fresh.isEstimate], [0, 0, false]);
      assert.deepEqual(fresh.commits, {
        count: 0,
        writes: 0,
        latencyMs: { p50: 0, p99: 0, max: 0 },
      });
      for (const id of ["a", "b", "c"]) await driver.updateSession(session(id));
      await driver.insertEvents([event("a", 1, { payload: "é" }), event("b", 1, { payload: [1] })]);
      await driver.insertEvent(event("b", 2, { payload: { text: "x".repeat(100) } }));
      await refuses(() => driver.countSessions({ nothing: 1 } as {}), /not known/);
      await Promise.all([driver.insertEvent(event("c", 1)), driver.insertEvent(event("lost", 1))]);
      await driver.deleteSession("c");

      const stats = await driver.stats();
      const { commits, calls, bytes } = stats;
      assert.deepEqual(Object.keys(stats).sort(), [
        "bytes",
        "calls",
        "commits",
        "events",
        "isEstimate",
        "lockWaits",
        "queue",
        "reconnects",
        "retries",
        "sessions",
      ]);
      assert.deepEqual([stats.sessions, stats.events, stats.isEstimate], [2, 4, false]);
      assert.deepEqual(stats.queue, { calls: 0, bytes: 0 });
      assert.deepEqual([stats.retries, stats.reconnects, stats.lockWaits], [0, 0, 0]);
      assert.equal(commits.writes, 8);
      assert.ok(commits.count === 8 || commits.count === 7, `${commits.count}`);
      assert.ok(latencies(commits.latencyMs) > 0);
      assert.ok(latencies(calls.latencyMs) > 0);
      assert.ok(bytes.database > 0);
      const wal = name === "SQLite file" ? ["wal"] : [];
      assert.deepEqual(Object.keys(bytes).sort(), ["database", "reclaimable", ...wal]);
      assert.ok(Object.values(bytes).every(Number.isInteger));
    });

    contract("stats tell the largest sessions if they are asked for", async (driver) => {
      await driver.insertEvents([
        event("a", 1, { payload: "é" }),
        event("b", 1, { payload: [1] }),
        event("b", 2, { payload: { text: "x" } }),
        event("c", 1, { payload: 7 }),
      ]);
      const all = [
        { sessionId: "b", events: 2, bytes: 3 + 12 },
        { sessionId: "a", events: 1, bytes: 4 },
        { sessionId: "c", events: 1, bytes: 1 },
      ];
      assert.deepEqual((await driver.stats({ largest: 9 })).largest, all);
      assert.deepEqual((await driver.stats({ largest: 2 })).largest, all.slice(0, 2));
      for (const options of [undefined, {}, { largest: undefined }, { largest: 0 }]) {
        assert.equal((await driver.stats(options)).largest, undefined);
      }
      for (const largest of [-1, 0.5, "1", Number.NaN]) {
        await refuses(() => driver.stats({ largest: largest as number }), /^options\.largest must/);
      }
    });

    contract("stats see what was called before, and what is on its way", async (driver) => {
      const inserted = driver.insertEvents([event("s", 1), event("s", 2)]);
      assert.equal((await driver.stats()).events, 2);
      await inserted;
      await rejection(driver.insertEvents(Array(10_001).fill(null)));
    });
  });
}

test("more than 64 MiB of events are too many, and none is stored", async (t) => {
  const driver = open(t);
  const text = "x".repeat(14 * 1024 * 1024);
  const events = Array.from({ length: 5 }, (_, at) => event("s", at, { payload: text }));
  const error = await rejection(driver.insertEvents(events));
  assert.deepEqual([error.name, error.code], ["Error", "ERR_PERSIST_TOO_LARGE"]);
  assert.equal(await driver.countEvents(), 0);
  await driver.insertEvents(events.slice(1));
});

/** Drivers on tables that somebody changed. */
const changed: Record<string, (t: any, change: (events: string) => string) => Promise<OurDriver>> =
  {
    SQLite: async (t, change) => {
      const filename = file(t);
      open(t, { filename }).close();
      const other = new Database(filename);
      // A CHECK can't be added to a table that is there.
      other.exec(change("events"));
      other.close();
      return open(t, { filename });
    },
    PostgreSQL: async (t, change) => {
      const schema = freshSchema(t);
      const driver = openPostgres(t, { schema });
      await driver.countEvents();
      await sql(change(`${schema}.events`));
      return openPostgres(t, { schema });
    },
  };

for (const [name, openChanged] of Object.entries(changed)) {
  test(`a batch that a unique index refuses is refused whole: ${name}`, async (t) => {
    const driver = await openChanged(
      t,
      (events) => `CREATE UNIQUE INDEX in_order ON ${events}(session_id, event_index)`,
    );
    await driver.insertEvent(event("s", 2, { id: "first" }));
    const batch = [event("s", 1), event("t", 1), event("s", 2)];
    const [before, refused, after] = await Promise.allSettled([
      driver.insertEvent(event("u", 1)),
      driver.insertEvents(batch),
      driver.insertEvents([event("u", 2), event("u", 3)]),
    ]);
    assert.deepEqual([before.status, after.status], ["fulfilled", "fulfilled"]);
    assert.ok(refused.status === "rejected");
    assert.equal(refused.reason.code, "ERR_PERSIST_CONSTRAINT");
    assert.match(refused.reason.message, /UNIQUE constraint failed: .*session_id, .*event_index/);
    assert.deepEqual(ids(await collect(driver.streamEvents({ sessionId: "s" }))), ["first"]);
    assert.equal(await driver.countEvents({ sessionId: "t" }), 0);
    assert.equal(await driver.countEvents({ sessionId: "u" }), 3);
  });

  test(`a batch of which one event is refused is refused whole: ${name}`, async (t) => {
    const driver = await openChanged(t, (events) =>
      name === "SQLite"
        ? `CREATE TRIGGER no_wrong BEFORE INSERT ON ${events} WHEN new.connection_id = 'wrong'
           BEGIN SELECT raise(ABORT, 'no'); END`
        : `ALTER TABLE ${events} ADD CHECK (connection_id <> 'wrong')`,
    );
    const others = Array.from({ length: 20 }, (_, at) => driver.insertEvent(event("t", at)));
    const batch = [event("s", 1), event("s", 2, { connectionId: "wrong" }), event("s", 3)];
    assert.equal((await rejection(driver.insertEvents(batch))).code, "ERR_PERSIST_CONSTRAINT");
    await Promise.all(others);
    assert.equal(await driver.countEvents({ sessionId: "s" }), 0);
    assert.equal(await driver.countEvents({ sessionId: "t" }), 20);
  });
}
