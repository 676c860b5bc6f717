/**
 * A scripted ACP agent over standard input and output: no model, no network.
 *
 * - "stream <chunks> <characters>" answers with that many chunks of that length.
 * - "work" plays a turn of an agent at work: thoughts, tools and an answer.
 * - anything else answers with what the agent was given as replayed history.
 *
 * Where MOCK_AGENT_SENT names a file, a line there tells of each chunk that was sent: when, by which
 * session, and its text.
 */
import { appendFileSync } from "node:fs";
import { Readable, Writable } from "node:stream";
import { agent, methods, ndJsonStream, PROTOCOL_VERSION } from "@agentclientprotocol/sdk";
import { scriptedTurn } from "./scripted-turn.mjs";

const RECORD = process.env.MOCK_AGENT_SENT;
const REPLAY = "Previous session history is replayed below";
const WORDS = "the agent reads the file, edits a line, runs the tests and explains what it did ";

const textOf = (prompt) => prompt.filter(({ type }) => type === "text").map(({ text }) => text);
const chunkOf = (index, characters) =>
  `${index} ${WORDS.repeat(Math.ceil(characters / WORDS.length))}`.slice(0, characters - 1) + " ";

async function answer({ params, client }) {
  const { sessionId, prompt } = params;
  const send = (update) => client.notify(methods.client.session.update, { sessionId, update });
  const say = async (text) => {
    await send({ sessionUpdate: "agent_message_chunk", content: { type: "text", text } });
    if (RECORD) appendFileSync(RECORD, `${JSON.stringify({ at: Date.now(), sessionId, text })}\n`);
  };
  const texts = textOf(prompt);
  const order = /^stream (\d+) (\d+)/.exec(texts.at(-1) ?? "");
  if (order) {
    const [chunks, characters] = order.slice(1).map(Number);
    for (let index = 1; index <= chunks; index += 1) await say(chunkOf(index, characters));
  } else if (texts.at(-1)?.startsWith("work")) {
    for (const update of scriptedTurn) await send(update);
  } else {
    const replayed = texts.filter((text) => text.startsWith(REPLAY)).join("");
    await say(JSON.stringify({ replayed }));
  }
  return { stopReason: "end_turn" };
}

let sessions = 0;
agent({ name: "mock" })
  .onRequest(methods.agent.initialize, () => ({
    protocolVersion: PROTOCOL_VERSION,
    agentCapabilities: {},
  }))
  .onRequest(methods.agent.authenticate, () => ({}))
  .onRequest(methods.agent.session.new, () => {
    sessions += 1;
    return { sessionId: `mock-${process.pid}-${sessions}` };
  })
  .onRequest(methods.agent.session.prompt, answer)
  .onNotification(methods.agent.session.cancel, () => {})
  .connect(ndJsonStream(Writable.toWeb(process.stdout), Readable.toWeb(process.stdin)));
