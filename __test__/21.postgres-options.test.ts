/** How the Postgres driver is told where and how to connect, and what it keeps to itself. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";
import pg from "pg";
import {
  PostgresSessionPersistDriver,
  type PostgresPoolConfig,
  type PostgresSessionPersistDriverOptions,
} from "../index.js";
import { event, folder, rejection, session } from "./support/fixtures.ts";
import { runToEnd } from "./support/fork.ts";
import {
  freshApplication,
  openPostgres,
  processesOf,
  until,
  whileHolding,
} from "./support/postgres-around.ts";
import { databaseUrl, freshSchema, sql, startPostgres, type Postgres } from "./support/postgres.ts";
import { startRelay } from "./support/relay.ts";
import { makeCertificates, tlsOnly } from "./support/tls.ts";

const SECRET = "open sesame'\\&%";
const HINT = /sesame/;

/** The parts of the database's URL, as `poolConfig` has them. */
function parts() {
  const url = new URL(databaseUrl());
  return {
    host: url.hostname,
    port: Number(url.port),
    user: url.username,
    database: url.pathname.slice(1),
  };
}

/** The environment without what would choose a database in it. */
const withoutPg = () =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PG")));

/** Everything that a look at an error or a driver shows. */
const shown = (what: unknown) => inspect(what, { depth: 9, showHidden: true });

/** Options that the constructor must refuse. */
function refuses(options: unknown, message: RegExp | string) {
  let thrown: unknown;
  try {
    new PostgresSessionPersistDriver(options as {});
  } catch (error) {
    thrown = error;
  }
  assert.ok(thrown instanceof TypeError, `${inspect(options)}: ${inspect(thrown)}`);
  assert.equal((thrown as any).code, "ERR_PERSIST_INVALID_ARG");
  if (typeof message === "string") assert.equal(thrown.message, message);
  else assert.match(thrown.message, message);
  assert.doesNotMatch(shown(thrown), HINT);
}

/** What a call rejects with, and that it gives nothing away. */
async function refused(call: Promise<unknown>, code: string, sqlState?: string) {
  const error = await rejection(call);
  assert.ok(error instanceof Error && !(error instanceof TypeError), shown(error));
  assert.deepEqual([error.code, error.sqlState], [code, sqlState], shown(error));
  assert.doesNotMatch(shown(error), HINT);
  assert.doesNotMatch(shown(error), /postgres(ql)?:\/\//);
  return error;
}

/** The process warnings of ours while `body` runs. */
async function warningsOf(body: () => unknown): Promise<string[]> {
  const messages: string[] = [];
  const listener = ({ name, message }: Error) => {
    if (name === "SandboxAgentPersistWarning") messages.push(message);
  };
  process.on("warning", listener);
  try {
    await body();
    // Warnings are emitted in a later turn.
    await sleep(10);
  } finally {
    process.off("warning", listener);
  }
  return messages;
}

describe("where to connect", () => {
  const forms: Record<string, () => PostgresSessionPersistDriverOptions> = {
    connectionString: () => ({ connectionString: databaseUrl() }),
    "poolConfig.connectionString": () => ({ poolConfig: { connectionString: databaseUrl() } }),
    "poolConfig.connectionString wins": () => ({
      connectionString: "postgres://postgres@127.0.0.1:1/postgres",
      poolConfig: { connectionString: databaseUrl() },
    }),
    "poolConfig with a connectionString beside it": () => ({
      connectionString: databaseUrl(),
      poolConfig: { max: 2 },
    }),
    poolConfig: () => ({ poolConfig: parts() }),
    "poolConfig with a port of digits": () => ({
      poolConfig: { ...parts(), port: String(parts().port) as unknown as number },
    }),
    "a postgresql: URL": () => ({
      connectionString: databaseUrl().replace("postgres:", "postgresql:"),
    }),
    "a URL whose fields win over poolConfig's": () => ({
      poolConfig: { connectionString: databaseUrl(), host: "127.0.0.2", port: 1, user: "nobody" },
    }),
    "several hosts": () => {
      const { host, port } = parts();
      const url = databaseUrl().replace(`${host}:${port}`, `127.0.0.1:1,${host}:${port}`);
      return { connectionString: url };
    },
  };
  for (const [name, options] of Object.entries(forms)) {
    test(`is said by ${name}`, async (t) => {
      const driver = openPostgres(t, { connectionString: undefined, ...options() });
      await driver.updateSession(session("s"));
      assert.equal((await driver.getSession("s"))!.id, "s");
    });
  }

  test("is said by PG* variables", async (t) => {
    const schema = freshSchema(t);
    const { host, port, user, database } = parts();
    const application = freshApplication();
    const { code, stderr } = await runToEnd(
      "postgres-insert",
      [JSON.stringify({ schema }), "s", "2"],
      {
        env: {
          ...withoutPg(),
          PGHOST: host,
          PGPORT: String(port),
          PGUSER: user,
          PGDATABASE: database,
          PGAPPNAME: application,
        },
      },
    );
    assert.equal(code, 0, stderr);
    assert.equal((await sql(`SELECT FROM ${schema}.events`)).length, 2);
  });

  test("is said by a Pool, which stays unused", async (t) => {
    const application_name = freshApplication();
    const pool = new pg.Pool({ ...parts(), application_name, max: 2, maxUses: 5, min: 0 });
    t.after(() => pool.end());
    const driver = openPostgres(t, { pool });
    await driver.updateSession(session("s"));
    assert.equal((await processesOf(application_name)).length, 1);
    assert.deepEqual([pool.totalCount, pool.ended], [0, false]);
  });

  test("is said by a Pool alone: connectionString and poolConfig are ignored", async (t) => {
    const pool = new pg.Pool({ connectionString: databaseUrl() });
    t.after(() => pool.end());
    const connectionString = "postgres://127.0.0.1:1/none";
    const driver = openPostgres(t, { pool, connectionString, poolConfig: { host: "127.0.0.2" } });
    await driver.listSessions();
  });

  test("is read once: a Pool's later settings and its end change nothing", async (t) => {
    const pool = new pg.Pool({ connectionString: databaseUrl() });
    const driver = openPostgres(t, { pool });
    pool.options.connectionString = "postgres://127.0.0.1:1/none";
    await pool.end();
    await driver.listSessions();
  });

  test("a Pool that isn't one is refused", () => {
    for (const pool of ["pool", 5, {}, { query: () => {} }]) {
      refuses({ pool }, /^options\.pool must be /);
    }
  });

  test("the constructor connects to nothing, and asks for no password", async (t) => {
    let [connections, asked] = [0, 0];
    const server = createServer((socket) => {
      connections += 1;
      socket.destroy();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    t.after(() => server.close());
    const { port } = server.address() as AddressInfo;
    const password = () => {
      asked += 1;
      return SECRET;
    };
    const driver = new PostgresSessionPersistDriver({
      poolConfig: { host: "127.0.0.1", port, user: "u", password },
    });
    await sleep(50);
    assert.deepEqual([connections, asked], [0, 0]);
    await driver.close();
    assert.deepEqual([connections, asked], [0, 0]);
  });
});

describe("the schema's name", () => {
  test("is refused as the TypeScript driver refuses it", () => {
    for (const schema of ["x-y", "1x", "", "x y", 'x"', "x;--", "é", "a.b", "$x"]) {
      refuses(
        { connectionString: databaseUrl(), schema },
        `Invalid schema name '${schema}'. Use letters, numbers, and underscores only.`,
      );
    }
  });

  test("is refused when PostgreSQL would cut it off", () => {
    const connectionString = databaseUrl();
    const tooLong = { connectionString, schema: "s".repeat(64) };
    refuses(tooLong, /schema must be at most 63 characters long/);
    new PostgresSessionPersistDriver({ connectionString, schema: "s".repeat(63) });
    for (const schema of [5, {}, "a\0b"]) refuses({ connectionString, schema }, /schema/);
  });

  test("is looked at before the environment is", (t) => {
    for (const name of ["USER", "USERNAME", "PGUSER"]) {
      const value = process.env[name];
      delete process.env[name];
      t.after(() => value !== undefined && (process.env[name] = value));
    }
    refuses(
      { schema: "x-y" },
      "Invalid schema name 'x-y'. Use letters, numbers, and underscores only.",
    );
  });

  test("keeps its case, and may be a word of SQL", async (t) => {
    const schema = `${freshSchema(t)}_Select_TABLE`;
    t.after(() => sql(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`));
    const driver = openPostgres(t, { schema });
    await driver.insertEvent("s", event("s", 1));
    assert.equal((await sql(`SELECT FROM "${schema}".events`)).length, 1);
  });
});

describe("options", () => {
  test("every name of node-postgres that we can honour, or ignore, is accepted", async (t) => {
    const poolConfig: Record<string, unknown> = {
      ...parts(),
      password: "unused",
      ssl: false,
      max: 3,
      min: 1,
      idleTimeoutMillis: 1_000,
      connectionTimeoutMillis: 5_000,
      maxLifetimeSeconds: 60,
      maxUses: Infinity,
      allowExitOnIdle: true,
      application_name: "a",
      fallback_application_name: "b",
      statement_timeout: 5_000,
      query_timeout: 5_000,
      lock_timeout: 5_000,
      idle_in_transaction_session_timeout: 5_000,
      keepAlive: true,
      keepAliveInitialDelayMillis: 1_000,
      client_encoding: "utf8",
      options: "-c work_mem=8MB",
      log: () => {},
      Promise,
      Client: pg.Client,
      types: pg.types,
    };
    for (const given of [
      { poolConfig },
      { pool: new pg.Pool(poolConfig) },
      { poolConfig: { ...poolConfig, maxUses: 7, statement_timeout: false, query_timeout: 0 } },
      { poolConfig: { ...parts(), max: undefined, ssl: undefined, password: undefined } },
    ]) {
      const driver = openPostgres(t, { connectionString: undefined, ...given });
      assert.deepEqual(await driver.listSessions(), { items: [] });
    }
  });

  test("what node-postgres would do and we can't is refused by name", () => {
    const impossible: Record<string, unknown> = {
      stream: () => {},
      onConnect: () => {},
      verify: () => {},
      replication: "database",
      binary: true,
    };
    for (const [name, value] of Object.entries(impossible)) {
      const config = { ...parts(), [name]: value };
      refuses({ poolConfig: config }, new RegExp(`poolConfig\\.${name} `));
      refuses({ pool: new pg.Pool(config as pg.PoolConfig) }, new RegExp(`\\.${name} `));
    }
    const ssl = { checkServerIdentity: () => undefined };
    refuses({ poolConfig: { ...parts(), ssl } }, /ssl\.checkServerIdentity /);
    refuses({ pool: new pg.Pool({ ...parts(), ssl }) }, /ssl\.checkServerIdentity /);
    const off = { ...parts(), binary: false } as PostgresPoolConfig;
    new PostgresSessionPersistDriver({ poolConfig: off });
  });

  test("a misspelt name is refused, with those there are", () => {
    refuses({ conectionString: "" }, /^options\.conectionString is not an option; .*poolConfig/);
    refuses({ poolConfig: { hots: "x" } }, /^options\.poolConfig\.hots is not an option; .*host/);
    refuses({ poolConfig: { ssl: { cafile: "x" } } }, /ssl\.cafile is not an option/);
  });

  test("a wrong value is refused, named", () => {
    const wrong: Record<string, unknown[]> = {
      connectionString: [5, {}],
      host: [5, "a\0b"],
      port: [-1, 65_536, 1.5, "x", {}],
      user: [5, "a\0b"],
      password: [5, {}],
      database: [5, "a\0b"],
      ssl: ["yes", 5],
      max: [0, -1, 1.5, "5", Number.NaN],
      min: [-1, 1.5, "5"],
      idleTimeoutMillis: [-1, "5", 2 ** 31],
      connectionTimeoutMillis: [-1, "5"],
      maxLifetimeSeconds: [-1, 0.5],
      maxUses: [-1, 0.5, -Infinity],
      allowExitOnIdle: [1, "yes"],
      application_name: [5, "a\0b"],
      statement_timeout: [-1, true, "5"],
      query_timeout: [-1, true],
      lock_timeout: [-1, "5"],
      keepAlive: [1],
      client_encoding: [5, "latin1"],
      options: [5, "a\0b"],
    };
    for (const [name, values] of Object.entries(wrong)) {
      for (const value of values) {
        refuses(
          { poolConfig: { ...parts(), [name]: value } },
          new RegExp(`poolConfig\\.${name} must be `),
        );
      }
    }
    refuses(null, /^options must be an object/);
    refuses({ poolConfig: "x" }, /^options\.poolConfig must be an object/);
    const connectionString = databaseUrl();
    refuses({ connectionString, migrate: 1 }, /^options\.migrate must be true or false/);
    refuses(
      { connectionString, preparedStatements: "no" },
      /^options\.preparedStatements must be true or false/,
    );
    for (const [name, least] of [
      ["retryTimeoutMs", 100],
      ["maxQueuedBytes", 0],
    ] as const) {
      for (const value of [least - 1, least + 0.5, "500"]) {
        refuses(
          { connectionString, [name]: value },
          new RegExp(`^options\\.${name} must be a whole number from ${least}`),
        );
      }
    }
  });

  test("a class is called with new", () => {
    const call = PostgresSessionPersistDriver as unknown as (options: object) => unknown;
    assert.throws(() => call({}), { name: "TypeError", code: "ERR_PERSIST_INVALID_ARG" });
  });

  test("parameters of a URL that we don't know give one warning", async (t) => {
    const url = `${databaseUrl()}?channel_binding=prefer&pgbouncer=true&application_name=known`;
    const messages = await warningsOf(() =>
      openPostgres(t, { connectionString: url }).listSessions(),
    );
    assert.equal(messages.length, 1, inspect(messages));
    assert.match(messages[0]!, /channel_binding.*pgbouncer/);
    assert.doesNotMatch(messages[0]!, /application_name|known/);
    assert.deepEqual(await warningsOf(() => openPostgres(t).listSessions()), []);
  });
});

describe("connections", () => {
  test("are never more than max", async (t) => {
    const application_name = freshApplication();
    const schema = freshSchema(t);
    const driver = openPostgres(t, { schema, poolConfig: { application_name, max: 3 } });
    await driver.listSessions();
    await whileHolding(`LOCK TABLE ${schema}.events`, async (release) => {
      const calls = Array.from({ length: 50 }, (_, index) =>
        index % 2
          ? driver.insertEvent(`s${index}`, event(`s${index}`, 1))
          : driver.listEvents({ sessionId: `r${index}` }),
      );
      await until(async () => (await processesOf(application_name)).length === 3);
      await sleep(100);
      assert.equal((await processesOf(application_name)).length, 3);
      await release();
      await Promise.all(calls);
    });
    assert.ok((await processesOf(application_name)).length <= 3);
  });

  test("one is enough for reads and writes at once", async (t) => {
    const application_name = freshApplication();
    const driver = openPostgres(t, { poolConfig: { application_name, max: 1 } });
    const calls = Array.from({ length: 60 }, (_, index) => [
      driver.insertEvent(`s${index % 9}`, event(`s${index % 9}`, index)),
      driver.listEvents({ sessionId: `s${index % 9}` }),
      driver.updateSession(session(`s${index}`)),
      driver.listSessions(),
    ]);
    await Promise.all(calls.flat());
    assert.equal((await processesOf(application_name)).length, 1);
  });

  test("that are idle for idleTimeoutMillis are closed, but for min", async (t) => {
    for (const min of [0, 1]) {
      const application_name = freshApplication();
      const poolConfig = { application_name, idleTimeoutMillis: 100, min };
      const driver = openPostgres(t, { poolConfig });
      await Promise.all(["a", "b", "c", "d"].map((id) => driver.getSession(id)));
      await until(async () => (await processesOf(application_name)).length === min);
      await sleep(200);
      assert.equal((await processesOf(application_name)).length, min);
      await driver.listSessions();
    }
  });

  test("are replaced after maxUses", async (t) => {
    const application_name = freshApplication();
    const driver = openPostgres(t, { poolConfig: { application_name, maxUses: 2, max: 1 } });
    const seen = new Set<number>();
    for (let call = 0; call < 8; call += 1) {
      await driver.listSessions();
      for (const pid of await processesOf(application_name)) seen.add(pid);
    }
    // The last may have been closed before anybody looked.
    assert.ok(seen.size >= 3 && seen.size <= 5, `${seen.size} connections`);
  });

  test("are replaced after maxLifetimeSeconds", async (t) => {
    const application_name = freshApplication();
    const poolConfig = { application_name, maxLifetimeSeconds: 1, max: 1 };
    const driver = openPostgres(t, { poolConfig });
    await driver.listSessions();
    const [first] = await processesOf(application_name);
    await driver.listSessions();
    assert.deepEqual(await processesOf(application_name), [first]);
    await sleep(1_050);
    await driver.listSessions();
    await until(async () => !(await processesOf(application_name)).includes(first!));
  });

  test("that were closed by age are taken leave of: the server logs no broken ones", async (t) => {
    const relay = await startRelay(databaseUrl());
    t.after(() => relay.stop());
    const poolConfig = { maxUses: 1 };
    const driver = openPostgres(t, { connectionString: relay.url, poolConfig });
    for (let call = 0; call < 3; call += 1) await driver.listSessions();
    await until(async () => relay.size <= 1);
  });

  test("carry the application's name, and the fallback only without one", async (t) => {
    const [given, fallback] = [freshApplication(), freshApplication()];
    const both = { application_name: given, fallback_application_name: fallback };
    await openPostgres(t, { poolConfig: both }).listSessions();
    assert.equal((await processesOf(given)).length, 1);
    assert.equal((await processesOf(fallback)).length, 0);
    const alone = { fallback_application_name: fallback };
    await openPostgres(t, { poolConfig: alone }).listSessions();
    assert.equal((await processesOf(fallback)).length, 1);
  });

  test("don't keep the process alive", async (t) => {
    const options = JSON.stringify({
      connectionString: databaseUrl(),
      schema: freshSchema(t),
      poolConfig: { idleTimeoutMillis: 0, min: 1 },
    });
    const begin = Date.now();
    const { code, stderr } = await runToEnd("postgres-idle", [options]);
    assert.equal(code, 0, stderr);
    assert.ok(Date.now() - begin < 8_000);
  });
});

describe("timeouts of the server", () => {
  const timeouts = { statement_timeout: "57014", lock_timeout: "55P03" };
  for (const [name, sqlState] of Object.entries(timeouts)) {
    for (const preparedStatements of [false, true]) {
      const title = `${name}${preparedStatements ? ", prepared statements" : ""}`;
      test(`${title}: the call rejects at once, and the driver goes on`, async (t) => {
        const schema = freshSchema(t);
        const poolConfig = { [name]: 100 };
        const driver = openPostgres(t, { schema, poolConfig, preparedStatements });
        await driver.listSessions();
        await whileHolding(`LOCK TABLE ${schema}.events`, async () => {
          const begin = Date.now();
          await refused(driver.insertEvent("s", event("s", 1)), "ERR_PERSIST_DATABASE", sqlState);
          const read = driver.listEvents({ sessionId: "s" });
          await refused(read, "ERR_PERSIST_DATABASE", sqlState);
          assert.ok(Date.now() - begin < 3_000);
        });
        await driver.insertEvent("s", event("s", 1));
        assert.equal((await driver.listEvents({ sessionId: "s" })).items.length, 1);
      });
    }
  }

  test("leave no state in the session, and aren't asked for at its start", async (t) => {
    const relay = await startRelay(databaseUrl());
    t.after(() => relay.stop());
    let sent = "";
    void relay.swallowAnswerAndCut((bytes) => {
      sent += bytes.toString("latin1");
      return false;
    });
    const poolConfig = {
      statement_timeout: 4_321,
      lock_timeout: 4_322,
      idle_in_transaction_session_timeout: 4_323,
    };
    const driver = openPostgres(t, { connectionString: relay.url, poolConfig });
    await driver.insertEvent("s", event("s", 1));
    await driver.listEvents({ sessionId: "s" });
    for (const [name, value] of Object.entries(poolConfig)) {
      assert.match(sent, new RegExp(`SET LOCAL ${name} = ${value};`));
    }
    assert.doesNotMatch(sent, /SET (?!LOCAL)(SESSION )?\w*timeout/i);
    assert.doesNotMatch(sent, /user\0.*(timeout|options|extra_float_digits)\0/);
  });

  test("hold for every statement", async (t) => {
    const schema = freshSchema(t);
    const poolConfig = { statement_timeout: 4_321, lock_timeout: 4_322 };
    const driver = openPostgres(t, { schema, poolConfig });
    await driver.listSessions();
    await sql(`CREATE TABLE ${schema}.log (statement TEXT, lock TEXT);
      CREATE FUNCTION ${schema}.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          INSERT INTO ${schema}.log
            VALUES (current_setting('statement_timeout'), current_setting('lock_timeout'));
          RETURN new;
        END $$;
      CREATE TRIGGER noted BEFORE INSERT ON ${schema}.sessions FOR EACH ROW
        EXECUTE FUNCTION ${schema}.note()`);
    await driver.updateSession(session("s"));
    await driver.updateSession(session("t"));
    const expected = { statement: "4321ms", lock: "4322ms" };
    assert.deepEqual(await sql(`SELECT * FROM ${schema}.log`), [expected, expected]);
  });
});

describe("a server that asks for a password", () => {
  let server: Postgres;
  let config: { host: string; port: number; user: string; database: string };
  let schemas = 0;
  /** A schema that goes with the server. */
  const schema = () => `s${(schemas += 1)}`;

  before(async () => {
    const rules = ["host all postgres all trust", "host all app all scram-sha-256", ""];
    server = await startPostgres({ files: { "pg_hba.conf": rules.join("\n") } });
    await server.query(`CREATE ROLE app LOGIN PASSWORD ${pg.escapeLiteral(SECRET)}`);
    await server.query("GRANT CREATE ON DATABASE postgres TO app");
    config = { host: "127.0.0.1", port: server.port, user: "app", database: "postgres" };
  });
  after(() => server?.stop("immediate"));

  const urlWith = (password: string) => {
    const url = new URL(server.url);
    url.username = "app";
    return url.href.replace("app@", `app:${encodeURIComponent(password)}@`);
  };
  const forms: Record<string, () => PostgresSessionPersistDriverOptions> = {
    "a URL": () => ({ connectionString: urlWith(SECRET) }),
    poolConfig: () => ({ poolConfig: { ...config, password: SECRET } }),
    "a function": () => ({ poolConfig: { ...config, password: () => SECRET } }),
    "an async function": () => ({ poolConfig: { ...config, password: async () => SECRET } }),
    "a Pool": () => ({ pool: new pg.Pool({ ...config, password: SECRET }) }),
    "a Pool with a URL": () => ({ pool: new pg.Pool({ connectionString: urlWith(SECRET) }) }),
    "a Pool with a function": () => ({
      pool: new pg.Pool({ ...config, password: async () => SECRET }),
    }),
  };
  for (const [name, options] of Object.entries(forms)) {
    test(`gets it from ${name}, and nothing shows it`, async (t) => {
      const driver = openPostgres(t, {
        connectionString: undefined,
        schema: schema(),
        ...options(),
      });
      await driver.updateSession(session("s"));
      assert.equal((await driver.getSession("s"))!.id, "s");
      assert.doesNotMatch(shown(driver), HINT);
      assert.doesNotMatch(shown(driver), /postgres:\/\//);
      assert.doesNotMatch(JSON.stringify(driver), HINT);
      assert.doesNotMatch(JSON.stringify(driver), /postgres:\/\//);
    });
  }

  test("gets it from PGPASSWORD", async () => {
    const { host, port, user, database } = config;
    const { code, stderr } = await runToEnd(
      "postgres-insert",
      [JSON.stringify({ schema: schema() }), "s", "1"],
      {
        env: {
          ...withoutPg(),
          PGHOST: host,
          PGPORT: String(port),
          PGUSER: user,
          PGDATABASE: database,
          PGPASSWORD: SECRET,
        },
      },
    );
    assert.equal(code, 0, stderr);
    assert.doesNotMatch(stderr, HINT);
  });

  test("a function is asked for each new connection", async (t) => {
    let asked = 0;
    const password = async () => {
      asked += 1;
      return SECRET;
    };
    const poolConfig = { ...config, password, maxUses: 1, max: 1 };
    const driver = openPostgres(t, { connectionString: undefined, poolConfig, schema: schema() });
    // The first looks at the schema too, on a connection of its own.
    await driver.listSessions();
    asked = 0;
    for (let call = 0; call < 3; call += 1) await driver.listSessions();
    assert.equal(asked, 3);
  });

  const wrong: Record<string, () => PostgresSessionPersistDriverOptions> = {
    "in a URL": () => ({ connectionString: urlWith("wrong sesame") }),
    "in poolConfig": () => ({ poolConfig: { ...config, password: "wrong sesame" } }),
    "of a function": () => ({ poolConfig: { ...config, password: () => "wrong sesame" } }),
  };
  for (const [name, options] of Object.entries(wrong)) {
    test(`a wrong one rejects at once: ${name}`, async (t) => {
      const driver = openPostgres(t, {
        connectionString: undefined,
        schema: schema(),
        ...options(),
      });
      const begin = Date.now();
      await refused(driver.listSessions(), "ERR_PERSIST_CANNOT_OPEN", "28P01");
      await refused(driver.updateSession(session("s")), "ERR_PERSIST_CANNOT_OPEN", "28P01");
      assert.ok(Date.now() - begin < 3_000);
    });
  }

  test("a function that fails rejects without what it threw, and is asked again", async (t) => {
    const answers: (() => unknown)[] = [
      () => {
        throw new Error(SECRET);
      },
      () => Promise.reject(new Error(SECRET)),
      () => 5,
      () => SECRET,
    ];
    let asked = 0;
    const password = () => (answers[asked++] ?? answers[3]!)() as string;
    const driver = openPostgres(t, {
      connectionString: undefined,
      poolConfig: { ...config, password },
      schema: schema(),
    });
    await driver.listSessions();
    assert.equal(asked, 4);
  });

  test("a function that goes on failing rejects without what it throws", async (t) => {
    const password = () => {
      throw new Error(SECRET);
    };
    const driver = openPostgres(t, {
      connectionString: undefined,
      poolConfig: { ...config, password },
      retryTimeoutMs: 100,
      schema: schema(),
    });
    await refused(driver.listSessions(), "ERR_PERSIST_UNAVAILABLE");
  });

  test("a database that doesn't exist rejects at once, named", async (t) => {
    const url = urlWith(SECRET).replace(/postgres$/, "no_such_database");
    const driver = openPostgres(t, { connectionString: url });
    const error = await refused(driver.listSessions(), "ERR_PERSIST_CANNOT_OPEN", "3D000");
    assert.match(error.message, /no_such_database/);
  });

  test("a host that doesn't exist, or answers nothing, rejects without the password", async (t) => {
    for (const host of ["no-such-host.invalid", "127.0.0.1:1"]) {
      const connectionString = urlWith(SECRET).replace(/127\.0\.0\.1:\d+/, host);
      const driver = openPostgres(t, { connectionString, retryTimeoutMs: 100 });
      await refused(driver.getSession("s"), "ERR_PERSIST_UNAVAILABLE");
      await refused(driver.insertEvent("s", event("s", 1)), "ERR_PERSIST_UNAVAILABLE");
    }
  });
});

test("URLs that can't be read are refused without what is in them", () => {
  for (const url of [
    "postgres://user:sesame@host:port/db",
    "postgres://user:sesame@host:99999/db",
    "postgres://user:sesame@[::1/db",
    "postgres://user:se%00same@host/db",
    "postgres://user@host/db?password=sesame&port=sesame",
    "user:sesame@host",
    "postgres://user:sesame@host/db?sslrootcert=/no/such/sesame",
    "postgres://user:sesame@host/db?target_session_attrs=sesame",
    "postgres://user:sesame@host/db?connect_timeout=sesame",
  ]) {
    refuses({ connectionString: url }, /./);
    refuses({ poolConfig: { connectionString: url } }, /./);
  }
});

test("warnings of unknown parameters don't show their values", async (t) => {
  for (const query of ["api_key=sesame", "sesame&x=1", "passwrod=sesame", "p%20sesame=1"]) {
    const url = `${databaseUrl()}?${query}`;
    const messages = await warningsOf(() => openPostgres(t, { connectionString: url }));
    assert.equal(messages.length, 1, query);
    if (!query.startsWith("sesame")) assert.doesNotMatch(messages[0]!, HINT, query);
  }
});

test("a Pool with a client certificate, whose key isn't enumerable, connects", async (t) => {
  const certificates = makeCertificates(folder(t));
  const server = await startPostgres(tlsOnly(certificates, { clientCertificate: true }));
  t.after(() => server.stop("immediate"));
  const ssl = {
    ca: readFileSync(certificates.authority, "utf8"),
    cert: readFileSync(certificates.clientCertificate, "utf8"),
    key: readFileSync(certificates.clientKey, "utf8"),
  };
  const { port } = server;
  const config = { host: "localhost", port, user: "postgres", database: "postgres" };
  const pool = new pg.Pool({ ...config, ssl: { ...ssl } });
  assert.ok(!Object.keys(pool.options.ssl as object).includes("key"), "as node-postgres hides it");
  const driver = openPostgres(t, { pool, schema: "by_pool" });
  await driver.updateSession(session("s"));
  assert.doesNotMatch(shown(driver), /PRIVATE KEY/);

  const buffers = Object.fromEntries(
    Object.entries(ssl).map(([name, pem]) => [name, Buffer.from(pem)]),
  );
  const poolConfig = { ...config, ssl: { ...buffers, ca: [buffers.ca] } };
  const other = openPostgres(t, { connectionString: undefined, poolConfig, schema: "by_pool" });
  assert.equal((await other.getSession("s"))!.id, "s");
});

test("a certificate or key that can't be read is refused without its text", async (t) => {
  const broken = "-----BEGIN PRIVATE KEY-----\nsesame\n-----END PRIVATE KEY-----\n";
  refuses(
    { poolConfig: { ...parts(), ssl: { key: "sesame", cert: "sesame" } } },
    /ssl\.(cert|key) /,
  );
  refuses({ poolConfig: { ...parts(), ssl: { ca: 5 } } }, /ssl\.ca must be /);
  const poolConfig = { ...parts(), ssl: { key: broken, cert: broken } };
  const made = await rejection(
    (async () => openPostgres(t, { poolConfig, connectionString: undefined }).listSessions())(),
  );
  assert.ok(["ERR_PERSIST_INVALID_ARG", "ERR_PERSIST_CANNOT_OPEN"].includes(String(made.code)));
  assert.doesNotMatch(shown(made), HINT);
});
