/** A worker thread that inserts until it is ended, and reports each id once it is stored. */
import { parentPort, workerData } from "node:worker_threads";
import { openEither } from "../either.ts";
import { event } from "../fixtures.ts";

const { options, sessionId, count } = workerData;
const driver = openEither(options);
for (let index = 1; index <= count; index += 1) {
  const sent = event(sessionId, index);
  await driver.insertEvent(sessionId, sent);
  parentPort!.postMessage(sent.id);
}
