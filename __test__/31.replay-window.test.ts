/** `replay` and `replayView`, on every database alike. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import fc from "fast-check";
import {
  buildReplayText,
  PostgresSessionPersistDriver,
  SQLiteSessionPersistDriver,
  type ReplayOptions,
  type SessionEvent,
} from "../index.js";
import { allEvents, event, file, open, rejection, session } from "./support/fixtures.ts";
import { databaseUrl, freshSchema, sql } from "./support/postgres.ts";
import { openPostgres } from "./support/postgres-around.ts";
import { EVENTS_0_3 } from "./support/postgres-layouts.ts";
import { chunk, FRONT_MARK, history, KINDS, prompt, textOf, update } from "./support/replay.ts";
import { CUT, PREFIX, referenceText } from "./support/replay-text.ts";

type Driver = SQLiteSessionPersistDriver | PostgresSessionPersistDriver;
const THE_SDKS = { keep: "oldest", coalesce: false, maxCharsPerEvent: Infinity } as const;

/** One driver for all tests of a database: each has sessions of its own. */
const drivers: Record<string, Driver> = {};
let folder: string;
const schema = `test_replay_${process.pid}`;
const postgres = () => ({ connectionString: databaseUrl(), schema });
const create: Record<string, () => Driver> = {
  "SQLite file": () => new SQLiteSessionPersistDriver({ filename: join(folder, "sessions.db") }),
  "SQLite in memory": () => new SQLiteSessionPersistDriver(),
  Postgres: () => new PostgresSessionPersistDriver(postgres()),
  "Postgres, prepared statements": () =>
    new PostgresSessionPersistDriver({ ...postgres(), preparedStatements: true }),
};
before(() => {
  folder = mkdtempSync(join(tmpdir(), "persist-"));
  for (const [name, make] of Object.entries(create)) drivers[name] = make();
});
after(async () => {
  for (const driver of Object.values(drivers)) await driver.close();
  await sql(`DROP SCHEMA IF EXISTS ${schema} CASCADE`);
  rmSync(folder, { recursive: true });
});

let sessions = 0;
const nextSession = () => `s${(sessions += 1)}`;

/** Stores a session with these payloads. */
async function stored(driver: Driver, payloads: unknown[]): Promise<string> {
  const id = nextSession();
  await insert(driver, eventsOf(id, payloads));
  return id;
}
const eventsOf = (id: string, payloads: unknown[]) =>
  payloads.map((payload, at) => event(id, at + 1, { id: `${id}-${at + 1}`, payload }));
const insert = (driver: Driver, events: SessionEvent[]) =>
  Promise.all(events.map((item) => driver.insertEvent(item)));

const options = fc.record(
  {
    maxEvents: fc.oneof(fc.integer({ min: 1, max: 60 }), fc.constant(Infinity)),
    maxChars: fc.oneof(fc.integer({ min: 300, max: 4_000 }), fc.constant(Infinity)),
    maxCharsPerEvent: fc.oneof(fc.integer({ min: 1, max: 3_000 }), fc.constant(Infinity)),
    coalesce: fc.boolean(),
  },
  { requiredKeys: [] },
);

/** What must hold of any window of a history. */
async function checkWindow(view: Lists, id: string, events: SessionEvent[], given: ReplayOptions) {
  const { items, nextCursor } = await view.listEvents({ sessionId: id, limit: 1 });
  assert.equal(nextCursor, undefined);
  const { maxEvents = 50, maxChars = 12_000, coalesce = true } = given;
  const rendered = referenceText(items, maxChars)!;
  assert.ok(rendered.length <= maxChars && !rendered.endsWith(CUT), "it fits");
  assert.ok(items.length >= 1 && items.length <= maxEvents);
  const places = items.map((item) => events.findIndex(({ id }) => id === item.id));
  assert.ok(
    places.every((place, at) => place > (places[at - 1] ?? -1)),
    "it is in order",
  );
  assert.equal(places.at(-1), events.length - 1, "the newest is in it");
  for (const [at, item] of items.entries()) {
    const origin = events[places[at]!]!;
    const { payload: _, ...columns } = item;
    const { payload: __, ...expected } = origin;
    assert.deepEqual(columns, expected);
    const shown = coalesce ? textOf(item) : undefined;
    if (shown === undefined) continue;
    const kind = item.payload.params.update.sessionUpdate;
    // All of the text up to it that could have become part of it.
    let full = "";
    for (const earlier of events.slice(0, places[at]! + 1).toReversed()) {
      if (earlier.payload?.params?.update?.sessionUpdate !== kind) break;
      full = textOf(earlier)! + full;
    }
    const text = shown.startsWith(FRONT_MARK) ? shown.slice(FRONT_MARK.length) : shown;
    assert.ok(full.endsWith(text), "its text is the end of the full text");
  }
}
type Lists = Pick<Driver, "listEvents">;

test("a window is the same on every database, and holds what it must", async () => {
  await fc.assert(
    fc.asyncProperty(history("s"), options, async (template, given) => {
      const id = nextSession();
      const events = template.map((item) => ({ ...item, sessionId: id, id: `${id}-${item.id}` }));
      const all = Object.entries(drivers);
      const windows = await Promise.all(
        all.map(async ([name, driver]) => {
          // Two of them share their tables.
          if (name !== "Postgres, prepared statements") await insert(driver, events);
        }),
      ).then(() =>
        Promise.all(
          all.map(async ([, driver]) => {
            const window = (await driver.replay(id, given))!;
            assert.deepEqual(await driver.replay(id, given), window, "it is deterministic");
            const view = driver.replayView(given);
            assert.deepEqual(await view.listEvents({ sessionId: id }), { items: window.events });
            assert.equal(window.text, referenceText(window.events, given.maxChars));
            assert.ok(window.firstEventIndex <= window.events[0]!.eventIndex);
            assert.ok(window.truncated || window.firstEventIndex === 1);
            assert.equal(window.lastEventIndex, events.length);
            await checkWindow(view, id, events, given);
            return window;
          }),
        ),
      );
      for (const window of windows) assert.deepEqual(window, windows[0]);
    }),
    { numRuns: 150, endOnFailure: true },
  );
});

test("the SDK's own way is to be had", async () => {
  await fc.assert(
    fc.asyncProperty(
      history("s"),
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 1, max: 4_000 }),
      async (template, maxEvents, maxChars) => {
        const id = nextSession();
        const events = template.map((item) => ({ ...item, sessionId: id, id: `${id}-${item.id}` }));
        for (const [name, driver] of Object.entries(drivers)) {
          if (name !== "Postgres, prepared statements") await insert(driver, events);
          const replay = await driver.replay(id, { ...THE_SDKS, maxEvents, maxChars });
          const kept = events.slice(-maxEvents);
          assert.equal(replay!.text, referenceText(kept, maxChars));
          assert.equal(
            replay!.truncated,
            kept.length < events.length || replay!.text.endsWith(CUT),
          );
        }
      },
    ),
    { numRuns: 50 },
  );
});

for (const name of Object.keys(create)) {
  describe(name, () => {
    const contract = (title: string, body: (driver: Driver) => Promise<void>) =>
      test(title, () => body(drivers[name]!));

    contract("a session without events has no replay and an empty view", async (driver) => {
      assert.equal(await driver.replay("none"), null);
      assert.deepEqual(await driver.replayView().listEvents({ sessionId: "none" }), { items: [] });
    });

    contract("a long session's window is its newest text", async (driver) => {
      const words = Array.from({ length: 3_000 }, (_, at) => `word ${at} \n`);
      const id = await stored(
        driver,
        words.map((word) => chunk(word)),
      );
      const replay = (await driver.replay(id))!;
      assert.equal(replay.events.length, 1);
      assert.equal(replay.lastEventIndex, 3_000);
      assert.equal(replay.truncated, true);
      assert.ok(replay.text.length > 11_990 && replay.text.length <= 12_000);
      const text = textOf(replay.events[0]!)!;
      assert.ok(text.startsWith(FRONT_MARK));
      assert.ok(words.join("").endsWith(text.slice(FRONT_MARK.length)));
    });

    contract("short chunks are read in many steps", async (driver) => {
      const id = await stored(
        driver,
        Array.from({ length: 4_000 }, () => chunk("ab")),
      );
      const replay = (await driver.replay(id))!;
      assert.deepEqual(replay.events.map(textOf), ["ab".repeat(4_000)]);
      assert.equal(replay.truncated, false);
    });

    contract("chunks, calls and prompts come in their order", async (driver) => {
      const id = await stored(
        driver,
        [
          prompt(`${PREFIX}{}\n`, "Fix the test"),
          chunk("I look ", KINDS[1]),
          chunk("at it.", KINDS[1]),
          update({ sessionUpdate: "tool_call", toolCallId: "t", title: "Read", status: "pending" }),
          update({ sessionUpdate: "tool_call_update", toolCallId: "t", status: "completed" }),
          chunk("Done"),
          chunk("."),
        ].map((payload) => payload),
      );
      const { events, truncated } = (await driver.replay(id))!;
      assert.deepEqual(
        events.map(({ payload }) => payload),
        [
          prompt(`${PREFIX}{}\n`, "Fix the test"),
          chunk("I look at it.", KINDS[1]),
          update({
            sessionUpdate: "tool_call",
            toolCallId: "t",
            title: "Read",
            status: "completed",
          }),
          chunk("Done."),
        ],
        "only a client's prompt holds a replay",
      );
      assert.deepEqual(
        events.map(({ eventIndex }) => eventIndex),
        [1, 3, 5, 7],
      );
      assert.equal(truncated, false);
    });

    contract("an earlier replay is left out of its prompt", async (driver) => {
      const id = nextSession();
      await driver.insertEvent(
        event(id, 1, { sender: "client", payload: prompt(`${PREFIX}{}\n`, "Fix the test") }),
      );
      const { events, text } = (await driver.replay(id))!;
      assert.deepEqual(events[0]!.payload, prompt("Fix the test"));
      assert.equal(text.split(PREFIX).length, 2);
    });

    contract("events of other sessions are not in it", async (driver) => {
      const [id] = [await stored(driver, [1]), await stored(driver, [2])];
      assert.deepEqual(
        (await driver.replay(id))!.events.map(({ payload }) => payload),
        [1],
      );
    });

    contract("events of one index come by their id", async (driver) => {
      const id = nextSession();
      for (const name of ["b", "a", "c"]) {
        await driver.insertEvent(event(id, 5, { id: `${id}-${name}`, payload: name }));
      }
      const { events } = (await driver.replay(id, { maxEvents: 2 }))!;
      assert.deepEqual(
        events.map(({ payload }) => payload),
        ["b", "c"],
      );
    });

    contract("unknown fields stay, and tell chunks apart", async (driver) => {
      const id = nextSession();
      for (const [at, later] of [1, 1, 2].entries()) {
        await driver.insertEvent({ ...event(id, at + 1, { payload: chunk("a") }), later } as any);
      }
      const { events } = (await driver.replay(id))!;
      assert.deepEqual(
        events.map((item: any) => [textOf(item), item.later]),
        [
          ["aa", 1],
          ["a", 2],
        ],
      );
    });

    contract("a replay sees every earlier call of its session", async (driver) => {
      const id = nextSession();
      const inserted = insert(driver, eventsOf(id, [1, 2, 3]));
      const replay = await driver.replay(id);
      assert.deepEqual(
        replay!.events.map(({ payload }) => payload),
        [1, 2, 3],
      );
      await inserted;
    });

    contract("the view is the driver but for its lists of events", async (driver) => {
      const view = driver.replayView({ maxEvents: 2 });
      const id = nextSession();
      const record = session(id);
      await view.updateSession(record);
      assert.deepEqual(await view.getSession(id), await driver.getSession(id));
      assert.deepEqual(await view.listSessions(), await driver.listSessions());
      const events = eventsOf(id, [1, 2, 3]);
      await view.insertEvent(id, events[0]!);
      await view.insertEvent(events[1]!);
      await driver.insertEvent(events[2]!);
      assert.deepEqual(await allEvents(driver, id), events);
      assert.deepEqual((await view.listEvents({ sessionId: id, limit: 1 })).items, events.slice(1));
      assert.deepEqual((await view.listEvents({ sessionId: id, cursor: "1" })).items, [events[2]]);
      assert.deepEqual((await view.listEvents({ sessionId: id, cursor: "2" })).items, []);
    });

    contract("a view that keeps the oldest leaves the cut to the SDK", async (driver) => {
      const payloads = Array.from({ length: 60 }, (_, at) => `${at}`.padEnd(900));
      const id = await stored(driver, payloads);
      const { items } = await driver.replayView(THE_SDKS).listEvents({ sessionId: id });
      assert.deepEqual(
        items.map(({ payload }) => payload),
        payloads.slice(10),
      );
      assert.equal((await driver.replay(id, THE_SDKS))!.text, buildReplayText(items));
    });

    contract("a wrong option is named", async (driver) => {
      for (const [wrong, message] of [
        [{ maxEvent: 1 }, /^options\.maxEvent is not an option; the options are maxEvents, /],
        [{ maxEvents: 0 }, /^options\.maxEvents must be a whole number from 1, or Infinity/],
        [{ maxChars: 1.5 }, /^options\.maxChars must be a whole number/],
        [{ maxCharsPerEvent: "9" }, /^options\.maxCharsPerEvent must be a whole number/],
        [{ keep: "middle" }, /^options\.keep must be "newest" or "oldest"/],
        [{ coalesce: 1 }, /^options\.coalesce must be true or false/],
        [5, /^options must be an object/],
      ] as const) {
        const rejected = await rejection(driver.replay("s", wrong as any));
        for (const error of [rejected, viewError(driver, wrong)]) {
          assert.ok(error instanceof TypeError);
          assert.equal((error as any).code, "ERR_PERSIST_INVALID_ARG");
          assert.match(error.message, message);
        }
      }
      assert.match(
        (await rejection(driver.replay(5 as any))).message,
        /^sessionId must be a string/,
      );
    });
  });
}

function viewError(driver: Driver, wrong: unknown): Error {
  try {
    driver.replayView(wrong as any);
  } catch (error) {
    return error as Error;
  }
  return new Error("nothing was thrown");
}

for (const [name, make] of Object.entries(create)) {
  test(`${name}: a view ends with its driver`, async () => {
    const driver = make();
    const view = driver.replayView();
    await driver.close();
    const error = await rejection(view.listEvents({ sessionId: "s" }));
    assert.equal(error.code, "ERR_PERSIST_CLOSED");
  });
}

test("SQLite: a payload that is no JSON is passed over, or a stub if it is the newest", async (t) => {
  const filename = file(t);
  new SQLiteSessionPersistDriver({ filename }).close();
  const other = new Database(filename);
  const add = other.prepare("INSERT INTO events VALUES (?, ?, 's', 5, 'c', 'agent', ?, NULL)");
  for (const [at, payload] of ['{"a":1}', '{"a":', Buffer.from([255]), '"last"', "{{"].entries()) {
    add.run(`e${at}`, at + 1, payload);
  }
  other.close();
  const driver = open(t, { filename });
  const { events, lastEventIndex, truncated } = (await driver.replay("s"))!;
  assert.deepEqual(
    events.map(({ payload }) => payload),
    [{ a: 1 }, "last", { jsonrpc: "2.0", params: { elided: 2 } }],
  );
  assert.deepEqual([lastEventIndex, truncated], [5, true]);
});

test("Postgres: JSONB is counted as JSON.stringify prints it, wrapped texts as what they wrap", async (t) => {
  const schema = freshSchema(t);
  await sql(`CREATE SCHEMA ${schema}`);
  await sql(`CREATE TABLE ${schema}.events (${EVENTS_0_3})`);
  const driver = openPostgres(t, { schema });
  const payloads = [{ n: 1e21, list: [1.5, 1e-7] }, { hostile: "\0\ud800" }];
  await insert(driver, eventsOf("s", payloads));
  const replay = (await driver.replay("s"))!;
  assert.equal(replay.text, referenceText(eventsOf("s", payloads)));
  const exact = { maxChars: replay.text.length };
  assert.deepEqual(await driver.replay("s", exact), replay);
  const less = (await driver.replay("s", { maxChars: replay.text.length - 1 }))!;
  assert.equal(less.events.length, 1);
});

test("Postgres: steps go on after an index that is no whole number", async (t) => {
  const schema = freshSchema(t);
  await sql(`CREATE SCHEMA ${schema}`);
  await sql(`CREATE TABLE ${schema}.events (id TEXT PRIMARY KEY, event_index FLOAT8 NOT NULL,
    session_id TEXT NOT NULL, created_at BIGINT NOT NULL, connection_id TEXT NOT NULL,
    sender TEXT NOT NULL, payload_json JSON NOT NULL)`);
  await sql(`INSERT INTO ${schema}.events SELECT 'e' || n, n + 0.5, 's', n, 'c', 'agent', to_json(n)
    FROM generate_series(1, 400) AS n`);
  for (const preparedStatements of [false, true]) {
    const driver = openPostgres(t, { schema, preparedStatements });
    const { events } = (await driver.replay("s", { maxEvents: 300, maxChars: Infinity }))!;
    const expected = Array.from({ length: 300 }, (_, at) => at + 101);
    assert.deepEqual(
      events.map(({ payload }) => payload),
      expected,
    );
  }
});

test("SQLite: an older row that can't be read is passed over, the newest is not", async (t) => {
  const filename = file(t);
  new SQLiteSessionPersistDriver({ filename }).close();
  const other = new Database(filename);
  const add = other.prepare("INSERT INTO events VALUES (?, ?, ?, 5, ?, 'agent', '1', NULL)");
  const broken = Buffer.from([255]);
  for (const [at, connection] of ["c", broken, "c"].entries())
    add.run(`a${at}`, at, "s", connection);
  add.run("b", 1, "t", broken);
  other.close();
  const driver = open(t, { filename });
  const { events, truncated } = (await driver.replay("s"))!;
  assert.deepEqual([events.map(({ id }) => id), truncated], [["a0", "a2"], true]);
  assert.equal((await rejection(driver.replay("t"))).code, "ERR_PERSIST_CORRUPT");
});

test("many updates of one tool call with many fields are merged in no time that grows with both", async () => {
  const driver = new SQLiteSessionPersistDriver();
  const fields = Object.fromEntries(Array.from({ length: 20_000 }, (_, at) => [`k${at}`, at]));
  const tool = { sessionUpdate: "tool_call_update", toolCallId: "t" };
  const payloads = [
    ...Array.from({ length: 3_000 }, () => update(tool)),
    update({ ...tool, ...fields }),
  ];
  await insert(driver, eventsOf("s", payloads));
  const { events, firstEventIndex } = (await driver.replay("s", { maxChars: Infinity }))!;
  assert.deepEqual([events.length, firstEventIndex], [1, 1]);
  assert.deepEqual(events[0]!.payload, payloads.at(-1));
  driver.close();
});

test("an index that is no whole number is no hindrance", async (t) => {
  const filename = file(t);
  new SQLiteSessionPersistDriver({ filename }).close();
  const other = new Database(filename);
  other.exec(`INSERT INTO events VALUES ('a', 1.5, 's', 1e21, 'c', 'agent', '1', NULL),
    ('b', 1.25, 's', 5, 'c', 'agent', '2', NULL)`);
  other.close();
  const replay = (await open(t, { filename }).replay("s"))!;
  assert.deepEqual(
    replay.events.map(({ eventIndex }) => eventIndex),
    [1.25, 1.5],
  );
  assert.equal(replay.text, referenceText(replay.events));
  assert.equal(replay.lastEventIndex, 1.5);
});
