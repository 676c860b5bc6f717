/** Inserts events of a session into a PostgreSQL database, and closes the driver. */
import { PostgresSessionPersistDriver } from "../../../index.js";
import { event } from "../fixtures.ts";

const [options, sessionId, count] = process.argv.slice(2) as [string, string, string];
const driver = new PostgresSessionPersistDriver(JSON.parse(options));
for (let index = 1; index <= Number(count); index += 1) {
  await driver.insertEvent(sessionId, event(sessionId, index));
}
await driver.close();
process.disconnect();
