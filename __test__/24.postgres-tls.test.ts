/** Encrypted connections: which server is trusted, and what a mistake gets. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, test, type TestContext } from "node:test";
import pg from "pg";
import type { PostgresSessionPersistDriverOptions } from "../index.js";
import { allEvents, event, folder, rejection, session } from "./support/fixtures.ts";
import { runToEnd } from "./support/fork.ts";
import { startLoad } from "./support/load.ts";
import { databaseParts, databaseUrl, freshSchema, ownServer } from "./support/postgres.ts";
import { openPostgres, openWith } from "./support/postgres-around.ts";
import { HINT, refuses, shown } from "./support/refusals.ts";
import {
  makeCertificates,
  makeOddCertificate,
  ODD_CERTIFICATES,
  startTlsFront,
  tlsOnly,
} from "./support/tls.ts";
import { relayTo } from "./support/relay.ts";
import { timed } from "./support/waiting.ts";

const hasOpenssl = spawnSync("openssl", ["version"]).status === 0;
const skip = hasOpenssl ? undefined : "the openssl command isn't installed";

async function works(t: TestContext, options: PostgresSessionPersistDriverOptions) {
  const driver = openWith(t, options);
  const sent = event(t.name, 1);
  await driver.insertEvent(t.name, sent);
  assert.deepEqual(await allEvents(driver, t.name), [sent]);
}

async function isRefused(
  t: TestContext,
  options: PostgresSessionPersistDriverOptions,
  message: RegExp,
  sqlState?: string,
) {
  const driver = openWith(t, options);
  const calls = [driver.insertEvent("s", event("s", 1)), driver.listSessions()];
  for (const { error, milliseconds } of await Promise.all(calls.map(timed))) {
    assert.equal(error?.name, "Error");
    assert.equal(error?.code, "ERR_PERSIST_CANNOT_OPEN", String(error));
    assert.equal(error.sqlState, sqlState);
    assert.match(error.message, message);
    assert.ok(milliseconds < 800, `${milliseconds} ms`);
  }
}

test("a server that talks TLS only", { skip }, async (t) => {
  const path = folder(t);
  const certificates = makeCertificates(path);
  const options = tlsOnly(certificates);
  const server = await ownServer(t, {
    ...options,
    config: { ...options.config, listen_addresses: "127.0.0.1,127.0.0.2" },
  });
  const ca = readFileSync(certificates.authority, "utf8");
  const stranger = readFileSync(makeCertificates(folder(t)).authority, "utf8");
  const url = `postgres://postgres@localhost:${server.port}/postgres`;
  const byAddress = `postgres://postgres@127.0.0.1:${server.port}/postgres`;
  const file = encodeURIComponent(certificates.authority);

  for (const [what, given] of [
    ["a string", { connectionString: url, poolConfig: { ssl: { ca } } }],
    ["a Buffer", { connectionString: url, poolConfig: { ssl: { ca: Buffer.from(ca) } } }],
    ["a list", { connectionString: url, poolConfig: { ssl: { ca: [stranger, ca] } } }],
    [
      "a list of Buffers",
      { connectionString: url, poolConfig: { ssl: { ca: [Buffer.from(ca)] } } },
    ],
    ["several in one text", { connectionString: url, poolConfig: { ssl: { ca: stranger + ca } } }],
    ["sslrootcert", { connectionString: `${url}?sslrootcert=${file}` }],
    ["verify-full", { connectionString: `${url}?sslmode=verify-full&sslrootcert=${file}` }],
    [
      "libpq's verify-ca",
      {
        connectionString: `${url}?uselibpqcompat=true&sslmode=verify-ca&sslrootcert=${file}`,
      },
    ],
    ["an address", { connectionString: byAddress, poolConfig: { ssl: { ca } } }],
    [
      "fields",
      {
        poolConfig: {
          host: "localhost",
          port: server.port,
          user: "postgres",
          database: "postgres",
          ssl: { ca, rejectUnauthorized: true, servername: "localhost" },
        },
      },
    ],
    [
      "a pool",
      {
        pool: new pg.Pool({ connectionString: url, ssl: { ca } }),
      },
    ],
  ] as [string, PostgresSessionPersistDriverOptions][]) {
    await t.test(`its authority is trusted when given: ${what}`, (t) => works(t, given));
  }

  await t.test("its authority is trusted by NODE_EXTRA_CA_CERTS", async (t) => {
    const args = [JSON.stringify({ connectionString: `${url}?ssl=true` }), "extra", "1"];
    const env = { ...process.env, NODE_EXTRA_CA_CERTS: certificates.authority };
    const { code, stderr, messages } = await runToEnd("write", args, { env });
    assert.equal(code, 0, stderr);
    assert.equal(messages.length, 1);
  });

  for (const [what, given] of [
    ["no authority", { connectionString: url, poolConfig: { ssl: true } }],
    ["another authority", { connectionString: url, poolConfig: { ssl: { ca: stranger } } }],
    ["ssl=true", { connectionString: `${url}?ssl=true` }],
    ["sslmode=require", { connectionString: `${url}?sslmode=require` }],
  ] as [string, PostgresSessionPersistDriverOptions][]) {
    await t.test(`it is refused at once, and by its certificate: ${what}`, (t) =>
      isRefused(t, given, /TLS.*certificate/i),
    );
  }

  for (const [what, given] of [
    [
      "rejectUnauthorized",
      {
        connectionString: url,
        poolConfig: { ssl: { rejectUnauthorized: false } },
      },
    ],
    ["sslmode=no-verify", { connectionString: `${url}?sslmode=no-verify` }],
    ["libpq's require", { connectionString: `${url}?uselibpqcompat=true&sslmode=require` }],
  ] as [string, PostgresSessionPersistDriverOptions][]) {
    await t.test(`it is trusted without a look on request: ${what}`, (t) => works(t, given));
  }

  const elsewhere = process.platform === "linux" ? undefined : "needs Linux's loopback addresses";
  await t.test(
    "a name that isn't in its certificate is refused",
    { skip: elsewhere },
    async (t) => {
      const connectionString = `postgres://postgres@127.0.0.2:${server.port}/postgres`;
      await isRefused(t, { connectionString, poolConfig: { ssl: { ca } } }, /TLS.*(name|address)/i);
      const ssl = { rejectUnauthorized: false };
      await works(t, { connectionString, poolConfig: { ssl } });
    },
  );

  for (const [what, given] of [
    ["by default", { connectionString: url }],
    ["sslmode=disable", { connectionString: `${url}?sslmode=disable` }],
  ] as [string, PostgresSessionPersistDriverOptions][]) {
    await t.test(`plain text is refused at once: ${what}`, (t) =>
      isRefused(t, given, /no encryption|pg_hba/, "28000"),
    );
  }

  await t.test("encrypted connections that are cut lose nothing", async (t) => {
    const relay = await relayTo(t, server.url);
    const given = { connectionString: relay.url, schema: "cut", poolConfig: { ssl: { ca } } };
    const load = startLoad(openWith(t, given), 8);
    await load.progress(1);
    relay.cutEvery(100);
    await sleep(1000);
    relay.cutEvery(0);
    await load.progress(1);
    await load.finish(openWith(t, given));
  });
});

describe("a certificate that is odd", { skip }, () => {
  /** What each is refused with: unverified, and given as `ssl.ca`. `undefined`: it isn't. */
  const expected: Record<keyof typeof ODD_CERTIFICATES, [RegExp | undefined, RegExp]> = {
    "X.509 version 1": [/of X\.509 version 1; make a new one/, /of X\.509 version 1/],
    expired: [undefined, /has expired/],
    "a common name alone": [undefined, /has no subjectAltName; have it made with one/],
    "marked as an authority's": [undefined, /CA:TRUE; have it made with CA:FALSE/],
  };
  for (const kind of Object.keys(expected) as (keyof typeof ODD_CERTIFICATES)[]) {
    test(kind, async (t) => {
      const identity = makeOddCertificate(folder(t), kind);
      const { host, port, ...parts } = databaseParts();
      const front = await startTlsFront(t, identity, { host, port });
      const schema = freshSchema(t);
      const options = (ssl: object) => ({
        schema,
        poolConfig: { ...parts, host: "localhost", port: front, ssl },
      });
      const [unverified, verified] = expected[kind];
      const withoutALook = options({ rejectUnauthorized: false });
      if (unverified) await isRefused(t, withoutALook, unverified);
      else await works(t, withoutALook);
      await isRefused(t, options({ ca: identity.cert }), verified);
    });
  }
});

test("a server that wants to see a certificate", { skip }, async (t) => {
  const path = folder(t);
  const certificates = makeCertificates(path);
  const server = await ownServer(t, tlsOnly(certificates, { clientCertificate: true }));
  const url = `postgres://postgres@localhost:${server.port}/postgres`;
  const ca = readFileSync(certificates.authority, "utf8");
  const cert = readFileSync(certificates.clientCertificate, "utf8");
  const key = readFileSync(certificates.clientKey, "utf8");
  const ssl = { ca, cert, key };
  const file = (name: keyof typeof certificates) => encodeURIComponent(certificates[name]);
  const files = `sslrootcert=${file("authority")}&sslcert=${file("clientCertificate")}&sslkey=${file("clientKey")}`;

  for (const [what, given] of [
    ["poolConfig", { connectionString: url, poolConfig: { ssl } }],
    [
      "Buffers",
      {
        connectionString: url,
        poolConfig: { ssl: { ca, cert: Buffer.from(cert), key: Buffer.from(key) } },
      },
    ],
    ["the URL", { connectionString: `${url}?${files}` }],
    // node-postgres hides the key from whoever lists its options.
    ["a pool", { pool: new pg.Pool({ connectionString: url, ssl }) }],
    [
      "a server that isn't looked at",
      {
        connectionString: url,
        poolConfig: { ssl: { cert, key, rejectUnauthorized: false } },
      },
    ],
  ] as [string, PostgresSessionPersistDriverOptions][]) {
    await t.test(`it sees one: ${what}`, (t) => works(t, given));
  }

  await t.test("without one it refuses at once", (t) =>
    isRefused(t, { connectionString: url, poolConfig: { ssl: { ca } } }, /certificate/, "28000"),
  );

  await t.test("one of another authority is refused at once", async (t) => {
    const other = makeCertificates(folder(t));
    const strange = {
      ca,
      cert: readFileSync(other.clientCertificate, "utf8"),
      key: readFileSync(other.clientKey, "utf8"),
    };
    await isRefused(t, { connectionString: url, poolConfig: { ssl: strange } }, /TLS|certificate/);
  });

  await t.test("a key that is none is refused, and not shown", async (t) => {
    const poolConfig = { ssl: { ca, cert, key: "-----BEGIN secret" } };
    await isRefused(t, { connectionString: url, poolConfig }, /^(?!.*secret).*(certificate|key)/);
  });
});

test("a server that can't encrypt is refused at once, not talked to in plain text", async (t) => {
  const poolConfig = { ssl: { rejectUnauthorized: false } };
  await isRefused(t, { connectionString: databaseUrl(), poolConfig }, /TLS/);
});

test("a Pool with a client certificate, whose key isn't enumerable, connects", async (t) => {
  const certificates = makeCertificates(folder(t));
  const server = await ownServer(t, tlsOnly(certificates, { clientCertificate: true }));
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
    { poolConfig: { ...databaseParts(), ssl: { key: "sesame", cert: "sesame" } } },
    /ssl\.(cert|key) /,
  );
  refuses({ poolConfig: { ...databaseParts(), ssl: { ca: 5 } } }, /ssl\.ca must be /);
  const poolConfig = { ...databaseParts(), ssl: { key: broken, cert: broken } };
  const made = await rejection(
    (async () => openPostgres(t, { poolConfig, connectionString: undefined }).listSessions())(),
  );
  assert.ok(["ERR_PERSIST_INVALID_ARG", "ERR_PERSIST_CANNOT_OPEN"].includes(String(made.code)));
  assert.doesNotMatch(shown(made), HINT);
});
