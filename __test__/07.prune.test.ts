/** Keeping a store small, on each driver alike. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { SessionRecord } from "../index.js";
import { allEvents, event, rejection, session } from "./support/fixtures.ts";
import { runToEnd, start } from "./support/fork.ts";
import { stores, type Driver, type Store } from "./support/stores.ts";
import { until } from "./support/waiting.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const now = Date.now();
const PAYLOAD = { text: "x".repeat(100) };

/** A session that was created, and got its events, so many days ago. */
const old = async (
  driver: Driver,
  id: string,
  days: number,
  { events = 3, ...fields }: Partial<SessionRecord> & { events?: number } = {},
) => {
  const createdAt = now - days * DAY;
  await driver.updateSession(session(id, { createdAt, ...fields }));
  await addEvents(driver, id, days, events);
};

const addEvents = async (driver: Driver, id: string, days: number, count: number) => {
  const createdAt = now - days * DAY;
  const events = Array.from({ length: count }, (_, at) =>
    event(id, at + 1, { createdAt, payload: PAYLOAD }),
  );
  for (let at = 0; at < count; at += 10_000)
    await driver.insertEvents(events.slice(at, at + 10_000));
};

/** A driver that has not been called for what another one stored. */
const filled = async (
  store: Store,
  fill: (driver: Driver) => Promise<unknown>,
): Promise<Driver> => {
  const before = store.open();
  await fill(before);
  await before.close();
  return store.open();
};

const ids = async (driver: Driver) => (await driver.listSessions()).items.map(({ id }) => id);

/** Bytes of texts, as a result tells them. */
const bytesOf = (...rows: object[]) =>
  rows
    .flatMap((row) => Object.values(row))
    .filter((value) => typeof value !== "number")
    .map((value) => (typeof value === "string" ? value : JSON.stringify(value)))
    .reduce((bytes, text) => bytes + Buffer.byteLength(text), 0);

for (const [name, create] of Object.entries(stores)) {
  describe(`${name}: prune()`, () => {
    test("removes sessions whose newest event is too old, with all that is of them", async (t) => {
      const driver = await filled(create(t), async (driver) => {
        await old(driver, "old", 40);
        await old(driver, "used", 40);
        await driver.insertEvent("used", event("used", 4, { createdAt: now - DAY }));
        await old(driver, "without events", 40, { events: 0 });
        await old(driver, "young", 1);
        await addEvents(driver, "without a record", 40, 2);
        await addEvents(driver, "without a record, young", 1, 2);
      });
      const gone = [
        ...(await allEvents(driver, "old")),
        ...(await allEvents(driver, "without a record")),
        (await driver.getSession("old"))!,
        (await driver.getSession("without events"))!,
      ];
      const reopened = await filled(create(t), async (driver) => {
        for (const row of gone) {
          if ("payload" in row) await driver.insertEvent(row);
          else await driver.updateSession(row);
        }
      });
      assert.deepEqual(await reopened.prune({ maxAge: "30d" }), {
        sessions: 3,
        events: 5,
        bytes: bytesOf(...gone),
        done: true,
      });
      assert.equal(await reopened.countEvents(), 0);
      assert.equal(await reopened.countSessions(), 0);
    });

    test("leaves sessions that are young, by their newest event", async (t) => {
      const driver = await filled(create(t), async (driver) => {
        await old(driver, "used", 40);
        await driver.insertEvent("used", event("used", 4, { createdAt: now - DAY }));
        await old(driver, "young", 1);
        await addEvents(driver, "without a record", 1, 2);
      });
      const { sessions, done } = await driver.prune({ maxAge: 30 * DAY });
      assert.deepEqual({ sessions, done }, { sessions: 0, done: true });
      assert.deepEqual(await ids(driver), ["used", "young"]);
      assert.equal(await driver.countEvents(), 9);
    });

    test("leaves every session with an event younger than an hour", async (t) => {
      const driver = await filled(create(t), async (driver) => {
        await old(driver, "in use", 40, { destroyedAt: now - DAY });
        await driver.insertEvent("in use", event("in use", 4, { createdAt: now - HOUR / 2 }));
        await old(driver, "idle", 30, { destroyedAt: now - DAY });
      });
      const limits = { maxAge: 1, destroyedFor: 1, maxSessions: 1, maxBytes: 1 };
      assert.equal((await driver.prune(limits)).sessions, 1);
      assert.deepEqual(await ids(driver), ["in use"]);
      assert.equal(await driver.countEvents(), 4);
    });

    test("leaves a session whose young event hasn't the highest index", async (t) => {
      const driver = await filled(create(t), async (driver) => {
        await old(driver, "s", 40);
        await driver.insertEvent("s", event("s", 0, { createdAt: now - HOUR / 2 }));
        await old(driver, "other", 1);
      });
      const limits = { maxAge: "30d", maxSessions: 1 };
      await driver.prune(limits);
      assert.equal(await driver.countEvents({ sessionId: "s" }), 4);
      assert.equal((await driver.prune({ maxAge: "30d", dryRun: true })).sessions, 0);
    });

    test("leaves what is used while it is under way", async (t) => {
      const store = create(t);
      const driver = await filled(store, async (driver) => {
        for (let at = 0; at < 12; at += 1) await old(driver, `s${at}`, 40 - at, { events: 300 });
      });
      let isFirst = true;
      const onProgress = () => {
        if (isFirst) void driver.getSession("s11");
        isFirst = false;
      };
      await driver.prune({ maxAge: "20d", onProgress });
      assert.deepEqual(await ids(driver), ["s11"]);
      assert.equal(await driver.countEvents({ sessionId: "s11" }), 300);
    });

    test("removes no more for maxBytes than other limits leave to be removed", async (t) => {
      const driver = await filled(create(t), async (driver) => {
        for (let at = 0; at < 30; at += 1) await old(driver, `s${at}`, 60 - at, { events: 100 });
      });
      await driver.prune({ maxAge: 40.5 * DAY, maxBytes: 1_000_000 });
      await driver.prune({ maxBytes: 1_000_000 });
      assert.equal(await driver.countSessions(), 10);
      assert.equal(await driver.countEvents(), 1_000);
    });

    test("removes what was destroyed long ago", async (t) => {
      const driver = await filled(create(t), async (driver) => {
        await old(driver, "long", 9, { destroyedAt: now - 8 * DAY });
        await old(driver, "lately", 9, { destroyedAt: now - 6 * DAY });
        await old(driver, "never", 9);
      });
      assert.equal((await driver.prune({ destroyedFor: "7d" })).sessions, 1);
      assert.deepEqual(await ids(driver), ["lately", "never"]);
    });

    test("leaves no more sessions than may be, the newest", async (t) => {
      const driver = await filled(create(t), async (driver) => {
        for (const [id, days] of [
          ["a", 3],
          ["c", 5],
          ["b", 5],
          ["d", 4],
          ["e", 2],
        ] as const) {
          await old(driver, id, days);
        }
      });
      const { sessions, events } = await driver.prune({ maxSessions: 3 });
      assert.deepEqual([sessions, events], [2, 6]);
      assert.deepEqual(await ids(driver), ["d", "a", "e"]);
    });

    test("leaves no more events of a session than may be, the newest", async (t) => {
      const driver = await filled(create(t), async (driver) => {
        await old(driver, "large", 0, { events: 25 });
        await old(driver, "small", 0, { events: 10 });
        await addEvents(driver, "without a record", 0, 12);
      });
      const { sessions, events } = await driver.prune({ maxEventsPerSession: 10 });
      assert.deepEqual([sessions, events], [0, 17]);
      const indexes = (await allEvents(driver, "large")).map((each) => each.eventIndex);
      assert.deepEqual(indexes, [16, 17, 18, 19, 20, 21, 22, 23, 24, 25]);
      assert.equal(await driver.countEvents({ sessionId: "without a record" }), 10);
      await driver.prune({ maxEventsPerSession: 1 });
      assert.equal((await driver.lastEvent("large"))!.eventIndex, 25);
      assert.equal(await driver.countEvents(), 3);
    });

    test("leaves no more bytes than may be: the oldest events go, then sessions", async (t) => {
      const driver = await filled(create(t), async (driver) => {
        for (let at = 0; at < 8; at += 1) await old(driver, `s${at}`, 20 - at, { events: 500 });
        await old(driver, "in use", 0, { events: 1_500 });
      });
      const all = await driver.countEvents();
      // SQLite's indexes lose their pages late; PostgreSQL counts its rows a little later.
      const maxBytes = name === "SQLite" ? 1_150_000 : 900_000;
      await until(async () => (await driver.prune({ maxBytes })).events > 0);
      const left = await driver.countEvents();
      assert.ok(left < all && left > 2_000, `${left} of ${all}`);
      assert.equal(await driver.countEvents({ sessionId: "s0" }), 1);
      assert.equal(await driver.countEvents({ sessionId: "s7" }), 500);
      assert.equal(await driver.countSessions(), 9);
      await driver.prune({ maxBytes: 1 });
      assert.deepEqual(await ids(driver), ["in use"]);
      assert.equal(await driver.countEvents(), 1_000);
    });

    test("says with dryRun what would go, and nothing goes", async (t) => {
      const driver = await filled(create(t), async (driver) => {
        for (let at = 0; at < 9; at += 1) await old(driver, `s${at}`, 20 - at, { events: 30 + at });
        await addEvents(driver, "without a record", 40, 7);
        await old(driver, "in use", 0, { events: 50 });
      });
      const limits = { maxAge: "15d", maxSessions: 4, maxEventsPerSession: 35 };
      const said = await driver.prune({ ...limits, dryRun: true });
      assert.equal(await driver.countSessions(), 10);
      assert.deepEqual(await driver.prune(limits), said);
      assert.deepEqual(await driver.prune(limits), {
        sessions: 0,
        events: 0,
        bytes: 0,
        done: true,
      });
      assert.deepEqual([said.sessions, await driver.countSessions()], [7, 4]);
    });

    test("leaves sessions that this driver has used lately", async (t) => {
      const driver = await filled(create(t), async (driver) => {
        await old(driver, "resumed", 40);
        await old(driver, "idle", 40);
      });
      await driver.getSession("resumed");
      assert.equal((await driver.prune({ maxAge: "30d", maxSessions: 1 })).sessions, 1);
      assert.deepEqual(await ids(driver), ["resumed"]);
    });

    test("goes on where it was ended", async (t) => {
      const driver = await filled(create(t), (driver) =>
        old(driver, "large", 40, { events: 4_000 }),
      );
      const controller = new AbortController();
      const told: object[] = [];
      const onProgress = (progress: object) => {
        told.push(progress);
        controller.abort();
      };
      const first = await driver.prune({ maxAge: "30d", signal: controller.signal, onProgress });
      assert.equal(first.done, false);
      assert.ok(first.events > 0 && first.events < 4_000, `${first.events}`);
      const { done, ...progress } = first;
      assert.deepEqual(told.at(-1), progress);
      const left = (await allEvents(driver, "large", 5_000)).map((each) => each.eventIndex);
      assert.deepEqual([left.length, left.at(-1)], [4_000 - first.events, 4_000]);
      // It was only listed.
      const second = await driver.prune({ maxAge: "30d" });
      assert.equal(first.events + second.events, 4_000);
      assert.deepEqual([second.sessions, second.done], [1, true]);
    });

    test("does nothing in no time, and nothing for a signal that is aborted", async (t) => {
      const driver = await filled(create(t), (driver) => old(driver, "s", 40));
      const nothing = { sessions: 0, events: 0, bytes: 0, done: false };
      assert.deepEqual(await driver.prune({ maxAge: 1, maxDurationMs: 0 }), nothing);
      assert.deepEqual(await driver.prune({ maxAge: 1, signal: AbortSignal.abort() }), nothing);
    });

    test("of two drivers at once removes each row once", async (t) => {
      const store = create(t);
      const first = await filled(store, async (driver) => {
        for (let at = 0; at < 30; at += 1) await old(driver, `s${at}`, 40, { events: 100 });
      });
      const second = store.open();
      const pruned = await Promise.all(
        [first, second].map((driver) => driver.prune({ maxAge: "30d" })),
      );
      const sum = (of: "sessions" | "events") => pruned[0]![of] + pruned[1]![of];
      assert.deepEqual([sum("sessions"), sum("events")], [30, 3_000]);
    });

    test("takes its turn among inserts, and takes none of what is new", async (t) => {
      const driver = await filled(create(t), (driver) => old(driver, "s", 40, { events: 3_000 }));
      const pruning = driver.prune({ maxEventsPerSession: 100 });
      let index = 3_000;
      let isOver = false;
      void pruning.finally(() => (isOver = true));
      while (!isOver) await driver.insertEvent("s", event("s", (index += 1)));
      await pruning;
      const left = (await allEvents(driver, "s", 10_000)).map((each) => each.eventIndex);
      assert.equal(left.at(-1), index);
      assert.ok(left.length >= 100, `${left.length}`);
      assert.deepEqual(
        left,
        Array.from(left, (_, at) => left[0]! + at),
      );
    });

    test("is ended by close()", async (t) => {
      const driver = await filled(create(t), (driver) => old(driver, "s", 40, { events: 5_000 }));
      const pruning = rejection(driver.prune({ maxAge: "30d" }));
      await sleep(5);
      await driver.close();
      assert.equal((await pruning).code, "ERR_PERSIST_CLOSED");
    });

    test("in a process that is killed leaves the newest, and can be done again", async (t) => {
      const store = create(t);
      const driver = await filled(store, (driver) => old(driver, "s", 40, { events: 20_000 }));
      await driver.close();
      const limit = { maxEventsPerSession: 100 };
      for (const ms of [5, 20, 60]) {
        const options = [JSON.stringify(store.options), "prune", JSON.stringify(limit)];
        const child = start("upkeep", options);
        await once(child, "message");
        await sleep(ms);
        child.kill("SIGKILL");
        await once(child, "exit");
      }
      // A server may be about the last step still.
      const again = store.open();
      const indexes = async () =>
        (await allEvents(again, "s", 20_000)).map((each) => each.eventIndex);
      const left = await indexes();
      assert.ok(left.length >= 100, `${left.length}`);
      assert.equal(left.at(-1), 20_000);
      assert.equal((await again.prune(limit)).done, true);
      assert.deepEqual(
        await indexes(),
        Array.from({ length: 100 }, (_, at) => 19_901 + at),
      );
    });

    test("refuses what is no limit", async (t) => {
      const driver = create(t).open();
      for (const [options, message] of [
        [undefined, /options must be an object/],
        [{}, /options must have at least one of maxEventsPerSession, maxSessions, maxAge/],
        [{ maxage: 1 }, /options\.maxage is not an option; the options are/],
        [{ maxSessions: 0 }, /options\.maxSessions must be a whole number from 1/],
        [{ maxEventsPerSession: "5" }, /options\.maxEventsPerSession must be a whole number/],
        [
          { maxAge: "1y" },
          /options\.maxAge must be a whole number of milliseconds from 1, or text/,
        ],
        [{ destroyedFor: 0.5 }, /options\.destroyedFor must be/],
        [{ maxBytes: -1 }, /options\.maxBytes must be/],
        [{ maxAge: 1, dryRun: 1 }, /options\.dryRun must be true or false/],
        [{ maxAge: 1, signal: {} }, /options\.signal must be an AbortSignal/],
        [{ maxAge: 1, onProgress: 1 }, /options\.onProgress must be a function/],
        [{ maxAge: 1, maxDurationMs: -1 }, /options\.maxDurationMs must be/],
      ] as const) {
        const refused = await rejection(driver.prune(options as never));
        assert.equal(refused.code, "ERR_PERSIST_INVALID_ARG");
        assert.match(refused.message, message);
      }
    });
  });

  describe(`${name}: retention`, () => {
    const use = (driver: Driver) => driver.insertEvent("now", event("now", 1, { createdAt: now }));

    test("prunes by itself once the driver is used", async (t) => {
      const store = create(t);
      const before = await filled(store, async (driver) => {
        for (let at = 0; at < 5; at += 1) await old(driver, `s${at}`, 20 - at);
        await old(driver, "large", 1, { events: 20 });
      });
      await before.close();
      const retention = { maxAge: "17d", maxEventsPerSession: 5 };
      const driver = store.open({ retention, maxSessions: 2 });
      await use(driver);
      await until(async () => (await driver.countEvents()) === 3 + 5 + 1);
      assert.deepEqual(await ids(driver), ["s4", "large"]);
    });

    test("trims a session that has grown, without waiting for its minute", async (t) => {
      const driver = create(t).open({ maxEventsPerSession: 100 });
      await use(driver);
      // The first pass comes first, and the next in a minute.
      await sleep(1_000);
      for (let index = 1; index <= 300; index += 1) await driver.insertEvent(event("s", index));
      await until(async () => (await driver.countEvents({ sessionId: "s" })) <= 110);
      assert.equal((await driver.lastEvent("s"))!.eventIndex, 300);
    });

    test("of three processes on one store keeps each session's newest events", async (t) => {
      const store = create(t);
      const options = JSON.stringify({ ...store.options, maxEventsPerSession: 50 });
      const sessions = ["a", "b", "c"];
      const ended = await Promise.all(
        sessions.map((id) => runToEnd("write", [options, id, "1500"])),
      );
      for (const { code, stderr } of ended) assert.deepEqual([code, stderr], [0, ""]);
      const driver = store.open();
      const before = await driver.countEvents();
      assert.ok(before < 4_500, `${before} of 4,500`);
      await driver.prune({ maxEventsPerSession: 50 });
      for (const id of sessions) {
        const left = (await allEvents(driver, id)).map((each) => each.eventIndex);
        assert.deepEqual(
          left,
          Array.from({ length: 50 }, (_, at) => 1_451 + at),
        );
      }
    });

    test("doesn't keep the process alive", async (t) => {
      const store = create(t);
      const options = JSON.stringify({ ...store.options, maxSessions: 5 });
      const ended = await runToEnd("leave-open", [options]);
      assert.equal(ended.code, 0, ended.stderr);
      assert.equal(await store.open().countEvents(), 1);
    });

    test("is refused where it is no limit", (t) => {
      const store = create(t);
      for (const [options, message] of [
        [{ retention: 5 }, /options\.retention must be an object/],
        [{ retention: { maxage: 1 } }, /options\.retention\.maxage is not an option/],
        [{ retention: { maxAge: "x" } }, /options\.retention\.maxAge must be/],
        [{ maxSessions: 1.5 }, /options\.maxSessions must be a whole number from 1/],
        [{ maxSessions: 1, retention: { maxSessions: 1 } }, /are the same: give one/],
      ] as const) {
        const expected = { name: "TypeError", code: "ERR_PERSIST_INVALID_ARG", message };
        assert.throws(() => store.open(options), expected);
      }
    });
  });
}
