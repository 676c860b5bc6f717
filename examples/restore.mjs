/**
 * A session that outlives its process: created and streamed in one, which is killed, and resumed in
 * another.
 *
 * Runs the published sandbox-agent server and SDK with a scripted agent, on SQLite, or with the
 * argument `postgres` on a PostgreSQL of its own. Nothing leaves the machine. What SQLite stored stays
 * in demo-data/ for you to open.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { styleText } from "node:util";
import { SandboxAgent } from "sandbox-agent";
import * as drivers from "../index.js";
import { query, table } from "./support/query.mjs";
import { startServer } from "./support/server.mjs";
import { choose, stores } from "./support/stores.mjs";

const CHUNKS = 2_000;
/** The process is killed once its application has seen so many events. */
const KILLED_AFTER = 500;
const SESSION = "demo";
/** The descriptor on which the first process says what its application has seen. */
const SEEN = 3;
const QUERY = `SELECT sender, coalesce(payload_json ->> 'method', 'a response') AS envelope,
       count(*) AS events, min(event_index) AS first, max(event_index) AS last
FROM events GROUP BY 1, 2 ORDER BY 4`;

const program = fileURLToPath(import.meta.url);
const step = (text) => console.log(`\n${styleText("bold", text)}`);
const line = (text) => console.log(`   ${text}`);
const count = (number) => Number(number).toLocaleString("en-US");

/** Driver and SDK, as an application would start them. */
async function connect(store, options, baseUrl) {
  const persist = new drivers[stores[store].driver](options);
  const sdk = await SandboxAgent.connect({ baseUrl, persist: persist.replayView() });
  return { persist, sdk };
}

/** The first process: a session streams, until the process is killed. */
async function stream({ sdk }) {
  const session = await sdk.createSession({ id: SESSION, agent: "mock", cwd: process.cwd() });
  // Written at once, as nothing that is put off survives.
  session.onEvent(({ eventIndex }) => writeSync(SEEN, `${eventIndex}\n`));
  await session.prompt([{ type: "text", text: `stream ${CHUNKS} 60` }]);
}

/** The agent's answer to a question that it answers in one chunk. */
async function ask(session, text) {
  const answered = new Promise((resolve) => {
    session.onEvent(({ payload }) => {
      const update = payload.params?.update;
      if (update?.sessionUpdate === "agent_message_chunk") resolve(update.content.text);
    });
  });
  await session.prompt([{ type: "text", text }]);
  return answered;
}

/** The numbers of the chunks in what was replayed to the agent. */
function replayedChunks(replayed) {
  const lines = replayed.split("\n").filter((line) => line.startsWith("{"));
  const texts = lines.map((line) => JSON.parse(line).payload.params?.update?.content?.text ?? "");
  return texts.join("").match(/\d+(?= the agent reads)/g) ?? [];
}

/** The second process: the session is resumed. */
async function resume({ sdk, persist }) {
  const began = performance.now();
  const resumed = await sdk.resumeSession(SESSION);
  const took = Math.round(performance.now() - began);
  line(`It was resumed in ${took} ms, the start of a new agent included.`);
  const { replayed } = JSON.parse(await ask(resumed, "What do you remember?"));
  const chunks = replayedChunks(replayed);
  line(`The agent was told the newest ${count(replayed.length)} characters of its history:`);
  line(`chunks ${chunks[0]} to ${chunks.at(-1)} of the answer that was cut off.`);
  const indexes = [];
  for await (const event of persist.streamEvents({ sessionId: SESSION })) {
    indexes.push(event.eventIndex);
  }
  const isWhole = indexes.every((index, at) => index === at + 1);
  line(
    `It has ${count(indexes.length)} events now, numbered ${isWhole ? "without" : "WITH"} gaps.`,
  );
  return isWhole && chunks.length > 0;
}

/** What such a process does. */
async function runPhase(phase, store, { options, baseUrl }) {
  const connected = await connect(store, options, baseUrl);
  if (phase === "stream") return stream(connected);
  process.exitCode = (await resume(connected)) ? 0 : 1;
  await connected.sdk.dispose();
  await connected.persist.close();
}

/** Starts a phase in a process of its own, and a server beside it, which `stop` ends. */
async function startPhase(phase, store, options) {
  const home = mkdtempSync(join(tmpdir(), "sandbox-agent-"));
  const server = await startServer(home);
  const settings = JSON.stringify({ options, baseUrl: server.baseUrl });
  const child = spawn(process.execPath, [program, store, phase, settings], {
    stdio: ["ignore", "inherit", "inherit", "pipe"],
  });
  const stop = async () => {
    await server.stop();
    rmSync(home, { recursive: true, force: true });
  };
  return { child, exited: once(child, "close"), stop };
}

/** Kills a process that streams, and returns the last event that its application has seen. */
async function killMidway({ child, exited, stop }) {
  let seen = 0;
  for await (const index of createInterface({ input: child.stdio[SEEN] })) {
    seen = Number(index);
    if (seen >= KILLED_AFTER) child.kill("SIGKILL");
  }
  const [, signal] = await exited;
  await stop();
  if (signal !== "SIGKILL" && process.platform !== "win32") throw new Error("it ended by itself");
  return seen;
}

async function demonstrate(store) {
  const database = await stores[store].start();

  step("1  A process creates a session, an agent streams its answer, and kill -9 ends the process");
  const seen = await killMidway(await startPhase("stream", store, database.options));
  line(`Its application had seen event ${count(seen)}, in the middle of ${count(CHUNKS)} chunks.`);

  step(`2  What is left is ${database.place}`);
  const [{ events, last }] = await query(
    database.place,
    "SELECT count(*) AS events, max(event_index) AS last FROM events",
  );
  const isAllThere = Number(events) === Number(last) && last >= seen;
  line(
    isAllThere
      ? `It has events 1 to ${count(last)}: all that the application had seen.`
      : `It has ${count(events)} events up to ${count(last)}: EVENTS ARE MISSING.`,
  );
  console.log();
  for (const text of `${QUERY};`.split("\n")) line(text);
  console.log();
  for (const row of table(await query(database.place, QUERY))) line(row);

  step("3  Another process, with a new server, resumes the session");
  const { exited, stop } = await startPhase("resume", store, database.options);
  const [code] = await exited;
  await stop();
  if (code !== 0 || !isAllThere) throw new Error("the session is not what it was");

  step("The session is back.");
  await database.end();
}

const [name, phase, settings] = process.argv.slice(2);
const store = choose(name);
if (phase) await runPhase(phase, store, JSON.parse(settings));
else await demonstrate(store);
