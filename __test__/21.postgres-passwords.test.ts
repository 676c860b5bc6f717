/** Who is let in: passwords, functions that give them, and what a refusal shows. */
import assert from "node:assert/strict";
import { after, before, describe, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { PostgresSessionPersistDriverOptions } from "../index.js";
import { event, firstEvents, rejection, session } from "./support/fixtures.ts";
import { runToEnd } from "./support/fork.ts";
import { startLoad } from "./support/load.ts";
import {
  environmentWith,
  freshDatabase,
  freshRole,
  ownServer,
  sql,
  startPostgres,
  urlOf,
  type Postgres,
} from "./support/postgres.ts";
import { openPostgres, openWith } from "./support/postgres-around.ts";
import { HINT, refused, SECRET, shown } from "./support/refusals.ts";
import { timed, until } from "./support/waiting.ts";

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
    const env = environmentWith(config, { PGPASSWORD: SECRET });
    const args = [JSON.stringify({ schema: schema() }), "s", "1"];
    const { code, stderr } = await runToEnd("write", args, { env });
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

  test("none where one is asked for is said", async (t) => {
    const driver = openPostgres(t, { connectionString: undefined, poolConfig: config });
    const error = await refused(driver.listSessions(), "ERR_PERSIST_CANNOT_OPEN", "28P01");
    assert.match(error.message, /neither the options nor PGPASSWORD have one$/);
  });

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

  const circle = new Error("in a circle");
  circle.cause = circle;
  const { proxy: unspeakable, revoke } = Proxy.revocable({}, {});
  revoke();
  const noPromise = Promise.resolve("unheard");
  noPromise.then = () => {
    throw circle;
  };
  test("a promise whose then isn't a promise's is a failed attempt", async (t) => {
    const driver = openPostgres(t, {
      connectionString: undefined,
      poolConfig: { ...config, password: () => noPromise },
      retryTimeoutMs: 100,
      schema: schema(),
    });
    const error = await rejection(driver.listSessions());
    assert.match(error.message, /the password function's promise can't be awaited/);
  });
  for (const [what, thrown] of [
    ["an error that causes itself", circle],
    ["a symbol", Symbol("s")],
    ["a revoked proxy", unspeakable],
  ] as const) {
    test(`a function that throws, or rejects with, ${what}`, async (t) => {
      const fail = () => {
        throw thrown;
      };
      for (const password of [fail, async () => fail()]) {
        const driver = openPostgres(t, {
          connectionString: undefined,
          poolConfig: { ...config, password },
          retryTimeoutMs: 100,
          schema: schema(),
        });
        const error = await rejection(driver.listSessions());
        assert.match(error.message, /the password function (threw|rejected)/);
      }
    });
  }

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
      const driver = openWith(t, { connectionString: as(login, database) });
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
    const driver = openWith(t, { connectionString: as("app:new") });
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
      const driver = openWith(t, {
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
      // One may be opened still, and serve the next call.
      await until(async () => {
        await endConnections();
        await driver.insertEvent("s", event("s", 2));
        return calls > before;
      });
    });
  }

  await t.test("a password that changes is asked for anew", async (t) => {
    let current = "right";
    const driver = openWith(t, {
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
      const driver = openWith(t, {
        connectionString: as("app"),
        poolConfig: { password: () => (isFailing ? (fail() as any) : "right") },
        retryTimeoutMs: 600,
      });
      const calls = [driver.insertEvent("s", event("s", 1)), driver.getSession("none")];
      for (const { error, milliseconds } of await Promise.all(calls.map(timed))) {
        assert.equal(error?.name, "Error");
        assert.equal(error?.code, "ERR_PERSIST_UNAVAILABLE");
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
    const driver = openWith(t, { connectionString: as("app:right") });
    const load = startLoad(driver, 8);
    await load.progress(10);
    await load.finish(driver);
    await server.query("ALTER ROLE app CONNECTION LIMIT -1");
  });

  await t.test("a password function that fails for a moment is ridden out", async (t) => {
    let calls = 0;
    const driver = openWith(t, {
      connectionString: as("app"),
      poolConfig: { password: () => ((calls += 1) < 4 ? Promise.reject(new Error()) : "right") },
    });
    await driver.insertEvent("s", event("s", 1));
    assert.ok(calls >= 4);
  });
});

test("a role that may not connect to the database is refused at once", async (t) => {
  const database = await freshDatabase(t);
  const { name: role } = await freshRole(t);
  await sql(`REVOKE CONNECT ON DATABASE ${database} FROM PUBLIC`);
  let connections = 0;
  // Called for each connection, unless the URL has a password.
  const password = () => {
    connections += 1;
    return "right";
  };
  const driver = openWith(t, {
    connectionString: urlOf({ role, password: "", database }),
    poolConfig: { password },
  });
  const calls = [
    ...firstEvents(100).map((sent) => driver.insertEvent(sent.sessionId, sent)),
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
