/** What tests of trouble with a server share. */
import { setTimeout as sleep } from "node:timers/promises";
import type { TestContext } from "node:test";
import {
  PostgresSessionPersistDriver,
  type PostgresSessionPersistDriverOptions,
} from "../../index.js";
import { startPostgres } from "./postgres.ts";
import { startRelay } from "./relay.ts";

/** A driver that is closed after the test. */
export function openPostgres(t: TestContext, options: PostgresSessionPersistDriverOptions) {
  const driver = new PostgresSessionPersistDriver(options);
  t.after(() => driver.close());
  return driver;
}

/** A relay to a database, stopped after the test. */
export async function relayTo(t: TestContext, url: string) {
  const relay = await startRelay(url);
  t.after(() => relay.stop());
  return relay;
}

/** A server of the test's own, which it may stop and kill. */
export async function ownServer(t: TestContext, options?: Parameters<typeof startPostgres>[0]) {
  const server = await startPostgres(options);
  t.after(() => server.stop("immediate"));
  return server;
}

/** Waits until something is so, or fails. */
export async function until(
  condition: () => unknown,
  what: string,
  withinMs = 5_000,
): Promise<void> {
  const end = Date.now() + withinMs;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`it didn't happen within ${withinMs} ms: ${what}`);
    await sleep(10);
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
