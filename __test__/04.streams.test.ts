/** Streams, on every driver of ours alike. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import Database from "better-sqlite3";
import type { AbortSignalLike } from "../index.js";
import { contractOf } from "./support/contract.ts";
import { event, file, open, rejection, session } from "./support/fixtures.ts";
import {
  collect,
  eventsAmong,
  ids,
  ourDrivers,
  plain,
  refuses,
  type OurDriver,
} from "./support/operations.ts";

/** A signal that is none of Node's, and who listens to it. */
class Signal implements AbortSignalLike {
  aborted = false;
  reason: unknown;
  listeners = new Set<() => void>();
  /** Each is called once, as all of ours ask for. */
  addEventListener(_type: "abort", listener: () => void, options?: { once?: boolean }) {
    assert.equal(options?.once, true);
    this.listeners.add(listener);
  }
  removeEventListener(_type: "abort", listener: () => void) {
    this.listeners.delete(listener);
  }
  abort(reason: unknown) {
    [this.aborted, this.reason] = [true, reason];
    const listeners = [...this.listeners];
    this.listeners.clear();
    for (const listener of listeners) listener();
  }
}

/** Sessions with events, sessions without any, and events without a session. */
async function mixed(driver: OurDriver) {
  const sessions = [session("b", { createdAt: 1 }), session("a", { createdAt: 2 }), session("c")];
  for (const each of sessions) await driver.updateSession(each);
  const events = ["lost é", "b", "lost", "a"].flatMap((id) =>
    [2, 1, 2].map((index, at) => event(id, index, { id: `${id}${at}` })),
  );
  await driver.insertEvents(events);
  const of = (id: string) => ids(eventsAmong(events, { sessionId: id }));
  return { events, of };
}

for (const [name, create] of Object.entries(ourDrivers)) {
  describe(name, () => {
    const contract = contractOf(create);

    contract("a stream gives each row once and in order", async (driver) => {
      const { events, of } = await mixed(driver);
      assert.deepEqual(ids(await collect(driver.streamSessions())), ["b", "a", "c"]);
      assert.deepEqual(ids(await collect(driver.streamSessions({ order: "newest" }))), [
        "c",
        "a",
        "b",
      ]);
      assert.deepEqual(ids(await collect(driver.streamSessions({ createdAfter: 1 }))), ["a", "c"]);
      assert.deepEqual(
        plain(await collect(driver.streamEvents({ sessionId: "b" }))),
        eventsAmong(events, { sessionId: "b" }),
      );
      assert.deepEqual(
        ids(await collect(driver.streamEvents())),
        ["b", "a", "lost", "lost é"].flatMap(of),
      );
      assert.deepEqual(
        ids(await collect(driver.streamEvents({ order: "newest" }))),
        ["a", "b", "lost", "lost é"].flatMap((id) => of(id).reverse()),
      );
      assert.deepEqual(
        (await collect(driver.streamEvents({ afterIndex: 1 }))).map(({ eventIndex }) => eventIndex),
        Array(8).fill(2),
      );
      assert.deepEqual(await collect(driver.streamEvents({ sessionId: "none" })), []);
    });

    contract("a stream of many rows is complete, in both orders", async (driver) => {
      const stored = Array.from({ length: 2_500 }, (_, at) =>
        event("s", at >> 1, { id: `e${10_000 + at}`, payload: at }),
      );
      await driver.insertEvents(stored);
      for (const order of ["oldest", "newest"] as const) {
        const streamed = await collect(driver.streamEvents({ sessionId: "s", order }));
        assert.deepEqual(ids(streamed), ids(eventsAmong(stored, {}, order)));
      }
    });

    contract("large rows are streamed too", async (driver) => {
      const text = "x".repeat(400_000);
      const stored = Array.from({ length: 7 }, (_, at) =>
        event("s", at, { payload: { at, text } }),
      );
      await driver.insertEvents(stored);
      assert.deepEqual(ids(await collect(driver.streamEvents())), ids(stored));
    });

    contract("a row that is there throughout comes once, whatever else changes", async (driver) => {
      const stored = Array.from({ length: 2_400 }, (_, at) =>
        event("s", at * 10, { id: `e${10_000 + at}`, payload: at }),
      );
      await driver.insertEvents(stored);
      const seen: string[] = [];
      for await (const { id, eventIndex } of driver.streamEvents({ sessionId: "s" })) {
        seen.push(id);
        if (seen.length % 500 === 0) {
          await driver.insertEvents([event("s", eventIndex - 5), event("s", -eventIndex)]);
        }
      }
      assert.deepEqual(seen, ids(stored));
    });

    contract(
      "a stream reads what it was asked for, whatever becomes of the request",
      async (driver) => {
        await mixed(driver);
        const request = { sessionId: "b" };
        const stream = driver.streamEvents(request);
        request.sessionId = "none";
        assert.equal((await collect(stream)).length, 3);
      },
    );

    contract("a broken-off stream is done, and leaves nothing outstanding", async (driver) => {
      await mixed(driver);
      const stream = driver.streamEvents();
      for await (const { sessionId } of stream) if (sessionId === "a") break;
      assert.deepEqual(await stream.next(), { done: true, value: undefined });
      assert.equal((await driver.stats()).queue.calls, 0);
    });

    contract("calls of next() queue", async (driver) => {
      const { of } = await mixed(driver);
      const stream = driver.streamEvents();
      const results = await Promise.all(Array.from({ length: 14 }, () => stream.next()));
      const found = results.filter(({ done }) => !done).map(({ value }) => value.id);
      assert.deepEqual(found, ["b", "a", "lost", "lost é"].flatMap(of));
      assert.deepEqual(results.map(({ done }) => done).slice(12), [true, true]);
    });

    contract("an error ends a stream", async (driver) => {
      await mixed(driver);
      for (const stream of [
        driver.streamEvents({ sessionId: 5 } as {}),
        driver.streamEvents({ sender: "user" } as {}),
        driver.streamSessions({ order: 1 } as {}),
        driver.streamSessions({ cursor: "5" } as {}),
        driver.streamEvents({ limit: 5 } as {}),
        driver.streamEvents({ signal: {} } as {}),
      ]) {
        await refuses(() => stream.next(), /^request\./);
        assert.deepEqual(await stream.next(), { done: true, value: undefined });
      }
    });

    contract("an aborted signal ends a stream with its reason", async (driver) => {
      await mixed(driver);
      const before = new Signal();
      before.abort("before");
      for (const stream of [
        driver.streamSessions({ signal: before }),
        driver.streamEvents({ signal: before }),
        driver.streamEvents({ sessionId: "b", signal: before }),
      ]) {
        await assert.rejects(stream.next(), (reason) => reason === "before");
        assert.equal((await stream.next()).done, true);
      }
      for (const request of [{}, { sessionId: "b" }]) {
        const controller = new AbortController();
        const stream = driver.streamEvents({ ...request, signal: controller.signal });
        await stream.next();
        controller.abort();
        await assert.rejects(stream.next(), { name: "AbortError" });
        assert.equal((await stream.next()).done, true);
      }
    });

    contract("an outstanding next() rejects as soon as the signal is aborted", async (driver) => {
      const settled: string[] = [];
      const payload = "x".repeat(5_000_000);
      const signal = new Signal();
      const written = driver
        .insertEvent(event("s", 1, { payload }))
        .then(() => settled.push("written"));
      const stream = driver.streamEvents({ sessionId: "s", signal });
      const next = rejection(stream.next()).then((reason) => settled.push(String(reason)));
      signal.abort("while it waited");
      await Promise.all([written, next]);
      if (name !== "SQLite in memory" && name !== "SQLite temporary") {
        assert.deepEqual(settled, ["while it waited", "written"]);
      }
      assert.equal((await stream.next()).done, true);
      assert.equal(signal.listeners.size, 0);
    });

    contract("a stream that ended listens to no signal", async (driver) => {
      await mixed(driver);
      const signal = new Signal();
      assert.equal((await collect(driver.streamEvents({ signal }))).length, 12);
      for await (const _ of driver.streamSessions({ signal })) break;
      assert.equal(signal.listeners.size, 0);
    });

    test("close() ends an outstanding next()", async (t) => {
      const driver = create(t);
      const written = driver.insertEvent(event("s", 1, { payload: "x".repeat(5_000_000) }));
      const stream = driver.streamEvents({ sessionId: "s" });
      const next = stream.next();
      const outcome = Promise.allSettled([next, written]);
      await driver.close();
      const [{ status, ...rest }] = await outcome;
      // It is answered before: by a database in memory at once, by PostgreSQL during the quiet.
      if (status === "rejected") {
        assert.equal((rest as { reason: any }).reason.code, "ERR_PERSIST_CLOSED");
        assert.equal((await stream.next()).done, true);
      } else assert.match(name, /memory|temporary|Postgres/);
      const later = driver.streamEvents();
      assert.equal((await rejection(later.next())).code, "ERR_PERSIST_CLOSED");
      assert.equal((await later.next()).done, true);
    });
  });
}

test("a row that can't be read ends a stream", async (t) => {
  const filename = file(t);
  const first = open(t, { filename });
  await first.insertEvents([1, 2, 3].map((index) => event("s", index)));
  first.close();
  const other = new Database(filename);
  other.exec("UPDATE events SET payload_json = 'no JSON' WHERE event_index = 2");
  other.close();
  const driver = open(t, { filename });
  for (const stream of [driver.streamEvents(), driver.streamEvents({ sessionId: "s" })]) {
    assert.equal((await rejection(collect(stream))).code, "ERR_PERSIST_CORRUPT");
    assert.deepEqual(await stream.next(), { done: true, value: undefined });
  }
  // It has no method, and others are found.
  const { items } = await driver.listEvents({ sessionId: "s", method: "session/update" });
  assert.equal(items.length, 2);
});
