/** Calls that somebody listens to, in the way that the argument names; reports what came of it. */
import diagnostics from "node:diagnostics_channel";
import { event, rejection } from "../fixtures.ts";
import type { PostgresSessionPersistDriver, SQLiteSessionPersistDriver } from "../../../index.js";

const [way, url] = process.argv.slice(2);
const reached: string[] = [];
process.on("unhandledRejection", (reason: any) => reached.push(`rejection: ${reason.code}`));
process.on("uncaughtException", (error) => reached.push(`exception: ${error.message}`));

const report = (result: unknown) =>
  setTimeout(() => {
    process.send!({ result, reached });
    process.disconnect();
  }, 50);
const fails = () => {
  throw new Error("on purpose");
};
const channel = (name: string) => diagnostics.tracingChannel(`sandbox-agent-persist:${name}`);

if (way === "without") (diagnostics as any).tracingChannel = undefined;
// Loaded now, when the runtime is as it is to be.
const main = await import("../../../index.js");

const ways: Record<string, () => Promise<void>> = {
  async without() {
    const driver: SQLiteSessionPersistDriver = new main.SQLiteSessionPersistDriver();
    await driver.insertEvent(event("s", 1));
    report((await driver.listEvents({ sessionId: "s" })).items.length);
  },
  async "throwing subscriber"() {
    channel("write").start.subscribe(fails);
    channel("write").asyncEnd.subscribe(fails);
    const driver = new main.SQLiteSessionPersistDriver();
    await driver.insertEvent(event("s", 1));
    report((await driver.listEvents({ sessionId: "s" })).items.length);
  },
  async "throwing store"() {
    const { AsyncLocalStorage } = await import("node:async_hooks");
    (channel("read").start as any).bindStore(new AsyncLocalStorage(), fails);
    const driver = new main.SQLiteSessionPersistDriver();
    report(await driver.countEvents());
  },
  async "unhandled rejection"() {
    channel("read").subscribe({ error() {} } as never);
    const driver = new main.SQLiteSessionPersistDriver();
    driver.close();
    void driver.getSession("s");
    report(undefined);
  },
  async "handled rejection"() {
    channel("read").subscribe({ error() {} } as never);
    const driver = new main.SQLiteSessionPersistDriver();
    driver.close();
    report((await rejection(driver.getSession("s"))).code);
  },
  async idle() {
    channel("connect").subscribe({ start() {} } as never);
    const driver: PostgresSessionPersistDriver = new main.PostgresSessionPersistDriver({
      connectionString: url,
    });
    await driver.countEvents().catch(() => {});
    process.send!({ result: "idle", reached });
    process.disconnect();
  },
};
await ways[way!]!();
