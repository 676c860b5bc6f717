/** What the Postgres driver adds to the contract. */
import assert from "node:assert/strict";
import { describe, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";
import pg from "pg";
import { postgresSchemaSql, PostgresSessionPersistDriver, type SessionEvent } from "../index.js";
import { allEvents, event, rejection, session } from "./support/fixtures.ts";
import { runToEnd } from "./support/fork.ts";
import { databaseUrl, freshSchema, sql } from "./support/postgres.ts";
import {
  freshApplication,
  freshRole,
  openPostgres,
  openTypeScript,
  processesOf,
  snapshot,
  until,
  waitersIn,
  whileHolding,
} from "./support/postgres-around.ts";

const SESSIONS_0_3 = `id TEXT PRIMARY KEY, agent TEXT NOT NULL, agent_session_id TEXT NOT NULL,
  last_connection_id TEXT NOT NULL, created_at BIGINT NOT NULL, destroyed_at BIGINT,
  session_init_json JSONB`;
const REST = `session_id TEXT NOT NULL, created_at BIGINT NOT NULL, connection_id TEXT NOT NULL,
  sender TEXT NOT NULL, payload_json JSONB NOT NULL`;
const EVENTS_0_3 = `id TEXT PRIMARY KEY, event_index BIGINT NOT NULL, ${REST}`;

/** A schema with tables of the definitions, which `rows` fills. */
async function oldSchema(
  t: TestContext,
  { sessions = SESSIONS_0_3, events = EVENTS_0_3, rows = "" } = {},
): Promise<string> {
  const schema = freshSchema(t);
  await sql(`
    CREATE SCHEMA ${schema};
    CREATE TABLE ${schema}.sessions (${sessions});
    CREATE TABLE ${schema}.events (${events});
    CREATE INDEX idx_events_session_created ON ${schema}.events (session_id, created_at);
    ${rows.replaceAll("INTO ", `INTO ${schema}.`)}`);
  return schema;
}

async function schema0_4(t: TestContext): Promise<string> {
  const schema = freshSchema(t);
  await openTypeScript(t, schema).getSession("none");
  return schema;
}

const columnsOf = async (schema: string, table: string) => {
  const rows = await sql(
    `SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS needed
     FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`,
    [`${schema}.${table}`],
  );
  return new Map(rows.map(({ name, type, needed }) => [name, needed ? `${type}!` : type]));
};

const indexed = (events: SessionEvent[]) =>
  events.map(({ id, eventIndex, payload }) => [id, eventIndex, payload]);

/** What one rejects with: its class and code, and that it quotes nothing of the row. */
function assertRefused(
  outcome: PromiseSettledResult<unknown>,
  code: string,
  sqlState: string | undefined,
) {
  assert.ok(outcome.status === "rejected", "it was stored");
  const error = outcome.reason;
  assert.ok(error instanceof Error && !(error instanceof TypeError), inspect(error));
  assert.deepEqual(
    [error.name, (error as any).code, (error as any).sqlState],
    ["Error", code, sqlState],
  );
  assert.doesNotMatch(inspect(error, { depth: 9, showHidden: true }), /sesame/);
  return error;
}
const refused = async (call: Promise<unknown>, code: string, sqlState?: string) =>
  assertRefused((await Promise.allSettled([call]))[0], code, sqlState);

describe("hostile strings", () => {
  const texts = [
    "\u0000",
    "a\u0000b\u0000",
    "\ud800",
    "\udc00\ud800",
    "\ud83d\ud83d\ude00",
    "\\u0000",
    "\\",
    "\\\\'",
    "'",
    "''\"`",
    "'; DROP TABLE sessions; --",
    "\\'; DROP TABLE sessions; --",
    "$$ $do$ $1 $tag$",
    "/* -- */ ? %s :name {}",
    "👩‍👩‍👧 é 漢",
    "\u2028\u2029\ufeff\uffff",
    "\u0001\b\t\n\f\r\u001f\u007f\u0085",
    "$sandboxAgentPersist",
    '{"$sandboxAgentPersist":1}',
    "",
  ];
  const payloads: any[] = [
    ...texts,
    ...texts.map((text) => ({ jsonrpc: "2.0", method: "m", params: { text } })),
    ...texts.map((text) => ({ method: "m", [text]: [{ [text]: text }] })),
    ...texts.map((method) => ({ method })),
    { $sandboxAgentPersist: 1, text: "not wrapped" },
    { $sandboxAgentPersist: 1 },
    { $sandboxAgentPersist: { text: "\u0000" }, method: "m" },
    { params: { $sandboxAgentPersist: 1 } },
    JSON.parse('{"__proto__": {"a": "\\u0000"}, "constructor": 1}'),
    [],
    {},
    null,
    false,
    [5e-324, 1.7976931348623157e308, -1.5, 2 ** 53],
  ];
  const ids = texts.filter((text) => !text.includes("\u0000") && text.isWellFormed());

  const tables: Record<string, (t: TestContext) => Promise<string>> = {
    "new tables": async (t) => freshSchema(t),
    "0.3 tables": (t) => oldSchema(t),
    "0.4 tables": schema0_4,
  };
  const LINES = 1_200_000;
  for (const [name, make] of Object.entries(tables)) {
    for (const setting of ["on", "off"]) {
      const title = `${name}, standard_conforming_strings = ${setting}`;
      /** Opened by a role that the database has the setting for. */
      const open = async (t: TestContext) => {
        const schema = await make(t);
        const { name: role, url } = await freshRole(t, "SUPERUSER");
        await sql(`ALTER ROLE ${role} SET standard_conforming_strings = ${setting}`);
        return openPostgres(t, { connectionString: url, schema });
      };

      test(`come back in payloads: ${title}`, async (t) => {
        const driver = await open(t);
        await Promise.all(
          payloads.map((payload, index) => driver.insertEvent("s", event("s", index, { payload }))),
        );
        const stored = await allEvents(driver, "s");
        assert.equal(stored.length, payloads.length);
        for (const [index, payload] of payloads.entries()) {
          assert.deepEqual(stored[index]!.payload, payload);
        }
      });

      test(`come back in JSON columns of sessions: ${title}`, async (t) => {
        const driver = await open(t);
        const sent = payloads
          .filter((payload) => payload !== null)
          .map((json, index) =>
            session(`s${index}`, { sessionInit: json, configOptions: [json], modes: { json } }),
          );
        await Promise.all(sent.map((each) => driver.updateSession(each)));
        for (const each of sent) assert.deepEqual(await driver.getSession(each.id), each);
        const { items } = await driver.listSessions({ limit: sent.length });
        assert.deepEqual(new Set(items), new Set(sent));
      });

      test(`come back in identifiers: ${title}`, async (t) => {
        const driver = await open(t);
        for (const id of ids) {
          const record = session(id, {
            agent: id,
            agentSessionId: id,
            lastConnectionId: id,
            sandboxId: id,
          });
          const sent = event(id, 1, { id, connectionId: id });
          await Promise.all([driver.updateSession(record), driver.insertEvent(id, sent)]);
          assert.deepEqual(await driver.getSession(id), record);
          assert.deepEqual((await driver.listEvents({ sessionId: id })).items, [sent]);
        }
        assert.equal((await driver.listSessions()).items.length, ids.length);
      });
    }

    test(`20 MB come back: ${name}`, async (t) => {
      const driver = openPostgres(t, { schema: await make(t) });
      const line = "a 'quoted' \\ line\n";
      const sent = [
        event("s", 1, { payload: line.repeat(LINES) }),
        event("s", 2, { payload: `${line.repeat(LINES / 20)}\0` }),
      ];
      await Promise.all(sent.map((each) => driver.insertEvent("s", each)));
      const stored = await allEvents(driver, "s");
      for (const [at, { payload }] of sent.entries()) {
        assert.ok(stored[at]!.payload === payload, "another text came back");
      }
    });

    test(`SQL finds the method beside rows that hold them: ${name}`, async (t) => {
      const schema = await make(t);
      const driver = openPostgres(t, { schema });
      const params = { text: "plain" };
      const sent = [
        { jsonrpc: "2.0", method: "plain", params },
        { jsonrpc: "2.0", method: "nul", params: { text: "\u0000" } },
        { jsonrpc: "2.0", method: "surrogate", params: { text: "\ud800" } },
        { jsonrpc: "2.0", method: "deep key", params: { "\ud800": "\u0000" } },
        { jsonrpc: "2.0", method: "key", "\ud800": 1 },
        { jsonrpc: "2.0", method: "marker", $sandboxAgentPersist: 1 },
        { jsonrpc: "2.0", method: "\u0000" },
        "\u0000",
      ];
      for (const [index, payload] of sent.entries()) {
        await driver.insertEvent("s", event("s", index, { payload }));
      }
      const rows = await sql(
        `SELECT payload_json->>'method' AS method, payload_json->'params' AS params,
           payload_json->>'jsonrpc' AS jsonrpc
         FROM ${schema}.events ORDER BY event_index`,
      );
      assert.deepEqual(
        rows.map(({ method }) => method),
        ["plain", "nul", "surrogate", "deep key", "key", "marker", null, null],
      );
      assert.deepEqual(rows[0].params, params);
      assert.ok(rows.slice(0, 6).every(({ jsonrpc }) => jsonrpc === "2.0"));
    });
  }

  test("beside JSON nested as deep as JSON.stringify goes", async (t) => {
    for (const schema of [freshSchema(t), await schema0_4(t)]) {
      const driver = openPostgres(t, { schema });
      let deep: unknown = "\u0000";
      for (let depth = 0; depth < 2_000; depth += 1) deep = [deep];
      const sent = event("s", 1, { payload: { method: "m", deep } });
      await driver.insertEvent("s", sent);
      const [stored] = await allEvents(driver, "s");
      assert.equal(JSON.stringify(stored), JSON.stringify(sent));
      const [row] = await sql(`SELECT payload_json->>'method' AS method FROM ${schema}.events`);
      assert.equal(row.method, "m");
    }
  });

  test("come back in fields of a newer SDK", async (t) => {
    const driver = openPostgres(t);
    const newer = { later: { texts }, "\ud800": "\u0000", $sandboxAgentPersist: 1, "'": null };
    const [record, sent] = [
      { ...session("s"), ...newer },
      { ...event("s", 1), ...newer },
    ];
    await driver.updateSession(record);
    await driver.insertEvent("s", sent);
    assert.deepEqual(await driver.getSession("s"), record);
    assert.deepEqual((await driver.listEvents({ sessionId: "s" })).items, [sent]);
  });

  test("new tables keep the order of keys and every digit", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    const payload = { zz: 1e21, a: 0.1, 10: "integer keys come first", b: { c: [], a: {} } };
    await driver.insertEvent("s", event("s", 1, { payload }));
    const [row] = await sql(`SELECT payload_json::text AS text FROM ${schema}.events`);
    assert.equal(row.text, JSON.stringify(payload));
  });
});

describe("older layouts", () => {
  const ROW = "'s', 'mock', 'as', 'c', 5, NULL, '{\"cwd\":\"/\"}'";

  test("0.2 and 0.3: sessions without the columns of 0.4", async (t) => {
    const schema = await oldSchema(t, {
      rows: `INSERT INTO sessions VALUES (${ROW});
             INSERT INTO events VALUES ('e', 1, 's', 7, 'c', 'client', '{"a":1}')`,
    });
    const driver = openPostgres(t, { schema });
    assert.deepEqual(await driver.getSession("s"), {
      id: "s",
      agent: "mock",
      agentSessionId: "as",
      lastConnectionId: "c",
      createdAt: 5,
      sessionInit: { cwd: "/" },
    });
    assert.deepEqual((await allEvents(driver, "s"))[0], {
      id: "e",
      eventIndex: 1,
      sessionId: "s",
      createdAt: 7,
      connectionId: "c",
      sender: "client",
      payload: { a: 1 },
    });
    const newer = session("s", { sandboxId: "box", configOptions: [], modes: null });
    await driver.updateSession(newer);
    assert.deepEqual(await driver.getSession("s"), newer);
    const columns = await columnsOf(schema, "sessions");
    assert.equal(columns.get("sandbox_id"), "text");
    assert.equal(columns.get("modes_json"), "jsonb", "as the column beside it");
  });

  const integerIds = {
    integer: "INTEGER PRIMARY KEY",
    bigint: "BIGINT PRIMARY KEY",
    smallint: "SMALLINT PRIMARY KEY",
    serial: "SERIAL PRIMARY KEY",
    bigserial: "BIGSERIAL PRIMARY KEY",
    "identity, by default": "INTEGER GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
    "identity, always": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
  };
  for (const [name, id] of Object.entries(integerIds)) {
    test(`ids become text, and the order is the time's: ${name}`, async (t) => {
      const schema = await oldSchema(t, {
        events: `id ${id}, ${REST}`,
        rows: `INSERT INTO events OVERRIDING SYSTEM VALUE VALUES
          (10, 's', 3, 'c', 'agent', '"third"'), (2, 's', 3, 'c', 'agent', '"second"'),
          (30, 's', 1, 'c', 'client', '"first"'), (4, 't', 9, 'c', 'client', '"alone"')`,
      });
      const driver = openPostgres(t, { schema });
      assert.deepEqual(indexed(await allEvents(driver, "s")), [
        ["30", 1, "first"],
        ["2", 2, "second"],
        ["10", 3, "third"],
      ]);
      assert.deepEqual(indexed(await allEvents(driver, "t")), [["4", 1, "alone"]]);
      await driver.insertEvent("s", event("s", 4, { id: "text", payload: 4 }));
      await driver.insertEvent("s", event("s", 9, { id: "2", payload: 9 }));
      assert.deepEqual(
        (await allEvents(driver, "s")).map((each) => each.id),
        ["30", "10", "text", "2"],
      );
      const columns = await columnsOf(schema, "events");
      assert.deepEqual([columns.get("id"), columns.get("event_index")], ["text!", "bigint!"]);
    });
  }

  test("integer ids with an index keep it", async (t) => {
    const schema = await oldSchema(t, {
      events: `id BIGSERIAL PRIMARY KEY, event_index INTEGER NOT NULL, ${REST}`,
      rows: `INSERT INTO events VALUES (1, 8, 's', 1, 'c', 'agent', '1'), (2, 3, 's', 2, 'c', 'agent', '2')`,
    });
    assert.deepEqual(indexed(await allEvents(openPostgres(t, { schema }), "s")), [
      ["2", 3, 2],
      ["1", 8, 1],
    ]);
  });

  test("an index that is missing is the rank by time and id", async (t) => {
    const schema = await oldSchema(t, {
      events: `id TEXT PRIMARY KEY, ${REST}`,
      rows: `INSERT INTO events VALUES ('b', 's', 2, 'c', 'agent', '2'), ('a', 's', 2, 'c', 'agent', '1'),
        ('c', 's', 1, 'c', 'agent', '0')`,
    });
    assert.deepEqual(indexed(await allEvents(openPostgres(t, { schema }), "s")), [
      ["c", 1, 0],
      ["a", 2, 1],
      ["b", 3, 2],
    ]);
  });

  test("an index that is NULL in places is filled in; present ones stay", async (t) => {
    const schema = await oldSchema(t, {
      events: `id TEXT PRIMARY KEY, event_index BIGINT, ${REST}`,
      rows: `INSERT INTO events VALUES ('a', NULL, 's', 1, 'c', 'agent', '1'),
        ('b', 7, 's', 2, 'c', 'agent', '2'), ('c', NULL, 's', 3, 'c', 'agent', '3'),
        ('d', NULL, 't', 9, 'c', 'agent', '4')`,
    });
    const driver = openPostgres(t, { schema });
    assert.deepEqual(indexed(await allEvents(driver, "s")), [
      ["a", 1, 1],
      ["c", 3, 3],
      ["b", 7, 2],
    ]);
    assert.deepEqual(indexed(await allEvents(driver, "t")), [["d", 1, 4]]);
  });

  for (const [missing, kept] of [
    ["events", "sessions"],
    ["sessions", "events"],
  ] as const) {
    test(`the table "${missing}" alone is missing`, async (t) => {
      const schema = await oldSchema(t, {
        rows: `INSERT INTO sessions VALUES (${ROW});
               INSERT INTO events VALUES ('e', 1, 's', 7, 'c', 'client', '{"a":1}')`,
      });
      await sql(`DROP TABLE ${schema}.${missing}`);
      const driver = openPostgres(t, { schema });
      await driver.insertEvent("s", event("s", 2));
      await driver.updateSession(session("t"));
      const [row] = await sql(`SELECT count(*)::int AS count FROM ${schema}.${kept}`);
      assert.equal(row.count, 2);
    });
  }

  test("opening again changes nothing", async (t) => {
    const schema = await oldSchema(t, {
      events: `id SERIAL PRIMARY KEY, event_index BIGINT, ${REST}`,
      rows: `INSERT INTO sessions VALUES (${ROW});
             INSERT INTO events VALUES (1, NULL, 's', 1, 'c', 'agent', '1')`,
    });
    await openPostgres(t, { schema }).listSessions();
    const before = await snapshot(schema);
    const again = openPostgres(t, { schema });
    assert.equal((await again.listSessions()).items.length, 1);
    assert.equal((await allEvents(again, "s")).length, 1);
    assert.deepEqual(await snapshot(schema), before);
  });

  test("an upgrade that fails leaves the schema as it was", async (t) => {
    const schema = await oldSchema(t, {
      events: `id SERIAL PRIMARY KEY, ${REST}`,
      rows: `INSERT INTO sessions VALUES (${ROW});
             INSERT INTO events VALUES (1, 's', 1, 'c', 'agent', '1')`,
    });
    // Nobody can change the type of a column that a view uses.
    await sql(`CREATE VIEW ${schema}.theirs AS SELECT id FROM ${schema}.events`);
    const before = await snapshot(schema);
    const driver = openPostgres(t, { schema });
    await refused(driver.listSessions(), "ERR_PERSIST_DATABASE", "0A000");
    assert.deepEqual(await snapshot(schema), before);
    await sql(`DROP VIEW ${schema}.theirs`);
    assert.equal((await driver.listSessions()).items.length, 1, "the next call tries again");
  });

  test("columns, indexes, triggers and views that others added survive", async (t) => {
    const schema = await oldSchema(t, {
      events: `id TEXT PRIMARY KEY, event_index BIGINT, ${REST}, "note ""x""" TEXT,
        tenant VARCHAR(5) NOT NULL DEFAULT 'x', size INTEGER GENERATED ALWAYS AS (1) STORED`,
      rows: `INSERT INTO events VALUES ('a', NULL, 's', 1, 'c', 'agent', '1', 'kept', 'y')`,
    });
    await sql(`CREATE INDEX theirs ON ${schema}.events (sender);
      CREATE TABLE ${schema}.log (id TEXT);
      CREATE FUNCTION ${schema}.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO ${schema}.log VALUES (new.id); RETURN new; END $$;
      CREATE TRIGGER logged AFTER INSERT ON ${schema}.events FOR EACH ROW
        EXECUTE FUNCTION ${schema}.note();
      CREATE VIEW ${schema}.newest AS SELECT max(created_at) FROM ${schema}.events`);
    await openPostgres(t, { schema }).insertEvent("s", event("s", 2, { id: "b" }));
    const rows = await sql(
      `SELECT "note ""x""" AS note, tenant, size FROM ${schema}.events ORDER BY id`,
    );
    assert.deepEqual(rows, [
      { note: "kept", tenant: "y", size: 1 },
      { note: null, tenant: "x", size: 1 },
    ]);
    assert.deepEqual(await sql(`SELECT id FROM ${schema}.log`), [{ id: "b" }]);
    assert.equal((await sql(`SELECT * FROM ${schema}.newest`)).length, 1);
    assert.equal((await sql(`SELECT to_regclass('${schema}.theirs') AS is`))[0].is !== null, true);
  });

  test("an upgrade that takes longer than query_timeout is not cut off", async (t) => {
    const schema = await oldSchema(t, {
      events: `id TEXT PRIMARY KEY, event_index BIGINT, ${REST}`,
      rows: `INSERT INTO events VALUES ('a', NULL, 's', 1, 'c', 'agent', '1')`,
    });
    // As many rows would.
    await sql(`CREATE FUNCTION ${schema}.slow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_sleep(1); RETURN new; END $$;
      CREATE TRIGGER slow BEFORE UPDATE ON ${schema}.events FOR EACH ROW
        EXECUTE FUNCTION ${schema}.slow()`);
    const poolConfig = { query_timeout: 300 };
    const driver = openPostgres(t, { schema, poolConfig, retryTimeoutMs: 4_000 });
    assert.deepEqual(indexed(await allEvents(driver, "s")), [["a", 1, 1]]);
  });

  test("an upgrade that waits for a lock holds others up for three seconds at most", async (t) => {
    const schema = await oldSchema(t, { rows: `INSERT INTO sessions VALUES (${ROW})` });
    const driver = openPostgres(t, { schema });
    let longest = 0;
    const open = await whileHolding(`SELECT * FROM ${schema}.sessions`, async (release) => {
      const opening = driver.getSession("s");
      await until(async () => (await waitersIn(schema)) > 0);
      const end = Date.now() + 4_000;
      while (Date.now() < end) {
        const begin = Date.now();
        await sql(`SELECT * FROM ${schema}.sessions`);
        longest = Math.max(longest, Date.now() - begin);
        await sleep(5);
      }
      await release();
      return opening;
    });
    assert.equal(open!.id, "s");
    assert.ok(longest > 1_000 && longest < 3_500, `${longest} ms`);
    await driver.updateSession(session("s", { sandboxId: "box" }));
  });

  test("an upgrade that waits for one table after the other doesn't hold up either longer", async (t) => {
    const schema = await oldSchema(t, { events: `id TEXT PRIMARY KEY, ${REST}` });
    const driver = openPostgres(t, { schema });
    let longest = 0;
    await whileHolding(`SELECT * FROM ${schema}.events`, (releaseEvents) =>
      whileHolding(`SELECT * FROM ${schema}.sessions`, async (releaseSessions) => {
        const opening = driver.listSessions();
        await until(async () => (await waitersIn(schema)) > 0);
        const end = Date.now() + 5_500;
        const released = sleep(2_500).then(releaseSessions);
        while (Date.now() < end) {
          const begin = Date.now();
          await sql(`SELECT * FROM ${schema}.sessions`);
          longest = Math.max(longest, Date.now() - begin);
          await sleep(5);
        }
        await Promise.all([released, releaseEvents()]);
        await opening;
      }),
    );
    assert.ok(longest < 3_500, `${longest} ms`);
  });
});

describe("a current schema of SDK 0.4", () => {
  test("opens without a change, for a role that can make none", async (t) => {
    const schema = await schema0_4(t);
    const { name, url } = await freshRole(t);
    await sql(`GRANT USAGE ON SCHEMA ${schema} TO ${name};
      GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA ${schema} TO ${name}`);
    const before = await snapshot(schema);
    const driver = openPostgres(t, { connectionString: url, schema });
    assert.deepEqual(await driver.listSessions(), { items: [] });
    assert.deepEqual(await snapshot(schema), before);
    await driver.updateSession(session("s", { modes: null }));
    await driver.insertEvent("s", event("s", 1));
    assert.deepEqual(await driver.getSession("s"), session("s", { modes: null }));
    assert.equal((await allEvents(driver, "s")).length, 1);
  });

  test("opens without a change for its owner", async (t) => {
    const schema = await schema0_4(t);
    const before = await snapshot(schema);
    await openPostgres(t, { schema }).listSessions();
    assert.deepEqual(await snapshot(schema), before);
  });

  test("opens while another transaction uses its tables", async (t) => {
    const schema = await schema0_4(t);
    await openTypeScript(t, schema).updateSession(session("s"));
    await whileHolding(`LOCK TABLE ${schema}.sessions IN ROW EXCLUSIVE MODE`, async () => {
      assert.equal((await openPostgres(t, { schema }).getSession("s"))!.id, "s");
      assert.equal(await waitersIn(schema), 0);
    });
  });

  test("drops the fields of a newer SDK with one warning; our own tables keep them", async (t) => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on("warning", onWarning);
    t.after(() => process.off("warning", onWarning));
    const newer = { later: { a: 1 } };
    for (const schema of [await schema0_4(t), await schema0_4(t)]) {
      const driver = openPostgres(t, { schema });
      await driver.updateSession({ ...session("s"), ...newer });
      const sent = event("s", 1);
      await driver.insertEvent("s", { ...sent, ...newer } as SessionEvent);
      assert.deepEqual(await driver.getSession("s"), session("s"));
      assert.deepEqual(await allEvents(driver, "s"), [sent]);
    }
    const own = openPostgres(t);
    await own.updateSession({ ...session("s"), ...newer });
    assert.deepEqual(await own.getSession("s"), { ...session("s"), ...newer });
    await sleep(20);
    const ours = warnings.filter(({ name }) => name === "SandboxAgentPersistWarning");
    assert.equal(ours.length, 1, inspect(warnings));
    assert.match(ours[0]!.message, /extra_json/);
  });

  test("columns of ours that somebody added to it keep the fields of a newer SDK", async (t) => {
    const schema = await schema0_4(t);
    await sql(`ALTER TABLE ${schema}.sessions ADD COLUMN extra_json jsonb;
      ALTER TABLE ${schema}.events ADD COLUMN extra_json jsonb`);
    const driver = openPostgres(t, { schema });
    const sent = { ...event("s", 1), later: ["\u0000"] };
    await driver.insertEvent("s", sent);
    assert.deepEqual(await allEvents(driver, "s"), [sent]);
  });
});

describe("without the privilege to create", () => {
  const parts: Record<string, { make: (t: TestContext) => Promise<string>; missing: RegExp[] }> = {
    "the schema": {
      make: async (t) => freshSchema(t),
      missing: [/schema "test_\w+"/, /"sessions"/, /"events"/],
    },
    "the tables": {
      make: async (t) => {
        const schema = freshSchema(t);
        await sql(`CREATE SCHEMA ${schema}`);
        return schema;
      },
      missing: [/the table "sessions"/, /the table "events"/],
    },
    "a table": {
      make: async (t) => {
        const schema = await schema0_4(t);
        await sql(`DROP TABLE ${schema}.events`);
        return schema;
      },
      missing: [/the table "events"/],
    },
    "a column": {
      make: async (t) => {
        const schema = await schema0_4(t);
        await sql(`ALTER TABLE ${schema}.sessions DROP COLUMN modes_json`);
        return schema;
      },
      missing: [/the column "sessions"."modes_json"/],
    },
    "the columns of 0.4": {
      make: (t) => oldSchema(t),
      missing: [/"sandbox_id"/, /"config_options_json"/, /"modes_json"/],
    },
    "the index": {
      make: async (t) => {
        const schema = await schema0_4(t);
        await sql(`DROP INDEX ${schema}.idx_events_session_order`);
        return schema;
      },
      missing: [/"idx_events_session_order"/],
    },
  };
  for (const [name, { make, missing }] of Object.entries(parts)) {
    test(`${name} is missing: the error says so, until an admin has made it`, async (t) => {
      const schema = await make(t);
      const { name: role, url } = await freshRole(t);
      const grant = () =>
        sql(`GRANT USAGE ON SCHEMA ${schema} TO ${role};
          GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA ${schema} TO ${role}`);
      if (name !== "the schema") await grant();
      const driver = openPostgres(t, { connectionString: url, schema });
      for (const call of [() => driver.listSessions(), () => driver.updateSession(session("s"))]) {
        const error = await refused(call(), "ERR_PERSIST_SCHEMA", "42501");
        for (const part of missing) assert.match(error.message, part);
        assert.match(error.message, /postgresSchemaSql/);
      }
      await sql(postgresSchemaSql(schema));
      await grant();
      await driver.updateSession(session("s"));
      await driver.insertEvent("s", event("s", 1));
      assert.equal((await driver.listSessions()).items.length, 1);
    });
  }
});

describe("migrate: false", () => {
  test("on an empty schema", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema, migrate: false });
    const error = await refused(driver.listSessions(), "ERR_PERSIST_SCHEMA");
    for (const part of [/the table "sessions"/, /the table "events"/, /postgresSchemaSql/]) {
      assert.match(error.message, part);
    }
    assert.deepEqual(await sql("SELECT FROM pg_namespace WHERE nspname = $1", [schema]), []);
    await sql(postgresSchemaSql(schema));
    await driver.insertEvent("s", event("s", 1));
  });

  test("on 0.3 tables", async (t) => {
    const schema = await oldSchema(t);
    const before = await snapshot(schema);
    const driver = openPostgres(t, { schema, migrate: false });
    const error = await refused(driver.updateSession(session("s")), "ERR_PERSIST_SCHEMA");
    for (const name of ["sandbox_id", "config_options_json", "modes_json"]) {
      assert.match(error.message, new RegExp(`the column "sessions"."${name}"`));
    }
    assert.match(error.message, /"idx_events_session_order"/);
    assert.deepEqual(await snapshot(schema), before);
  });

  test("on the oldest tables", async (t) => {
    const schema = await oldSchema(t, { events: `id SERIAL PRIMARY KEY, ${REST}` });
    const before = await snapshot(schema);
    const driver = openPostgres(t, { schema, migrate: false });
    const error = await refused(driver.listSessions(), "ERR_PERSIST_SCHEMA");
    for (const part of [/ids of events as text/, /the column "events"."event_index"/]) {
      assert.match(error.message, part);
    }
    assert.deepEqual(await snapshot(schema), before);
  });

  test("on a current schema", async (t) => {
    const driver = openPostgres(t, { schema: await schema0_4(t), migrate: false });
    await driver.insertEvent("s", event("s", 1));
  });
});

describe("postgresSchemaSql()", () => {
  test("is harmless when run twice, and makes what the driver makes", async (t) => {
    const [printed, made] = [freshSchema(t), freshSchema(t)];
    await sql(postgresSchemaSql(printed));
    await sql(postgresSchemaSql(printed));
    await openPostgres(t, { schema: made }).listSessions();
    for (const table of ["sessions", "events"]) {
      assert.deepEqual(await columnsOf(printed, table), await columnsOf(made, table));
    }
    const indexes = (schema: string) =>
      sql("SELECT indexname FROM pg_indexes WHERE schemaname = $1 ORDER BY 1", [schema]);
    assert.deepEqual(await indexes(printed), await indexes(made));
  });

  test("brings 0.3 tables up to date without loss", async (t) => {
    const schema = await oldSchema(t, {
      rows: `INSERT INTO sessions VALUES ('s', 'mock', 'as', 'c', 5, NULL, '{"cwd":"/"}');
             INSERT INTO events VALUES ('e', 1, 's', 7, 'c', 'client', '{"a":1}')`,
    });
    await sql(postgresSchemaSql(schema));
    await sql(postgresSchemaSql(schema));
    const driver = openPostgres(t, { schema, migrate: false });
    assert.deepEqual((await driver.getSession("s"))!.sessionInit, { cwd: "/" });
    assert.deepEqual(indexed(await allEvents(driver, "s")), [["e", 1, { a: 1 }]]);
    const full = { ...session("s", { sandboxId: "box", modes: null }), later: 1 };
    await driver.updateSession(full);
    assert.deepEqual(await driver.getSession("s"), full);
  });

  test("is for the schema public by default, and refuses other names", () => {
    assert.equal(postgresSchemaSql(), postgresSchemaSql("public"));
    assert.throws(() => postgresSchemaSql("x; DROP"), {
      name: "TypeError",
      code: "ERR_PERSIST_INVALID_ARG",
      message: "Invalid schema name 'x; DROP'. Use letters, numbers, and underscores only.",
    });
  });
});

describe("tables of somebody else's", () => {
  const foreign: Record<string, [table: string, sql: string]> = {
    "other columns, sessions": [
      "sessions",
      "CREATE TABLE sessions (sid TEXT PRIMARY KEY, sess JSON)",
    ],
    "other columns, events": [
      "events",
      "CREATE TABLE events (id TEXT PRIMARY KEY, at TIMESTAMPTZ)",
    ],
    "another primary key, sessions": [
      "sessions",
      `CREATE TABLE sessions (${SESSIONS_0_3.replace("id TEXT PRIMARY KEY", "id TEXT")},
        PRIMARY KEY (id, agent))`,
    ],
    "another primary key, events": [
      "events",
      `CREATE TABLE events (${EVENTS_0_3.replace("id TEXT PRIMARY KEY", "id TEXT")},
        PRIMARY KEY (session_id, event_index))`,
    ],
    "no primary key": [
      "events",
      `CREATE TABLE events (${EVENTS_0_3.replace("id TEXT PRIMARY KEY", "id TEXT")})`,
    ],
    "a column that needs a value, sessions": [
      "sessions",
      `CREATE TABLE sessions (${SESSIONS_0_3}, tenant TEXT NOT NULL)`,
    ],
    "a column that needs a value, events": [
      "events",
      `CREATE TABLE events (${EVENTS_0_3}, tenant TEXT NOT NULL)`,
    ],
    "a view": ["sessions", "CREATE VIEW sessions AS SELECT 'a' AS id, 'b' AS agent"],
    "a view with all columns": [
      "sessions",
      `CREATE TABLE stored (${SESSIONS_0_3}, sandbox_id TEXT, config_options_json JSONB,
        modes_json JSONB); CREATE VIEW sessions AS SELECT * FROM stored`,
    ],
    "a sequence": ["events", "CREATE SEQUENCE events"],
  };
  for (const [name, [table, statements]] of Object.entries(foreign)) {
    test(`are left alone: ${name}`, async (t) => {
      const schema = freshSchema(t);
      const inSchema = statements.replace(/(TABLE|VIEW|SEQUENCE|FROM) /g, `$1 ${schema}.`);
      await sql(`CREATE SCHEMA ${schema}; ${inSchema}`);
      const before = await snapshot(schema);
      const driver = openPostgres(t, { schema });
      for (const call of [
        () => driver.listSessions(),
        () => driver.insertEvent("s", event("s", 1)),
      ]) {
        const error = await refused(call(), "ERR_PERSIST_FOREIGN_TABLE");
        assert.match(error.message, new RegExp(`"${table}"`));
        assert.match(error.message, new RegExp(`"${schema}"`));
      }
      assert.deepEqual(await snapshot(schema), before);
    });
  }

  test("of the same name in another schema of the search path don't matter", async (t) => {
    const [theirs, schema] = [freshSchema(t), freshSchema(t)];
    await sql(`CREATE SCHEMA ${theirs}; CREATE TABLE ${theirs}.sessions (sid TEXT)`);
    const poolConfig = { options: `-c search_path=${theirs}` };
    const driver = openPostgres(t, { schema, poolConfig });
    await driver.updateSession(session("s"));
    assert.equal((await driver.listSessions()).items.length, 1);
  });
});

test("ten processes start on a new schema at once", async (t) => {
  const schema = freshSchema(t);
  const options = JSON.stringify({ connectionString: databaseUrl(), schema });
  const sessions = Array.from({ length: 10 }, (_, index) => `s${index}`);
  const ended = await Promise.all(
    sessions.map((id) => runToEnd("postgres-insert", [options, id, "3"])),
  );
  for (const { code, stderr } of ended) assert.equal(code, 0, stderr);
  const driver = openPostgres(t, { schema });
  for (const id of sessions) assert.equal((await allEvents(driver, id)).length, 3);
});

test("thirty drivers of one process start on a new schema at once", async (t) => {
  const schema = freshSchema(t);
  const poolConfig = { max: 2 };
  const opened = Array.from({ length: 30 }, () => openPostgres(t, { schema, poolConfig }));
  await Promise.all(opened.map((driver, index) => driver.insertEvent("s", event("s", index))));
  assert.equal((await allEvents(opened[0]!, "s")).length, 30);
});

describe("beside a TypeScript driver", () => {
  test("it reads and writes the schema that ours made", async (t) => {
    const schema = freshSchema(t);
    const [ours, theirs] = [openPostgres(t, { schema }), openTypeScript(t, schema)];
    const full = session("s", {
      destroyedAt: 9,
      sandboxId: "box",
      sessionInit: { cwd: "/" },
      configOptions: [{ id: "model" }],
      modes: { a: 1 },
    });
    await ours.updateSession(full);
    assert.deepEqual(await theirs.getSession("s"), full);
    const sent = [event("s", 1), event("s", 2), event("s", 3)];
    await ours.insertEvent("s", sent[0]!);
    await theirs.insertEvent("s", sent[1]!);
    await ours.insertEvent("s", sent[2]!);
    assert.deepEqual(await allEvents(theirs, "s"), sent);
    assert.deepEqual(await allEvents(ours, "s"), sent);
    const replaced = { ...sent[0]!, payload: "theirs" };
    await theirs.insertEvent("s", replaced);
    assert.deepEqual((await ours.listEvents({ sessionId: "s", limit: 1 })).items, [replaced]);
    await theirs.updateSession(session("s", { modes: null }));
    assert.deepEqual(await ours.getSession("s"), session("s", { modes: null }));
  });

  test("ours reads and writes the schema that it made", async (t) => {
    const schema = freshSchema(t);
    const theirs = openTypeScript(t, schema);
    await theirs.updateSession(session("s", { sessionInit: { b: 1, aa: 2 } }));
    const sent = [event("s", 1), event("s", 2)];
    await theirs.insertEvent("s", sent[0]!);
    const ours = openPostgres(t, { schema });
    await ours.insertEvent("s", sent[1]!);
    assert.deepEqual(await ours.getSession("s"), session("s", { sessionInit: { b: 1, aa: 2 } }));
    assert.deepEqual(await allEvents(ours, "s"), sent);
    assert.deepEqual(await allEvents(theirs, "s"), sent);
  });

  test("each continues from the other's cursor", async (t) => {
    const schema = freshSchema(t);
    const [ours, theirs] = [openPostgres(t, { schema }), openTypeScript(t, schema)];
    const sent = Array.from({ length: 25 }, (_, index) => event("s", index));
    await Promise.all(sent.map((each) => ours.insertEvent("s", each)));
    await Promise.all(
      sent.map((_, index) => ours.updateSession(session(`s${index}`, { createdAt: index }))),
    );
    for (const [first, second] of [
      [ours, theirs],
      [theirs, ours],
    ] as const) {
      const head = await first.listEvents({ sessionId: "s", limit: 10 });
      const request = { sessionId: "s", limit: 100, cursor: head.nextCursor };
      const tail = await second.listEvents(request);
      assert.deepEqual([...head.items, ...tail.items], sent);
      const { nextCursor: cursor } = await first.listSessions({ limit: 10 });
      assert.equal((await second.listSessions({ cursor })).items[0]!.id, "s10");
    }
  });
});

describe("a row that the server refuses", () => {
  /** Events of a session: all but the first go out together, the third with this connection. */
  const oneRound = (connectionId: string) =>
    [1, 2, 3, 4, 5, 6].map((index) => event("s", index, index === 3 ? { connectionId } : {}));

  test("rejects alone: a CHECK", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.listSessions();
    await sql(`ALTER TABLE ${schema}.events ADD CONSTRAINT polite
      CHECK (payload_json::text NOT LIKE '%sesame%')`);
    const bad = new Set([13, 99, 100]);
    const calls = Array.from({ length: 200 }, (_, index) =>
      driver.insertEvent("s", event("s", index, { payload: bad.has(index) ? "sesame" : index })),
    );
    const outcomes = await Promise.allSettled(calls);
    for (const [index, outcome] of outcomes.entries()) {
      if (!bad.has(index)) assert.equal(outcome.status, "fulfilled");
      else {
        const error = assertRefused(outcome, "ERR_PERSIST_CONSTRAINT", "23514");
        assert.match(error.message, /polite/);
      }
    }
    const stored = await allEvents(driver, "s");
    assert.deepEqual(
      stored.map(({ eventIndex }) => eventIndex),
      Array.from({ length: 200 }, (_, index) => index).filter((index) => !bad.has(index)),
    );
  });

  test("says what the SDK looks for if its index is taken", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.listSessions();
    await sql(`CREATE UNIQUE INDEX one ON ${schema}.events (session_id, event_index)`);
    const id = "sesame), (x";
    const [stored, taken, other] = await Promise.allSettled([
      driver.insertEvent(id, event(id, 1)),
      driver.insertEvent(id, event(id, 1)),
      driver.insertEvent(id, event(id, 2)),
    ]);
    assert.deepEqual([stored.status, other.status], ["fulfilled", "fulfilled"]);
    const error = assertRefused(taken, "ERR_PERSIST_CONSTRAINT", "23505");
    assert.match(error.message, /UNIQUE constraint failed: .*session_id, .*event_index/);
    assert.equal((await allEvents(driver, id)).length, 2);
  });

  test("says so for a role that the server tells no details", async (t) => {
    const schema = freshSchema(t);
    await sql(postgresSchemaSql(schema));
    const { name, url } = await freshRole(t);
    await sql(`GRANT USAGE ON SCHEMA ${schema} TO ${name};
      GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA ${schema} TO ${name};
      CREATE UNIQUE INDEX one ON ${schema}.events (session_id, event_index);
      ALTER TABLE ${schema}.events ENABLE ROW LEVEL SECURITY;
      CREATE POLICY everything ON ${schema}.events USING (true)`);
    const driver = openPostgres(t, { connectionString: url, schema });
    await driver.insertEvent("s", event("s", 1));
    const taken = driver.insertEvent("s", event("s", 1));
    const error = await refused(taken, "ERR_PERSIST_CONSTRAINT", "23505");
    assert.match(error.message, /UNIQUE constraint failed: .*session_id, .*event_index/);
  });

  test("rejects alone: what a trigger raises, without the text it raises", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.listSessions();
    await sql(`CREATE FUNCTION ${schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF new.payload_json::text LIKE '%sesame%' THEN
            RAISE EXCEPTION '%', new.payload_json
              USING DETAIL = new.payload_json, HINT = new.payload_json;
          END IF;
          RETURN new;
        END $$;
      CREATE TRIGGER refuse BEFORE INSERT ON ${schema}.events FOR EACH ROW
        EXECUTE FUNCTION ${schema}.refuse()`);
    const outcomes = await Promise.allSettled(
      ["a", "sesame", "b"].map((payload, index) =>
        driver.insertEvent("s", event("s", index, { payload })),
      ),
    );
    assertRefused(outcomes[1]!, "ERR_PERSIST_DATABASE", "P0001");
    assert.equal((await allEvents(driver, "s")).length, 2);
  });

  for (const [sqlState, code] of [
    ["P0001", "ERR_PERSIST_DATABASE"],
    ["23505", "ERR_PERSIST_CONSTRAINT"],
    ["23502", "ERR_PERSIST_CONSTRAINT"],
    ["22023", "ERR_PERSIST_DATABASE"],
    ["42501", "ERR_PERSIST_DATABASE"],
    ["55000", "ERR_PERSIST_DATABASE"],
    ["57014", "ERR_PERSIST_DATABASE"],
    ["28000", "ERR_PERSIST_DATABASE"],
  ] as const) {
    test(`a trigger gets no text of the row into a message: ${sqlState}`, async (t) => {
      const schema = freshSchema(t);
      const driver = openPostgres(t, { schema });
      await driver.listSessions();
      await sql(`CREATE FUNCTION ${schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN
            RAISE EXCEPTION '%', new.payload_json USING ERRCODE = '${sqlState}',
              DETAIL = new.payload_json, HINT = new.payload_json, CONSTRAINT = new.payload_json,
              TABLE = new.payload_json, COLUMN = new.payload_json;
          END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON ${schema}.events FOR EACH ROW
          EXECUTE FUNCTION ${schema}.refuse()`);
      for (const payload of ["sesame", "Key (sesame)=(sesame) already exists."]) {
        const call = driver.insertEvent("s", event("s", 1, { payload }));
        await refused(call, code, sqlState);
      }
    });
  }

  test("rejects alone: a policy", async (t) => {
    const schema = freshSchema(t);
    await sql(postgresSchemaSql(schema));
    const { name, url } = await freshRole(t);
    await sql(`GRANT USAGE ON SCHEMA ${schema} TO ${name};
      GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA ${schema} TO ${name};
      ALTER TABLE ${schema}.events ENABLE ROW LEVEL SECURITY;
      CREATE POLICY ours ON ${schema}.events USING (connection_id NOT LIKE '%sesame%')`);
    const driver = openPostgres(t, { connectionString: url, schema });
    await driver.listSessions();
    const outcomes = await Promise.allSettled(
      oneRound("open sesame").map((each) => driver.insertEvent("s", each)),
    );
    assertRefused(outcomes[2]!, "ERR_PERSIST_DATABASE", "42501");
    assert.equal((await sql(`SELECT FROM ${schema}.events`)).length, 5);
  });

  test("rejects alone: a state of somebody's own", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.listSessions();
    await sql(`CREATE FUNCTION ${schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'over the quota' USING ERRCODE = 'QU001'; END $$;
      CREATE TRIGGER refuse BEFORE INSERT ON ${schema}.events FOR EACH ROW
        WHEN (new.connection_id = 'sesame') EXECUTE FUNCTION ${schema}.refuse()`);
    const outcomes = await Promise.allSettled(
      oneRound("sesame").map((each) => driver.insertEvent("s", each)),
    );
    assertRefused(outcomes[2]!, "ERR_PERSIST_DATABASE", "QU001");
    assert.equal((await sql(`SELECT FROM ${schema}.events`)).length, 5);
  });

  test("rejects alone: a value too long for its column", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.listSessions();
    await sql(`ALTER TABLE ${schema}.events ALTER COLUMN connection_id TYPE varchar(5);
      ALTER TABLE ${schema}.sessions ALTER COLUMN created_at TYPE integer`);
    const outcomes = await Promise.allSettled([
      driver.insertEvent("s", event("s", 1, { connectionId: "c" })),
      driver.insertEvent("s", event("s", 2, { connectionId: "open sesame" })),
      driver.insertEvent("s", event("s", 3, { connectionId: "d" })),
      driver.updateSession(session("s", { createdAt: 2 ** 40, agent: "sesame" })),
      driver.updateSession(session("t", { createdAt: 5 })),
    ]);
    assertRefused(outcomes[1]!, "ERR_PERSIST_DATABASE", "22001");
    assertRefused(outcomes[3]!, "ERR_PERSIST_DATABASE", "22003");
    assert.equal((await allEvents(driver, "s")).length, 2);
    assert.equal((await driver.listSessions()).items.length, 1);
  });
});

describe("calls that aren't awaited", () => {
  test("a read sees 1,000 inserts called before it", async (t) => {
    const driver = openPostgres(t);
    const inserts = [];
    for (let index = 1; index <= 1_000; index += 1) {
      inserts.push(driver.insertEvent("s", event("s", index)));
    }
    const { items } = await driver.listEvents({ sessionId: "s", limit: 2_000 });
    assert.deepEqual(
      items.map(({ eventIndex }) => eventIndex),
      Array.from({ length: 1_000 }, (_, index) => index + 1),
    );
    await Promise.all(inserts);
  });

  test("the last write of an event wins", async (t) => {
    const driver = openPostgres(t);
    const writes = [];
    for (let payload = 0; payload < 500; payload += 1) {
      writes.push(driver.insertEvent("s", event("s", 1, { id: "same", payload })));
    }
    assert.equal((await driver.listEvents({ sessionId: "s" })).items[0]!.payload, 499);
    await Promise.all(writes);
    assert.equal((await allEvents(driver, "s"))[0]!.payload, 499);
  });

  test("the last write of an id wins, whatever session it moves to", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    const writes = [];
    for (let round = 0; round < 300; round += 1) {
      const sessionId = `s${round % 7}`;
      writes.push(driver.insertEvent(sessionId, event(sessionId, round, { id: "same" })));
    }
    await Promise.all(writes);
    const rows = await sql(`SELECT session_id, event_index::int FROM ${schema}.events`);
    assert.deepEqual(rows, [{ session_id: "s5", event_index: 299 }]);
  });

  test("an event that moves away is gone from its session", async (t) => {
    const driver = openPostgres(t);
    await driver.insertEvent("from", event("from", 1, { id: "same" }));
    void driver.insertEvent("to", event("to", 1, { id: "same" }));
    await driver.listEvents({ sessionId: "to" });
    assert.deepEqual((await driver.listEvents({ sessionId: "from" })).items, []);
  });

  test("getSession and listSessions see the updates called before them", async (t) => {
    const driver = openPostgres(t);
    for (let round = 0; round < 50; round += 1) {
      const updated = driver.updateSession(session("s", { createdAt: round }));
      const [read, list] = await Promise.all([driver.getSession("s"), driver.listSessions()]);
      assert.equal(read!.createdAt, round);
      assert.equal(list.items[0]!.createdAt, round);
      await updated;
    }
  });

  test("listSessions sees 200 updates of different sessions", async (t) => {
    const driver = openPostgres(t);
    const updates = Array.from({ length: 200 }, (_, index) =>
      driver.updateSession(session(`s${index}`)),
    );
    assert.equal((await driver.listSessions({ limit: 500 })).items.length, 200);
    await Promise.all(updates);
  });

  test("promises of a session settle in the order of the calls", async (t) => {
    const driver = openPostgres(t);
    const settled = new Map<string, number[]>();
    const writes = Array.from({ length: 600 }, (_, index) => {
      const id = `s${index % 6}`;
      const order = settled.get(id) ?? [];
      settled.set(id, order);
      return driver.insertEvent(id, event(id, index)).then(() => order.push(index));
    });
    await Promise.all(writes);
    for (const order of settled.values()) {
      assert.deepEqual(
        order,
        [...order].sort((a, b) => a - b),
      );
    }
  });

  test("writes of other sessions pass one that waits for a lock", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.insertEvent("held", event("held", 1, { id: "held" }));
    await whileHolding(
      `SELECT FROM ${schema}.events WHERE id = 'held' FOR UPDATE`,
      async (release) => {
        const waiting = driver.insertEvent("held", event("held", 2, { id: "held" }));
        await until(async () => {
          const text = `SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1`;
          return (await sql(text, [`%${schema}%`])).length > 0;
        });
        await driver.insertEvent("free", event("free", 1));
        await release();
        await waiting;
      },
    );
  });
});

test("maxQueuedBytes refuses calls while a lock holds up writes, until there is room", async (t) => {
  const schema = freshSchema(t);
  const driver = openPostgres(t, { schema, maxQueuedBytes: 100_000 });
  await driver.listSessions();
  const payload = "sesame ".repeat(1_000);
  let outcomes: PromiseSettledResult<void>[] = [];
  await whileHolding(`LOCK TABLE ${schema}.events`, async (release) => {
    const calls = Array.from({ length: 40 }, (_, index) =>
      driver.insertEvent("s", event("s", index, { payload })),
    );
    const settled = Promise.allSettled(calls);
    const first = driver.insertEvent("s", event("s", 41, { payload }));
    await refused(first, "ERR_PERSIST_OVERLOADED");
    await release();
    outcomes = await settled;
  });
  const stored = outcomes.filter(({ status }) => status === "fulfilled").length;
  assert.ok(stored >= 5 && stored <= 14, `${stored} were stored`);
  for (const outcome of outcomes.slice(stored))
    assertRefused(outcome, "ERR_PERSIST_OVERLOADED", undefined);
  assert.equal((await allEvents(driver, "s")).length, stored);
  await driver.insertEvent("s", event("s", 42, { payload }));
});

test("maxQueuedBytes never refuses the only call", async (t) => {
  const driver = openPostgres(t, { maxQueuedBytes: 0 });
  await driver.insertEvent("s", event("s", 1));
  await driver.updateSession(session("s"));
});

describe("close()", () => {
  test("makes what is queued durable first, and settles every promise", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    const calls: Promise<unknown>[] = [];
    for (let index = 1; index <= 300; index += 1) {
      calls.push(driver.insertEvent("s", event("s", index)));
      if (index % 10 === 0) calls.push(driver.listEvents({ sessionId: "s" }));
    }
    const settled = Promise.allSettled(calls);
    await driver.close();
    const [row] = await sql(`SELECT count(*)::int AS count FROM ${schema}.events`);
    assert.equal(row.count, 300);
    for (const [at, outcome] of (await settled).entries()) {
      if (at % 11 !== 10) assert.equal(outcome.status, "fulfilled");
      else if (outcome.status === "rejected") {
        assertRefused(outcome, "ERR_PERSIST_CLOSED", undefined);
      }
    }
  });

  test("rejects queued reads at once, and waits for writes", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.listSessions();
    await whileHolding(`LOCK TABLE ${schema}.events`, async (release) => {
      const written = driver.insertEvent("s", event("s", 1));
      const read = driver.listEvents({ sessionId: "s" });
      const closed = driver.close();
      await refused(read, "ERR_PERSIST_CLOSED");
      await release();
      await Promise.all([written, closed]);
    });
    const [row] = await sql(`SELECT count(*)::int AS count FROM ${schema}.events`);
    assert.equal(row.count, 1);
  });

  test("lets a running read finish", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.insertEvent("s", event("s", 1));
    await whileHolding(`LOCK TABLE ${schema}.events`, async (release) => {
      const read = driver.listEvents({ sessionId: "s" });
      await until(async () => (await waitersIn(schema)) > 0);
      const closed = driver.close();
      await release();
      assert.equal((await read).items.length, 1);
      await closed;
    });
  });

  for (const when of ["before any call", "after one"]) {
    test(`${when}: later calls reject, and a second one is fine`, async (t) => {
      const driver = openPostgres(t);
      if (when === "after one") await driver.listSessions();
      const closing = [driver.close(), driver.close()];
      for (const call of [
        () => driver.getSession("s"),
        () => driver.listSessions(),
        () => driver.updateSession(session("s")),
        () => driver.listEvents({ sessionId: "s" }),
        () => driver.insertEvent("s", event("s", 1)),
      ]) {
        await refused(call(), "ERR_PERSIST_CLOSED");
      }
      assert.deepEqual(await Promise.all(closing), [undefined, undefined]);
      await refused(driver.listSessions(), "ERR_PERSIST_CLOSED");
      await driver.close();
    });
  }

  test("a second one waits for the first", async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    await driver.listSessions();
    await whileHolding(`LOCK TABLE ${schema}.events`, async (release) => {
      const written = driver.insertEvent("s", event("s", 1));
      const order: string[] = [];
      const first = driver.close().then(() => order.push("first"));
      const second = driver.close().then(() => order.push("second"));
      await sleep(50);
      assert.deepEqual(order, []);
      await release();
      await Promise.all([written, first, second]);
    });
  });

  test("is what `await using` calls", async (t) => {
    assert.ok(Symbol.asyncDispose, "every Node from 20 on has it");
    const schema = freshSchema(t);
    let driver;
    {
      await using scoped = new PostgresSessionPersistDriver({
        connectionString: databaseUrl(),
        schema,
      });
      driver = scoped;
      void scoped.insertEvent("s", event("s", 1));
    }
    await refused(driver.getSession("s"), "ERR_PERSIST_CLOSED");
    assert.equal((await sql(`SELECT FROM ${schema}.events`)).length, 1);
  });

  test("leaves no connection", async (t) => {
    const application_name = freshApplication();
    const driver = openPostgres(t, { poolConfig: { application_name } });
    await Promise.all(
      Array.from({ length: 50 }, (_, index) => driver.listEvents({ sessionId: `s${index}` })),
    );
    assert.ok((await processesOf(application_name)).length > 0);
    await driver.close();
    // A server process takes a moment to end.
    await until(async () => (await processesOf(application_name)).length === 0);
  });

  test("leaves a pool that was passed in alone, which was never connected", async (t) => {
    const pool = new pg.Pool({ connectionString: databaseUrl(), max: 3 });
    t.after(() => pool.end());
    const driver = openPostgres(t, { pool });
    await driver.insertEvent("s", event("s", 1));
    assert.equal(pool.totalCount, 0);
    await driver.close();
    assert.equal(pool.totalCount, 0);
    assert.deepEqual((await pool.query("SELECT 1 AS one")).rows, [{ one: 1 }]);
  });
});

test("identifiers that UTF-8 can't tell apart, and payloads without JSON, are refused", async (t) => {
  const schema = freshSchema(t);
  const driver = openPostgres(t, { schema });
  const cycle: any = {};
  cycle.self = cycle;
  const calls: [Promise<unknown>, string][] = [];
  const good = [driver.insertEvent("s", event("s", 1)), driver.updateSession(session("s"))];
  for (const id of ["a\0b", "\ud800", "a\udc00"]) {
    calls.push([driver.getSession(id), "id"]);
    calls.push([driver.listEvents({ sessionId: id }), "request.sessionId"]);
    for (const field of ["id", "connectionId", "sessionId"]) {
      calls.push([driver.insertEvent(event("s", 2, { [field]: id })), `event.${field}`]);
    }
    for (const field of ["id", "agent", "agentSessionId", "lastConnectionId", "sandboxId"]) {
      calls.push([driver.updateSession(session("t", { [field]: id })), `session.${field}`]);
    }
  }
  for (const payload of [undefined, () => {}, Symbol("s"), 5n, { deep: [5n] }, cycle]) {
    calls.push([driver.insertEvent("s", event("s", 3, { payload })), "event.payload"]);
  }
  calls.push([driver.updateSession(session("t", { modes: 5n })), "session.modes"]);
  for (const [call, name] of calls) {
    const error = await rejection(call);
    assert.ok(error instanceof TypeError, `${name}: ${error}`);
    assert.equal(error.code, "ERR_PERSIST_INVALID_ARG");
    assert.ok(error.message.startsWith(`${name} must be `), error.message);
  }
  await Promise.all(good);
  assert.equal((await sql(`SELECT FROM ${schema}.events`)).length, 1);
  assert.equal((await sql(`SELECT FROM ${schema}.sessions`)).length, 1);
});
