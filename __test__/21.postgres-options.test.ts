/** How the Postgres driver is told where and how to connect. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";
import pg from "pg";
import {
  PostgresSessionPersistDriver,
  type PostgresPoolConfig,
  type PostgresSessionPersistDriverOptions,
} from "../index.js";
import { event, rejection, session } from "./support/fixtures.ts";
import { runToEnd } from "./support/fork.ts";
import {
  databaseParts,
  databaseUrl,
  environmentWith,
  freshSchema,
  sql,
} from "./support/postgres.ts";
import {
  freshApplication,
  openPostgres,
  openWith,
  processesOf,
} from "./support/postgres-around.ts";
import { HINT, refuses, SECRET } from "./support/refusals.ts";
import { warningsOf } from "./support/warnings.ts";

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
    poolConfig: () => ({ poolConfig: databaseParts() }),
    "poolConfig with a port of digits": () => ({
      poolConfig: { ...databaseParts(), port: String(databaseParts().port) as unknown as number },
    }),
    "a postgresql: URL": () => ({
      connectionString: databaseUrl().replace("postgres:", "postgresql:"),
    }),
    "a URL whose fields win over poolConfig's": () => ({
      poolConfig: { connectionString: databaseUrl(), host: "127.0.0.2", port: 1, user: "nobody" },
    }),
    "several hosts": () => {
      const { host, port } = databaseParts();
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
    const env = environmentWith(databaseParts(), { PGAPPNAME: freshApplication() });
    const args = [JSON.stringify({ schema }), "s", "2"];
    const { code, stderr } = await runToEnd("write", args, { env });
    assert.equal(code, 0, stderr);
    assert.equal((await sql(`SELECT FROM ${schema}.events`)).length, 2);
  });

  test("is said by a Pool, which stays unused", async (t) => {
    const application_name = freshApplication();
    const pool = new pg.Pool({ ...databaseParts(), application_name, max: 2, maxUses: 5, min: 0 });
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
      ...databaseParts(),
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
      { poolConfig: { ...databaseParts(), max: undefined, ssl: undefined, password: undefined } },
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
      const config = { ...databaseParts(), [name]: value };
      refuses({ poolConfig: config }, new RegExp(`poolConfig\\.${name} `));
      refuses({ pool: new pg.Pool(config as pg.PoolConfig) }, new RegExp(`\\.${name} `));
    }
    const ssl = { checkServerIdentity: () => undefined };
    refuses({ poolConfig: { ...databaseParts(), ssl } }, /ssl\.checkServerIdentity /);
    refuses({ pool: new pg.Pool({ ...databaseParts(), ssl }) }, /ssl\.checkServerIdentity /);
    const off = { ...databaseParts(), binary: false } as PostgresPoolConfig;
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
      max: [0, -1, 1.5, "x", Number.NaN],
      min: [-1, 1.5, "x"],
      idleTimeoutMillis: [-1, "x", 2 ** 31],
      connectionTimeoutMillis: [-1, "x"],
      maxLifetimeSeconds: [-1, 0.5],
      maxUses: [-1, 0.5, -Infinity],
      allowExitOnIdle: [1, "yes"],
      application_name: [5, "a\0b"],
      statement_timeout: [-1, true, "x"],
      query_timeout: [-1, true],
      lock_timeout: [-1, "x"],
      keepAlive: [1],
      client_encoding: [5, "latin1"],
      options: [5, "a\0b"],
    };
    for (const [name, values] of Object.entries(wrong)) {
      for (const value of values) {
        refuses(
          { poolConfig: { ...databaseParts(), [name]: value } },
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

  test("numbers may be texts, as of environment variables", async (t) => {
    const numbers = {
      max: "3",
      min: "1",
      idleTimeoutMillis: "1000",
      connectionTimeoutMillis: " 5000 ",
      maxLifetimeSeconds: "60",
      maxUses: "100",
      statement_timeout: "5000",
      query_timeout: "5000",
      lock_timeout: "1000",
      keepAliveInitialDelayMillis: "1000",
    };
    const poolConfig = { ...databaseParts(), ...numbers } as unknown as PostgresPoolConfig;
    await openPostgres(t, { connectionString: undefined, poolConfig }).ready();
  });

  test("what has no effect here is taken, and said once", async (t) => {
    const poolConfig = {
      ...databaseParts(),
      pipeline: true,
      enableChannelBinding: true,
      sslnegotiation: "postgres",
      max: 2,
    } as PostgresPoolConfig;
    const open = () => openPostgres(t, { connectionString: undefined, poolConfig }).ready();
    const message =
      "options that have no effect: options.poolConfig.pipeline, options.poolConfig.enableChannelBinding, options.poolConfig.sslnegotiation";
    assert.deepEqual(await warningsOf(open), [message]);
    assert.deepEqual(await warningsOf(open), []);
    const pool = new pg.Pool({ ...databaseParts(), pipeline: true } as pg.PoolConfig);
    const inPool = () => openPostgres(t, { connectionString: undefined, pool }).ready();
    assert.deepEqual(await warningsOf(inPool), [
      "options that have no effect: options.pool.options.pipeline",
    ]);
  });

  test("what ssl objects of other libraries have is taken, where it changes nothing", async (t) => {
    const ssl = { require: true, sslmode: "require", minVersion: "TLSv1.2", maxVersion: "TLSv1.3" };
    const connect = async () => void openWith(t, { poolConfig: { ...databaseParts(), ssl } });
    assert.deepEqual(await warningsOf(connect), [
      "options that have no effect: options.poolConfig.ssl.require, options.poolConfig.ssl.sslmode",
    ]);
    for (const [name, value, may] of [
      ["minVersion", "TLSv1.3", "TLSv1, TLSv1.1, TLSv1.2"],
      ["maxVersion", "TLSv1.2", "TLSv1.3"],
    ] as const) {
      refuses(
        { poolConfig: { ...databaseParts(), ssl: { [name]: value } } },
        `options.poolConfig.ssl.${name} can't be honoured: connections take TLS 1.2 and 1.3, so it may be ${may}`,
      );
    }
    for (const name of ["ciphers", "checkServerIdentity", "pfx", "secureContext", "crl"]) {
      refuses({ poolConfig: { ...databaseParts(), ssl: { [name]: "x" } } }, new RegExp(name));
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

describe("what isn't PostgreSQL", () => {
  const handshake = Buffer.from("4a0000000a382e302e333600", "hex");
  const servers: Record<string, [answer: string | Buffer, ends: boolean, message: RegExp]> = {
    "HTTP's": ["HTTP/1.1 400 Bad Request\r\n\r\n", true, /is it a PostgreSQL server/],
    "MySQL's": [handshake, false, /does not speak PostgreSQL's protocol/],
    "Redis'": ["-ERR Protocol error\r\n", false, /does not speak PostgreSQL's protocol/],
  };
  for (const [whose, [answer, ends, message]] of Object.entries(servers)) {
    test(`an answer of ${whose} is told from trouble of PostgreSQL's`, async (t) => {
      const server = createServer((socket) => {
        socket.on("error", () => {});
        if (ends) socket.end(answer);
        else socket.write(answer);
      }).listen(0, "127.0.0.1");
      await once(server, "listening");
      t.after(() => server.close());
      const { port } = server.address() as AddressInfo;
      const driver = openWith(t, {
        connectionString: `postgres://u@127.0.0.1:${port}/d`,
        retryTimeoutMs: 300,
      });
      const error = await rejection(driver.listSessions());
      assert.equal(error.code, "ERR_PERSIST_UNAVAILABLE");
      assert.match(error.message, message);
    });
  }
});

test("a ca of another kind of numbers is no PEM", () => {
  const ca = new Float64Array(2);
  refuses({ poolConfig: { host: "h", ssl: { ca } } }, /ssl\.ca must be PEM/);
});

test("a host that nobody named is said to be one, as of a variable that isn't set", async () => {
  const env = { ...process.env };
  for (const name of Object.keys(env)) if (name.startsWith("PG")) delete env[name];
  const options = { poolConfig: { port: 1, user: "u", database: "d" }, retryTimeoutMs: 100 };
  const { stderr } = await runToEnd("write", [JSON.stringify(options), "s", "1"], { env });
  assert.match(stderr, /at localhost:1, as no connectionString, host or PGHOST is given\)/);
});
