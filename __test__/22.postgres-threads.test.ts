/** The threads that drivers of a process share: few, and no driver is held up by another. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { allEvents, event } from "./support/fixtures.ts";
import { runToEnd, startWorker } from "./support/fork.ts";
import { databaseUrl, freshSchema } from "./support/postgres.ts";
import { openPostgres, openWith } from "./support/postgres-around.ts";
import { relayed } from "./support/relay.ts";
import { until } from "./support/waiting.ts";

const MAX_THREADS = 4;
/** More than there are threads: some share one. */
const MANY = 2 * MAX_THREADS;
/** Less than a silent server is given. */
const SOON_MS = 5_000;
/** The system keeps 15 characters of a thread's name. */
const NAME = "persist-postgre";

/** Of one that is just ending there may be none. */
function nameOf(task: string): string {
  try {
    return readFileSync(`/proc/self/task/${task}/comm`, "utf8").trim();
  } catch {
    return "";
  }
}

const countThreads = () =>
  readdirSync("/proc/self/task").filter((task) => nameOf(task) === NAME).length;

const openMany = (t: TestContext, count: number, options: object) =>
  Array.from({ length: count }, () => openWith(t, options));

/** Drivers whose server has fallen silent, each with a write that waits for it. */
async function openSilent(t: TestContext) {
  const { relay, options, straight } = await relayed(t);
  const drivers = openMany(t, MANY, options);
  await Promise.all(drivers.map((driver) => driver.listSessions()));
  relay.blackHole(true);
  const writes = drivers.map((driver, at) => driver.insertEvent("s", event("s", at)));
  const recover = async () => {
    relay.blackHole(false);
    await Promise.all(writes);
  };
  return { drivers, straight, recover };
}

/** Fails unless it is done before a silent server would be given up. */
async function soon(calls: Promise<unknown>[]): Promise<void> {
  const begin = Date.now();
  await Promise.all(calls);
  const milliseconds = Date.now() - begin;
  assert.ok(milliseconds < SOON_MS, `${milliseconds} ms`);
}

test(
  "thirty drivers share a few threads, which end with the last",
  { skip: process.platform !== "linux" },
  async (t) => {
    const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
    await until(() => countThreads() === 0);
    const drivers = openMany(t, 30, options);
    await Promise.all(drivers.map((driver, at) => driver.insertEvent("s", event("s", at))));
    assert.ok(countThreads() <= MAX_THREADS, `${countThreads()} threads`);
    const [last, ...others] = drivers;
    await Promise.all(others.map((driver) => driver.close()));
    assert.equal((await allEvents(last!, "s")).length, 30);
    await last!.close();
    await until(() => countThreads() === 0);
  },
);

test("drivers can be opened again after the last was closed", async (t) => {
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  for (let round = 1; round <= 5; round += 1) {
    const [first, second] = openMany(t, 2, options);
    await first!.insertEvent("s", event("s", round));
    await Promise.all([first!.close(), second!.close()]);
  }
  assert.equal((await allEvents(openWith(t, options), "s")).length, 5);
});

test("a silent server holds up the drivers of no other", async (t) => {
  const { straight, recover } = await openSilent(t);
  const others = openMany(t, MANY, straight);
  await soon(others.map((driver, at) => driver.insertEvent("other", event("other", at))));
  await recover();
  assert.equal((await allEvents(others[0]!, "s")).length, MANY);
});

test("a driver that is closed leaves the others working", async (t) => {
  const schema = freshSchema(t);
  const [closed, ...others] = openMany(t, 1 + MANY, { connectionString: databaseUrl(), schema });
  await closed!.insertEvent("s", event("s", 0));
  await closed!.close();
  await Promise.all(others.map((driver, at) => driver.insertEvent("s", event("s", 1 + at))));
  assert.equal((await allEvents(others[0]!, "s")).length, 1 + MANY);
});

test("a driver that can't be closed yet holds up the close of no other", async (t) => {
  const { drivers, straight, recover } = await openSilent(t);
  const others = openMany(t, MANY, straight);
  const closing = drivers.map((driver) => driver.close());
  const written = others.map((driver, at) => driver.insertEvent("other", event("other", at)));
  await soon([...written, ...others.map((driver) => driver.close())]);
  await recover();
  await Promise.all(closing);
});

test("drivers of the main thread and of workers, one of which is terminated", async (t) => {
  const schema = freshSchema(t);
  const options = { connectionString: databaseUrl(), schema };
  const driver = openPostgres(t, { schema });
  await driver.listSessions();
  const terminated = startWorker({ options, sessionId: "terminated", count: 1_000_000 });
  const finished = startWorker({ options, sessionId: "finished", count: 50 });
  const ended = once(finished, "exit");
  await once(terminated, "message");
  const written = Array.from({ length: 50 }, (_, at) => driver.insertEvent("s", event("s", at)));
  await terminated.terminate();
  await driver.insertEvent("s", event("s", 50));
  await Promise.all([...written, ended]);
  assert.equal((await allEvents(driver, "s")).length, 51);
  assert.equal((await allEvents(driver, "finished")).length, 50);
});

test("a process ends by itself, with drivers in workers alone", async (t) => {
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const { code, messages, stderr } = await runToEnd("postgres-in-workers", [
    JSON.stringify(options),
  ]);
  assert.equal(code, 0, stderr);
  assert.deepEqual(messages, [{ codes: [0, 0] }, { codes: [0, 0] }]);
  const driver = openWith(t, options);
  for (const sessionId of ["a0", "b0", "a1", "b1"]) {
    assert.equal((await allEvents(driver, sessionId)).length, 20);
  }
});

test("a process ends by itself, with many drivers that nobody closed", async (t) => {
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const { code, stderr } = await runToEnd("postgres-many-unclosed", [
    JSON.stringify(options),
    String(MANY),
  ]);
  assert.equal(code, 0, stderr);
  assert.equal((await allEvents(openWith(t, options), "s")).length, MANY);
});
