/** Waiting for what is to come about, and how long things take. */
import { setTimeout as sleep } from "node:timers/promises";

const WITHIN_MS = 10_000;
const PAUSE_MS = 10;

/** Resolves when the condition holds, or fails. */
export async function until(
  condition: () => unknown,
  what = String(condition),
  withinMs = WITHIN_MS,
): Promise<void> {
  const end = Date.now() + withinMs;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`it didn't happen within ${withinMs} ms: ${what}`);
    await sleep(PAUSE_MS);
  }
}

/** What a call rejected with, if it did, and how many milliseconds it took. */
export async function timed(call: Promise<unknown>) {
  const start = Date.now();
  const [outcome] = await Promise.allSettled([call]);
  const error: (Error & Record<string, unknown>) | undefined =
    outcome.status === "rejected" ? outcome.reason : undefined;
  return { error, milliseconds: Date.now() - start };
}
