/** Which tables a driver makes, uses, misses and leaves alone. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test, type TestContext } from "node:test";
import pg from "pg";
import { postgresSchemaSql } from "../index.js";
import { allEvents, event, rejection, session } from "./support/fixtures.ts";
import { runToEnd } from "./support/fork.ts";
import { client, databaseUrl, freshRole, freshSchema, sql } from "./support/postgres.ts";
import { openPostgres, openWith } from "./support/postgres-around.ts";
import {
  columnsOf,
  EVENTS_0_3,
  indexed,
  oldSchema,
  REST,
  schema0_4,
  SESSIONS_0_3,
  snapshot,
} from "./support/postgres-layouts.ts";
import { refused } from "./support/refusals.ts";

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

for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? ", with prepared statements" : "";
  test(`a column that is dropped under a driver is missed once${how}`, async (t) => {
    const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
    const driver = openPostgres(t, { ...options, preparedStatements });
    const use = async (index: number) => {
      const id = `s${index}`;
      await Promise.all([
        driver.insertEvent("s", event("s", index)),
        driver.updateSession(session(id)),
      ]);
      assert.equal((await driver.getSession(id))?.id, id);
      assert.equal((await driver.listEvents({ sessionId: "s" })).items.length, index);
      assert.equal((await driver.listSessions()).items.length, index);
    };
    await use(1);
    for (const table of ["events", "sessions"]) {
      await sql(`ALTER TABLE ${options.schema}.${table} DROP COLUMN extra_json`);
    }
    await use(2);
    await use(3);
  });
}

test("ten processes start on a new schema at once", async (t) => {
  const schema = freshSchema(t);
  const options = JSON.stringify({ connectionString: databaseUrl(), schema });
  const sessions = Array.from({ length: 10 }, (_, index) => `s${index}`);
  const ended = await Promise.all(sessions.map((id) => runToEnd("write", [options, id, "3"])));
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

describe("postgresSchemaSql() with row-level security", () => {
  test("leaves the rows to the owner and the application's role, whatever a stranger is granted", async (t) => {
    const schema = freshSchema(t);
    const [owner, app, stranger] = [await freshRole(t), await freshRole(t), await freshRole(t)];
    await sql(`CREATE SCHEMA ${schema} AUTHORIZATION ${owner.name}`);
    const asOwner = await client(t, owner.url);
    const printed = postgresSchemaSql(schema, { rowLevelSecurity: true, role: app.name });
    for (let times = 0; times < 2; times += 1) await asOwner.query(printed);
    // As Supabase does for the tables of "public".
    await asOwner.query(`GRANT USAGE ON SCHEMA ${schema} TO ${stranger.name};
      GRANT ALL ON ALL TABLES IN SCHEMA ${schema} TO ${stranger.name}`);
    for (const { url } of [owner, app]) {
      const driver = openWith(t, { connectionString: url, schema });
      await driver.ready();
      await driver.updateSession(session(url));
      await driver.insertEvent(url, event(url, 1));
      assert.equal((await driver.getSession(url))!.id, url);
    }
    const driver = openWith(t, { connectionString: stranger.url, schema });
    assert.deepEqual(await driver.listSessions(), { items: [] });
    assert.equal(await driver.countEvents(), 0);
    assert.equal((await rejection(driver.ready())).sqlState, "42501");
    assert.equal((await rejection(driver.insertEvent("s", event("s", 1)))).sqlState, "42501");
  });

  test("run again changes nothing, and for another role adds that one", async (t) => {
    const schema = freshSchema(t);
    const roles = [await freshRole(t), await freshRole(t)];
    const forRole = (role: string) => postgresSchemaSql(schema, { rowLevelSecurity: true, role });
    const policies = async () =>
      sql(`SELECT oid::text, polname FROM pg_policy WHERE polrelid = '${schema}.events'::regclass`);
    await sql(forRole(roles[0]!.name));
    const first = await policies();
    await sql(forRole(roles[0]!.name));
    assert.deepEqual(await policies(), first);
    await sql(forRole(roles[1]!.name));
    assert.equal((await policies()).length, 2);
    for (const { url } of roles) {
      await openWith(t, { connectionString: url, schema }).insertEvent("s", event("s", 1));
    }
  });

  test("a role's name is a name, whatever is in it", async (t) => {
    const schema = freshSchema(t);
    const name = `a"b'c$do$ ${"é".repeat(20)}`;
    await sql(`CREATE ROLE ${pg.escapeIdentifier(name)}`);
    const printed = postgresSchemaSql(schema, { rowLevelSecurity: true, role: name });
    for (let times = 0; times < 2; times += 1) await sql(printed);
    await sql(`DROP SCHEMA ${schema} CASCADE; DROP ROLE ${pg.escapeIdentifier(name)}`);
  });

  test("refuses a role without it, and what isn't an option", () => {
    const refused = { name: "TypeError", code: "ERR_PERSIST_INVALID_ARG" };
    const rowLevelSecurity = true;
    for (const options of [
      { role: "app" },
      { rls: true },
      { rowLevelSecurity: 1 },
      { rowLevelSecurity, role: "" },
      { rowLevelSecurity, role: null },
      5,
    ]) {
      assert.throws(() => postgresSchemaSql("s", options as never), refused);
    }
  });
});

describe("SQL on the documents of new tables", () => {
  const rows = async (t: TestContext) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema });
    for (const [index, method] of ["a", "b", "a"].entries()) {
      await driver.insertEvent("s", event("s", index, { payload: { method, params: { n: 1 } } }));
    }
    return (text: string) => sql(text.replaceAll("events", `${schema}.events`));
  };

  test("works as docs/postgres.md shows it", async (t) => {
    const query = await rows(t);
    const page = readFileSync(new URL("../docs/postgres.md", import.meta.url), "utf8");
    const examples = [...page.matchAll(/\| `([^`]*FROM events[^`]*)` +\|/g)].map(
      ([, text]) => text!,
    );
    assert.ok(examples.length >= 5, `${examples.length}`);
    for (const example of examples) {
      assert.ok((await query(example.replaceAll("\\|", "|"))).length > 0, example);
    }
  });

  test("documents are compared as jsonb", async (t) => {
    const query = await rows(t);
    const same =
      'SELECT count(*)::int AS n FROM events WHERE payload_json::jsonb = \'{"method":"b","params":{"n":1}}\'';
    assert.deepEqual(await query(same), [{ n: 1 }]);
  });
});
