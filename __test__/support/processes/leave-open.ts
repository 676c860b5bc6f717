/** Stores an event, and ends without closing its driver. */
import { openEither } from "../either.ts";
import { event } from "../fixtures.ts";

const driver = openEither(JSON.parse(process.argv[2]!));
await driver.insertEvent("s", event("s", 1));
process.disconnect();
