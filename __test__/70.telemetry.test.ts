/** What is published of calls, and that it changes nothing about them. */
import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import { tracingChannel } from "node:diagnostics_channel";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test, type TestContext } from "node:test";
import { inspect } from "node:util";
import { SQLiteSessionPersistDriver, type SessionEvent } from "../index.js";
import { event, file, folder, onWindows, open, rejection, session } from "./support/fixtures.ts";
import { runToEnd } from "./support/fork.ts";
import { addressOf, databaseUrl, freshRole, urlOf } from "./support/postgres.ts";
import { ends, listen, openPostgres, systems, type Published } from "./support/telemetry.ts";
import { until } from "./support/waiting.ts";

const MARKER = "marker-of-a-payload";
const payload = { jsonrpc: "2.0", method: MARKER, params: { [MARKER]: MARKER } };
const marked = (sessionId: string, index: number) => event(sessionId, index, { payload });
const markedSession = (id: string) =>
  session(id, { agent: MARKER, sessionInit: { [MARKER]: MARKER }, modes: MARKER });

const order = (published: Published[]) => published.map(({ event }) => event);
const only = (contexts: ReturnType<typeof ends>) => {
  assert.equal(contexts.length, 1);
  return contexts[0]!;
};
async function drain<T>(rows: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const row of rows) all.push(row);
  return all;
}

/** What docs/telemetry.md says that a context may hold. */
const documented = new Set(
  readFileSync(new URL("../docs/telemetry.md", import.meta.url), "utf8")
    .split("\n")
    .map((line) => /^\| `(\w+)` /.exec(line)?.[1])
    .filter((field) => field !== undefined),
);

for (const [system, opened] of Object.entries(systems)) {
  test(`${system}: a call is told of as it begins and as it ends`, async (t) => {
    const driver = opened(t);
    const published = listen(t, "write");
    const call = driver.insertEvent("s", event("s", 1));
    assert.deepEqual(order(published), ["start", "end"]);
    await call;
    assert.deepEqual(order(published), ["start", "end", "asyncStart", "asyncEnd"]);
    assert.deepEqual(published[0]!.context, { operation: "insertEvent", system, sessionId: "s" });
  });

  test(`${system}: all events of a call come with one object`, async (t) => {
    const driver = opened(t);
    const published = listen(t, "read");
    await driver.getSession("s");
    assert.equal(new Set(published.map(({ same }) => same)).size, 1);
  });

  test(`${system}: writes say what they wrote`, async (t) => {
    const driver = opened(t);
    const published = listen(t, "write");
    const [one, two] = [event("s", 1), event("s", 2)];
    await driver.insertEvent(one);
    await driver.insertEvents([one, two]);
    await driver.updateSession(session("s"));
    const told = ends(published).map(({ operation, sessionId, rows }) => [
      operation,
      sessionId,
      rows,
    ]);
    assert.deepEqual(told, [
      ["insertEvent", "s", 1],
      ["insertEvents", undefined, 2],
      ["updateSession", "s", 1],
    ]);
    const { id, sessionId, connectionId, sender } = one;
    const texts = [id, sessionId, connectionId, sender, JSON.stringify(one.payload)];
    assert.equal(ends(published)[0]!.bytes, texts.join("").length);
  });

  test(`${system}: a deletion doesn't count`, async (t) => {
    const driver = opened(t);
    const published = listen(t, "write");
    await driver.deleteSession("s");
    assert.deepEqual(ends(published), [{ operation: "deleteSession", system, sessionId: "s" }]);
  });

  test(`${system}: reads say what they returned`, async (t) => {
    const driver = opened(t);
    await driver.updateSession(session("s"));
    await driver.insertEvents([event("s", 1), event("s", 2)]);
    const published = listen(t, "read");
    await driver.getSession("s");
    await driver.getSession("nobody");
    await driver.listSessions();
    await driver.listEvents({ sessionId: "s" });
    await driver.lastEvent("s");
    await driver.countSessions();
    await driver.countEvents({ sessionId: "s" });
    await driver.stats();
    const told = ends(published).map(({ operation, sessionId, rows }) => [
      operation,
      sessionId,
      rows,
    ]);
    assert.deepEqual(told, [
      ["getSession", "s", 1],
      ["getSession", "nobody", 0],
      ["listSessions", undefined, 1],
      ["listEvents", "s", 2],
      ["lastEvent", "s", 1],
      ["countSessions", undefined, undefined],
      ["countEvents", "s", undefined],
      ["stats", undefined, undefined],
    ]);
  });

  test(`${system}: the bytes of a page are those of its JSON text`, async (t) => {
    const driver = opened(t);
    await driver.insertEvent(event("s", 1, { payload: { text: "é" } }));
    const published = listen(t, "read");
    const { items } = await driver.listEvents({ sessionId: "s" });
    assert.equal(only(ends(published)).bytes, Buffer.byteLength(JSON.stringify(items)));
  });

  test(`${system}: each page of a stream is told of`, async (t) => {
    const driver = opened(t);
    await driver.updateSession(session("s"));
    await driver.insertEvents(Array.from({ length: 1_001 }, (_, at) => event("s", at + 1)));
    const published = listen(t, "read");
    await drain(driver.streamSessions());
    await drain(driver.streamEvents({ sessionId: "s" }));
    const told = ends(published).map(({ operation, rows }) => [operation, rows]);
    assert.deepEqual(told, [
      ["streamSessions", 1],
      ["streamEvents", 1_000],
      ["streamEvents", 1],
    ]);
  });

  test(`${system}: replays have a channel of their own`, async (t) => {
    const driver = opened(t);
    await driver.insertEvents([event("s", 1, { payload: {} }), event("s", 2, { payload: {} })]);
    const reads = listen(t, "read");
    const published = listen(t, "replay");
    const replay = await driver.replay("s");
    await driver.replayView().listEvents({ sessionId: "s" });
    const told = ends(published).map(({ operation, sessionId, rows }) => [
      operation,
      sessionId,
      rows,
    ]);
    assert.deepEqual(told, [
      ["replay", "s", replay?.events.length],
      ["listEvents", "s", replay?.events.length],
    ]);
    assert.equal(reads.length, 0);
  });

  test(`${system}: a view's other calls are told of as the driver's`, async (t) => {
    const view = opened(t).replayView();
    const [reads, writes] = [listen(t, "read"), listen(t, "write")];
    await view.updateSession(session("s"));
    await view.getSession("s");
    assert.deepEqual(
      [...ends(writes), ...ends(reads)].map(({ operation }) => operation),
      ["updateSession", "getSession"],
    );
  });

  test(`${system}: what a call rejects with is told of`, async (t) => {
    const driver = opened(t);
    await driver.close();
    const published = listen(t, "write");
    const error = await rejection(driver.insertEvent("s", event("s", 1)));
    assert.equal(error.code, "ERR_PERSIST_CLOSED");
    assert.deepEqual(order(published), ["start", "end", "error", "asyncStart", "asyncEnd"]);
    assert.equal(only(ends(published)).error, error);
    assert.equal(only(ends(published)).rows, undefined);
  });

  test(`${system}: nothing that is published holds a payload`, async (t) => {
    const driver = opened(t);
    const channels = (["write", "read", "replay", "connect"] as const).map((name) =>
      listen(t, name),
    );
    await driver.updateSession(markedSession("s"));
    await driver.insertEvent(marked("s", 1));
    await driver.insertEvents([marked("s", 2), marked("s", 3)]);
    await driver.getSession("s");
    await driver.listSessions({ agent: MARKER });
    await driver.listEvents({ sessionId: "s", method: MARKER });
    await driver.lastEvent("s");
    await driver.stats({ largest: 1 });
    await drain(driver.streamSessions());
    await drain(driver.streamEvents());
    await driver.replay("s");
    await driver.replayView().listEvents({ sessionId: "s" });
    await rejection(driver.insertEvent("other", marked("s", 4)));
    await rejection(driver.insertEvent({ ...marked("s", 4), sender: MARKER } as never));
    await rejection(driver.listEvents({ sessionId: { [MARKER]: MARKER } as never }));
    await driver.deleteSession("s");
    const published = channels.flat();
    assert.ok(published.length > 60);
    assert.ok(!inspect(published, { depth: Infinity, showHidden: true }).includes(MARKER));
    for (const { same } of published) {
      for (const key of Reflect.ownKeys(same))
        assert.ok(documented.has(key as string), String(key));
    }
  });

  test(`${system}: a call that is told of gives what it gives`, async (t) => {
    const driver = opened(t);
    const stored = [event("s", 1), event("s", 2)];
    const look = async (driver: ReturnType<typeof opened>) => [
      await driver.insertEvents(stored),
      await driver.getSession("s"),
      await driver.listEvents({ sessionId: "s" }),
      await driver.lastEvent("s"),
      await driver.countEvents(),
      (await driver.stats()).events,
      await driver.replay("s"),
      await driver.replay("nobody"),
      await drain<SessionEvent>(driver.streamEvents()),
    ];
    const unheard = await look(driver);
    for (const name of ["write", "read", "replay"] as const) listen(t, name);
    assert.deepEqual(await look(driver), unheard);
  });
}

test("a wrong argument is told of", async (t) => {
  const published = listen(t, "read");
  const error = await rejection(open(t).getSession(5 as never));
  assert.deepEqual(only(ends(published)), { operation: "getSession", system: "sqlite", error });
  assert.equal(error.code, "ERR_PERSIST_INVALID_ARG");
});

test("what a getter of an argument throws isn't published, but rejects", async (t) => {
  const published = listen(t, "write");
  const thrown = new Error(MARKER);
  const record = {
    ...session("s"),
    get agent(): string {
      throw thrown;
    },
  };
  assert.equal(await rejection(open(t).updateSession(record)), thrown);
  const { error } = only(ends(published));
  assert.equal(error?.code, "ERR_PERSIST_INVALID_ARG");
  assert.notEqual(error, thrown);
});

test("arguments are read once", async (t) => {
  listen(t, "write");
  let reads = 0;
  const record = {
    ...session("s"),
    get id() {
      reads += 1;
      return "s";
    },
  };
  await open(t).updateSession(record);
  assert.equal(reads, 1);
});

test("a subscriber of one event alone is served", async (t) => {
  const seen: unknown[] = [];
  const subscriber = (context: unknown) => seen.push(context);
  const { asyncEnd } = tracingChannel("sandbox-agent-persist:read");
  asyncEnd.subscribe(subscriber);
  t.after(() => asyncEnd.unsubscribe(subscriber));
  await open(t).countEvents();
  assert.equal(seen.length, 1);
});

test("a store that is bound to a channel holds through the call", async (t) => {
  const store = new AsyncLocalStorage<object>();
  const channel = tracingChannel("sandbox-agent-persist:read");
  const start = channel.start as unknown as {
    bindStore(store: AsyncLocalStorage<object>, transform: (context: object) => object): void;
    unbindStore(store: AsyncLocalStorage<object>): void;
  };
  start.bindStore(store, (context) => context);
  let held: object | undefined;
  const subscriber = () => (held = store.getStore());
  channel.asyncEnd.subscribe(subscriber);
  t.after(() => {
    start.unbindStore(store);
    channel.asyncEnd.unsubscribe(subscriber);
  });
  await open(t).countEvents();
  assert.deepEqual(held, { operation: "countEvents", system: "sqlite" });
  assert.equal(store.getStore(), undefined);
});

const { Driver } = createRequire(import.meta.url)("../binding.js");
/** Counts the twins that drivers get for calls that are told of. */
const twins = (t: TestContext) => t.mock.method(Driver.prototype, "traced").mock;

test("where nobody listens, nothing is made for it", async (t) => {
  const made = twins(t);
  const driver = open(t);
  await driver.insertEvent(event("s", 1));
  await driver.getSession("s");
  await drain(driver.streamEvents());
  assert.equal(made.callCount(), 0);
});

test("a driver gets one twin for all calls that are told of", async (t) => {
  const made = twins(t);
  listen(t, "read");
  const driver = open(t);
  await driver.getSession("s");
  await driver.getSession("s");
  assert.equal(made.callCount(), 1);
});

test("sqlite: opening is told of", (t) => {
  const published = listen(t, "connect");
  open(t);
  assert.deepEqual(order(published), ["start", "end"]);
  assert.deepEqual(published[1]!.context, { operation: "connect", system: "sqlite" });
});

test("sqlite: why opening failed is told of", (t) => {
  const published = listen(t, "connect");
  let thrown: unknown;
  try {
    new SQLiteSessionPersistDriver({ filename: `${file(t)}/nowhere` });
  } catch (error) {
    thrown = error;
  }
  assert.deepEqual(order(published), ["start", "error", "end"]);
  assert.equal(published[2]!.context.error, thrown);
  assert.equal((thrown as any).code, "ERR_PERSIST_CANNOT_OPEN");
});

test("postgresql: each attempt to connect is told of, before the call's end", async (t) => {
  const published = listen(t, "connect");
  const { host, port } = addressOf(databaseUrl());
  await openPostgres(t).countEvents();
  assert.deepEqual(order(published), ["start", "end", "asyncStart", "asyncEnd"]);
  const expected = { operation: "connect", system: "postgresql" };
  assert.deepEqual(only(ends(published)), { ...expected, serverAddress: host, serverPort: port });
});

test("postgresql: why an attempt failed is told of", async (t) => {
  const { name } = await freshRole(t, "CONNECTION LIMIT 0");
  const published = listen(t, "connect");
  const driver = openPostgres(t, { connectionString: urlOf({ role: name }), retryTimeoutMs: 100 });
  const { code } = await rejection(driver.countEvents());
  assert.deepEqual(order(published).slice(0, 5), [
    "start",
    "end",
    "error",
    "asyncStart",
    "asyncEnd",
  ]);
  assert.equal(ends(published)[0]!.error!.code, code);
});

test("postgresql: attempts at several hosts are told of apart", async (t) => {
  const { host, port } = addressOf(databaseUrl());
  const url = new URL(databaseUrl());
  const connectionString = `postgres://${url.username}@127.0.0.1:1,${host}:${port}${url.pathname}`;
  const published = listen(t, "connect");
  await openPostgres(t, { connectionString }).countEvents();
  const told = ends(published).map(({ serverPort, error }) => [serverPort, error?.code]);
  assert.deepEqual(told, [
    [1, "ERR_PERSIST_UNAVAILABLE"],
    [port, undefined],
  ]);
});

test("postgresql: the folder of a socket isn't shown", { skip: onWindows }, async (t) => {
  const published = listen(t, "connect");
  const poolConfig = { host: folder(t), user: "u", database: "d" };
  const driver = openPostgres(t, { connectionString: undefined, poolConfig, retryTimeoutMs: 100 });
  await rejection(driver.countEvents());
  const { error, ...rest } = ends(published)[0]!;
  assert.equal(error?.code, "ERR_PERSIST_UNAVAILABLE");
  assert.deepEqual(rest, { operation: "connect", system: "postgresql" });
});

test("postgresql: an attempt that began unheard isn't told of", async (t) => {
  const driver = openPostgres(t);
  await driver.countEvents();
  const published = listen(t, "connect");
  await driver.countEvents();
  assert.deepEqual(published, []);
});

const inProcess = async (way: string, ...args: string[]) => {
  const { code, messages, stderr } = await runToEnd("traced", [way, ...args]);
  assert.equal(code, 0, stderr);
  return messages[0];
};

test("a subscriber that freezes what it is given changes nothing for the call", async (t) => {
  const channel = tracingChannel("sandbox-agent-persist:write");
  const freeze = (context: unknown) => void Object.freeze(context);
  channel.start.subscribe(freeze);
  t.after(() => channel.start.unsubscribe(freeze));
  const driver = open(t);
  await driver.insertEvent("s", event("s", 1));
  assert.equal((await rejection(driver.insertEvent(5 as never))).code, "ERR_PERSIST_INVALID_ARG");
});

test("a subscriber that throws doesn't break a call", async () => {
  assert.deepEqual(await inProcess("throwing subscriber"), {
    result: 1,
    reached: ["exception: on purpose", "exception: on purpose"],
  });
});

test("a store's function that throws doesn't break a call", async () => {
  assert.deepEqual(await inProcess("throwing store"), {
    result: 0,
    reached: ["exception: on purpose"],
  });
});

test("a rejection that nobody handles is raised once", async () => {
  assert.deepEqual(await inProcess("unhandled rejection"), {
    reached: ["rejection: ERR_PERSIST_CLOSED"],
  });
});

test("a rejection that is handled isn't raised", async () => {
  assert.deepEqual(await inProcess("handled rejection"), {
    result: "ERR_PERSIST_CLOSED",
    reached: [],
  });
});

test("who listens for connections doesn't keep an idle process alive", async () => {
  assert.deepEqual(await inProcess("idle", databaseUrl()), { result: "idle", reached: [] });
});

test("a runtime without tracing channels does without", async () => {
  assert.deepEqual(await inProcess("without"), { result: 1, reached: [] });
});
