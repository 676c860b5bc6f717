/**
 * What must work in every runtime: `smoke.mjs <part> <module> <place> …`. Prints `ok`, or throws.
 *
 * - `sqlite <file>`, `postgres <url> <schema>`: store, read, replay, close, and find it all again
 * - `exit <file> <count>`: so many calls, un-awaited, and the process exits
 * - `exit-worker <file> <count>`: the same, of which a worker thread has made all but one
 * - `count <file> <count>`: so many events are in the file
 */
import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";

const [part, specifier, ...given] = isMainThread ? process.argv.slice(2) : workerData;
const { SQLiteSessionPersistDriver, PostgresSessionPersistDriver, buildReplayText } = await import(
  specifier
);

const EVENTS = 250;
const SESSION = "smoke";
const event = (eventIndex, text = `chunk ${eventIndex} `) => ({
  id: `event-${eventIndex}`,
  eventIndex,
  sessionId: SESSION,
  createdAt: 1_700_000_000_000 + eventIndex,
  connectionId: "connection",
  sender: "agent",
  payload: {
    jsonrpc: "2.0",
    method: "session/update",
    params: {
      update: { sessionUpdate: "agent_message_chunk", content: { type: "text", text } },
    },
  },
});

function equal(actual, expected) {
  const [left, right] = [actual, expected].map((value) => JSON.stringify(value));
  if (left !== right) throw new Error(`${left?.slice(0, 500)} isn't ${right.slice(0, 500)}`);
}

async function all(driver) {
  const items = [];
  let cursor;
  do {
    const page = await driver.listEvents({ sessionId: SESSION, cursor });
    items.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor);
  return items;
}

async function storeAndRead(open) {
  const driver = open();
  const session = {
    id: SESSION,
    agent: "mock",
    agentSessionId: "a",
    lastConnectionId: "c",
    createdAt: 5,
  };
  const events = Array.from({ length: EVENTS }, (_, at) => event(at + 1));
  // What engines differ in.
  events[3].payload.params.update.content.text = '\0\ud800\u2028"é😀';
  events[4].payload.params.numbers = [1e21, 5e-324, 0.1, { 2: 0, 1: 0 }];
  await driver.updateSession(session);
  await Promise.all(events.map((item) => driver.insertEvent(SESSION, item)));
  equal(await driver.getSession(SESSION), session);
  equal(await all(driver), events);
  const replay = await driver.replay(SESSION);
  equal(replay.text, buildReplayText(replay.events));
  equal((await driver.replayView().listEvents({ sessionId: SESSION })).items, replay.events);
  equal([replay.events.length, replay.lastEventIndex], [3, EVENTS]);
  const refused = await driver.insertEvent({}).catch((error) => [error.name, error.code]);
  equal(refused, ["TypeError", "ERR_PERSIST_INVALID_ARG"]);
  await driver.close();
  const closed = await driver.getSession(SESSION).catch(({ code }) => code);
  equal(closed, "ERR_PERSIST_CLOSED");
  const again = open();
  equal(await all(again), events);
  await again.close();
}

const parts = {
  sqlite: (filename) => storeAndRead(() => new SQLiteSessionPersistDriver({ filename })),
  postgres: (connectionString, schema) =>
    storeAndRead(() => new PostgresSessionPersistDriver({ connectionString, schema })),
  exit: (filename, count) => {
    const driver = new SQLiteSessionPersistDriver({ filename });
    for (let at = 1; at <= Number(count); at += 1) void driver.insertEvent(event(at));
    console.log("ok");
    process.exit(0);
  },
  "exit-worker": (filename, count) => {
    const driver = new SQLiteSessionPersistDriver({ filename });
    if (isMainThread) {
      void driver.insertEvent(event(1));
      const worker = new Worker(new URL(import.meta.url), { workerData: process.argv.slice(2) });
      worker.once("message", () => process.exit(0));
    } else {
      for (let at = 2; at <= Number(count); at += 1) void driver.insertEvent(event(at));
      parentPort.postMessage("called");
    }
    // The worker stays.
    return new Promise((resolve) => setTimeout(resolve, 60_000));
  },
  count: async (filename, count) => {
    const driver = new SQLiteSessionPersistDriver({ filename });
    equal((await all(driver)).length, Number(count));
    driver.close();
  },
};
await parts[part](...given);
console.log("ok");
