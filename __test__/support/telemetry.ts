/** What is published of calls. */
import { tracingChannel } from "node:diagnostics_channel";
import type { TestContext } from "node:test";
import {
  PostgresSessionPersistDriver,
  type PostgresSessionPersistDriverOptions,
  type TelemetryContext,
} from "../../index.js";
import { open } from "./fixtures.ts";
import { databaseUrl, freshSchema } from "./postgres.ts";

const EVENTS = ["start", "end", "asyncStart", "asyncEnd", "error"] as const;
export type Channel = "write" | "read" | "replay" | "connect";
export type Published = { event: string; context: TelemetryContext; same: object };

/** What a channel publishes from now on: each time what the context holds then. */
export function listen(t: TestContext, name: Channel): Published[] {
  const published: Published[] = [];
  const subscribers: any = {};
  for (const event of EVENTS) {
    subscribers[event] = (same: TelemetryContext) =>
      published.push({ event, context: { ...same }, same });
  }
  const channel = tracingChannel(`sandbox-agent-persist:${name}`);
  channel.subscribe(subscribers);
  t.after(() => channel.unsubscribe(subscribers));
  return published;
}

/** How calls ended. */
export const ends = (published: Published[]) =>
  published.filter(({ event }) => event === "asyncEnd").map(({ context }) => context);

/** A driver on a schema of the test's own. */
export function openPostgres(t: TestContext, options: PostgresSessionPersistDriverOptions = {}) {
  const driver = new PostgresSessionPersistDriver({
    connectionString: databaseUrl(),
    schema: freshSchema(t),
    ...options,
  });
  t.after(() => driver.close());
  return driver;
}

/** Both kinds of driver. */
export const systems = {
  sqlite: (t: TestContext) => open(t),
  postgresql: (t: TestContext) => openPostgres(t),
} as const;
