/** Two servers, of which one takes the other's place. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test, type TestContext } from "node:test";
import { allEvents, event, session } from "./support/fixtures.ts";
import { startLoad } from "./support/load.ts";
import type { Postgres } from "./support/postgres.ts";
import { openWith } from "./support/postgres-around.ts";
import { startPair } from "./support/standby.ts";

async function pair(t: TestContext) {
  const servers = await startPair();
  t.after(() => servers.stop());
  return servers;
}

const urlOf = (servers: Postgres[], parameters = "") =>
  `postgres://postgres@${servers.map(({ port }) => `127.0.0.1:${port}`).join(",")}/postgres${parameters}`;

/** How many connections of this name a server has. */
const connections = async (server: Postgres, name: string) =>
  (await server.query("SELECT FROM pg_stat_activity WHERE application_name = $1", [name])).length;

for (const [what, parameters, isPrimaryFirst] of [
  ["the primary first", "?target_session_attrs=read-write", true],
  ["the standby first", "?target_session_attrs=read-write", false],
  ["by role", "?target_session_attrs=primary", true],
  ["whoever takes writes", "", true],
] as const) {
  test(`a fail-over under load loses nothing: ${what}`, async (t) => {
    const servers = await pair(t);
    const { primary, standby } = servers;
    const hosts = isPrimaryFirst ? [primary, standby] : [standby, primary];
    const application_name = randomUUID();
    const poolConfig = { application_name };
    const driver = openWith(t, { connectionString: urlOf(hosts, parameters), poolConfig });
    const load = startLoad(driver, 8);
    await load.progress(10);
    assert.ok((await connections(primary, application_name)) > 0);
    await servers.failOver();
    await load.progress(10);
    await load.finish(openWith(t, { connectionString: standby.url }));
    assert.ok((await connections(standby, application_name)) > 0);
  });
}

test("a primary and its standby", async (t) => {
  const { primary, standby } = await pair(t);
  const both = [standby, primary];
  const open = (t: TestContext, parameters: string, application_name = "none") =>
    openWith(t, {
      connectionString: urlOf(both, parameters),
      poolConfig: { application_name },
      retryTimeoutMs: 5000,
    });

  await t.test("a write that a standby refuses goes to the next host", async (t) => {
    const driver = open(t, "");
    await driver.updateSession(session("s"));
    await driver.insertEvent("s", event("s", 1));
    assert.equal((await allEvents(driver, "s")).length, 1);
  });

  await t.test("writes and reads at once find the host for both", async (t) => {
    const load = startLoad(open(t, ""), 8);
    await load.progress(20);
    await load.finish(openWith(t, { connectionString: primary.url }));
  });

  for (const [attributes, wanted] of [
    ["read-write", primary],
    ["primary", primary],
    ["read-only", standby],
    ["standby", standby],
    ["prefer-standby", standby],
    ["any", standby],
  ] as const) {
    await t.test(`target_session_attrs=${attributes} chooses its server`, async (t) => {
      const name = randomUUID();
      const driver = open(t, `?target_session_attrs=${attributes}`, name);
      assert.equal((await driver.getSession("s"))?.id, "s");
      const other = wanted === primary ? standby : primary;
      assert.ok((await connections(wanted, name)) > 0);
      assert.equal(await connections(other, name), 0);
    });
  }
});
