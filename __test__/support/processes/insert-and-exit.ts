/** Inserts without awaiting, and ends in the way that is asked for. */
import { SQLiteSessionPersistDriver } from "../../../index.js";
import { event } from "../fixtures.ts";

const [filename, end] = process.argv.slice(2) as [string, string];
const driver = new SQLiteSessionPersistDriver({ filename });
if (end === "exit listener") {
  process.on("exit", () => void driver.insertEvent("s", event("s", 501)));
}
for (let index = 1; index <= 500; index += 1) void driver.insertEvent("s", event("s", index));

if (end === "process.exit()") process.exit(0);
if (end === "exit listener") process.exit(0);
if (end === "uncaught exception") throw new Error("on purpose");
if (end === "unhandled rejection") void Promise.reject(new Error("on purpose"));
if (end === "reallyExit") (process as any).reallyExit(0);
if (end === "natural end") process.disconnect?.();
