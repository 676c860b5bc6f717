/**
 * A session that outlives its server: created, streamed, everything restarted, resumed.
 *
 * Runs the published sandbox-agent server and SDK with a scripted agent. Nothing leaves the
 * machine. The database stays in demo-data/ for you to open.
 */
import { mkdirSync, rmSync, statSync } from "node:fs";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { styleText } from "node:util";
import { SandboxAgent } from "sandbox-agent";
import { SQLiteSessionPersistDriver } from "../index.js";
import { startServer } from "./support/server.mjs";

const CHUNKS = 400;
const SESSION = "demo";
const folder = fileURLToPath(new URL("../demo-data", import.meta.url));
const filename = `${folder}/sandbox-agent.db`;

const step = (text) => console.log(`\n${styleText("bold", text)}`);
const fact = (name, value) => console.log(`  ${styleText("dim", name.padEnd(26))} ${value}`);
const count = (number) => number.toLocaleString("en-US");
const milliseconds = (number) => `${number.toFixed(number < 10 ? 2 : 0)} ms`;

/** Server, driver and SDK, as an application would start them. */
async function start() {
  const server = await startServer(`${folder}/home`);
  const persist = new SQLiteSessionPersistDriver({ filename });
  const sdk = await SandboxAgent.connect({ baseUrl: server.baseUrl, persist });
  return { server, persist, sdk };
}

async function stop({ server, persist, sdk }) {
  await sdk.dispose();
  await server.stop();
  persist.close();
}

/** Sends a prompt and waits until the application has seen `expected` chunks of the answer. */
async function ask(session, text, expected) {
  const chunks = [];
  const answered = new Promise((resolve) => {
    const unsubscribe = session.onEvent(({ payload }) => {
      const update = payload.params?.update;
      if (update?.sessionUpdate !== "agent_message_chunk") return;
      chunks.push(update.content.text);
      if (chunks.length === expected) resolve(unsubscribe());
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

rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });

step("1  A session streams");
let running = await start();
fact("server", running.server.baseUrl);
const session = await running.sdk.createSession({ id: SESSION, agent: "mock", cwd: folder });
fact("session", `${session.id}, agent ${session.agent}`);
const began = performance.now();
const answer = await ask(session, `stream ${CHUNKS} 60`, CHUNKS);
const streamed = performance.now() - began;
fact("answer", `${count(answer.length)} chunks, each stored durably before the app saw it`);
fact("time for the turn", `${milliseconds(streamed)}, ${milliseconds(streamed / CHUNKS)} a chunk`);
const before = await history(running.persist);
fact("events in the database", count(before.length));

step("2  Server, SDK and driver stop");
await stop(running);
fact(
  "left on disk",
  `${relative(process.cwd(), filename)}, ${count(statSync(filename).size)} bytes`,
);

step("3  A new process would start here");
running = await start();
fact("server", running.server.baseUrl);
const restored = await history(running.persist);
const isSame = JSON.stringify(restored) === JSON.stringify(before);
fact(
  "history",
  `${count(restored.length)} events, ${isSame ? "equal to the last byte" : "DIFFERENT"}`,
);

step("4  The session is resumed");
const resuming = performance.now();
const resumed = await running.sdk.resumeSession(SESSION);
fact("resumed in", milliseconds(performance.now() - resuming));
const [report] = await ask(resumed, "What do you remember?", 1);
const { replayed } = JSON.parse(report);
const lines = replayed.split("\n").filter((line) => line.startsWith("{"));
fact(
  "the agent was replayed",
  `${count(lines.length)} envelopes, ${count(replayed.length)} characters`,
);
const indexes = (await history(running.persist)).map(({ eventIndex }) => eventIndex);
const goesOn = indexes.every((index, at) => index === at + 1);
fact("numbering", goesOn ? `goes on to ${count(indexes.length)} without a gap` : "HAS GAPS");
const texts = lines.map((line) => JSON.parse(line).payload.params?.update?.content?.text ?? "");
fact("first replayed", texts[0].slice(0, 60));
fact("last replayed", texts.at(-1).slice(0, 60));
await stop(running);

const isRestored = isSame && goesOn && lines.length > 0;
step(
  isRestored
    ? styleText("green", "The session is back.")
    : styleText("red", "Something is missing."),
);
console.log(
  `  Look into it: sqlite3 ${relative(process.cwd(), filename)} 'SELECT * FROM events LIMIT 5'\n`,
);
process.exitCode = isRestored ? 0 : 1;
