/** Gives up root, opens a database with retention, and tells of each warning of ours within a while. */
import { setTimeout as sleep } from "node:timers/promises";
import { SQLiteSessionPersistDriver } from "../../../index.js";

const NOBODY = 65534;
if (process.getuid!() === 0) {
  process.setgid!(NOBODY);
  process.setuid!(NOBODY);
}
process.on("warning", ({ name, message }) => {
  if (name === "SandboxAgentPersistWarning") process.send!(message);
});
const driver = new SQLiteSessionPersistDriver({ filename: process.argv[2], maxSessions: 1 });
await driver.getSession("s");
await sleep(1_500);
driver.close();
process.disconnect();
