/** Streams all events and reports how many there are and what memory that took; or some, and ends. */
import { openEither } from "../either.ts";

const GARBAGE_EVERY = 5_000;
/** By then the heap and its allocator have as much as they keep. */
const WARM_AFTER = 50_000;

const [options, count] = process.argv.slice(2) as [string, string];
const driver = openEither(JSON.parse(options));
const rss = () => {
  globalThis.gc!();
  return process.memoryUsage.rss();
};

let [events, before, most] = [0, 0, 0];
for await (const _ of driver.streamEvents()) {
  events += 1;
  if (events === Number(count)) break;
  if (events === WARM_AFTER) before = rss();
  if (events % GARBAGE_EVERY === 0) most = Math.max(most, rss());
}
process.send!({ events, grown: most - before });
process.disconnect();
