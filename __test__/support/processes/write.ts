/** Inserts events of a session one after the other and reports each id once it is stored. */
import { SQLiteSessionPersistDriver } from "../../../index.js";
import { event } from "../fixtures.ts";

const [filename, sessionId, count] = process.argv.slice(2) as [string, string, string];
const driver = new SQLiteSessionPersistDriver({ filename });
process.send!({ opened: true });
for (let index = 1; index <= Number(count); index += 1) {
  const sent = event(sessionId, index);
  await driver.insertEvent(sessionId, sent);
  process.send!({ stored: sent.id });
}
driver.close();
process.disconnect();
