/** Stores events until a file may not grow, and one more when it may be smaller. Prints what it met. */
import { SQLiteSessionPersistDriver } from "../../../index.js";
import { event, rejection } from "../fixtures.ts";

// Else the limit ends the process.
process.on("SIGXFSZ", () => {});
const driver = new SQLiteSessionPersistDriver({ filename: process.argv[2] });
const payload = "x".repeat(100_000);
let stored = 0;
const store = async () => {
  for (;;) {
    await driver.insertEvent("s", event("s", stored + 1, { payload }));
    stored += 1;
  }
};
const { code, message } = await rejection(store());
const events = await driver.countEvents();
await driver.insertEvent("s", event("s", stored + 1));
console.log(JSON.stringify({ code, message, isAllThere: events === stored && stored > 0 }));
driver.close();
