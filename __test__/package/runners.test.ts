/** The packed packages in applications' tests: Jest and Vitest, whose files may run in contexts of `node:vm`. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { project, run, write } from "./support.ts";

/** What an application's tests would do, in the syntax of both. */
const cases = (filename: string) => `
const session = (id) => ({
  id, agent: "mock", agentSessionId: "a", lastConnectionId: "c", createdAt: 1, sessionInit: { cwd: "/", mcpServers: [] },
});
const event = (eventIndex) => ({
  id: "e" + eventIndex, eventIndex, sessionId: "s", createdAt: 1, connectionId: "c", sender: "agent",
  payload: { jsonrpc: "2.0", method: "m", params: { deep: [{ list: [] }] } },
});
const open = [];
const driverOf = (name) => {
  const driver = name === "SQLite"
    ? new SQLiteSessionPersistDriver({ filename: "${filename}" })
    : new PostgresSessionPersistDriver({ connectionString: process.env.TEST_DATABASE_URL, schema: "${filename}".replace(/\\W/g, "_") });
  open.push(driver);
  return driver;
};
afterAll(() => Promise.all(open.map((driver) => driver.close())));

for (const name of ["SQLite", "PostgreSQL"]) {
  test(name + ": what is read is equal to what was written, to the prototype", async () => {
    const driver = driverOf(name);
    await driver.updateSession(session("s"));
    await driver.insertEvents([event(1), event(2)]);
    expect(await driver.getSession("s")).toStrictEqual(session("s"));
    expect(await driver.listEvents({ sessionId: "s" })).toStrictEqual({ items: [event(1), event(2)] });
    expect((await driver.replay("s")).events).toStrictEqual([event(1), event(2)]);
    expect((await driver.stats({ largest: 1 })).largest).toStrictEqual([
      { sessionId: "s", events: 2, bytes: expect.any(Number) },
    ]);
    expect(await driver.health()).toBeInstanceOf(Object);
    const streamed = [];
    for await (const each of driver.streamEvents()) streamed.push(each);
    expect(streamed).toStrictEqual([event(1), event(2)]);
  });

  test(name + ": errors are errors here", async () => {
    const driver = driverOf(name);
    await expect(driver.getSession(5)).rejects.toThrow(TypeError);
    await expect(driver.listEvents({ sessionId: "s", order: "sideways" })).rejects.toBeInstanceOf(Error);
    await driver.close();
    await expect(driver.getSession("s")).rejects.toMatchObject({ code: "ERR_PERSIST_CLOSED" });
    await expect(driver.getSession("s")).rejects.toBeInstanceOf(Error);
    expect(() => new SQLiteSessionPersistDriver({ filename: 5 })).toThrow(TypeError);
  });

  test(name + ": a driver is an instance of its class", () => {
    const driver = driverOf(name);
    expect(driver).toBeInstanceOf(name === "SQLite" ? SQLiteSessionPersistDriver : PostgresSessionPersistDriver);
  });
}
`;
const NAMES = "SQLiteSessionPersistDriver, PostgresSessionPersistDriver";
/** Tests that run beside each other, in files of their own. */
const FILES = ["one", "two"];

let app: string;
before(async () => {
  app = await project(["jest@30.5.2", "vitest@4.1.12"]);
  for (const name of FILES) {
    write(app, {
      [`jest/${name}.test.js`]: `const { ${NAMES} } = require("sandbox-agent-persist");${cases(`jest-${name}.db`)}`,
    });
  }
});

test("Jest, in contexts of its own", async () => {
  const jest = join(app, "node_modules/jest/bin/jest.js");
  const printed = await run(process.execPath, [jest, "--rootDir", "jest", "--json"], { cwd: app });
  const { numPassedTests, numFailedTests } = JSON.parse(printed);
  assert.deepEqual([numPassedTests, numFailedTests], [6 * FILES.length, 0]);
});

for (const pool of ["forks", "threads", "vmForks", "vmThreads"]) {
  for (const isolate of pool.startsWith("vm") ? [true] : [true, false]) {
    test(`Vitest, pool ${pool}, ${isolate ? "" : "not "}isolated`, async () => {
      const imports = `import { ${NAMES} } from "sandbox-agent-persist";
        import { afterAll, expect, test } from "vitest";`;
      const folder = `vitest-${pool}-${isolate}`;
      for (const name of FILES) {
        write(app, { [`${folder}/${name}.test.mjs`]: imports + cases(`${folder}-${name}.db`) });
      }
      const vitest = join(app, "node_modules/vitest/vitest.mjs");
      const options = [
        "run",
        "--pool",
        pool,
        "--dir",
        folder,
        "--reporter",
        "json",
        "--outputFile",
        `${folder}.json`,
      ];
      if (!isolate) options.push("--no-isolate");
      await run(process.execPath, [vitest, ...options], { cwd: app });
      const report = readFileSync(join(app, `${folder}.json`), "utf8");
      const { numPassedTests, numFailedTests } = JSON.parse(report);
      assert.deepEqual([numPassedTests, numFailedTests], [6 * FILES.length, 0]);
    });
  }
}
