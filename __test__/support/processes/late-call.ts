/** Calls a driver twice after its close(), and reports the warnings and what the calls rejected with. */
import { setTimeout as sleep } from "node:timers/promises";
import { openEither } from "../either.ts";
import { event, rejection } from "../fixtures.ts";

const warnings: string[] = [];
process.on("warning", ({ name, message }) => {
  if (name === "SandboxAgentPersistWarning") warnings.push(message);
});
const driver = openEither(JSON.parse(process.argv[2]!));
await driver.insertEvent("s", event("s", 1));
const waiting = [driver.insertEvent("s", event("s", 2)), driver.listEvents({ sessionId: "s" })];
await driver.close();
await Promise.allSettled(waiting);
await sleep(10);
const early = warnings.length;
const codes = [];
for (const index of [3, 4]) {
  codes.push((await rejection(driver.insertEvent("s", event("s", index)))).code);
}
await sleep(10);
process.send!({ early, warnings, codes }, () => process.disconnect());
