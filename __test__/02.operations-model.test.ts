/** Any operations in any order leave what a simple model of a store does. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type {
  EventsFilter,
  ListOrder,
  SessionEvent,
  SessionRecord,
  SessionsFilter,
} from "../index.js";
import { contractOf } from "./support/contract.ts";
import { event, session } from "./support/fixtures.ts";
import {
  collect,
  eventsAmong,
  ids,
  ourDrivers,
  pages,
  plain,
  sessionsAmong,
  type OurDriver,
} from "./support/operations.ts";

/** What a driver must be, in memory and without any wait. */
class Model {
  readonly sessions = new Map<string, SessionRecord>();
  readonly events = new Map<string, SessionEvent>();

  insert(events: SessionEvent[]) {
    for (const each of events) this.events.set(each.id, each);
  }

  delete(id: string): boolean {
    const events = this.eventsOf({ sessionId: id });
    for (const each of events) this.events.delete(each.id);
    return this.sessions.delete(id) || events.length > 0;
  }

  eventsOf(filter: EventsFilter & { sessionId?: string }, order?: ListOrder) {
    return eventsAmong(this.events.values(), filter, order);
  }

  sessionsOf(filter: SessionsFilter, order?: ListOrder) {
    return sessionsAmong(this.sessions.values(), filter, order);
  }
}

const sessionIds = ["a", "b", "c"];
const sessionId = fc.constantFrom(...sessionIds);
const number = fc.integer({ min: -1, max: 3 });
const order = fc.constantFrom<ListOrder>("oldest", "newest");
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
const method = fc.constantFrom("m", "n");
const sender = fc.constantFrom("client" as const, "agent" as const);

/** An event's id is that of one of few, so that it is often replaced. */
const anyEvent = fc.record({
  name: fc.integer({ min: 0, max: 3 }),
  sessionId,
  index: number,
  method,
  sender,
});
const eventsFilter = fc.record({
  sender: optional(sender),
  method: optional(method),
  afterIndex: optional(number),
  beforeIndex: optional(number),
});
const sessionsFilter = fc.record({
  agent: optional(fc.constantFrom("x", "y")),
  destroyed: optional(fc.boolean()),
  createdAfter: optional(number),
  createdBefore: optional(number),
});
const kind = <K extends string>(name: K) => fc.constant(name);
const operation = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: kind("event"), event: anyEvent }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: kind("events"), events: fc.array(anyEvent, { maxLength: 6 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: kind("session"),
      sessionId,
      agent: fc.constantFrom("x", "y"),
      createdAt: number,
      destroyedAt: optional(number),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: kind("delete"), sessionId }) },
  { weight: 1, arbitrary: fc.record({ kind: kind("get"), sessionId }) },
  { weight: 1, arbitrary: fc.record({ kind: kind("last"), sessionId }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: kind("list"),
      sessionId,
      filter: eventsFilter,
      order,
      limit: fc.integer({ min: 1, max: 5 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: kind("sessions"),
      filter: sessionsFilter,
      order,
      limit: fc.integer({ min: 1, max: 3 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: kind("countSessions"), filter: sessionsFilter }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: kind("countEvents"),
      sessionId: optional(sessionId),
      filter: eventsFilter,
    }),
  },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;
type AnyEvent = typeof anyEvent extends fc.Arbitrary<infer T> ? T : never;

/** The event, with an id that any session's may have, or only that session's. */
const eventOf = (
  { name, sessionId, index, method, sender }: AnyEvent,
  number: number,
  isOwn: boolean,
) =>
  event(sessionId, index, {
    id: isOwn ? `${sessionId}${name}` : `${name}`,
    sender,
    payload: { method, number },
  });

/** What the model says, as it is when it is asked. */
function applied(model: Model, step: Operation, count: number, isOwn: boolean): unknown {
  switch (step.kind) {
    case "event":
      return model.insert([eventOf(step.event, count, isOwn)]);
    case "events":
      return model.insert(step.events.map((each, at) => eventOf(each, count + at / 10, isOwn)));
    case "session": {
      const { sessionId, agent, createdAt, destroyedAt } = step;
      return void model.sessions.set(
        sessionId,
        recordOf(sessionId, { agent, createdAt, destroyedAt }),
      );
    }
    case "delete":
      return model.delete(step.sessionId);
    case "get":
      return model.sessions.get(step.sessionId);
    case "last":
      return model.eventsOf({ sessionId: step.sessionId }, "newest")[0];
    case "list":
      return model.eventsOf({ sessionId: step.sessionId, ...step.filter }, step.order);
    case "sessions":
      return model.sessionsOf(step.filter, step.order);
    case "countSessions":
      return model.sessionsOf(step.filter).length;
    case "countEvents":
      return model.eventsOf({
        ...step.filter,
        ...(step.sessionId && { sessionId: step.sessionId }),
      }).length;
  }
}

const recordOf = (id: string, fields: Partial<SessionRecord>) => plain(session(id, fields));

/** The same of a driver. Of lists all pages, or the first alone. */
async function called(
  driver: OurDriver,
  step: Operation,
  count: number,
  { isOwn, inPages }: { isOwn: boolean; inPages: boolean },
): Promise<unknown> {
  switch (step.kind) {
    case "event":
      return driver.insertEvent(step.event.sessionId, eventOf(step.event, count, isOwn));
    case "events":
      return driver.insertEvents(
        step.events.map((each, at) => eventOf(each, count + at / 10, isOwn)),
      );
    case "session": {
      const { sessionId, agent, createdAt, destroyedAt } = step;
      return driver.updateSession(recordOf(sessionId, { agent, createdAt, destroyedAt }));
    }
    case "delete":
      return driver.deleteSession(step.sessionId);
    case "get":
      return driver.getSession(step.sessionId);
    case "last":
      return driver.lastEvent(step.sessionId);
    case "list": {
      const { sessionId, filter, order, limit } = step;
      const request = { sessionId, ...filter, order };
      if (!inPages) return (await driver.listEvents(request)).items;
      return (await pages((cursor) => driver.listEvents({ ...request, limit, cursor }))).flat();
    }
    case "sessions": {
      const { filter, order, limit } = step;
      if (!inPages) return (await driver.listSessions({ ...filter, order })).items;
      const read = (cursor?: string) => driver.listSessions({ ...filter, order, limit, cursor });
      return (await pages(read)).flat();
    }
    case "countSessions":
      return driver.countSessions(step.filter);
    case "countEvents":
      return driver.countEvents({ sessionId: step.sessionId, ...step.filter });
  }
}

/** Fields in order: the drivers write a session's in their own. */
const text = (value: unknown): string =>
  JSON.stringify(value, (_, field) =>
    typeof field === "object" && field !== null && !Array.isArray(field)
      ? Object.fromEntries(Object.entries(field).sort(([left], [right]) => (left < right ? -1 : 1)))
      : field,
  ) ?? "undefined";

async function assertSame(driver: OurDriver, model: Model) {
  assert.equal(text(await collect(driver.streamSessions())), text(model.sessionsOf({})));
  for (const id of sessionIds) {
    const stored = await driver.listEvents({ sessionId: id });
    assert.equal(text(stored.items), text(model.eventsOf({ sessionId: id })), id);
  }
  assert.equal((await collect(driver.streamEvents())).length, model.events.size);
}

/** The sessions whose writes can change what an operation gives; `undefined`: any. */
function sessionOf(step: Operation): string | undefined {
  if (step.kind === "event") return step.event.sessionId;
  return "sessionId" in step ? step.sessionId : undefined;
}

const runs = {
  "SQLite file": 60,
  "SQLite in memory": 60,
  Postgres: 40,
  "Postgres, prepared statements": 20,
};

for (const [name, numRuns] of Object.entries(runs)) {
  describe(name, () => {
    const contract = contractOf(ourDrivers[name]!);
    const property = (
      title: string,
      body: (driver: OurDriver, operations: Operation[]) => Promise<void>,
    ) =>
      contract(title, (driver) =>
        fc.assert(
          fc.asyncProperty(fc.array(operation, { maxLength: 40 }), async (operations) => {
            await Promise.all(sessionIds.map((id) => driver.deleteSession(id)));
            assert.equal(await driver.countEvents(), 0);
            await body(driver, operations);
          }),
          { numRuns },
        ),
      );

    property("awaited operations give what the model gives", async (driver, operations) => {
      const model = new Model();
      for (const [count, step] of operations.entries()) {
        const given = await called(driver, step, count, { isOwn: false, inPages: true });
        assert.equal(text(given), text(applied(model, step, count, false)), step.kind);
      }
      await assertSame(driver, model);
    });

    // A read may see what is called later too; so it must be as the model is at its place, or after a
    // later call. A write is in its place.
    property(
      "operations that nobody awaits do so in the order of the calls",
      async (driver, operations) => {
        const model = new Model();
        const calls = operations.map((step, count) =>
          called(driver, step, count, { isOwn: true, inPages: false }),
        );
        const possible: Set<string>[] = operations.map(() => new Set());
        const expected = operations.map((step, count) => {
          const given = applied(model, step, count, true);
          for (const [at, earlier] of operations.slice(0, count + 1).entries()) {
            if (!isRead(earlier)) continue;
            possible[at]!.add(text(applied(model, earlier, at, true)));
          }
          return text(given);
        });
        const given = await Promise.all(calls);
        for (const [at, step] of operations.entries()) {
          const found = text(given[at]);
          if (!isRead(step)) assert.equal(found, expected[at], `${step.kind} ${at}`);
          // What is of many sessions may have seen later calls of one, and none of another's.
          else if (sessionOf(step))
            assert.ok(possible[at]!.has(found), `${step.kind} ${at}: ${found}`);
        }
        await assertSame(driver, model);
      },
    );
  });
}

const isRead = ({ kind }: Operation) => !["event", "events", "session", "delete"].includes(kind);

/** All sequences that keep the order within each of these. */
function interleavings<T>(sequences: T[][]): T[][] {
  const left = sequences.filter(({ length }) => length > 0);
  if (left.length === 0) return [[]];
  return left.flatMap((sequence) => {
    const others = left.map((each) => (each === sequence ? each.slice(1) : each));
    return interleavings(others).map((rest) => [sequence[0]!, ...rest]);
  });
}

for (const name of ["SQLite file", "Postgres", "Postgres, prepared statements"]) {
  for (const together of [false, true]) {
    const how = together ? "all at once" : "one after the other";
    test(`insert, delete, insert, in every interleaving with two sessions, ${how}: ${name}`, async (t) => {
      const driver = ourDrivers[name]!(t);
      const trial = async (calls: (readonly [string, number])[], number: number) => {
        const [s, t, u] = ["s", "t", "u"].map((id) => `${id}${number}`) as [string, string, string];
        const sequences: Record<string, (() => Promise<unknown>)[]> = {
          s: [
            () => driver.insertEvent(event(s, 1, { id: `${s} first` })),
            () => driver.deleteSession(s),
            () => driver.insertEvent(event(s, 2, { id: `${s} second` })),
          ],
          t: [
            () => driver.updateSession(session(t)),
            () => driver.insertEvents([event(t, 2), event(t, 1)]),
          ],
          u: [() => driver.insertEvent(event(u, 1)), () => driver.deleteSession(u)],
        };
        const results = await Promise.all(
          calls.map(async ([id, at]) => [`${id}${at}`, await sequences[id]![at]!()]),
        );
        const given = Object.fromEntries(results);
        assert.deepEqual([given.s1, given.u1], [true, true], text(calls));
        const listed = await driver.listEvents({ sessionId: s });
        assert.deepEqual(ids(listed.items), [`${s} second`], text(calls));
        assert.equal((await driver.getSession(t))?.id, t);
        assert.equal(await driver.countEvents({ sessionId: t }), 2);
        assert.equal(await driver.deleteSession(u), false);
      };
      const all = interleavings([
        [
          ["s", 0],
          ["s", 1],
          ["s", 2],
        ] as const,
        [
          ["t", 0],
          ["t", 1],
        ] as const,
        [
          ["u", 0],
          ["u", 1],
        ] as const,
      ] as unknown as (readonly [string, number])[][]);
      assert.equal(all.length, 210);
      try {
        if (together) await Promise.all(all.map(trial));
        else for (const [number, calls] of all.entries()) await trial(calls, number);
        assert.equal(await driver.countEvents(), 3 * all.length);
        assert.equal(await driver.countSessions(), all.length);
      } finally {
        await driver.close();
      }
    });
  }
}
