/** Prunes or compacts a store, and tells when that begins and when it has come to its end. */
import { openEither } from "../either.ts";

const [options, method, how] = process.argv.slice(2) as [string, "prune" | "compact", string];
const driver = openEither(JSON.parse(options));
process.send!("begins");
await driver[method](JSON.parse(how));
process.send!("done");
await driver.close();
process.disconnect();
