/** Deletes a session. When it is told to, it inserts an event of another and exits at once. */
import { openEither } from "../either.ts";
import { event } from "../fixtures.ts";

const [options, sessionId] = process.argv.slice(2) as [string, string];
const driver = openEither(JSON.parse(options));
driver.deleteSession(sessionId).then(
  () => process.send!("deleted"),
  () => {},
);
process.once("message", () => {
  void driver.insertEvent(event("last", 1));
  process.exit();
});
