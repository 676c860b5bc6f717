/**
 * Makes calls the first of which leads to a warning, which a `process.emitWarning` of its own
 * answers by throwing, and reports what has become of them in time.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { PostgresSessionPersistDriver } from "../../../index.js";
import { event } from "../fixtures.ts";

let warnings = 0;
process.emitWarning = () => {
  warnings += 1;
  throw new Error("on purpose");
};
process.on("uncaughtException", () => {});

const driver = new PostgresSessionPersistDriver(JSON.parse(process.argv[2]!));
const states: Record<string, string> = {};
const watch = (name: string, call: Promise<unknown>) =>
  call.then(
    () => (states[name] = "resolved"),
    (error) => (states[name] = error.message),
  );
const newer = { ...event("s", 1), later: 1 };
const first = [
  watch("insertEvent", driver.insertEvent("s", newer)),
  watch("getSession", driver.getSession("a")),
  watch("listSessions", driver.listSessions()),
];
await Promise.race([Promise.all(first), sleep(3000)]);
await Promise.race([watch("afterwards", driver.getSession("b")), sleep(2000)]);
process.send!({ warnings, states }, () => process.exit());
