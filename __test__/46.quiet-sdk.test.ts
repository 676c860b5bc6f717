/** The published SDK and server, at their end: what trails the answer to a prompt is stored. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { SandboxAgent } from "sandbox-agent";
import { startServer } from "../examples/support/server.mjs";
import { openEither } from "./support/either.ts";
import { allEvents, file, folder, onWindows } from "./support/fixtures.ts";
import { start } from "./support/fork.ts";
import { databaseUrl, freshSchema } from "./support/postgres.ts";
import { chunkOf } from "./support/sdk.ts";
import { until } from "./support/waiting.ts";

const SESSIONS = Array.from({ length: 8 }, (_, at) => `s${at}`);
const CHUNKS = 60;
const SEED = 20_261;

const databases: [string, (t: TestContext) => object][] = [
  ["SQLite", (t) => ({ filename: file(t) })],
  ["PostgreSQL", (t) => ({ connectionString: databaseUrl(), schema: freshSchema(t) })],
];

/** Numbers from 0 to 1, the same in every run. */
function random(seed: number) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** The texts of a session's chunks, as a driver finds them. */
async function chunksOf(driver: ReturnType<typeof openEither>, sessionId: string) {
  const events = await allEvents(driver, sessionId);
  return events
    .filter(({ sender }) => sender === "agent")
    .map(chunkOf)
    .filter(Boolean);
}

/** A server whose agent notes what it has sent. */
async function recordingServer(t: TestContext) {
  const home = folder(t);
  const path = join(home, "sent");
  process.env.MOCK_AGENT_SENT = path;
  const server = await startServer(home).finally(() => delete process.env.MOCK_AGENT_SENT);
  t.after(() => server.stop());
  const sent = () => {
    const lines = existsSync(path) ? readFileSync(path, "utf8").split("\n").slice(0, -1) : [];
    return lines.map((line): { sessionId: string; text: string } => JSON.parse(line));
  };
  return { baseUrl: server.baseUrl, cwd: home, sent };
}

const next = random(SEED);
for (const [name, of] of databases) {
  for (const moment of [next(), next()]) {
    const after = 1 + Math.floor(moment * SESSIONS.length * CHUNKS);
    const skip = onWindows && "it has no signals";
    test(`${name}: SIGTERM after ${after} chunks loses none of them`, { skip }, async (t) => {
      const options = of(t);
      const { baseUrl, cwd, sent } = await recordingServer(t);
      const work = [JSON.stringify(SESSIONS), `stream ${CHUNKS} 40`];
      const child = start("sdk-turns", [JSON.stringify(options), baseUrl, cwd, ...work]);
      const exited = once(child, "exit");
      await until(() => sent().length >= after, "the agent sends", 60_000);
      const before = sent();
      child.kill("SIGTERM");
      assert.deepEqual(await exited, [0, null]);

      const driver = openEither(options);
      t.after(() => driver.close());
      const sentBy = new Map<string, string[]>();
      for (const { sessionId, text } of before) {
        sentBy.set(sessionId, [...(sentBy.get(sessionId) ?? []), text]);
      }
      for (const id of SESSIONS) {
        const record = await driver.getSession(id);
        const texts = record && sentBy.get(record.agentSessionId);
        const found = await chunksOf(driver, id);
        assert.deepEqual(found.slice(0, texts?.length ?? 0), texts ?? [], id);
      }
    });
  }

  test(`${name}: getEvents() and close() right after a prompt`, async (t) => {
    const options = of(t);
    const { baseUrl, cwd } = await recordingServer(t);
    const told: string[] = [];
    for (let life = 1; life <= 12; life += 1) {
      const id = `life${life}`;
      const persist = openEither(options);
      const sdk = await SandboxAgent.connect({ baseUrl, persist });
      const session = await sdk.createSession({ id, agent: "mock", cwd });
      await session.prompt([{ type: "text", text: "stream 3 40" }]);
      const { items } = await sdk.getEvents({ sessionId: id });
      await persist.close();
      await sdk.dispose();
      const driver = openEither(options);
      const found = await allEvents(driver, id);
      await driver.close();
      told.push(`${items.length}/${found.length}`);
      assert.deepEqual(found.slice(0, items.length), items, "what was shown is stored");
    }
    t.diagnostic(`shown/stored: ${told.join(" ")}`);
  });
}
