/** Inserts with many drivers, awaits nothing, closes none, and has nothing left to do. */
import { PostgresSessionPersistDriver } from "../../../index.js";
import { event } from "../fixtures.ts";

const [options, count] = process.argv.slice(2) as [string, string];
for (let at = 0; at < Number(count); at += 1) {
  const driver = new PostgresSessionPersistDriver(JSON.parse(options));
  driver.insertEvent("s", event("s", at)).catch(() => {});
}
process.disconnect?.();
