/** A row that the server refuses rejects alone, and no error quotes it. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { postgresSchemaSql } from "../index.js";
import { allEvents, event, session } from "./support/fixtures.ts";
import {
  databaseUrl,
  freshDatabase,
  freshRole,
  freshSchema,
  sql,
  urlOf,
} from "./support/postgres.ts";
import { beforeInsert, openPostgres, openWith } from "./support/postgres-around.ts";
import { assertRefused, refused } from "./support/refusals.ts";
import { timed } from "./support/waiting.ts";

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
    await beforeInsert(
      schema,
      `IF new.payload_json::text LIKE '%sesame%' THEN
        RAISE EXCEPTION '%', new.payload_json
          USING DETAIL = new.payload_json, HINT = new.payload_json;
      END IF;`,
    );
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
      await beforeInsert(
        schema,
        `RAISE EXCEPTION '%', new.payload_json USING ERRCODE = '${sqlState}',
          DETAIL = new.payload_json, HINT = new.payload_json, CONSTRAINT = new.payload_json,
          TABLE = new.payload_json, COLUMN = new.payload_json;`,
      );
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
    await beforeInsert(
      schema,
      `IF new.connection_id = 'sesame' THEN
        RAISE EXCEPTION 'over the quota' USING ERRCODE = 'QU001';
      END IF;`,
    );
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

  for (const preparedStatements of [false, true]) {
    const how = preparedStatements ? ", with prepared statements" : "";
    test(`ids that are too long for their column are refused, not cut${how}`, async (t) => {
      const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
      await openPostgres(t, options).listSessions();
      await sql(`ALTER TABLE ${options.schema}.events ALTER COLUMN id TYPE varchar(8)`);
      const driver = openPostgres(t, { ...options, preparedStatements });
      const calls = ["prefix--A", "prefix--B"].map((id, at) =>
        driver.insertEvent("s", event("s", at, { id })),
      );
      for (const { error } of await Promise.all(calls.map(timed))) {
        assert.equal(error?.sqlState, "22001");
      }
      assert.deepEqual(await sql(`SELECT id FROM ${options.schema}.events`), []);
      await driver.insertEvent("s", event("s", 1, { id: "prefix--" }));
    });

    test(`an id that the database's encoding lacks is refused alone${how}`, async (t) => {
      const encoding = "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
      const database = await freshDatabase(t, encoding);
      const connectionString = urlOf({ database });
      const driver = openWith(t, { connectionString, preparedStatements });
      await driver.updateSession(session("é"));
      const ids = ["é", "none", "日本", "é", "none"];
      const outcomes = await Promise.allSettled(ids.map((id) => driver.getSession(id)));
      const found = outcomes.map((outcome) =>
        outcome.status === "fulfilled" ? outcome.value?.id : outcome.reason.sqlState,
      );
      assert.deepEqual(found, ["é", undefined, "22P05", "é", undefined]);
    });
  }
});
