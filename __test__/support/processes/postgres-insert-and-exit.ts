/** Inserts without awaiting, and ends in the way that is asked for. */
import { PostgresSessionPersistDriver } from "../../../index.js";
import { event } from "../fixtures.ts";

const [options, end] = process.argv.slice(2) as [string, string];
const driver = new PostgresSessionPersistDriver(JSON.parse(options));
const ignore = () => {};
for (let index = 1; index <= 500; index += 1) {
  driver.insertEvent("s", event("s", index)).catch(ignore);
}
process.send!({ ends: Date.now() });

if (end === "process.exit()") process.exit(0);
if (end === "uncaught exception") throw new Error("on purpose");
if (end === "natural end") process.disconnect?.();
