/** What forks of the SDK ask of a driver, on each of ours alike. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { SessionEvent, SessionRecord } from "../index.js";
import { allEvents, event, rejection, session } from "./support/fixtures.ts";
import { stores, type Store } from "./support/stores.ts";

/** A session as a fork has it. */
const onServer = (id: string, serverId: unknown, more = {}) =>
  ({ ...session(id), serverId, ...more }) as SessionRecord;

/** Tables of SDK 0.3's drivers, and of one column more. */
const tables = (serverId: string) => `
  CREATE TABLE $sessions (id TEXT PRIMARY KEY, agent TEXT NOT NULL, agent_session_id TEXT NOT NULL,
    last_connection_id TEXT NOT NULL, created_at BIGINT NOT NULL, destroyed_at BIGINT,
    session_init_json $json, server_id ${serverId});
  CREATE TABLE $events (id TEXT PRIMARY KEY, event_index BIGINT NOT NULL, session_id TEXT NOT NULL,
    created_at BIGINT NOT NULL, connection_id TEXT NOT NULL, sender TEXT NOT NULL,
    payload_json $json NOT NULL);`;
/** What SDK 0.4 added. */
const NEWER = `
  ALTER TABLE $sessions ADD COLUMN sandbox_id TEXT;
  ALTER TABLE $sessions ADD COLUMN config_options_json $json;
  ALTER TABLE $sessions ADD COLUMN modes_json $json;
  CREATE INDEX idx_events_session_order ON $events (session_id, event_index, id);`;

const columnsOf = async (store: Store) => {
  const rows = await store.run("SELECT id, server_id FROM $sessions ORDER BY id");
  return rows.map((row) => [row.id, row.server_id]);
};

for (const [name, create] of Object.entries(stores)) {
  describe(`${name}: serverId`, () => {
    test("is kept in tables without a column for it", async (t) => {
      const driver = create(t).open();
      await driver.updateSession(onServer("s", "one", { later: [1] }));
      assert.deepEqual(await driver.getSession("s"), onServer("s", "one", { later: [1] }));
    });

    for (const [layout, statements] of [
      ["of SDK 0.3", tables("TEXT")],
      ["of SDK 0.4", tables("TEXT") + NEWER],
      ["with a column that each row must fill", tables("VARCHAR(40) NOT NULL") + NEWER],
    ] as const) {
      test(`is read from and written to its column: tables ${layout}`, async (t) => {
        const store = create(t);
        await store.run(statements);
        await store.run(
          `INSERT INTO $sessions (id, agent, agent_session_id, last_connection_id, created_at, server_id)
           VALUES ('theirs', 'mock', 'agent-theirs', 'connection', 1700000000000, 'one')`,
        );
        const driver = store.open();
        assert.deepEqual(await driver.getSession("theirs"), onServer("theirs", "one"));
        await driver.updateSession(onServer("ours", "two's"));
        await driver.updateSession(onServer("theirs", "three"));
        const { items } = await driver.listSessions();
        assert.deepEqual(items, [onServer("ours", "two's"), onServer("theirs", "three")]);
        await driver.close();
        assert.deepEqual(await columnsOf(store), [
          ["ours", "two's"],
          ["theirs", "three"],
        ]);
      });
    }

    test("leaves its column empty where a session has none", async (t) => {
      const store = create(t);
      await store.run(tables("TEXT"));
      const driver = store.open();
      await driver.updateSession(onServer("s", "one"));
      await driver.updateSession(session("s"));
      assert.deepEqual(await driver.getSession("s"), session("s"));
      await driver.close();
      assert.deepEqual(await columnsOf(store), [["s", null]]);
    });

    test("is kept as it is where it is no text", async (t) => {
      const store = create(t);
      await store.run(tables("TEXT"));
      const driver = store.open();
      for (const [id, value] of Object.entries({
        n: 5,
        null: null,
        o: { a: 1 },
        z: "\0",
        u: "\ud800",
      })) {
        await driver.updateSession(onServer(id, value, { later: 1 }));
        assert.deepEqual(await driver.getSession(id), onServer(id, value, { later: 1 }));
      }
    });

    test("in its column counts more than one that was kept before there was the column", async (t) => {
      const store = create(t);
      const before = store.open();
      await before.updateSession(onServer("s", "before"));
      await before.close();
      await store.run("ALTER TABLE $sessions ADD COLUMN server_id TEXT");
      const driver = store.open();
      assert.deepEqual(await driver.getSession("s"), onServer("s", "before"));
      await driver.close();
      await store.run("UPDATE $sessions SET server_id = 'after'");
      assert.deepEqual(await store.open().getSession("s"), onServer("s", "after"));
    });

    for (const column of [
      "TEXT GENERATED ALWAYS AS ('computed') STORED",
      "TEXT NOT NULL DEFAULT 'none'",
      "INTEGER",
      "CHAR(5)",
    ]) {
      test(`passes over a column that can't hold it: ${column}`, async (t) => {
        const store = create(t);
        await store.run(tables(column));
        const driver = store.open();
        await driver.updateSession(onServer("s", "one"));
        await driver.updateSession(session("t"));
        assert.deepEqual(await driver.getSession("s"), onServer("s", "one"));
        assert.deepEqual(await driver.getSession("t"), session("t"));
      });
    }

    test("a session without one is refused where its column must be filled", async (t) => {
      const store = create(t);
      await store.run(tables("TEXT NOT NULL"));
      const refused = await rejection(store.open().updateSession(session("s")));
      assert.equal(refused.code, "ERR_PERSIST_CONSTRAINT");
      assert.match(refused.message, /server_id/);
    });
  });

  describe(`${name}: the second event of an id`, () => {
    const first = event("s", 1, { id: "e", payload: "first" });
    const second = event("s", 2, { id: "e", payload: "second" });
    const payloads = (events: SessionEvent[]) => events.map((each) => each.payload);

    for (const [onDuplicateEvent, expected] of [
      [undefined, "second"],
      ["replace", "second"],
      ["keep", "first"],
    ] as const) {
      test(`after the first: ${onDuplicateEvent}`, async (t) => {
        const driver = create(t).open({ onDuplicateEvent });
        await driver.insertEvent("s", first);
        await driver.insertEvent("s", second);
        assert.deepEqual(payloads(await allEvents(driver, "s")), [expected]);
      });

      test(`in the same turn: ${onDuplicateEvent}`, async (t) => {
        const driver = create(t).open({ onDuplicateEvent });
        const others = Array.from({ length: 150 }, (_, at) => event("s", at + 3));
        await Promise.all([
          driver.insertEvent("s", first),
          driver.insertEvents([...others, second]),
          driver.insertEvents([{ ...second, sessionId: "t", payload: "later" }]),
        ]);
        const stored = [...(await allEvents(driver, "s")), ...(await allEvents(driver, "t"))];
        const ofId = stored.filter((each) => each.id === "e");
        assert.deepEqual(payloads(ofId), [expected === "first" ? "first" : "later"]);
        assert.equal(stored.length, others.length + 1);
      });

      test(`in one batch: ${onDuplicateEvent}`, async (t) => {
        const driver = create(t).open({ onDuplicateEvent });
        await driver.insertEvents([first, second]);
        assert.deepEqual(payloads(await allEvents(driver, "s")), [expected]);
      });
    }

    test("a session's later record counts all the same", async (t) => {
      const driver = create(t).open({ onDuplicateEvent: "keep" });
      await driver.updateSession(session("s"));
      await driver.updateSession(session("s", { agent: "other" }));
      assert.equal((await driver.getSession("s"))!.agent, "other");
    });

    test("is kept out with ready() and a unique order as before", async (t) => {
      const store = create(t);
      const maker = store.open();
      await maker.ready();
      await maker.close();
      await store.run("CREATE UNIQUE INDEX one_place ON $events (session_id, event_index)");
      const driver = store.open({ onDuplicateEvent: "keep" });
      await driver.ready();
      await driver.insertEvent("s", first);
      await driver.insertEvent("s", second);
      const refused = await rejection(driver.insertEvent("s", { ...first, id: "f" }));
      assert.match(
        refused.message,
        /UNIQUE constraint failed: events\.session_id, events\.event_index/,
      );
    });

    test("is of one of two words", (t) => {
      const open = () => create(t).open({ onDuplicateEvent: "ignore" as never });
      const message = 'options.onDuplicateEvent must be "replace" or "keep"';
      assert.throws(open, { code: "ERR_PERSIST_INVALID_ARG", message });
    });
  });
}
