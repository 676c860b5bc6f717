/** Many rows: what streams and deletions of them take, and how reads of them are planned. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import Database from "better-sqlite3";
import type { EventsFilter, SessionsFilter } from "../index.js";
import { event, open, rejection, session } from "./support/fixtures.ts";
import { runToEnd, start } from "./support/fork.ts";
import { largePostgres, largeSqlite, type LargeStore } from "./support/large.ts";
import { ids } from "./support/operations.ts";
import { sql } from "./support/postgres.ts";
import { openWith } from "./support/postgres-around.ts";
import { relayTo } from "./support/relay.ts";
import { until } from "./support/waiting.ts";

const EVENTS = 200_000;
const MAX_GROWTH = 50_000_000;

const stores: Record<string, (t: TestContext) => LargeStore | Promise<LargeStore>> = {
  SQLite: largeSqlite,
  PostgreSQL: largePostgres,
};

for (const [name, make] of Object.entries(stores)) {
  describe(`a session of ${EVENTS} events: ${name}`, () => {
    let store: LargeStore;
    const releases: (() => unknown)[] = [];
    before(async () => {
      const context = { after: (release: () => unknown) => releases.push(release) };
      store = await make(context as unknown as TestContext);
      await store.addEvents(["large"], EVENTS);
      await withDriver(async (driver) => {
        await driver.updateSession(session("large"));
        await driver.updateSession(session("small"));
        await driver.insertEvents([1, 2, 3].map((index) => event("small", index)));
      });
    });
    after(async () => {
      for (const release of releases) await release();
    });

    async function withDriver(body: (driver: ReturnType<LargeStore["open"]>) => Promise<void>) {
      const driver = store.open();
      try {
        await body(driver);
      } finally {
        await driver.close();
      }
    }

    /** Some of it went, and all else is as it was. */
    async function assertCutOff(most: number): Promise<void> {
      await store.settled();
      const left = await store.count("large");
      assert.ok(left > 0 && left < most, `${left} of ${most} are left`);
      assert.equal(await store.count("small"), 3);
      await withDriver(async (driver) => {
        assert.equal((await driver.getSession("large"))?.id, "large", "the record goes last");
        assert.equal((await driver.getSession("small"))?.id, "small");
        const first = (await driver.listEvents({ sessionId: "large", limit: 1 })).items[0]!;
        assert.equal(first.eventIndex, EVENTS - left + 1, "the oldest go first");
      });
    }

    const run = (count: number) =>
      runToEnd("stream", [JSON.stringify(store.options), String(count)], {
        execArgv: ["--import", "tsx", "--expose-gc"],
      });

    test("a stream of it takes the memory of a page", async () => {
      const { code, stderr, messages } = await run(Number.POSITIVE_INFINITY);
      assert.equal(code, 0, stderr);
      assert.equal(messages[0].events, EVENTS + 3);
      assert.ok(messages[0].grown < MAX_GROWTH, `${messages[0].grown} bytes`);
    });

    test("a process that breaks a stream off ends by itself", async () => {
      const { code, stderr, messages } = await run(10);
      assert.equal(code, 0, stderr);
      assert.equal(messages[0].events, 10);
    });

    test("stats of it are estimates", async () => {
      await withDriver(async (driver) => {
        const fresh = await driver.stats();
        assert.deepEqual([fresh.sessions, fresh.isEstimate], [2, true]);
        assert.ok(fresh.events > 100_000, `${fresh.events}`);
        if ("schema" in store.options) await sql(`ANALYZE ${store.options.schema}.events`);
        const { events, largest, bytes } = await driver.stats({ largest: 1 });
        assert.ok(Math.abs(events - EVENTS) < EVENTS / 10, `${events}`);
        assert.ok(bytes.database > EVENTS * 300, `${bytes.database}`);
        assert.deepEqual([largest![0]!.sessionId, largest![0]!.events], ["large", EVENTS]);
      });
    });

    for (const [end, kept] of Object.entries({ "kill -9": 20_000, "process.exit()": 40_000 })) {
      test(`${end} in its deletion leaves what can be deleted again`, async () => {
        const most = await store.count("large");
        const child = start("delete", [JSON.stringify(store.options), "large"]);
        const ended = once(child, "close");
        let isDeleted = false;
        child.on("message", () => (isDeleted = true));
        await store.keeping("large", kept, async () => {
          await until(async () => (await store.count("large")) < most, "it is under way");
          if (end === "kill -9") child.kill("SIGKILL");
          else child.send("exit");
          await ended;
        });
        const [code] = await ended;
        assert.equal(isDeleted, false);
        await assertCutOff(most);
        if (end === "kill -9") return;
        assert.equal(code, 0);
        assert.equal(await store.count("last"), 1, "what was called at the end is stored");
      });
    }

    test("close() ends its deletion, which can be done again", async () => {
      const most = await store.count("large");
      await store.keeping("large", 60_000, async (release) => {
        const driver = store.open();
        const deleted = rejection(driver.deleteSession("large"));
        // A deletion that is called twice is done twice.
        const again = rejection(driver.deleteSession("large"));
        // SQLite does a step after each batch of writes; PostgreSQL does them beside.
        for (let index = 1; index <= 3; index += 1) await driver.insertEvent(event("other", index));
        if ("schema" in store.options) await until(async () => (await store.count("large")) < most);
        const closed = driver.close();
        // PostgreSQL's leaves time for what is outstanding.
        await until(() => rejection(driver.getSession("small")).then(({ code }) => code));
        await release();
        await closed;
        for (const { name, code } of await Promise.all([deleted, again])) {
          assert.deepEqual([name, code], ["Error", "ERR_PERSIST_CLOSED"]);
        }
      });
      await assertCutOff(most);
    });

    test("its deletion holds up others by a step at most, and takes it whole", async () => {
      await withDriver(async (driver) => {
        const events: string[] = [];
        const deleted = driver.deleteSession("large").then((was) => events.push(`deleted ${was}`));
        const later = driver.insertEvent(event("large", 1, { id: "later" }));
        const laterStored = later.then(() => events.push("later"));
        for (let index = 1; index <= 5; index += 1) {
          await driver.insertEvent(event("meanwhile", index));
          await driver.insertEvents([event("meanwhile", index), event("elsewhere", index)]);
          assert.equal((await driver.listEvents({ sessionId: "small" })).items.length, 3);
          events.push("other");
        }
        await Promise.all([deleted, laterStored]);
        assert.deepEqual(events, [...Array(5).fill("other"), "deleted true", "later"]);
        assert.equal(await driver.getSession("large"), undefined);
        assert.deepEqual(ids((await driver.listEvents({ sessionId: "large" })).items), ["later"]);
        assert.equal(await driver.countEvents({ sessionId: "meanwhile" }), 10);
        assert.equal(await driver.countEvents({ sessionId: "small" }), 3);
      });
    });
  });
}

/** What lists, and pages of streams, are asked for. */
const eventsQuestions: EventsFilter[] = [
  {},
  { sender: "client" },
  { method: "session/update" },
  { method: "none" },
  { afterIndex: 5_000 },
  { beforeIndex: 5_000 },
  { createdAfter: 5_000 },
  { createdBefore: 10 },
  { sender: "agent", method: "session/update", afterIndex: 9, beforeIndex: 9_000, createdAfter: 1 },
];
const sessionsQuestions: SessionsFilter[] = [
  {},
  { agent: "agent1" },
  { agent: "none" },
  { sandboxId: "none" },
  { destroyed: true },
  { destroyed: false },
  { createdAfter: 5_000 },
  { createdBefore: 5_000 },
  { agent: "agent1", sandboxId: "none", destroyed: true, createdAfter: 1, createdBefore: 9_000 },
];
const SESSIONS_OF_EVENTS = Array.from({ length: 10 }, (_, at) => `s${at}`);
const directions = ["oldest", "newest"] as const;

async function fill(store: LargeStore) {
  await store.addEvents(SESSIONS_OF_EVENTS, 10_000);
  await store.addSessions(100_000);
}

test("no page of SQLite's is sorted", async (t) => {
  const store = largeSqlite(t);
  await fill(store);
  const { filename } = store.options as { filename: string };
  const database = new Database(filename);
  t.after(() => database.close());
  // As src/sqlite/statements.rs puts them together.
  const conditions: Record<string, string> = {
    agent: "agent = ?",
    sandboxId: "sandbox_id = ?",
    sender: "sender = ?",
    method: `CASE WHEN json_valid(payload_json)
      THEN json_extract(payload_json, '$.method') = ?
        AND json_type(payload_json, '$.method') = 'text' END`,
    afterIndex: "event_index > ?",
    beforeIndex: "event_index < ?",
    createdAfter: "created_at > ?",
    createdBefore: "created_at < ?",
  };
  const conditionOf = ([name, value]: [string, unknown]) =>
    name === "destroyed" ? `destroyed_at IS ${value ? "NOT " : ""}NULL` : conditions[name]!;
  const plans = (table: string, question: object, first: string[], column: string) =>
    directions.flatMap((direction) =>
      ["start", "offset", "key"].map((from) => {
        const [after, order] = direction === "oldest" ? [">", "ASC"] : ["<", "DESC"];
        const all = [...first, ...Object.entries(question).map(conditionOf)];
        if (from === "key") all.push(`(${column}, id) ${after} (?, ?)`);
        const where = all.length > 0 ? `WHERE ${all.join(" AND ")}` : "";
        const text = `SELECT * FROM ${table} ${where} ORDER BY ${column} ${order}, id ${order} LIMIT ?
          ${from === "offset" ? "OFFSET ?" : ""}`;
        const rows = database.prepare(`EXPLAIN QUERY PLAN ${text}`);
        const count = text.split("?").length - 1;
        const plan = rows.all(...Array(count).fill(1)) as { detail: string }[];
        return { text, plan: plan.map(({ detail }) => detail).join("\n") };
      }),
    );
  const assertPlans = (found: { text: string; plan: string }[], index: RegExp) => {
    for (const { text, plan } of found) {
      assert.match(plan, index, text);
      assert.doesNotMatch(plan, /TEMP B-TREE/, text);
    }
  };
  for (const question of eventsQuestions) {
    const found = plans("events", question, ["session_id = ?"], "event_index");
    assertPlans(found, /USING INDEX idx_events_session_order \(session_id=\?/);
  }
  for (const question of sessionsQuestions) {
    assertPlans(plans("sessions", question, [], "created_at"), /USING INDEX idx_sessions_created/);
  }
});

test("no page of PostgreSQL's is sorted", async (t) => {
  const store = await largePostgres(t);
  await fill(store);
  await sql(`ANALYZE ${store.schema}.events`);
  await sql(`ANALYZE ${store.schema}.sessions`);
  const { connectionString } = store.options as { connectionString: string };
  const [{ version }] = await sql("SELECT current_setting('server_version_num')::int AS version");
  for (const preparedStatements of [false, true]) {
    // Older ones can't explain a statement without its values.
    if (preparedStatements && version < 160_000) continue;
    const relay = await relayTo(t, connectionString);
    const driver = openWith(t, {
      connectionString: relay.url,
      schema: store.schema,
      preparedStatements,
    });
    const sent = new Set<string>();
    const match = (bytes: Buffer) => {
      const statements = bytes.toString("latin1").match(/SELECT [^\0]* ORDER BY [^\0]*/g);
      for (const statement of statements ?? []) sent.add(statement);
      return false;
    };
    await driver.countSessions();
    relay.swallow = { match, resolve: () => {} };
    for (const order of directions) {
      for (const question of eventsQuestions) {
        const request = { sessionId: "s3", ...question, order };
        const { nextCursor } = await driver.listEvents(request);
        await driver.listEvents({ ...request, cursor: nextCursor ?? "100" });
        await driver.streamEvents(request).next();
      }
      for (const question of sessionsQuestions) {
        const request = { ...question, order };
        const { nextCursor } = await driver.listSessions(request);
        await driver.listSessions({ ...request, cursor: nextCursor ?? "100" });
        await driver.streamSessions(request).next();
      }
    }
    assert.ok(sent.size >= 60, `${sent.size} statements`);
    const explain = preparedStatements ? "EXPLAIN (GENERIC_PLAN)" : "EXPLAIN";
    for (const statement of sent) {
      const rows = await sql(`${explain} ${statement}`);
      const plan = rows.map((row) => row["QUERY PLAN"]).join("\n");
      const index = statement.includes("payload_json") ? "events_session" : "sessions_created";
      assert.match(
        plan,
        new RegExp(`Index Scan .*using idx_${index}_order`),
        `${statement}\n${plan}`,
      );
      assert.doesNotMatch(plan, /Sort|Seq Scan/, `${statement}\n${plan}`);
    }
  }
});

test("a large session's deletion rides out another process's lock", async (t) => {
  const store = largeSqlite(t);
  await store.addEvents(["large"], 12_000);
  const { filename } = store.options as { filename: string };
  const driver = open(t, { filename });
  const before = (await driver.stats()).lockWaits;
  const other = start("hold-lock", [filename, "300"]);
  await once(other, "message");
  assert.equal(await driver.deleteSession("large"), true);
  assert.equal(await driver.countEvents(), 0);
  assert.ok((await driver.stats()).lockWaits > before, "stats count it");
});

test("a large session's deletion that waits too long for a lock can be done again", async (t) => {
  const store = largeSqlite(t);
  await store.addEvents(["large"], 12_000);
  const { filename } = store.options as { filename: string };
  const driver = open(t, { filename, busyTimeoutMs: 50 });
  const other = start("hold-lock", [filename, "700"]);
  const exited = once(other, "exit");
  await once(other, "message");
  assert.equal((await rejection(driver.deleteSession("large"))).code, "ERR_PERSIST_BUSY");
  assert.equal(await driver.countEvents(), 12_000);
  await exited;
  assert.equal(await driver.deleteSession("large"), true);
});

test("a large session's deletion leaves the lock to other drivers between its steps", async (t) => {
  const store = largeSqlite(t);
  await store.addEvents(["large"], EVENTS);
  const { filename } = store.options as { filename: string };
  const [driver, other] = [open(t, { filename }), open(t, { filename, busyTimeoutMs: 300 })];
  let isDeleted = false;
  const deleted = driver.deleteSession("large").finally(() => (isDeleted = true));
  let inserted = 0;
  while (!isDeleted) {
    await other.insertEvent(event("other", ++inserted));
    await sleep(2);
  }
  assert.equal(await deleted, true);
  assert.equal(await driver.countEvents(), inserted);
});

test("a list waits for no count, and close() for neither counts nor filtered lists", async (t) => {
  const store = largeSqlite(t);
  await store.addEvents(["large"], EVENTS);
  const driver = store.open();
  const filter = { sessionId: "large", method: "none" };
  const settled: string[] = [];
  const counts = [1, 2].map(() => driver.countEvents(filter).then(() => settled.push("count")));
  await driver.listEvents({ sessionId: "small" }).then(() => settled.push("list"));
  await Promise.all(counts);
  assert.deepEqual(settled, ["list", "count", "count"]);
  const endless = [
    rejection(driver.countEvents(filter)),
    rejection(driver.listEvents(filter)),
    rejection(driver.streamEvents(filter).next()),
  ];
  await sleep(20);
  driver.close();
  for (const { code } of await Promise.all(endless)) assert.equal(code, "ERR_PERSIST_CLOSED");
});
