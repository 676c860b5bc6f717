/**
 * Uses a driver while its parent breaks what it is connected to, and another whose password
 * function fails; reports whatever reached the process and not a call.
 */
import { once } from "node:events";
import { PostgresSessionPersistDriver } from "../../../index.js";
import { event, rejection } from "../fixtures.ts";

const options = JSON.parse(process.argv[2]!);
const unheard: string[] = [];
process.on("unhandledRejection", (reason) => unheard.push(`rejection: ${reason}`));
process.on("uncaughtException", (error) => unheard.push(`exception: ${error}`));

const driver = new PostgresSessionPersistDriver(options);
const inserts = [1, 2, 3, 4].map((at) => driver.insertEvent(`s${at}`, event(`s${at}`, 1)));
await Promise.all(inserts);
process.send!("idle");
await once(process, "message");
await driver.listSessions();
for (const password of [
  () => Promise.reject(new Error("on purpose")),
  () => {
    throw new Error("on purpose");
  },
]) {
  const poolConfig = { password };
  const other = new PostgresSessionPersistDriver({ ...options, poolConfig, retryTimeoutMs: 100 });
  const refused = await rejection(other.insertEvent("s1", event("s1", 2)));
  if (refused.code !== "ERR_PERSIST_UNAVAILABLE") unheard.push(`refused with ${refused}`);
  await other.close();
}
await driver.close();
setTimeout(() => {
  process.send!({ unheard });
  process.disconnect();
}, 100);
