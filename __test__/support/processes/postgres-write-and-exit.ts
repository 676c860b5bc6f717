/** Writes once more when it is told to, and exits without awaiting that. */
import { once } from "node:events";
import { PostgresSessionPersistDriver } from "../../../index.js";
import { session } from "../fixtures.ts";

const driver = new PostgresSessionPersistDriver(JSON.parse(process.argv[2]!));
await driver.updateSession(session("s"));
process.send!("ready");
await once(process, "message");
driver.updateSession(session("s", { agent: "later" })).catch(() => {});
setTimeout(() => process.exit(), 100);
