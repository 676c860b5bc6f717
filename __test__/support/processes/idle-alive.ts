/** Waits for quiet with nothing else to do, and tells of its end. */
import { SQLiteSessionPersistDriver } from "../../../index.js";
import { event } from "../fixtures.ts";

const driver = new SQLiteSessionPersistDriver();
await driver.insertEvent("s", event("s", 1));
process.disconnect?.();
const outcome = await driver.idle({ quietMs: 200 });
process.stderr.write(JSON.stringify(outcome));
