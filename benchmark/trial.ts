/**
 * One trial: one driver, one workload, one process, so that none warms or burdens another.
 * Prints its figures as JSON.
 */
import { randomUUID } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import type { SessionEvent } from "../index.js";
import { createDriver, type DriverName } from "./drivers.ts";

export type Workload =
  | { kind: "insert"; sessions: number; events: number }
  | { kind: "read"; source: string; events: number }
  | { kind: "getSession"; calls: number }
  | { kind: "sdk"; sessions: number; chunks: number };

export type Figures = Record<string, number>;

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

async function insert(
  name: DriverName,
  folder: string,
  { sessions, events }: { sessions: number; events: number },
): Promise<Figures> {
  const driver = await createDriver(name, join(folder, "insert.db"));
  const stream = async (sessionId: string, count: number) => {
    for (let index = 1; index <= count; index += 1) {
      await driver.insertEvent(sessionId, benchmarkEvent(sessionId, index));
    }
  };
  const all = (prefix: string, total: number) => {
    const each = Math.ceil(total / sessions);
    const ids = Array.from({ length: sessions }, (_, index) => `${prefix}${index}`);
    return Promise.all(ids.map((id) => stream(id, each)));
  };
  await all("warm-up-", Math.ceil(events / 4));
  const stall = monitorEventLoopDelay({ resolution: 1 });
  stall.enable();
  const began = performance.now();
  await all("session-", events);
  const seconds = (performance.now() - began) / 1000;
  // The monitor's own timer ticks at the next turn.
  await new Promise((resolve) => setTimeout(resolve, 5));
  stall.disable();
  await driver.close();
  return { perSecond: events / seconds, worstStallMs: stall.max / 1e6 };
}

async function read(name: DriverName, folder: string, source: string): Promise<Figures> {
  const driver = await createDriver(name, join(folder, source));
  const began = performance.now();
  let count = 0;
  let cursor: string | undefined;
  do {
    const page = await driver.listEvents({ sessionId: "history", cursor, limit: 100 });
    count += page.items.length;
    cursor = page.nextCursor;
  } while (cursor);
  const milliseconds = performance.now() - began;
  await driver.close();
  return { milliseconds, count };
}

async function getSession(name: DriverName, folder: string, calls: number): Promise<Figures> {
  const driver = await createDriver(name, join(folder, "sessions.db"));
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
  await driver.close();
  return { perSecond: (calls / milliseconds) * 1000 };
}

async function sdk(
  name: DriverName,
  folder: string,
  { sessions, chunks }: { sessions: number; chunks: number },
): Promise<Figures> {
  const { SandboxAgent } = await import("sandbox-agent");
  const { startServer } = await import("../examples/support/server.mjs");
  const server = await startServer(join(folder, "home"));
  const persist = await createDriver(name, join(folder, "sdk.db"));
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
  await persist.close();
  return { milliseconds };
}

function run(name: DriverName, folder: string, workload: Workload): Promise<Figures> {
  switch (workload.kind) {
    case "insert":
      return insert(name, folder, workload);
    case "read":
      return read(name, folder, workload.source);
    case "getSession":
      return getSession(name, folder, workload.calls);
    case "sdk":
      return sdk(name, folder, workload);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [name, folder, workload] = process.argv.slice(2) as [DriverName, string, string];
  const figures = await run(name, folder, JSON.parse(workload));
  rmSync(join(folder, "home"), { recursive: true, force: true });
  console.log(JSON.stringify(figures));
  process.exit(0);
}
