/** Opens a PostgreSQL driver, uses it, and has nothing left to do. */
import { PostgresSessionPersistDriver } from "../../../index.js";
import { event } from "../fixtures.ts";

const driver = new PostgresSessionPersistDriver(JSON.parse(process.argv[2]!));
await driver.insertEvent("s", event("s", 1));
await driver.listEvents({ sessionId: "s" });
process.disconnect?.();
