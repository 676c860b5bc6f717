/** Gives up root, opens a database and reports what it can read and write. */
import { SQLiteSessionPersistDriver } from "../../../index.js";
import { event, rejection } from "../fixtures.ts";

const NOBODY = 65534;
if (process.getuid!() === 0) {
  process.setgid!(NOBODY);
  process.setuid!(NOBODY);
}
try {
  const driver = new SQLiteSessionPersistDriver({ filename: process.argv[2] });
  const { items } = await driver.listEvents({ sessionId: "s" });
  const session = await driver.getSession("s");
  const refused = await rejection(driver.insertEvent("s", event("s", 2)));
  const notReady = await rejection(driver.ready());
  driver.close();
  const afterClose = await rejection(driver.insertEvent("s", event("s", 2)));
  process.send!({
    events: items.length,
    session: session?.id,
    code: refused.code,
    sqliteCode: refused.sqliteCode,
    message: refused.message,
    notReady: notReady.message,
    afterClose: afterClose.code,
  });
} catch (error) {
  process.send!({ error: { ...(error as Error), message: (error as Error).message } });
}
process.disconnect();
