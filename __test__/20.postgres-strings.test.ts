/** Whatever text there is comes back, or is refused. */
import assert from "node:assert/strict";
import { describe, test, type TestContext } from "node:test";
import { allEvents, event, rejection, session } from "./support/fixtures.ts";
import { client, freshDatabase, freshRole, freshSchema, sql, urlOf } from "./support/postgres.ts";
import { openPostgres, openWith } from "./support/postgres-around.ts";
import { oldSchema, schema0_4 } from "./support/postgres-layouts.ts";

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

describe("a database whose encoding can't hold all characters", () => {
  const texts = ["é", "€ 漢 👩‍👩‍👧", "plain", "\u0000 €", "\ud800 é", "\\u20ac €", "\u0085\u2028"];
  const payloads = [
    ...texts,
    ...texts.map((text) => ({ jsonrpc: "2.0", method: "m", params: { [text]: text } })),
    ...texts.map((method) => ({ method })),
  ];
  for (const encoding of ["LATIN1", "WIN1252", "SQL_ASCII", "EUC_JP"]) {
    for (const type of ["json", "jsonb"]) {
      for (const preparedStatements of [false, true]) {
        const how = `${encoding}, ${type}${preparedStatements ? ", prepared" : ""}`;
        test(`has them come back, and SQL works: ${how}`, async (t) => {
          const clause = `ENCODING '${encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'`;
          const connectionString = urlOf({ database: await freshDatabase(t, clause) });
          const options = { connectionString, preparedStatements, schema: "agents" };
          await openWith(t, options).ready();
          const other = await client(t, connectionString);
          await other.query(`ALTER TABLE agents.events ALTER payload_json TYPE ${type}
            USING payload_json::text::${type}`);
          const driver = openWith(t, options);
          const sent = payloads.map((payload, index) => event("s", index, { payload }));
          await Promise.all(sent.map((each) => driver.insertEvent("s", each)));
          await driver.updateSession(session("s", { sessionInit: texts }));
          assert.deepEqual(await allEvents(driver, "s"), sent);
          assert.deepEqual((await driver.getSession("s"))!.sessionInit, texts);
          const { rows } = await other.query(
            "SELECT count(payload_json ->> 'method')::int AS count FROM agents.events",
          );
          assert.ok(rows[0].count >= texts.length);
        });
      }
    }
  }

  test("says so of an id that it can't hold, and stores the others", async (t) => {
    const clause = "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    const connectionString = urlOf({ database: await freshDatabase(t, clause) });
    const driver = openWith(t, { connectionString });
    const calls = ["a", "漢", "b"].map((id, at) => driver.insertEvent("s", event("s", at, { id })));
    const [, refused] = await Promise.allSettled(calls);
    assert.ok(refused?.status === "rejected");
    assert.match(refused.reason.message, /encoding cannot hold a character of an id or a name/);
    assert.deepEqual(
      (await allEvents(driver, "s")).map(({ id }) => id),
      ["a", "b"],
    );
  });
});
