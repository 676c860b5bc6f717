/** What trouble with the server, and on the way to it, gets. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import { Worker } from "node:worker_threads";
import pg from "pg";
import { PostgresSessionPersistDriver } from "../index.js";
import { allEvents, event, rejection, session } from "./support/fixtures.ts";
import { runToEnd, start } from "./support/fork.ts";
import { startLoad } from "./support/load.ts";
import { databaseUrl, freshSchema, sql, type Postgres } from "./support/postgres.ts";
import { openPostgres, ownServer, relayTo, timed, until } from "./support/trouble.ts";

const UNAVAILABLE = { name: "Error", code: "ERR_PERSIST_UNAVAILABLE" };

/** The ways to the run's database: by a relay, and straight. */
async function relayed(t: TestContext) {
  const schema = freshSchema(t);
  const relay = await relayTo(t, databaseUrl());
  return {
    relay,
    options: { connectionString: relay.url, schema },
    straight: { connectionString: databaseUrl(), schema },
  };
}

/** Ends all connections of a driver that uses this name. */
const terminate = (name: string) =>
  sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", [name]);

/** Waits until one of them waits for a lock. */
const untilWaiting = (name: string) =>
  until(async () => {
    const text =
      "SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'";
    return (await sql(text, [name])).length > 0;
  }, "a statement waits for a lock");

/** A connection of the test's own. */
async function client(t: TestContext, connectionString: string) {
  const connection = new pg.Client({ connectionString });
  connection.on("error", () => {});
  await connection.connect();
  t.after(() => connection.end());
  return connection;
}

for (const [what, everyMs, durationMs] of [
  ["five times a second", 200, 2000],
  ["fifty times a second", 20, 600],
] as const) {
  test(`all connections are cut ${what}, and nothing is lost`, async (t) => {
    const { relay, options, straight } = await relayed(t);
    const load = startLoad(openPostgres(t, options), 16);
    await load.progress(1);
    relay.cutEvery(everyMs);
    await sleep(durationMs);
    relay.cutEvery(0);
    await load.progress(1);
    await load.finish(openPostgres(t, straight));
  });
}

for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? ", with prepared statements" : "";
  test(`connections that a middlebox forgets, and the server doesn't, lose nothing${how}`, async (t) => {
    const { relay, options, straight } = await relayed(t);
    const load = startLoad(openPostgres(t, { ...options, preparedStatements }), 16);
    for (let round = 0; round < 10; round += 1) {
      await load.progress(1);
      relay.cutClients();
    }
    await load.progress(1);
    await load.finish(openPostgres(t, straight));
  });
}

for (const [what, down, downMs] of [
  ["is stopped for three seconds", (server: Postgres) => server.stop("immediate"), 3000],
  ["restarts in an orderly way", (server: Postgres) => server.stop("fast"), 0],
  ["is killed", (server: Postgres) => server.kill(), 0],
] as const) {
  test(`a server that ${what} under load is ridden out`, async (t) => {
    const server = await ownServer(t);
    const load = startLoad(openPostgres(t, { connectionString: server.url }), 8);
    await load.progress(5);
    await down(server);
    await sleep(downMs);
    await server.start();
    await load.progress(5);
    await load.finish(openPostgres(t, { connectionString: server.url }));
  });
}

for (const awaits of [false, true]) {
  for (const kind of ["event", "session"]) {
    const calls = awaits ? "awaited" : "made at once";
    test(`a write whose answer is lost isn't stored over a newer one: ${kind}, ${calls}`, async (t) => {
      const { relay, options } = await relayed(t);
      const driver = openPostgres(t, options);
      const id = randomUUID();
      const write = (agent: string) =>
        kind === "event"
          ? driver.insertEvent("s", event("s", 1, { id, payload: agent }))
          : driver.updateSession(session(id, { agent }));
      await write("oldest");
      let newer: Promise<void> | undefined;
      const swallowed = relay.swallowAnswerAndCut((bytes) => {
        const isSent = bytes.includes("older");
        // While the older one is on its way; what is called before that goes in its stead.
        if (isSent && !awaits) newer = write("newer");
        return isSent;
      });
      await Promise.all([write("older"), swallowed]);
      await (newer ?? write("newer"));
      const [{ value }] = await sql(
        kind === "event"
          ? `SELECT payload_json #>> '{}' AS value FROM ${options.schema}.events`
          : `SELECT agent AS value FROM ${options.schema}.sessions`,
      );
      assert.equal(value, "newer");
    });
  }
}

/** A driver by a relay, and a server process of it that waits to write an event, which another locks. */
async function stuckWrite(t: TestContext, preparedStatements = false) {
  const locker = await client(t, databaseUrl());
  const { relay, options, straight } = await relayed(t);
  const application_name = randomUUID();
  const poolConfig = { application_name };
  const driver = openPostgres(t, { ...options, poolConfig, preparedStatements });
  const write = (payload: string) =>
    driver.insertEvent("s", event("s", 1, { id: "contested", payload }));
  await write("oldest");
  await locker.query("BEGIN");
  await locker.query(`SELECT FROM ${options.schema}.events WHERE id = 'contested' FOR UPDATE`);
  const older = write("older");
  await untilWaiting(application_name);
  const [{ pid }] = await sql(
    "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'",
    [application_name],
  );
  const isAlive = async () =>
    (await sql("SELECT FROM pg_stat_activity WHERE pid = $1", [pid])).length > 0;
  const stored = async () =>
    (await sql(`SELECT payload_json #>> '{}' AS payload FROM ${options.schema}.events`))[0].payload;
  return { relay, straight, write, older, locker, isAlive, stored };
}

for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? ", with prepared statements" : "";
  test(`a server process that still waits to write an older value is ended${how}`, async (t) => {
    const { relay, write, older, locker, isAlive, stored } = await stuckWrite(
      t,
      preparedStatements,
    );
    relay.cutClients();
    const newer = write("newer");
    await until(async () => !(await isAlive()), "the old server process ends");
    await locker.query("ROLLBACK");
    await Promise.all([older, newer]);
    assert.equal(await stored(), "newer");
  });
}

test("ending a server process of one driver leaves another driver's alone", async (t) => {
  const { relay, straight, write, older, locker, isAlive } = await stuckWrite(t);
  const application_name = randomUUID();
  const other = openPostgres(t, { ...straight, poolConfig: { application_name } });
  const pids = () =>
    sql("SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY pid", [
      application_name,
    ]);
  const others = ["a", "b", "c"].map((id) => other.insertEvent(id, event(id, 1)));
  await Promise.all(others);
  const stuck = other.insertEvent("d", event("d", 1, { id: "contested", payload: "other" }));
  await untilWaiting(application_name);
  const before = await pids();
  relay.cutClients();
  const newer = write("newer");
  await until(async () => !(await isAlive()), "the old server process ends");
  assert.deepEqual(await pids(), before);
  await locker.query("ROLLBACK");
  await Promise.all([older, newer, stuck]);
});

// On a stopped process the message waits in the socket: as on a slow network, it lands late.
const withoutSignals = process.platform === "win32" && "needs signals";
for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? ", with prepared statements" : "";
  test(
    `a newer write isn't acknowledged while an older one may still land${how}`,
    { skip: withoutSignals },
    async (t) => {
      const server = await ownServer(t);
      const relay = await relayTo(t, server.url);
      const application_name = randomUUID();
      const poolConfig = { application_name, max: 1 };
      const driver = openPostgres(t, {
        connectionString: relay.url,
        poolConfig,
        preparedStatements,
      });
      const write = (payload: string) =>
        driver.insertEvent("s", event("s", 1, { id: "contested", payload }));
      await write("oldest");
      const [{ pid }] = await server.query(
        `SELECT pid FROM pg_stat_activity WHERE application_name = '${application_name}'`,
      );
      process.kill(pid, "SIGSTOP");
      const older = write("older");
      await sleep(50);
      relay.cutClients();
      let isAcknowledged = false;
      const newer = write("newer").then(() => (isAcknowledged = true));
      await sleep(300);
      const wasEarly = isAcknowledged;
      process.kill(pid, "SIGCONT");
      await Promise.all([older, newer]);
      await sleep(100);
      const [{ payload }] = await server.query(
        "SELECT payload_json #>> '{}' AS payload FROM public.events",
      );
      assert.equal(payload, "newer");
      assert.equal(wasEarly, false);
    },
  );
}

test("connections that an administrator ends are replaced: busy ones", async (t) => {
  const application_name = randomUUID();
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const load = startLoad(openPostgres(t, { ...options, poolConfig: { application_name } }), 16);
  for (let round = 0; round < 15; round += 1) {
    await load.progress(1);
    await terminate(application_name);
  }
  await load.progress(1);
  await load.finish(openPostgres(t, options));
});

test("connections that an administrator ends are replaced: idle ones", async (t) => {
  const application_name = randomUUID();
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const driver = openPostgres(t, { ...options, poolConfig: { application_name } });
  for (let round = 1; round <= 5; round += 1) {
    await Promise.all(
      ["a", "b", "c", "d", "e", "f"].map(async (id) => {
        await driver.insertEvent(id, event(id, round));
        assert.equal((await allEvents(driver, id)).length, round);
      }),
    );
    assert.ok((await terminate(application_name)).length > 0);
    await sleep(20);
  }
  assert.deepEqual(await driver.listSessions(), { items: [] });
});

test("a server that is down at first is waited for", async (t) => {
  const server = await ownServer(t);
  await server.stop("immediate");
  const driver = openPostgres(t, { connectionString: server.url });
  const calls = Promise.all([
    driver.updateSession(session("s")),
    driver.insertEvent("s", event("s", 1)),
    driver.getSession("s"),
    driver.listEvents({ sessionId: "s" }),
    driver.listSessions(),
    driver.getSession("none"),
  ]);
  await sleep(1000);
  await server.start();
  const [, , found, events, sessions, none] = await calls;
  assert.equal(found?.id, "s");
  assert.equal(events.items.length, 1);
  assert.equal(sessions.items.length, 1);
  assert.equal(none, undefined);
});

for (const when of ["at first", "later"]) {
  test(`a server that is down for too long ${when} rejects every call in time, and none afterwards`, async (t) => {
    const { relay, options } = await relayed(t);
    const driver = openPostgres(t, { ...options, retryTimeoutMs: 500 });
    if (when === "later") await driver.insertEvent("s", event("s", 1));
    await relay.refuse(true);
    relay.cutAll();
    const reads = [
      driver.getSession("none"),
      driver.listSessions(),
      driver.listEvents({ sessionId: "none" }),
    ];
    const writes = Array.from({ length: 20 }, (_, at) => [
      driver.insertEvent("s", event("s", 2 + at)),
      driver.updateSession(session("s", { createdAt: at })),
      driver.insertEvent(`s${at}`, event(`s${at}`, 1)),
    ]);
    const held = [driver.getSession("s"), driver.listEvents({ sessionId: "s" })];
    const outcomes = await Promise.all([...reads, ...writes.flat(), ...held].map(timed));
    for (const { error } of outcomes) {
      assert.equal(error?.name, UNAVAILABLE.name);
      assert.equal(error?.code, UNAVAILABLE.code);
    }
    const taken = outcomes.map(({ milliseconds }) => milliseconds);
    const ofReads = taken.slice(0, reads.length);
    const ofWrites = taken.slice(reads.length, -held.length);
    const ofHeld = taken.slice(-held.length);
    // A pause that would go beyond the end is not begun: it may come somewhat earlier.
    assert.ok(Math.min(...taken) >= 200, `not given up at once: ${taken}`);
    assert.ok(Math.max(...ofReads) < 900, `reads: ${ofReads}`);
    assert.ok(Math.max(...ofWrites) < 900, `writes: ${ofWrites}`);
    assert.ok(Math.max(...ofHeld) < 900, `reads that wait for writes: ${ofHeld}`);

    await relay.refuse(false);
    await driver.insertEvent("s", event("s", 100));
    const indexes = (await allEvents(driver, "s")).map(({ eventIndex }) => eventIndex);
    assert.deepEqual(indexes, when === "later" ? [1, 100] : [100]);
  });
}

test("calls made all through an outage that is too long settle in time", async (t) => {
  const { relay, options } = await relayed(t);
  const driver = openPostgres(t, { ...options, retryTimeoutMs: 500 });
  await driver.insertEvent("s", event("s", 1));
  await relay.refuse(true);
  relay.cutAll();
  const calls: ReturnType<typeof timed>[] = [];
  for (let index = 2; index <= 100; index += 1) {
    calls.push(timed(driver.insertEvent("s", event("s", index))));
    calls.push(timed(driver.listEvents({ sessionId: "s" })));
    await sleep(10);
  }
  const outcomes = await Promise.all(calls);
  assert.ok(outcomes.every(({ error }) => error?.code === UNAVAILABLE.code));
  const slowest = Math.max(...outcomes.map(({ milliseconds }) => milliseconds));
  assert.ok(slowest < 1100, `the slowest took ${slowest} ms`);
  await relay.refuse(false);
  await driver.insertEvent("s", event("s", 101));
});

test("no trouble reaches the process that isn't a call's", async (t) => {
  const { relay, options } = await relayed(t);
  const application_name = randomUUID();
  const connectionString = `${options.connectionString}?application_name=${application_name}`;
  const child = start("trouble-unheard", [JSON.stringify({ ...options, connectionString })]);
  let stderr = "";
  child.stderr!.on("data", (data) => (stderr += data));
  const [ready] = await once(child, "message");
  assert.equal(ready, "idle");
  assert.ok((await terminate(application_name)).length > 0);
  await sleep(100);
  relay.cutAll();
  child.send("go on");
  const [[report], [code]] = await Promise.all([once(child, "message"), once(child, "close")]);
  assert.deepEqual(report, { unheard: [] });
  assert.equal(code, 0, stderr);
  assert.equal(stderr, "");
});

test("what an outage leaves waiting has a ceiling", async (t) => {
  const { relay, options } = await relayed(t);
  const driver = openPostgres(t, { ...options, maxQueuedBytes: 10_000 });
  await driver.insertEvent("s", event("s", 1));
  await relay.refuse(true);
  relay.cutAll();
  const calls = Array.from({ length: 30 }, (_, at) =>
    driver.insertEvent("s", event("s", 2 + at, { payload: "x".repeat(1000) })),
  );
  const settled = Promise.allSettled(calls);
  await sleep(100);
  await relay.refuse(false);
  const outcomes = await settled;
  const refused = outcomes.findIndex(({ status }) => status === "rejected");
  assert.ok(refused > 3, `${refused} were taken`);
  for (const outcome of outcomes.slice(refused)) {
    assert.ok(outcome.status === "rejected");
    assert.equal(outcome.reason.name, "Error");
    assert.equal(outcome.reason.code, "ERR_PERSIST_OVERLOADED");
  }
  await driver.insertEvent("s", event("s", 100));
  const indexes = (await allEvents(driver, "s")).map(({ eventIndex }) => eventIndex);
  assert.deepEqual(indexes, [...Array.from({ length: refused + 1 }, (_, at) => at + 1), 100]);
});

test("an attempt to connect that nobody answers is given up and made anew", async (t) => {
  const { relay, options } = await relayed(t);
  relay.blackHole(true);
  const poolConfig = { connectionTimeoutMillis: 150 };
  const driver = openPostgres(t, { ...options, poolConfig });
  const calls = Promise.all([driver.insertEvent("s", event("s", 1)), driver.getSession("s")]);
  await until(() => relay.size >= 4, "each call tries again");
  relay.blackHole(false);
  await calls;
});

test("a query that nobody answers is given up and made anew", async (t) => {
  const { relay, options } = await relayed(t);
  const driver = openPostgres(t, { ...options, poolConfig: { query_timeout: 300 } });
  await driver.insertEvent("s", event("s", 1));
  await driver.updateSession(session("s"));
  relay.freezeOpen();
  const { error, milliseconds } = await timed(
    Promise.all([
      driver.insertEvent("s", event("s", 2)),
      driver.getSession("s"),
      driver.listSessions(),
    ]),
  );
  assert.equal(error, undefined);
  assert.ok(milliseconds >= 250 && milliseconds < 2000, `${milliseconds} ms`);
  assert.equal((await allEvents(driver, "s")).length, 2);
});

test("what arrives from a black hole after its end doesn't undo what came later", async (t) => {
  const { relay, options } = await relayed(t);
  const poolConfig = { query_timeout: 200, connectionTimeoutMillis: 150 };
  const driver = openPostgres(t, { ...options, poolConfig });
  const write = (payload: string) => driver.insertEvent("s", event("s", 1, { id: "one", payload }));
  await write("oldest");
  relay.blackHole(true);
  const calls = [write("older"), write("newer")];
  await sleep(700);
  relay.blackHole(false);
  await Promise.all(calls);
  await sleep(200);
  assert.equal((await allEvents(driver, "s"))[0]!.payload, "newer");
});

test("a server that never answers rejects in time", async (t) => {
  const { relay, options } = await relayed(t);
  const driver = openPostgres(t, { ...options, retryTimeoutMs: 500 });
  await driver.insertEvent("s", event("s", 1));
  relay.blackHole(true);
  for (const { error, milliseconds } of await Promise.all([
    timed(driver.insertEvent("s", event("s", 2))),
    timed(driver.getSession("s")),
  ])) {
    assert.equal(error?.code, UNAVAILABLE.code);
    assert.ok(milliseconds < 900, `${milliseconds} ms`);
  }
  relay.blackHole(false);
  await driver.insertEvent("s", event("s", 3));
});

test("close() during an outage settles every call in time", async (t) => {
  const { relay, options } = await relayed(t);
  const driver = new PostgresSessionPersistDriver({ ...options, retryTimeoutMs: 500 });
  await driver.insertEvent("s", event("s", 1));
  await relay.refuse(true);
  relay.cutAll();
  const writes = Array.from({ length: 10 }, (_, at) =>
    timed(driver.insertEvent("s", event("s", 2 + at))),
  );
  const read = timed(driver.listEvents({ sessionId: "s" }));
  await sleep(20);
  const closed = await timed(driver.close());
  assert.equal(closed.error, undefined);
  assert.ok(closed.milliseconds < 900, `${closed.milliseconds} ms`);
  for (const { error } of await Promise.all(writes)) assert.equal(error?.code, UNAVAILABLE.code);
  assert.equal((await read).error?.code, "ERR_PERSIST_CLOSED");
});

test("close() during an outage that ends stores what was called before", async (t) => {
  const { relay, options, straight } = await relayed(t);
  const driver = new PostgresSessionPersistDriver(options);
  await driver.insertEvent("s", event("s", 1));
  await relay.refuse(true);
  relay.cutAll();
  const write = driver.insertEvent("s", event("s", 2));
  const closed = driver.close();
  await sleep(200);
  await relay.refuse(false);
  await Promise.all([write, closed]);
  assert.equal((await allEvents(openPostgres(t, straight), "s")).length, 2);
});

test("a database that is read-only for a second is ridden out", async (t) => {
  const server = await ownServer(t);
  const setReadOnly = (value: string) =>
    server.query(
      `BEGIN READ WRITE; ALTER DATABASE postgres SET default_transaction_read_only = ${value}; COMMIT`,
    );
  const others =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
  const load = startLoad(openPostgres(t, { connectionString: server.url }), 8);
  await load.progress(2);
  await setReadOnly("on");
  await server.query(others);
  await sleep(700);
  await setReadOnly("off");
  await load.progress(2);
  await load.finish(openPostgres(t, { connectionString: server.url }));
});

test("two drivers that write the same ids in opposite order both succeed", async (t) => {
  const options = {
    connectionString: databaseUrl(),
    schema: freshSchema(t),
    poolConfig: { options: "-c deadlock_timeout=50ms" },
  };
  const drivers = [openPostgres(t, options), openPostgres(t, options)] as const;
  const ids = Array.from({ length: 100 }, (_, at) => `id-${at}`);
  for (let round = 0; round < 5; round += 1) {
    const calls = drivers.flatMap((driver, which) =>
      (which === 0 ? ids : ids.toReversed()).flatMap((id) => [
        driver.insertEvent(id, event(id, round, { id })),
        driver.updateSession(session(id, { createdAt: round })),
      ]),
    );
    await Promise.all(calls);
  }
  assert.equal((await drivers[0].listSessions({ limit: 1000 })).items.length, 100);
});

test("serialization failures are tried again", async (t) => {
  const options = {
    connectionString: databaseUrl(),
    schema: freshSchema(t),
    poolConfig: { options: "-c default_transaction_isolation=serializable" },
  };
  const drivers = [openPostgres(t, options), openPostgres(t, options)];
  await Promise.all(
    drivers.map(async (driver) => {
      for (let round = 1; round <= 50; round += 1) {
        await Promise.all(
          ["a", "b", "c"].map((id) => driver.insertEvent(id, event(id, round, { id }))),
        );
      }
    }),
  );
});

test("a deadlock that the driver loses is tried again", async (t) => {
  const [first, other] = [await client(t, databaseUrl()), await client(t, databaseUrl())];
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const application_name = randomUUID();
  const poolConfig = { options: "-c deadlock_timeout=500ms", max: 1, application_name };
  const driver = openPostgres(t, { ...options, poolConfig });
  const write = (id: string) => driver.insertEvent(id, event(id, 1, { id }));
  await Promise.all(["a", "b", "c"].map(write));
  const lock = (connection: pg.Client, id: string) =>
    connection.query(`SELECT FROM ${options.schema}.events WHERE id = '${id}' FOR UPDATE`);
  await first.query("BEGIN");
  await lock(first, "c");
  // Waits first and looks last: it is left to the driver to find the deadlock.
  await other.query("SET deadlock_timeout = '20s'");
  await other.query("BEGIN");
  await lock(other, "b");

  const written = write("c");
  await untilWaiting(application_name);
  const both = Promise.all([write("a"), write("b")]);
  await first.query("ROLLBACK");
  await written;
  await untilWaiting(application_name);
  const start = Date.now();
  await lock(other, "a");
  assert.ok(Date.now() - start > 100, "it was the driver who gave way");
  await other.query("COMMIT");
  await both;
});

const REFUSALS = [
  ["a wrong password", "app:wrong-secret", "postgres", "28P01"],
  ["a role that doesn't exist", "nobody:wrong-secret", "postgres", "28P01"],
  ["a host that isn't admitted", "outsider:wrong-secret", "postgres", "28000"],
  ["a database that doesn't exist", "app:right", "missing", "3D000"],
] as const;

/** A server that knows the role `app` by its password, and admits no `outsider`. */
async function serverWithPasswords(t: TestContext) {
  const server = await ownServer(t, {
    files: {
      "pg_hba.conf":
        "host all outsider all reject\nhost all postgres all trust\nhost all all all scram-sha-256\n",
    },
  });
  await server.query("CREATE ROLE app LOGIN PASSWORD 'right'");
  await server.query("GRANT CREATE ON SCHEMA public TO app");
  return server;
}

test("passwords and who is refused", async (t) => {
  const server = await serverWithPasswords(t);
  const as = (login: string, database = "postgres") =>
    `postgres://${login}@127.0.0.1:${server.port}/${database}`;
  const setPassword = (password: string) =>
    server.query(`ALTER ROLE app LOGIN PASSWORD '${password}'`);
  const endConnections = () =>
    server.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");

  for (const [what, login, database, sqlState] of REFUSALS) {
    await t.test(`${what} is refused at once`, async (t) => {
      const driver = openPostgres(t, { connectionString: as(login, database) });
      const calls = [
        driver.insertEvent("s", event("s", 1)),
        driver.insertEvent("s", event("s", 2)),
        driver.getSession("none"),
        driver.listEvents({ sessionId: "s" }),
      ];
      for (const { error, milliseconds } of await Promise.all(calls.map(timed))) {
        assert.equal(error?.name, "Error");
        assert.equal(error?.code, "ERR_PERSIST_CANNOT_OPEN");
        assert.equal(error?.sqlState, sqlState);
        assert.ok(error.message.includes(`"${database}"`), error.message);
        assert.doesNotMatch(error.message, /secret/);
        assert.ok(milliseconds < 800, `${milliseconds} ms`);
      }
    });
  }

  await t.test("a refusal isn't remembered", async (t) => {
    const driver = openPostgres(t, { connectionString: as("app:new") });
    const refused = await rejection(driver.insertEvent("s", event("s", 1)));
    assert.equal(refused.code, "ERR_PERSIST_CANNOT_OPEN");
    await setPassword("new");
    await driver.insertEvent("s", event("s", 1));
    await setPassword("right");
  });

  for (const [what, password] of [
    ["at once", () => "right"],
    ["later", async () => (await sleep(10), "right")],
  ] as const) {
    await t.test(`a function gives the password ${what}, for each connection`, async (t) => {
      let calls = 0;
      const driver = openPostgres(t, {
        connectionString: as("app"),
        poolConfig: { password: () => ((calls += 1), password()), max: 3 },
      });
      await driver.insertEvent("s", event("s", 1));
      assert.equal(calls, 1);
      const lists = ["a", "b", "c", "d"].map((id) => driver.listEvents({ sessionId: id }));
      await Promise.all([...lists, driver.insertEvent("t", event("t", 1))]);
      // How many connections that takes is a matter of how fast they are made.
      const before = calls;
      assert.ok(before <= 3, `${before}`);
      await endConnections();
      await driver.insertEvent("s", event("s", 2));
      assert.ok(calls > before, `${calls}`);
    });
  }

  await t.test("a password that changes is asked for anew", async (t) => {
    let current = "right";
    const driver = openPostgres(t, {
      connectionString: as("app"),
      poolConfig: { password: async () => current },
    });
    await driver.insertEvent("rotated", event("rotated", 1));
    for (const password of ["second", "third", "right"]) {
      current = password;
      await setPassword(password);
      await endConnections();
      const calls = ["a", "b", "c"].map((id) => driver.insertEvent(id, event(id, 1)));
      await Promise.all([...calls, driver.listEvents({ sessionId: "rotated" })]);
    }
  });

  for (const [what, fail, message] of [
    [
      "throws",
      () => {
        throw new Error("secret");
      },
      /password function threw/,
    ],
    ["rejects", () => Promise.reject(new Error("secret")), /password function rejected/],
    ["gives no string", () => 7, /password function returned no string/],
    ["gives a promise of no string", async () => undefined, /password function returned no string/],
    ["never answers", () => new Promise(() => {}), /password|no answer in time/],
  ] as const) {
    await t.test(`a password function that ${what} rejects the call, and only that`, async (t) => {
      let isFailing = true;
      const driver = openPostgres(t, {
        connectionString: as("app"),
        poolConfig: { password: () => (isFailing ? (fail() as any) : "right") },
        retryTimeoutMs: 600,
      });
      const calls = [driver.insertEvent("s", event("s", 1)), driver.getSession("none")];
      for (const { error, milliseconds } of await Promise.all(calls.map(timed))) {
        assert.equal(error?.name, UNAVAILABLE.name);
        assert.equal(error?.code, UNAVAILABLE.code);
        assert.match(error.message, message);
        assert.doesNotMatch(error.message, /secret/);
        assert.ok(milliseconds < 1000, `${milliseconds} ms`);
      }
      isFailing = false;
      await driver.insertEvent("s", event("s", 1));
    });
  }

  await t.test("a role that may have few connections is served", async (t) => {
    await server.query("ALTER ROLE app CONNECTION LIMIT 2");
    const driver = openPostgres(t, { connectionString: as("app:right") });
    const load = startLoad(driver, 8);
    await load.progress(10);
    await load.finish(driver);
    await server.query("ALTER ROLE app CONNECTION LIMIT -1");
  });

  await t.test("a password function that fails for a moment is ridden out", async (t) => {
    let calls = 0;
    const driver = openPostgres(t, {
      connectionString: as("app"),
      poolConfig: { password: () => ((calls += 1) < 4 ? Promise.reject(new Error()) : "right") },
    });
    await driver.insertEvent("s", event("s", 1));
    assert.ok(calls >= 4);
  });
});

for (const [end, code] of [
  ["process.exit()", 0],
  ["uncaught exception", 1],
  ["natural end", 0],
] as const) {
  test(`calls that nobody awaited are stored: ${end}`, async (t) => {
    const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
    const ended = await runToEnd("trouble-insert-and-exit", [JSON.stringify(options), end]);
    assert.equal(ended.code, code, ended.stderr);
    assert.equal((await allEvents(openPostgres(t, options), "s", 1000)).length, 500);
  });
}

test("a process whose database is down ends within seconds", async (t) => {
  const { relay, options } = await relayed(t);
  await relay.refuse(true);
  const args = [JSON.stringify(options), "process.exit()"];
  const ended = await runToEnd("trouble-insert-and-exit", args);
  const milliseconds = Date.now() - ended.messages[0].ends;
  assert.equal(ended.code, 0, ended.stderr);
  assert.ok(milliseconds < 6500, `${milliseconds} ms`);
});

// A worker doesn't inherit tsx; this registers it before the program is loaded.
const bootstrap = `
  import { register } from ${JSON.stringify(import.meta.resolve("tsx/esm/api"))};
  register();
  await import(${JSON.stringify(new URL("support/processes/trouble-worker.ts", import.meta.url).href)});
`;
const startWorker = (workerData: object) =>
  new Worker(new URL(`data:text/javascript,${encodeURIComponent(bootstrap)}`), { workerData });

test("workers that are terminated mid-insert lose nothing that was acknowledged", async (t) => {
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const reader = openPostgres(t, options);
  for (let round = 0; round < 5; round += 1) {
    const sessionId = `s${round}`;
    const worker = startWorker({ options, sessionId, count: 100_000 });
    const acknowledged: string[] = [];
    await new Promise<void>((resolve, reject) => {
      worker.on("error", reject).on("message", (id) => {
        if (acknowledged.push(id) === 10 + 17 * round) resolve();
      });
    });
    await worker.terminate();
    const stored = new Set((await allEvents(reader, sessionId, 1000)).map(({ id }) => id));
    assert.ok(acknowledged.every((id) => stored.has(id)));
  }
});

test("kill -9 at any moment loses nothing that was acknowledged", async (t) => {
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const reader = openPostgres(t, options);
  for (let round = 0; round < 3; round += 1) {
    const sessionId = `s${round}`;
    const child = start("trouble-write", [JSON.stringify(options), sessionId, "100000"]);
    const acknowledged: string[] = [];
    child.on("message", ({ stored }: { stored: string }) => {
      if (acknowledged.push(stored) === 20 + 61 * round) child.kill("SIGKILL");
    });
    await once(child, "close");
    assert.ok(acknowledged.length >= 20 + 61 * round);
    const stored = new Set((await allEvents(reader, sessionId, 1000)).map(({ id }) => id));
    assert.ok(acknowledged.every((id) => stored.has(id)));
  }
});
