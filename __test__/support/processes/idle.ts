/** Opens a driver, uses it, and has nothing left to do. */
import { openEither } from "../either.ts";
import { event } from "../fixtures.ts";

const driver = openEither(JSON.parse(process.argv[2]!));
await driver.insertEvent("s", event("s", 1));
await driver.listEvents({ sessionId: "s" });
process.disconnect?.();
