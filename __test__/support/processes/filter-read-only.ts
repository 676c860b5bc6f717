/** Gives up root, and reports which sessions of a file have a sandbox. */
import { SQLiteSessionPersistDriver } from "../../../index.js";

const NOBODY = 65534;
if (process.getuid!() === 0) {
  process.setgid!(NOBODY);
  process.setuid!(NOBODY);
}
const driver = new SQLiteSessionPersistDriver({ filename: process.argv[2] });
const filter = { sandboxId: "box" };
process.send!({
  all: await driver.countSessions(),
  counted: await driver.countSessions(filter),
  listed: (await driver.listSessions({ ...filter, order: "newest" })).items.length,
  others: (await driver.listSessions({ agent: "mock", destroyed: false })).items.length,
});
process.disconnect();
