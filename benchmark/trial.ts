/**
 * One trial: one driver, one workload, one process, so that none warms or burdens another.
 * Prints its figures as JSON.
 */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { referenceText } from "../__test__/support/replay-text.ts";
import type { SessionEvent } from "../index.js";
import {
  createDriver,
  type DatabaseName,
  type Driver,
  type DriverName,
  type PostgresPlace,
  type SQLitePlace,
} from "./drivers.ts";

export type Workload =
  | { kind: "insert"; sessions: number; events: number }
  | { kind: "read"; events: number }
  | { kind: "resume"; events: number }
  | { kind: "insertEvents"; batch: number; events: number }
  | { kind: "delete"; events: number }
  | { kind: "stream"; events: number }
  | { kind: "getSession"; calls: number }
  | { kind: "sdk"; sessions: number; chunks: number };

export type Trial = {
  database: DatabaseName;
  driver: DriverName;
  place: SQLitePlace | PostgresPlace;
  /** The trial's own, removed after it. */
  folder: string;
  workload: Workload;
};

/** `perSecond` or `milliseconds`, as the comparison's unit says, and what else was seen. */
export type Figures = {
  perSecond?: number;
  milliseconds?: number;
  worstStallMs?: number;
  /** By what to call them, with their unit. */
  more?: Record<string, number>;
};

/** About 450 bytes of JSON, as a streamed chunk is. */
const chunk = (index: number) => ({
  jsonrpc: "2.0",
  method: "session/update",
  params: {
    sessionId: "mock-session",
    update: {
      sessionUpdate: "agent_message_chunk",
      content: { type: "text", text: `${index} `.padEnd(320, "words of an answer ") },
    },
  },
});

export const benchmarkEvent = (sessionId: string, eventIndex: number): SessionEvent => ({
  id: randomUUID(),
  eventIndex,
  sessionId,
  createdAt: 1_700_000_000_000 + eventIndex,
  connectionId: "connection-0123456789",
  sender: "agent",
  payload: chunk(eventIndex),
});

async function insert(driver: Driver, sessions: number, events: number): Promise<Figures> {
  const stream = async (sessionId: string, count: number) => {
    for (let index = 1; index <= count; index += 1) {
      await driver.insertEvent(sessionId, benchmarkEvent(sessionId, index));
    }
  };
  const all = async (prefix: string, total: number) => {
    const each = Math.ceil(total / sessions);
    const ids = Array.from({ length: sessions }, (_, index) => `${prefix}${index}`);
    await Promise.all(ids.map((id) => stream(id, each)));
    return each * sessions;
  };
  await all("warm-up-", Math.ceil(events / 4));
  const stall = monitorEventLoopDelay({ resolution: 1 });
  stall.enable();
  const began = performance.now();
  const stored = await all("session-", events);
  const seconds = (performance.now() - began) / 1000;
  // The monitor's own timer ticks at the next turn.
  await sleep(5);
  stall.disable();
  return { perSecond: stored / seconds, worstStallMs: stall.max / 1e6 };
}

async function scan(
  driver: Driver,
  sessionId: string,
  limit: number,
  use: (items: SessionEvent[]) => void,
) {
  let cursor: string | undefined;
  do {
    const page = await driver.listEvents({ sessionId, cursor, limit });
    use(page.items);
    cursor = page.nextCursor;
  } while (cursor);
}

async function read(driver: Driver, events: number): Promise<Figures> {
  // Connecting is no part of reading.
  await driver.getSession("none");
  const began = performance.now();
  let count = 0;
  await scan(driver, "history", 100, (items) => (count += items.length));
  const milliseconds = performance.now() - began;
  if (count !== events) throw new Error(`read ${count} events of ${events}`);
  return { milliseconds };
}

/**
 * What the SDK does with a driver to restore a session: it reads all events for the replay, and again
 * for the highest index.
 */
async function resume(driver: Driver, events: number): Promise<Figures> {
  const restore = async (sessionId: string) => {
    const began = performance.now();
    const all: SessionEvent[] = [];
    await scan(driver, sessionId, 100, (items) => all.push(...items));
    const text = referenceText(all.slice(-50));
    let highest = 0;
    await scan(driver, sessionId, 500, (items) => {
      for (const { eventIndex } of items) highest = Math.max(highest, eventIndex);
    });
    return { milliseconds: performance.now() - began, text, highest };
  };
  // Sessions are restored by servers that have started.
  for (let time = 0; time < 10; time += 1) await restore("none");
  await sleep(100);
  const { milliseconds, text, highest } = await restore("history");
  if (!text?.includes("words of an answer") || highest !== events) throw new Error("not restored");
  return { milliseconds };
}

async function insertEvents(driver: Driver, batch: number, events: number): Promise<Figures> {
  const make = (sessionId: string, count: number) => {
    const batchOf = (_: unknown, at: number) =>
      Array.from({ length: batch }, (_, index) =>
        benchmarkEvent(sessionId, at * batch + index + 1),
      );
    return Array.from({ length: Math.ceil(count / batch) }, batchOf);
  };
  const store = async (batches: SessionEvent[][]) => {
    for (const one of batches) await driver.insertEvents(one);
  };
  await store(make("warm-up", events / 4));
  const batches = make("session", events);
  const began = performance.now();
  await store(batches);
  const seconds = (performance.now() - began) / 1000;
  return { perSecond: (batches.length * batch) / seconds };
}

/** How long others' inserts take while a session is deleted, and how long before. */
async function deletion(driver: Driver, events: number): Promise<Figures> {
  const SESSIONS = 16;
  const ALONE_MS = 5_000;
  const insertUntil = async (end: Promise<unknown>, prefix: string) => {
    let hasEnded = false;
    void end.then(() => (hasEnded = true));
    const took: number[] = [];
    const stream = async (sessionId: string) => {
      for (let index = 1; !hasEnded; index += 1) {
        const began = performance.now();
        await driver.insertEvent(sessionId, benchmarkEvent(sessionId, index));
        took.push(performance.now() - began);
      }
    };
    await Promise.all(Array.from({ length: SESSIONS }, (_, index) => stream(`${prefix}${index}`)));
    return took.sort((left, right) => left - right);
  };
  const latencies = (name: string, took: number[]) => ({
    [`${name}, p50 ms`]: took[Math.floor(took.length * 0.5)]!,
    [`${name}, p99 ms`]: took[Math.floor(took.length * 0.99)]!,
    [`${name}, max ms`]: took.at(-1)!,
  });
  await insertUntil(sleep(1_000), "warm-up-");
  const alone = await insertUntil(sleep(ALONE_MS), "alone-");
  const began = performance.now();
  let milliseconds = 0;
  const deleted = driver.deleteSession("history").then((wasThere) => {
    milliseconds = performance.now() - began;
    if (!wasThere) throw new Error("nothing was deleted");
  });
  const beside = await insertUntil(deleted, "beside-");
  await deleted;
  const left = await driver.listEvents({ sessionId: "history", limit: 1 });
  if (left.items.length > 0) throw new Error(`not all of ${events} events were deleted`);
  return {
    milliseconds,
    more: {
      ...latencies("inserts alone", alone),
      ...latencies("inserts beside it", beside),
      "inserts alone, events/s": alone.length / (ALONE_MS / 1000),
      "inserts beside it, events/s": beside.length / (milliseconds / 1000),
    },
  };
}

async function stream(driver: Driver, events: number): Promise<Figures> {
  await driver.getSession("none");
  const before = process.memoryUsage.rss();
  let most = before;
  let count = 0;
  const began = performance.now();
  for await (const event of driver.streamEvents({ sessionId: "history" })) {
    count += 1;
    if (event.eventIndex !== count) throw new Error(`event ${event.eventIndex} came as ${count}`);
    if (count % 1_000 === 0) most = Math.max(most, process.memoryUsage.rss());
  }
  const seconds = (performance.now() - began) / 1000;
  if (count !== events) throw new Error(`read ${count} events of ${events}`);
  return { perSecond: count / seconds, more: { "growth of RSS, MiB": (most - before) / 2 ** 20 } };
}

async function getSession(driver: Driver, calls: number): Promise<Figures> {
  const SESSIONS = 100;
  for (let index = 0; index < SESSIONS; index += 1) {
    await driver.updateSession({
      id: `session-${index}`,
      agent: "mock",
      agentSessionId: randomUUID(),
      lastConnectionId: "connection-0123456789",
      createdAt: 1_700_000_000_000,
      sessionInit: { cwd: "/home/user/project", mcpServers: [] },
      configOptions: [{ id: "model", name: "Model", currentValue: "large" }],
      modes: { currentModeId: "default", availableModes: [{ id: "default", name: "Default" }] },
    });
  }
  const round = async (count: number) => {
    const began = performance.now();
    for (let call = 0; call < count; call += 1) {
      await driver.getSession(`session-${call % SESSIONS}`);
    }
    return performance.now() - began;
  };
  await round(calls / 4);
  const milliseconds = await round(calls);
  return { perSecond: (calls / milliseconds) * 1000 };
}

async function sdk(
  persist: Driver,
  folder: string,
  sessions: number,
  chunks: number,
): Promise<Figures> {
  const { SandboxAgent } = await import("sandbox-agent");
  const { startServer } = await import("../examples/support/server.mjs");
  const server = await startServer(join(folder, "home"));
  const agent = await SandboxAgent.connect({ baseUrl: server.baseUrl, persist });
  const open = await Promise.all(
    Array.from({ length: sessions }, (_, index) =>
      agent.createSession({ id: `session-${index}`, agent: "mock", cwd: folder }),
    ),
  );
  const began = performance.now();
  await Promise.all(
    open.map(async (session) => {
      // A chunk is lost on the way now and then under a flood; the last tells the end.
      const all = new Promise<void>((resolve) => {
        session.onEvent(({ payload }) => {
          const update = (payload as any).params?.update;
          if (update?.content?.text.startsWith(`${chunks} `)) resolve();
        });
      });
      await session.prompt([{ type: "text", text: `stream ${chunks} 250` }]);
      await all;
    }),
  );
  const milliseconds = performance.now() - began;
  await agent.dispose();
  await server.stop();
  return { milliseconds };
}

function run(driver: Driver, workload: Workload, folder: string): Promise<Figures> {
  switch (workload.kind) {
    case "insert":
      return insert(driver, workload.sessions, workload.events);
    case "read":
      return read(driver, workload.events);
    case "resume":
      return resume(driver, workload.events);
    case "insertEvents":
      return insertEvents(driver, workload.batch, workload.events);
    case "delete":
      return deletion(driver, workload.events);
    case "stream":
      return stream(driver, workload.events);
    case "getSession":
      return getSession(driver, workload.calls);
    case "sdk":
      return sdk(driver, folder, workload.sessions, workload.chunks);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const trial: Trial = JSON.parse(process.argv[2]!);
  const driver = await createDriver(trial.database, trial.driver, trial.place);
  const figures = await run(driver, trial.workload, trial.folder);
  await driver.close();
  console.log(JSON.stringify(figures));
  process.exit(0);
}
