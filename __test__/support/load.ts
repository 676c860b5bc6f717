/** The calls that the SDK makes, from many sessions at a time, and what has become of them. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { PostgresSessionPersistDriver } from "../../index.js";
import { allEvents, event, session } from "./fixtures.ts";

const READ_AFTER_EVENTS = 5;

export interface Load {
  /** How many inserts have resolved so far. */
  readonly acknowledged: number;
  /** Resolves once some more inserts of every session have. */
  progress(events: number): Promise<void>;
  /** Ends the load; asserts that no call rejected, and that `reader` finds what resolved, in order. */
  finish(reader: PostgresSessionPersistDriver): Promise<void>;
}

/** Each session awaits its inserts one by one, and reads in between. */
export function startLoad(driver: PostgresSessionPersistDriver, sessions: number): Load {
  const ids = Array.from({ length: sessions }, (_, index) => `load-${index}`);
  const acknowledged = new Map<string, string[]>(ids.map((id) => [id, []]));
  const rejected: unknown[] = [];
  let isEnding = false;

  const run = async (id: string) => {
    const stored = acknowledged.get(id)!;
    await driver.updateSession(session(id));
    for (let index = 1; !isEnding; index += 1) {
      const sent = event(id, index);
      await driver.insertEvent(id, sent);
      stored.push(sent.id);
      if (index % READ_AFTER_EVENTS !== 0) continue;
      assert.equal((await driver.getSession(id))?.id, id);
      const { items } = await driver.listEvents({ sessionId: id, limit: 3 });
      assert.deepEqual(
        items.map((item) => item.id),
        stored.slice(0, 3),
      );
    }
  };
  const runs = ids.map((id) => run(id).catch((error) => void rejected.push(error)));
  const counts = () => [...acknowledged.values()].map(({ length }) => length);

  return {
    get acknowledged() {
      return counts().reduce((sum, count) => sum + count, 0);
    },
    async progress(events) {
      const wanted = counts().map((count) => count + events);
      while (rejected.length === 0 && counts().some((count, at) => count < wanted[at]!)) {
        await sleep(5);
      }
    },
    async finish(reader) {
      isEnding = true;
      await Promise.all(runs);
      assert.deepEqual(rejected, []);
      for (const [id, stored] of acknowledged) {
        const found = await allEvents(reader, id, 1000);
        assert.deepEqual(
          found.map((item) => item.id),
          stored,
        );
        assert.ok(found.every(({ eventIndex }, at) => eventIndex === at + 1));
      }
    },
  };
}
