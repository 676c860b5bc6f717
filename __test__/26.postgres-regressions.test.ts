/** What an attack on the PostgreSQL driver once found: each defect, so that it stays away. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import pg from "pg";
import type { SessionEvent } from "../index.js";
import { event, session } from "./support/fixtures.ts";
import { databaseUrl, freshSchema, sql } from "./support/postgres.ts";
import { openPostgres, relayTo, timed, until } from "./support/trouble.ts";

/** A connection of the test's own. */
async function client(t: TestContext, connectionString = databaseUrl()) {
  const connection = new pg.Client({ connectionString });
  connection.on("error", () => {});
  await connection.connect();
  t.after(() => connection.end());
  return connection;
}

const freshName = (what: string) => `${what}_${randomBytes(8).toString("hex")}`;

type Login = { role?: string; password?: string; database?: string };

/** The run's database by another role, or another database of its server. */
function urlOf({ role, password = "right", database }: Login): string {
  const url = new URL(databaseUrl());
  if (role) [url.username, url.password] = [role, password];
  if (database) url.pathname = `/${database}`;
  return url.href;
}

/** A role of the test's own, dropped after it. Whatever it gets rights to must be gone by then. */
async function freshRole(t: TestContext, clause = ""): Promise<string> {
  const name = freshName("role");
  await sql(`CREATE ROLE ${name} ${clause}`);
  t.after(() => sql(`DROP ROLE ${name}`));
  return name;
}

const LOGIN = "LOGIN PASSWORD 'right'";

/** A database of the test's own, dropped after it with all connections to it. */
async function freshDatabase(t: TestContext, clause = ""): Promise<string> {
  const name = freshName("test");
  await sql(`CREATE DATABASE ${name} ${clause}`);
  t.after(() => sql(`DROP DATABASE ${name} WITH (FORCE)`));
  return name;
}

/** Waits until a server process of the driver with this name waits for a lock; which one. */
async function waitingProcess(name: string): Promise<number> {
  let pid: number | undefined;
  await until(async () => {
    const text =
      "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'";
    pid = (await sql(text, [name]))[0]?.pid;
    return pid !== undefined;
  }, "a statement waits for a lock");
  return pid!;
}

const isAlive = async (pid: number) =>
  (await sql("SELECT FROM pg_stat_activity WHERE pid = $1", [pid])).length > 0;

/** Locks the rows of a table with this id, until the client's transaction ends. */
async function lockRow(locker: pg.Client, table: string, id: string): Promise<void> {
  await locker.query("BEGIN");
  const { rows } = await locker.query(`SELECT FROM ${table} WHERE id = $1 FOR UPDATE`, [id]);
  assert.equal(rows.length, 1);
}

/** The first events of many sessions. */
const ofOthers = (count: number, name = "") =>
  Array.from({ length: count }, (_, at) => event(`other-${name}-${at}`, 1));

const countOthers = async (schema: string) => {
  const text = `SELECT count(*)::int FROM ${schema}.events WHERE session_id LIKE 'other-%'`;
  return (await sql(text))[0].count;
};

for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? ", with prepared statements" : "";
  test(`a role that takes another on ends its old server processes${how}`, async (t) => {
    const locker = await client(t);
    const schema = freshSchema(t);
    const owner = await freshRole(t);
    const app = await freshRole(t, `${LOGIN} IN ROLE ${owner}`);
    await sql(`ALTER ROLE ${app} SET role = '${owner}'`);
    await sql(`CREATE SCHEMA ${schema} AUTHORIZATION ${owner}`);
    const relay = await relayTo(t, urlOf({ role: app }));
    const application_name = randomUUID();
    const poolConfig = { application_name };
    const options = { connectionString: relay.url, schema, poolConfig, preparedStatements };
    const driver = openPostgres(t, options);
    const write = (payload: string) =>
      driver.insertEvent("s", event("s", 1, { id: "contested", payload }));

    await write("oldest");
    await lockRow(locker, `${schema}.events`, "contested");
    const older = write("older");
    const pid = await waitingProcess(application_name);
    relay.cutClients();
    const newer = write("newer");
    await until(async () => !(await isAlive(pid)), "the old server process ends");
    await locker.query("ROLLBACK");
    await Promise.all([older, newer]);
    const [{ payload }] = await sql(
      `SELECT payload_json #>> '{}' AS payload FROM ${schema}.events`,
    );
    assert.equal(payload, "newer");
  });

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
    const driver = openPostgres(t, { connectionString, preparedStatements });
    await driver.updateSession(session("é"));
    const ids = ["é", "none", "日本", "é", "none"];
    const outcomes = await Promise.allSettled(ids.map((id) => driver.getSession(id)));
    const found = outcomes.map((outcome) =>
      outcome.status === "fulfilled" ? outcome.value?.id : outcome.reason.sqlState,
    );
    assert.deepEqual(found, ["é", undefined, "22P05", "é", undefined]);
  });

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

  test(`a cursor whose key no database takes is read as its offset${how}`, async (t) => {
    const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
    const driver = openPostgres(t, { ...options, preparedStatements });
    for (let at = 0; at < 6; at += 1) {
      await driver.insertEvent("s", event("s", at));
      await driver.updateSession(session(`s${at}`, { createdAt: at }));
    }
    /** The page's cursor as if for offset 4, and with another id in its key. */
    const craft = ({ nextCursor }: { nextCursor?: string }) => {
      const encoded = nextCursor!.slice(nextCursor!.indexOf("~") + 1);
      const [list, order] = JSON.parse(Buffer.from(encoded, "base64url").toString());
      const key = JSON.stringify([list, order, "a\u0000b"]);
      return `4~${Buffer.from(key).toString("base64url")}`;
    };
    const ofEvents = craft(await driver.listEvents({ sessionId: "s", limit: 2 }));
    const events = await driver.listEvents({ sessionId: "s", cursor: ofEvents });
    assert.deepEqual(
      events.items.map(({ eventIndex }) => eventIndex),
      [4, 5],
    );
    const ofSessions = craft(await driver.listSessions({ limit: 2 }));
    const sessions = await driver.listSessions({ cursor: ofSessions });
    assert.deepEqual(
      sessions.items.map(({ id }) => id),
      ["s4", "s5"],
    );
  });
}

/** Starts a process that runs this text; it needs no compiler. */
function startText(t: TestContext, text: string, input: object) {
  const child = spawn(process.execPath, ["--input-type=module", "--eval", PREAMBLE + text], {
    env: { ...process.env, INPUT: JSON.stringify(input) },
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  t.after(() => child.kill("SIGKILL"));
  let stderr = "";
  child.stderr!.on("data", (data) => (stderr += data));
  const ended = once(child, "close");
  const message = async () => {
    const [first] = await Promise.race([once(child, "message"), ended]);
    return first ?? stderr;
  };
  return { child, ended, message };
}

const PREAMBLE = `
  import { once } from "node:events";
  import { setTimeout as sleep } from "node:timers/promises";
  import { PostgresSessionPersistDriver } from ${JSON.stringify(new URL("../index.js", import.meta.url).href)};
  const { options, record } = JSON.parse(process.env.INPUT);
  const driver = new PostgresSessionPersistDriver(options);
`;

/** Makes calls the first of which leads to a warning, and tells what has become of them in time. */
const WARNED = `
  let warnings = 0;
  process.emitWarning = () => {
    warnings += 1;
    throw new Error("on purpose");
  };
  process.on("uncaughtException", () => {});
  const states = {};
  const watch = (name, call) =>
    call.then(() => (states[name] = "resolved"), (error) => (states[name] = error.message));
  const first = [
    watch("insertEvent", driver.insertEvent("s", { ...record, later: 1 })),
    watch("getSession", driver.getSession("a")),
    watch("listSessions", driver.listSessions()),
  ];
  await Promise.race([Promise.all(first), sleep(3000)]);
  await Promise.race([watch("afterwards", driver.getSession("b")), sleep(2000)]);
  process.send({ warnings, states }, () => process.exit());
`;

test("a process.emitWarning that throws holds up no promise", async (t) => {
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  await openPostgres(t, options).listSessions();
  await sql(`ALTER TABLE ${options.schema}.events DROP COLUMN extra_json`);
  const { message } = startText(t, WARNED, { options, record: event("s", 1) });
  assert.deepEqual(await message(), {
    warnings: 1,
    states: {
      insertEvent: "resolved",
      getSession: "resolved",
      listSessions: "resolved",
      afterwards: "resolved",
    },
  });
});

for (const [what, cut] of [
  ["on both sides", "cutAll"],
  ["for the client alone", "cutClients"],
] as const) {
  test(`a role that may not end server processes is served after a connection is cut ${what}`, async (t) => {
    const database = await freshDatabase(t);
    const app = await freshRole(t, LOGIN);
    const admin = await client(t, urlOf({ database }));
    const terminating = "FUNCTION pg_terminate_backend(integer, bigint)";
    await admin.query(`REVOKE EXECUTE ON ${terminating} FROM PUBLIC`);
    await admin.query(`CREATE SCHEMA s AUTHORIZATION ${app}`);
    const relay = await relayTo(t, urlOf({ role: app, database }));
    const application_name = randomUUID();
    const driver = openPostgres(t, {
      connectionString: relay.url,
      schema: "s",
      poolConfig: { application_name },
      retryTimeoutMs: 3000,
    });
    const write = (payload: string) =>
      driver.insertEvent("s", event("s", 1, { id: "contested", payload }));

    await write("oldest");
    await lockRow(admin, "s.events", "contested");
    const older = write("older");
    await waitingProcess(application_name);
    relay[cut]();
    await sleep(100);
    await admin.query("ROLLBACK");
    assert.equal((await timed(older)).error, undefined);
    for (const payload of ["newer", "newest"]) {
      const { error, milliseconds } = await timed(write(payload));
      assert.equal(error, undefined);
      assert.ok(milliseconds < 2000, `${milliseconds} ms`);
    }
    assert.equal((await driver.listEvents({ sessionId: "s" })).items[0]!.payload, "newest");
  });
}

for (const [setting, sqlState] of [
  [undefined, undefined],
  ["lock_timeout", "55P03"],
  ["statement_timeout", "57014"],
] as const) {
  const which = setting ? `with ${setting}` : "without a timeout";
  test(`an event that somebody locks holds up no other session's, ${which}`, async (t) => {
    const locker = await client(t);
    const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
    const poolConfig = setting ? { [setting]: 200 } : {};
    const driver = openPostgres(t, { ...options, poolConfig, retryTimeoutMs: 8000 });
    await driver.insertEvent("s", event("s", 1, { id: "contested" }));
    await lockRow(locker, `${options.schema}.events`, "contested");

    let settled = 0;
    const insert = (sent: SessionEvent) =>
      timed(driver.insertEvent(sent.sessionId, sent).finally(() => (settled += 1)));
    const contested = event("s", 1, { id: "contested", payload: "newer" });
    const [before, after] = [ofOthers(15, "before"), ofOthers(15, "after")];
    const calls = [...before, contested, ...after].map(insert);
    const [locked] = calls.splice(before.length, 1);
    // Each half that it is in waits a second for the lock, without a timeout that says otherwise.
    await until(() => settled >= calls.length, "the others are settled", 7000);
    if (!setting) await locker.query("ROLLBACK");
    for (const { error } of await Promise.all(calls)) assert.equal(error, undefined);
    assert.equal(await countOthers(options.schema), calls.length);
    assert.equal((await locked!).error?.sqlState, sqlState);
  });
}

for (const sqlState of ["40001", "53400"]) {
  test(`a row for which a trigger raises ${sqlState} takes no other along`, async (t) => {
    const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
    const driver = openPostgres(t, { ...options, retryTimeoutMs: 1500 });
    await driver.listSessions();
    await sql(`
      CREATE FUNCTION ${options.schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF NEW.session_id = 'refused' THEN RAISE EXCEPTION 'no' USING ERRCODE = '${sqlState}'; END IF;
        RETURN NEW;
      END $$;
      CREATE TRIGGER refuse BEFORE INSERT ON ${options.schema}.events
      FOR EACH ROW EXECUTE FUNCTION ${options.schema}.refuse()`);
    const insert = (sent: SessionEvent) => timed(driver.insertEvent(sent.sessionId, sent));
    const before = ofOthers(15, "before").map(insert);
    const refused = insert(event("refused", 1));
    const after = ofOthers(15, "after").map(insert);
    const outcomes = await Promise.all([...before, ...after]);
    assert.deepEqual(
      outcomes.flatMap(({ error }) => error?.message ?? []),
      [],
    );
    assert.equal((await refused).error?.sqlState, sqlState);
    assert.equal(await countOthers(options.schema), 30);
  });
}

test("sessions whose events went with one that is stuck go on", async (t) => {
  const locker = await client(t);
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const driver = openPostgres(t, { ...options, poolConfig: { lock_timeout: 100 } });
  await driver.listSessions();
  await sql(`
    CREATE FUNCTION ${options.schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.session_id = 'refused' AND NOT pg_try_advisory_xact_lock(26, 26)
      THEN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON ${options.schema}.events
    FOR EACH ROW EXECUTE FUNCTION ${options.schema}.refuse()`);
  await locker.query("SELECT pg_advisory_lock(26, 26)");
  let settled = 0;
  const goOn = async (sent: SessionEvent) => {
    for (const eventIndex of [1, 2, 3]) {
      const next = event(sent.sessionId, eventIndex);
      await driver.insertEvent(next.sessionId, next);
    }
    settled += 1;
  };
  const before = ofOthers(15, "before").map(goOn);
  const stuck = driver.insertEvent("refused", event("refused", 1));
  const after = ofOthers(15, "after").map(goOn);
  const all = Promise.all([...before, ...after, stuck]);
  try {
    await until(() => settled === 30, "the other sessions go on", 3000);
  } finally {
    await locker.query("SELECT pg_advisory_unlock(26, 26)");
    await all;
  }
});

test("reads that are given up leave no server processes behind", async (t) => {
  const locker = await client(t);
  const schema = freshSchema(t);
  const application_name = randomUUID();
  const driver = openPostgres(t, {
    connectionString: databaseUrl(),
    schema,
    poolConfig: { application_name, max: 2, query_timeout: 300 },
  });
  await driver.insertEvent("s", event("s", 1));
  await locker.query("BEGIN");
  await locker.query(`LOCK TABLE ${schema}.events`);
  const lists = Array.from({ length: 4 }, () => driver.listEvents({ sessionId: "s" }));
  const settled = Promise.allSettled(lists);
  const counts: number[] = [];
  for (const end = Date.now() + 3000; Date.now() < end; await sleep(50)) {
    const text = "SELECT count(*)::int FROM pg_stat_activity WHERE application_name = $1";
    counts.push((await sql(text, [application_name]))[0].count);
  }
  // One that is given up may still be ending when its successor is there.
  assert.ok(Math.max(...counts) <= 4, `${counts}`);
  await locker.query("ROLLBACK");
  for (const outcome of await settled) {
    assert.ok(outcome.status === "fulfilled");
    assert.equal(outcome.value.items.length, 1);
  }
});

test("calls that wait behind many slow ones are no outage", async (t) => {
  const schema = freshSchema(t);
  const app = await freshRole(t, LOGIN);
  await sql(`CREATE SCHEMA ${schema} AUTHORIZATION ${app}`);
  const driver = openPostgres(t, {
    connectionString: urlOf({ role: app }),
    schema,
    poolConfig: { max: 1 },
    retryTimeoutMs: 1500,
  });
  await driver.insertEvent("s", event("s", 1));
  await driver.updateSession(session("s"));
  // To look at a row takes a tenth of a second.
  await sql(`
    CREATE POLICY slowly ON ${schema}.events USING (pg_sleep(0.1) IS NOT NULL) WITH CHECK (true);
    ALTER TABLE ${schema}.events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`);

  const lists = Array.from({ length: 20 }, () => timed(driver.listEvents({ sessionId: "s" })));
  const others = [
    timed(driver.insertEvent("t", event("t", 1))),
    timed(driver.getSession("s")),
    timed(driver.updateSession(session("t"))),
  ];
  const outcomes = await Promise.all([...lists, ...others]);
  assert.deepEqual(
    outcomes.flatMap(({ error }) => error ?? []),
    [],
  );
  const slowest = Math.max(...outcomes.map(({ milliseconds }) => milliseconds));
  assert.ok(slowest > 1700, `the slowest took ${slowest} ms: no longer than they may`);
});

test("a role that may not connect to the database is refused at once", async (t) => {
  const database = await freshDatabase(t);
  const app = await freshRole(t, LOGIN);
  await sql(`REVOKE CONNECT ON DATABASE ${database} FROM PUBLIC`);
  let connections = 0;
  // Called for each connection, unless the URL has a password.
  const password = () => {
    connections += 1;
    return "right";
  };
  const driver = openPostgres(t, {
    connectionString: urlOf({ role: app, password: "", database }),
    poolConfig: { password },
  });
  const calls = [
    ...ofOthers(100).map((sent) => driver.insertEvent(sent.sessionId, sent)),
    driver.getSession("s"),
    driver.listSessions(),
  ];
  for (const { error, milliseconds } of await Promise.all(calls.map(timed))) {
    assert.equal(error?.code, "ERR_PERSIST_CANNOT_OPEN");
    assert.equal(error?.sqlState, "42501");
    assert.ok(milliseconds < 1500, `${milliseconds} ms`);
  }
  assert.ok(connections >= 1 && connections <= 10, `${connections} connections`);
});

/** Writes once more when it is told to, and exits without awaiting that. */
const EXITING = `
  await driver.updateSession(record);
  process.send("ready");
  await once(process, "message");
  driver.updateSession({ ...record, agent: "later" }).catch(() => {});
  setTimeout(() => process.exit(), 100);
`;

test("process.exit() waits for a server that is silent, but only for so long", async (t) => {
  const relay = await relayTo(t, databaseUrl());
  const options = { connectionString: relay.url, schema: freshSchema(t) };
  const { child, ended, message } = startText(t, EXITING, { options, record: session("s") });
  assert.equal(await message(), "ready");
  relay.blackHole(true);
  const start = Date.now();
  child.send("go on");
  const [code] = await ended;
  const milliseconds = Date.now() - start;
  assert.equal(code, 0);
  assert.ok(milliseconds < 7000, `${milliseconds} ms`);
});
