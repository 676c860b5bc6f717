/**
 * Ends by a signal in the middle of a chain of events, or of an SDK that doesn't come to an end.
 * Tells of each event that is acknowledged, and of what is begun.
 */
import { gracefulShutdown } from "../../../index.js";
import { openEither } from "../either.ts";
import { chain } from "../chain.ts";

const [options, how, length, timeoutMs = "60000"] = process.argv.slice(2) as [
  string,
  "chain" | "hang",
  string,
  string?,
];
const driver = openEither(JSON.parse(options));
const tell = (what: string) => process.send?.(what);
const sdk = {
  dispose: () => {
    tell("dispose");
    return how === "hang" ? new Promise<void>(() => {}) : Promise.resolve();
  },
};
await gracefulShutdown(sdk, driver, {
  signals: ["SIGTERM", "SIGINT"],
  timeoutMs: Number(timeoutMs),
});
setInterval(() => {}, 60_000);
tell("ready");
// What can't be stored is told of at the end.
await chain(driver, "s", Number(length), (index) => tell(String(index))).catch(() => {});
