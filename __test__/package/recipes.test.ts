/** The programs of docs/recipes.md and docs/getting-started.md, pasted into an application and run. */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort, startServer } from "../../examples/support/server.mjs";
import { root } from "../../scripts/setup.mjs";
import { environment, folder, packages, project, run, write } from "./support.ts";

const SDK = "sandbox-agent@0.4.2";
const NEXT = "node_modules/next/dist/bin/next";
const CHUNKS = 30;
const READY_WITHIN_MS = 60_000;

/** The programs of a page, by their names. */
function programs(page: string): Record<string, string> {
  const text = readFileSync(join(root, "docs", page), "utf8");
  const blocks = text.matchAll(/```js (\S+)\n(.*?)```/gs);
  return Object.fromEntries([...blocks].map(([, name, code]) => [name!, code!]));
}
const recipes = { ...programs("getting-started.md"), ...programs("recipes.md") };

let agents: { baseUrl: string; stop(): Promise<void> };
let app: string;
before(async () => {
  agents = await startServer(folder());
  app = await project([SDK, "express@5.3.0", "fastify@5.12.8"], { from: packages.local });
  write(app, recipes);
});
after(() => agents?.stop());

const settings = (more: NodeJS.ProcessEnv = {}) => ({
  ...environment,
  SANDBOX_AGENT_URL: agents.baseUrl,
  DATABASE_URL: process.env.TEST_DATABASE_URL,
  ...more,
});

/** Runs a recipe to its end and returns what it printed. */
const runs = (file: string, args: string[] = [], cwd = app) =>
  run(process.execPath, [file, ...args], { cwd, env: settings() });

async function untilReady(url: string, server: ChildProcess) {
  for (const end = Date.now() + READY_WITHIN_MS; Date.now() < end && server.exitCode === null;) {
    const answer = await fetch(url).catch(() => undefined);
    if (answer && answer.status < 500) return;
    await sleep(50);
  }
  assert.fail("the server did not become ready");
}

const send = (url: string, body: unknown, more: RequestInit = {}) => {
  const headers = { "content-type": "application/json" };
  return fetch(url, { method: "POST", headers, body: JSON.stringify(body), ...more });
};
const post = async (url: string, body: unknown) => {
  const response = await send(url, body);
  assert.ok(response.ok, await response.clone().text());
  return (await response.json()) as any;
};

const chunkOf = ({ payload }: any): string | undefined => payload.params?.update?.content?.text;

/** All events of a session, by pages of seven. */
async function pages(url: string) {
  const events: any[] = [];
  for (let cursor: string | undefined = ""; cursor !== undefined;) {
    const response = await fetch(`${url}?limit=7${cursor && `&cursor=${cursor}`}`);
    const { items, nextCursor } = (await response.json()) as any;
    assert.ok(items.length <= 7);
    events.push(...items);
    cursor = nextCursor;
  }
  return events;
}

/**
 * Has a session streamed by a server, which SIGTERM ends in the middle of another turn, and returns the
 * session's id.
 */
async function serves(t: TestContext, args: string[], { cwd = app, prefix = "", env = {} } = {}) {
  const port = String(await freePort());
  const server = spawn(process.execPath, args.concat(prefix ? ["--port", port] : []), {
    cwd,
    env: settings({ PORT: port, ...env }),
    stdio: ["ignore", "ignore", "inherit"],
  });
  t.after(() => server.kill("SIGKILL"));
  const at = `http://127.0.0.1:${port}${prefix}`;
  await untilReady(prefix ? `${at}/sessions/none/events` : `${at}/ready`, server);
  // The SDK never settles that, and rejects a promise that nobody has.
  const impatient = { signal: AbortSignal.timeout(1_000) };
  await assert.rejects(send(`${at}/sessions`, { agent: "none-of-that-name" }, impatient));
  assert.equal((await fetch(`${at}/sessions/none/events`)).status, 404);
  const { id } = await post(`${at}/sessions`, { agent: "mock" });
  const session = `${at}/sessions/${id}`;
  const { stopReason } = await post(`${session}/prompt`, { text: `stream ${CHUNKS} 20` });
  assert.equal(stopReason, "end_turn");
  const events = await pages(`${session}/events`);
  const indexes = events.map(({ eventIndex }) => eventIndex);
  assert.deepEqual(
    indexes,
    indexes.map((_, index) => indexes.length - index),
    "newest first, each once",
  );
  const turn = post(`${session}/prompt`, { text: "work" }).catch(() => {});
  server.kill("SIGTERM");
  const [code] = await once(server, "exit");
  assert.equal(code, 0);
  await turn;
  return id as string;
}

test("a first session, which the next process restores", async () => {
  const printed = await runs("first.mjs", ["mock", "stream 3 20"]);
  assert.match(printed, /^3 client session\/prompt$/m);
  assert.match(printed, /agent 3 the agent/);
  assert.match(await runs("first.mjs", ["mock", "What did I ask you?"]), /replayed.*stream 3 20/);
});

test("a server with Express, whose end loses nothing, and a transcript of its session", async (t) => {
  const id = await serves(t, ["express.mjs"]);
  const transcript = await runs("transcript.mjs", ["sandbox-agent.db"]);
  assert.match(transcript, new RegExp(`> stream ${CHUNKS} 20\\n`));
  assert.equal(transcript.match(/\d+ the agent/g)?.length, CHUNKS);
  assert.equal(await runs("transcript.mjs", ["sandbox-agent.db", id]), transcript);
});

test("a server with Fastify", async (t) => {
  await serves(t, ["fastify.mjs"]);
});

test("a server with Next", async (t) => {
  const path = await project([SDK, "next@16.4.6", "react@19.3.1", "react-dom@19.3.1"], {
    from: packages.local,
  });
  const layout = `export default ({ children }) => <html><body>{children}</body></html>;`;
  const config = recipes["next.config.mjs"]!;
  write(path, {
    ...recipes,
    "app/layout.jsx": layout,
    // Else it takes the folder above for the application's, if there is a lock file in it.
    "next.config.mjs": config.replace("{", "{ turbopack: { root: import.meta.dirname },"),
  });
  const env = { NEXT_TELEMETRY_DISABLED: "1", NEXT_MANUAL_SIG_HANDLE: "true" };
  await run(process.execPath, [NEXT, "build"], { cwd: path, env: settings(env) });
  const id = await serves(t, [NEXT, "start"], { cwd: path, prefix: "/api", env });
  assert.match(await runs("transcript.mjs", ["sandbox-agent.db", id], path), /> stream/);
});

test("tenants have a schema each", async () => {
  write(app, {
    "two-tenants.mjs": `import { closeAll, storeOf } from "./tenants.mjs";
      const event = { id: "e", sessionId: "s", eventIndex: 1, createdAt: 1, connectionId: "c", sender: "client", payload: 1 };
      await storeOf("recipe_1").insertEvent(event);
      await storeOf("recipe_1").insertEvent(event);
      console.log(await storeOf("recipe_1").countEvents(), await storeOf("recipe_2").countEvents());
      await closeAll();`,
  });
  assert.equal(await runs("two-tenants.mjs"), "1 0\n");
});

test("a file is moved to PostgreSQL, also a second time", async () => {
  write(app, {
    "fill.mjs": `import { SQLiteSessionPersistDriver } from "sandbox-agent-persist";
      const persist = new SQLiteSessionPersistDriver({ filename: "small.db" });
      await persist.updateSession({ id: "moved", agent: "a", agentSessionId: "x", lastConnectionId: "c", createdAt: 1 });
      await persist.insertEvents(Array.from({ length: 1_234 }, (_, at) => ({ id: "moved-" + at, sessionId: "moved",
        eventIndex: at + 1, createdAt: 1, connectionId: "c", sender: "agent", payload: { at } })));
      persist.close();`,
    "moved.mjs": `import { PostgresSessionPersistDriver } from "sandbox-agent-persist";
      const persist = new PostgresSessionPersistDriver({ connectionString: process.env.DATABASE_URL });
      const { agentSessionId } = await persist.getSession("moved");
      console.log(agentSessionId, await persist.countEvents({ sessionId: "moved" }));
      await persist.deleteSession("moved");
      await persist.close();`,
  });
  await runs("fill.mjs");
  for (let times = 0; times < 2; times += 1) {
    assert.match(await runs("move.mjs", ["small.db"]), /^1 sessions and 1234 events;\nnow /);
  }
  assert.equal(await runs("moved.mjs"), "x 1234\n");
});

test("a driver around this one hides keys", async () => {
  await runs("redacting.mjs", ["mock"]);
  const transcript = await runs("transcript.mjs", ["redacted.db"]);
  assert.match(transcript, /> My key is sk-…\./);
});
