/** Inserts events of a session one after the other and reports each id once it is stored. */
import { openEither } from "../either.ts";
import { event } from "../fixtures.ts";

const [options, sessionId, count] = process.argv.slice(2) as [string, string, string];
const driver = openEither(JSON.parse(options));
for (let index = 1; index <= Number(count); index += 1) {
  const sent = event(sessionId, index);
  await driver.insertEvent(sessionId, sent);
  process.send!({ stored: sent.id });
}
await driver.close();
process.disconnect();
