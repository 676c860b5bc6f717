/**
 * What an agent is told after a restore, by the SDK alone and through a replay view: the texts that
 * docs/replay.md shows. Run `npm run demo` once before, which builds the addon.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { styleText } from "node:util";
import { SandboxAgent } from "sandbox-agent";
import { SQLiteSessionPersistDriver } from "../index.js";
import { startServer } from "./support/server.mjs";

const SESSION = "invoices";
const TASK = "work: invoice totals are a cent too low. Find out why and fix it.";
const LAST_WORDS = "once more.";
const folder = mkdtempSync(join(tmpdir(), "replay-"));
const persist = new SQLiteSessionPersistDriver({ filename: join(folder, "sandbox-agent.db") });

/** A server, and an SDK that is given `persist`; both end after the work. */
async function live(persist, work) {
  const server = await startServer(join(folder, "home"));
  const sdk = await SandboxAgent.connect({ baseUrl: server.baseUrl, persist });
  try {
    return await work(sdk);
  } finally {
    await sdk.dispose();
    await server.stop();
  }
}

/** Resumes a session of its own with this history, and returns what the agent is told. */
async function replayed(persist, events, id) {
  const { items } = await persist.listSessions();
  await persist.updateSession({ ...items[0], id });
  for (const event of events) {
    await persist.insertEvent(id, { ...event, id: `${id}-${event.id}`, sessionId: id });
  }
  const view = id === "view" ? persist.replayView() : persist;
  await live(view, async (sdk) => {
    await (await sdk.resumeSession(id)).prompt([{ type: "text", text: "Go on." }]);
  });
  const after = await persist.listEvents({ sessionId: id, limit: 1_000 });
  const prompt = after.items.findLast(({ payload }) => payload.method === "session/prompt");
  return prompt.payload.params.prompt[0].text;
}

const shown = (text) => text.replace(/"(text|sessionId)":/g, (name) => styleText("dim", name));

try {
  await live(persist, async (sdk) => {
    const session = await sdk.createSession({ id: SESSION, agent: "mock", cwd: folder });
    const done = new Promise((resolve) => {
      session.onEvent(({ payload }) => {
        if (payload.params?.update?.content?.text?.endsWith(LAST_WORDS)) resolve();
      });
    });
    await session.prompt([{ type: "text", text: TASK }]);
    // The SDK stores what comes in after the answer to the prompt, too.
    await done;
  });
  const { items } = await persist.listEvents({ sessionId: SESSION, limit: 1_000 });
  for (const [id, title] of [
    ["sdk", "What the SDK alone tells the agent"],
    ["view", "What the agent is told through driver.replayView()"],
  ]) {
    const text = await replayed(persist, items, id);
    console.log(`\n${styleText("bold", `${title}, of ${items.length} events`)}\n`);
    console.log(shown(text));
  }
} finally {
  persist.close();
  rmSync(folder, { recursive: true, force: true });
}
