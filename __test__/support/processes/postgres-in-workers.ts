/**
 * Inserts in worker threads, two at a time, and only there: with the last of them the addon may be
 * unloaded, and is loaded again for the next.
 */
import { once } from "node:events";
import { startWorker } from "../fork.ts";

const options = JSON.parse(process.argv[2]!);
for (let round = 0; round < 2; round += 1) {
  const workers = ["a", "b"].map((name) =>
    startWorker({ options, sessionId: `${name}${round}`, count: 20 }),
  );
  const ends = await Promise.all(workers.map((worker) => once(worker, "exit")));
  process.send!({ codes: ends.map(([code]) => code) });
}
process.disconnect?.();
