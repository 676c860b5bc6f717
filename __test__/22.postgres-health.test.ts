/** Trouble with a server: what `ready`, `health` and `onError` say of it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ErrorContext } from "../index.js";
import { event, rejection, session } from "./support/fixtures.ts";
import { freshRole, freshSchema, ownServer, sql } from "./support/postgres.ts";
import { openPostgres, openWith } from "./support/postgres-around.ts";
import { until } from "./support/waiting.ts";

for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? "prepared" : "simple";
  test(`a role that may only read isn't ready: ${how}`, async (t) => {
    const schema = freshSchema(t);
    await openPostgres(t, { schema }).updateSession(session("s"));
    const { name, url } = await freshRole(t);
    await sql(`GRANT USAGE ON SCHEMA ${schema} TO ${name}`);
    await sql(`GRANT SELECT ON ALL TABLES IN SCHEMA ${schema} TO ${name}`);
    const driver = openWith(t, { connectionString: url, schema, preparedStatements });
    assert.equal((await driver.listSessions({ limit: 1 })).items.length, 1);
    const error = await rejection(driver.ready());
    assert.equal(error.code, "ERR_PERSIST_READ_ONLY");
    assert.match(error.message, new RegExp(`permission denied.*schema "${schema}"`));
    assert.equal(error.sqlState, "42501");
  });

  test(`a database that takes no writes isn't ready: ${how}`, async (t) => {
    const schema = freshSchema(t);
    await openPostgres(t, { schema }).ready();
    const poolConfig = { options: "-c default_transaction_read_only=on" };
    const driver = openPostgres(t, { schema, poolConfig, preparedStatements, retryTimeoutMs: 300 });
    const error = await rejection(driver.ready());
    assert.equal(error.code, "ERR_PERSIST_UNAVAILABLE");
    assert.match(error.message, /read-only transaction/);
  });
}

const refusals = {
  "a policy without which no row is stored": (schema: string, role: string) => `
    ALTER TABLE ${schema}.events ENABLE ROW LEVEL SECURITY;
    GRANT USAGE ON SCHEMA ${schema} TO ${role};
    GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA ${schema} TO ${role}`,
  "a trigger that raises": (schema: string) => `
    CREATE FUNCTION ${schema}.raise() RETURNS trigger LANGUAGE plpgsql
      AS $$ BEGIN RAISE EXCEPTION 'closed for today'; END $$;
    CREATE TRIGGER raise BEFORE INSERT ON ${schema}.events
      FOR EACH ROW EXECUTE FUNCTION ${schema}.raise()`,
  "a check that no row passes": (schema: string) =>
    `ALTER TABLE ${schema}.events ADD CHECK (false) NOT VALID`,
};
for (const [what, refuse] of Object.entries(refusals)) {
  test(`a driver isn't ready for ${what}`, async (t) => {
    const schema = freshSchema(t);
    await openPostgres(t, { schema }).updateSession(session("s"));
    const { name, url } = await freshRole(t);
    await sql(refuse(schema, name));
    const isForTheRole = what.startsWith("a policy");
    const connectionString = isForTheRole ? { connectionString: url } : {};
    const driver = openPostgres(t, { schema, ...connectionString });
    await rejection(driver.ready());
    assert.equal(driver.health().state, "failing");
    await sql(`ALTER TABLE ${schema}.events DISABLE ROW LEVEL SECURITY, DISABLE TRIGGER ALL;
      ALTER TABLE ${schema}.events DROP CONSTRAINT IF EXISTS events_check`);
    await driver.ready();
    assert.equal(driver.health().state, "ok");
  });
}

for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? "prepared" : "simple";
  test(`what triggers do for a row that is only tried is taken back: ${how}`, async (t) => {
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema, preparedStatements });
    await driver.updateSession(session("s"));
    await sql(`CREATE TABLE ${schema}.audit (what text);
      CREATE FUNCTION ${schema}.note() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO ${schema}.audit VALUES (TG_OP); RETURN NULL; END $$;
      CREATE TRIGGER note AFTER INSERT OR UPDATE ON ${schema}.events
        FOR EACH STATEMENT EXECUTE FUNCTION ${schema}.note()`);
    await driver.ready();
    const rows = await sql(`SELECT count(*)::int AS count FROM ${schema}.audit`);
    assert.deepEqual(rows, [{ count: 0 }]);
    await driver.insertEvent("s", event("s", 1));
    assert.equal(await driver.countEvents(), 1, "the connection is as it was");
  });
}

test("a role that may not delete says nothing of its writes", async (t) => {
  const schema = freshSchema(t);
  await openPostgres(t, { schema }).updateSession(session("s"));
  const { name, url } = await freshRole(t);
  await sql(`GRANT USAGE ON SCHEMA ${schema} TO ${name};
    GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA ${schema} TO ${name}`);
  const driver = openWith(t, { connectionString: url, schema });
  const error = await rejection(driver.deleteSession("s"));
  assert.equal(error.sqlState, "42501");
  assert.equal(driver.health().state, "ok");
});

test("an end waits for no ready() on a server that is away", async (t) => {
  const driver = openWith(t, { connectionString: "postgres://u@127.0.0.1:1/d" });
  const ready = rejection(driver.ready());
  const began = Date.now();
  await driver.close();
  assert.ok(Date.now() - began < 15_000, "a write would be waited for for 30 seconds");
  assert.equal((await ready).code, "ERR_PERSIST_CLOSED");
});

test("an outage is told of while calls wait, and over when the server is back", async (t) => {
  const server = await ownServer(t);
  const told: string[] = [];
  const onError = (error: Error, { operation }: ErrorContext) => told.push(operation);
  const driver = openWith(t, { connectionString: server.url, onError });
  await driver.ready();
  await server.stop("immediate");
  const waiting = driver.insertEvent("s", event("s", 1));
  await until(() => told.length > 0, "the outage is told of", 20_000);
  assert.deepEqual(told, ["retry"]);
  const { state, queuedCalls, oldestQueuedMs, lastError } = driver.health();
  assert.deepEqual([state, queuedCalls], ["degraded", 1]);
  assert.ok(oldestQueuedMs >= 2_000);
  assert.equal(lastError?.code, "ERR_PERSIST_UNAVAILABLE");
  assert.match(lastError!.message, /^the database is not available: .* \(schema "public" of /);
  await server.start();
  await waiting;
  assert.equal(driver.health().state, "ok");
  assert.deepEqual(told, ["retry"], "once, and no call has failed");
});

test("a server that is away for too long makes a driver fail", async (t) => {
  const told: string[] = [];
  const onError = (error: Error, { operation }: ErrorContext) => told.push(operation);
  const connectionString = "postgres://u@127.0.0.1:1/d";
  const driver = openWith(t, { connectionString, retryTimeoutMs: 100, onError });
  assert.equal((await rejection(driver.ready())).code, "ERR_PERSIST_UNAVAILABLE");
  assert.deepEqual(told, ["ready"]);
  assert.equal(driver.health().state, "failing");
});
