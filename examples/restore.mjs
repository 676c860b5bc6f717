/**
 * A session that outlives its process: created and streamed in one, resumed in another.
 *
 * Runs the published sandbox-agent server and SDK with a scripted agent, on SQLite, or with the
 * argument `postgres` on a PostgreSQL of its own. Nothing leaves the machine. The database stays in
 * demo-data/ for you to open.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { styleText } from "node:util";
import { SandboxAgent } from "sandbox-agent";
import { startServer } from "./support/server.mjs";
import { stores } from "./support/stores.mjs";

const CHUNKS = 400;
const SESSION = "demo";
const folder = fileURLToPath(new URL("../demo-data", import.meta.url));

const step = (text) => console.log(`\n${styleText("bold", text)}`);
const fact = (name, value) => console.log(`  ${styleText("dim", name.padEnd(26))} ${value}`);
const count = (number) => number.toLocaleString("en-US");
const milliseconds = (number) => `${number.toFixed(number < 10 ? 2 : 0)} ms`;

/** Server, driver and SDK, as an application would start them. */
async function start({ Driver }, options) {
  const server = await startServer(`${folder}/home`);
  const persist = new Driver(options);
  const sdk = await SandboxAgent.connect({
    baseUrl: server.baseUrl,
    persist: persist.replayView(),
  });
  return { server, persist, sdk };
}

async function stop({ server, persist, sdk }) {
  await sdk.dispose();
  await server.stop();
  await persist.close();
}

/** Sends a prompt and waits for the chunk of the answer that begins with `last`. */
async function ask(session, text, last) {
  const chunks = [];
  const answered = new Promise((resolve) => {
    const unsubscribe = session.onEvent(({ payload }) => {
      const update = payload.params?.update;
      if (update?.sessionUpdate !== "agent_message_chunk") return;
      chunks.push(update.content.text);
      if (update.content.text.startsWith(last)) resolve(unsubscribe());
    });
  });
  await session.prompt([{ type: "text", text }]);
  await answered;
  return chunks;
}

async function history(persist) {
  const events = [];
  let cursor;
  do {
    const page = await persist.listEvents({ sessionId: SESSION, cursor });
    events.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor);
  return events;
}

const digest = (events) => createHash("sha256").update(JSON.stringify(events)).digest("hex");

/** The first process: a session streams. */
async function stream(running) {
  const session = await running.sdk.createSession({ id: SESSION, agent: "mock", cwd: folder });
  fact("session", `${session.id}, agent ${session.agent}, server ${running.server.baseUrl}`);
  const began = performance.now();
  const answer = await ask(session, `stream ${CHUNKS} 60`, `${CHUNKS} `);
  const streamed = performance.now() - began;
  fact("answer", `${count(answer.length)} chunks, each durable before the application saw it`);
  fact(
    "time for the turn",
    `${milliseconds(streamed)}, ${milliseconds(streamed / CHUNKS)} a chunk`,
  );
  const events = await history(running.persist);
  fact("events stored", count(events.length));
  fact("their SHA-256", digest(events));
  return true;
}

/** The second process: the session is resumed. */
async function resume(running) {
  const events = await history(running.persist);
  fact("events found", count(events.length));
  fact("their SHA-256", digest(events));
  const began = performance.now();
  const resumed = await running.sdk.resumeSession(SESSION);
  fact("resumed in", `${milliseconds(performance.now() - began)}, the agent's start included`);
  const [report] = await ask(resumed, "What do you remember?", "{");
  const { replayed } = JSON.parse(report);
  const lines = replayed.split("\n").filter((line) => line.startsWith("{"));
  const texts = lines.map((line) => JSON.parse(line).payload.params?.update?.content?.text ?? "");
  const chunks = texts.join("").match(/\d+(?= the agent reads)/g) ?? [];
  fact("replayed to the agent", `${count(replayed.length)} characters, the newest that there are:`);
  fact("", `chunks ${chunks[0]} to ${chunks.at(-1)} of ${CHUNKS}, joined`);
  const indexes = (await history(running.persist)).map(({ eventIndex }) => eventIndex);
  const hasNoGap = indexes.every((index, at) => index === at + 1);
  fact(
    "after one more turn",
    `${count(indexes.length)} events, numbered ${hasNoGap ? "without a gap" : "WITH GAPS"}`,
  );
  return hasNoGap && chunks.at(-1) === String(CHUNKS) && events.length > 0;
}

const phases = { stream, resume };

/** What such a process does. */
async function runPhase(name, phase, options) {
  const running = await start(stores[name], JSON.parse(options));
  try {
    process.exitCode = (await phases[phase](running)) ? 0 : 1;
  } finally {
    await stop(running);
  }
}

/** Runs a phase in a process of its own. */
function inProcessOfItsOwn(name, phase, options) {
  const args = [fileURLToPath(import.meta.url), name, phase, JSON.stringify(options)];
  const { status } = spawnSync(process.execPath, args, { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

async function demonstrate(name) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const store = await stores[name].start(folder);
  step("1  A process starts the server, creates a session and streams an answer");
  inProcessOfItsOwn(name, "stream", store.options);
  step(`2  Process and server have ended. What is left is ${store.what}`);
  for (const [what, size] of await store.left()) fact(what, size);
  step("3  Another process starts a new server and resumes the session");
  inProcessOfItsOwn(name, "resume", store.options);
  step(styleText("green", "The session is back."));
  for (const line of await store.end()) console.log(line && `  ${line}`);
  console.log();
}

const [name = "sqlite", phase, options] = process.argv.slice(2);
if (!Object.hasOwn(stores, name)) {
  console.error(`no database ${name}: there are ${Object.keys(stores).join(" and ")}`);
  process.exitCode = 1;
} else if (phase) {
  await runPhase(name, phase, options);
} else {
  await demonstrate(name);
}
