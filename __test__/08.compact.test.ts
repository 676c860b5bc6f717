/** Texts in few events, on each driver alike. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import type { SessionEvent } from "../index.js";
import { allEvents, event, rejection, session } from "./support/fixtures.ts";
import { start } from "./support/fork.ts";
import { stores, type Driver, type Store } from "./support/stores.ts";
import { until } from "./support/waiting.ts";

const HOUR = 3_600_000;
const now = Date.now();

const update = (update: object) => ({
  jsonrpc: "2.0",
  method: "session/update",
  params: { sessionId: "a", update },
});
const chunk = (text: string, sessionUpdate = "agent_message_chunk") =>
  update({ sessionUpdate, content: { type: "text", text } });
const tool = (fields: object) => update({ toolCallId: "t", ...fields });
const PROMPT = { jsonrpc: "2.0", id: 1, method: "session/prompt", params: { prompt: [] } };
const ANSWER = { jsonrpc: "2.0", id: 1, result: { stopReason: "end_turn" } };

/** Events of these payloads, two hours old. */
const history = (sessionId: string, payloads: object[], fields: Partial<SessionEvent> = {}) =>
  payloads.map((payload, at) =>
    event(sessionId, at + 1, {
      id: `${sessionId}-${at + 1}`,
      createdAt: now - 2 * HOUR + at,
      sender: payload === PROMPT ? "client" : "agent",
      payload: payload as never,
      ...fields,
    }),
  );

/** A driver of a store with one session of these payloads. */
async function stored(store: Store, payloads: object[], id = "s"): Promise<Driver> {
  const driver = store.open();
  await driver.updateSession(session(id, { createdAt: now - 3 * HOUR }));
  const events = history(id, payloads);
  for (let at = 0; at < events.length; at += 10_000) {
    await driver.insertEvents(events.slice(at, at + 10_000));
  }
  return driver;
}

const words = (count: number) => Array.from({ length: count }, (_, at) => chunk(`w${at} `));
const textOf = (events: SessionEvent[]) =>
  events.map(({ payload }) => (payload as any).params?.update?.content?.text ?? "").join("");
const shown = (events: SessionEvent[]) => events.map(({ id, payload }) => [id, payload]);

for (const [name, create] of Object.entries(stores)) {
  describe(`${name}: compact()`, () => {
    test("makes one event of a text's chunks, which is the last of them", async (t) => {
      const payloads = [PROMPT, ...words(5), ANSWER];
      const driver = await stored(create(t), payloads);
      const before = await allEvents(driver, "s");
      const result = await driver.compact();
      const after = await allEvents(driver, "s");
      assert.deepEqual(after, [
        before[0],
        { ...before[5]!, payload: chunk("w0 w1 w2 w3 w4 ") },
        before[6],
      ]);
      const { bytes, ...rest } = result;
      assert.deepEqual(rest, { sessions: 1, eventsBefore: 7, eventsAfter: 3, done: true });
      assert.ok(bytes > 4 * 100, `${bytes}`);
      const again = { sessions: 1, eventsBefore: 3, eventsAfter: 3, bytes: 0, done: true };
      assert.deepEqual(await driver.compact(), again);
    });

    test("leaves apart what differs in anything but its text", async (t) => {
      const store = create(t);
      const driver = await stored(store, [
        PROMPT,
        chunk("a"),
        chunk("b", "agent_thought_chunk"),
        chunk("c", "agent_thought_chunk"),
        { ...chunk("d", "agent_thought_chunk"), _meta: 1 },
        chunk("e"),
        tool({ sessionUpdate: "tool_call", title: "x" }),
        tool({ sessionUpdate: "tool_call_update", status: "completed" }),
        chunk("f"),
        ANSWER,
      ]);
      const others = [
        event("s", 11, {
          id: "o1",
          createdAt: now - HOUR * 1.5,
          connectionId: "x",
          payload: chunk("g") as never,
        }),
        event("s", 12, { id: "o2", createdAt: now - HOUR * 1.5, payload: chunk("h") as never }),
        {
          ...event("s", 13, {
            id: "o3",
            createdAt: now - HOUR * 1.5,
            payload: chunk("i") as never,
          }),
          more: 1,
        },
        event("s", 14, { id: "o4", createdAt: now - HOUR * 1.5, payload: ANSWER as never }),
      ];
      await driver.insertEvents(others);
      await driver.compact();
      const ids = (await allEvents(driver, "s")).map(({ id }) => id);
      assert.deepEqual(
        ids,
        [1, 2, 4, 5, 6, 7, 8, 9, 10].map((n) => `s-${n}`).concat("o1", "o2", "o3", "o4"),
      );
    });

    test("leaves a turn that isn't answered, and the newest events on request", async (t) => {
      const store = create(t);
      const driver = await stored(store, [PROMPT, ...words(4), ANSWER, PROMPT, ...words(3)]);
      await driver.compact({ keepNewest: 6 });
      const ids = (await allEvents(driver, "s")).map(({ id }) => id);
      assert.deepEqual(ids, ["s-1", "s-4", "s-5", "s-6", "s-7", "s-8", "s-9", "s-10"]);
    });

    test("leaves sessions that are not at rest", async (t) => {
      const driver = await stored(create(t), [PROMPT, ...words(5), ANSWER]);
      await driver.insertEvent(event("s", 8, { createdAt: now - HOUR / 2 }));
      const { eventsAfter } = await driver.compact();
      assert.equal(eventsAfter, 0);
      assert.equal(await driver.countEvents(), 8);
      assert.equal((await driver.compact({ idleFor: "20m" })).eventsAfter, 4);
    });

    test("makes one event of a tool call and its updates on request", async (t) => {
      const driver = await stored(create(t), [
        PROMPT,
        tool({ sessionUpdate: "tool_call", title: "x", status: "pending" }),
        tool({ sessionUpdate: "tool_call_update", status: "in_progress" }),
        tool({ sessionUpdate: "tool_call_update", status: "completed", content: [] }),
        ANSWER,
      ]);
      await driver.compact();
      assert.equal(await driver.countEvents(), 5);
      await driver.compact({ toolCalls: true });
      const merged = tool({
        sessionUpdate: "tool_call",
        title: "x",
        status: "completed",
        content: [],
      });
      assert.deepEqual(shown(await allEvents(driver, "s"))[1], ["s-4", merged]);
      assert.equal(await driver.countEvents(), 3);
    });

    test("goes through a text of any number of chunks, and of sessions without a record", async (t) => {
      const driver = await stored(create(t), [PROMPT, ...words(3_500), ANSWER]);
      await driver.insertEvents(history("none", [PROMPT, ...words(10), ANSWER]));
      const before = textOf(await allEvents(driver, "s", 10_000));
      const { eventsBefore, eventsAfter, done } = await driver.compact();
      assert.deepEqual([eventsBefore, eventsAfter, done], [3_514, 6, true]);
      const after = await allEvents(driver, "s");
      assert.equal(textOf(after), before);
      assert.deepEqual(
        after.map((each) => each.eventIndex),
        [1, 3_501, 3_502],
      );
    });

    test("says with dryRun about what would go, and nothing goes", async (t) => {
      const driver = await stored(create(t), [PROMPT, ...words(2_500), ANSWER]);
      const { eventsBefore, eventsAfter } = await driver.compact({ dryRun: true });
      assert.equal(eventsBefore, 2_502);
      assert.ok(eventsAfter >= 3 && eventsAfter <= 6, `${eventsAfter}`);
      assert.equal(await driver.countEvents(), 2_502);
    });

    test("goes on where it was ended", async (t) => {
      const driver = await stored(create(t), [PROMPT, ...words(3_500), ANSWER]);
      const controller = new AbortController();
      const onProgress = () => controller.abort();
      const first = await driver.compact({ signal: controller.signal, onProgress });
      assert.equal(first.done, false);
      const text = textOf(await allEvents(driver, "s", 10_000));
      assert.equal(
        text,
        words(3_500)
          .map((each) => each.params.update)
          .map((each: any) => each.content.text)
          .join(""),
      );
      assert.equal((await driver.compact()).done, true);
      assert.equal(await driver.countEvents(), 3);
    });

    test("changes nothing in what a replay says", async (t) => {
      const store = create(t);
      let count = 0;
      const payload = fc.oneof(
        {
          weight: 6,
          arbitrary: fc.string({ unit: "grapheme", maxLength: 9 }).map((text) => chunk(text)),
        },
        fc.constantFrom<object>(
          PROMPT,
          ANSWER,
          chunk("", "agent_thought_chunk"),
          chunk("\ud83d"),
          chunk("\ude00"),
        ),
        fc.string().map((title) => tool({ sessionUpdate: "tool_call", title })),
      );
      const limits = fc.record({
        maxEvents: fc.integer({ min: 1, max: 20 }),
        maxChars: fc.integer({ min: 300, max: 5_000 }),
        maxCharsPerEvent: fc.integer({ min: 1, max: 500 }),
      });
      const driver = store.open();
      const property = fc.asyncProperty(
        fc.array(payload, { minLength: 1, maxLength: 60 }),
        fc.array(limits, { minLength: 3, maxLength: 3 }),
        async (payloads, limits) => {
          const sessionId = `s${(count += 1)}`;
          await driver.insertEvents(history(sessionId, payloads));
          const texts = () =>
            Promise.all(limits.map(async (each) => (await driver.replay(sessionId, each))!.text));
          const [before, text] = [await texts(), textOf(await allEvents(driver, sessionId))];
          await driver.compact({ sessionId });
          assert.deepEqual(await texts(), before);
          assert.equal(textOf(await allEvents(driver, sessionId)), text);
        },
      );
      await fc.assert(property, { numRuns: 25 });
    });

    test("in a process that is killed loses no text, and can be done again", async (t) => {
      const store = create(t);
      const driver = await stored(store, [PROMPT, ...words(9_000), ANSWER]);
      const text = textOf(await allEvents(driver, "s", 10_000));
      await driver.close();
      for (const ms of [5, 20, 60]) {
        const child = start("upkeep", [JSON.stringify(store.options), "compact", "{}"]);
        await once(child, "message");
        await sleep(ms);
        child.kill("SIGKILL");
        await once(child, "exit");
      }
      const again = store.open();
      assert.equal(textOf(await allEvents(again, "s", 10_000)), text);
      await again.compact();
      assert.equal(textOf(await allEvents(again, "s")), text);
      assert.equal(await again.countEvents(), 3);
    });

    test("refuses what is no option of it", async (t) => {
      const driver = create(t).open();
      for (const [options, message] of [
        [5, /options must be an object/],
        [{ idle: 1 }, /options\.idle is not an option/],
        [{ sessionId: 1 }, /options\.sessionId must be a string/],
        [{ idleFor: "9m" }, /options\.idleFor must be "10m" or longer/],
        [{ idleFor: "x" }, /options\.idleFor must be a whole number of milliseconds/],
        [{ keepNewest: -1 }, /options\.keepNewest must be a whole number from 0/],
        [{ toolCalls: 1 }, /options\.toolCalls must be true or false/],
        [{ dryRun: "x" }, /options\.dryRun must be true or false/],
      ] as const) {
        const refused = await rejection(driver.compact(options as never));
        assert.equal(refused.code, "ERR_PERSIST_INVALID_ARG");
        assert.match(refused.message, message);
      }
    });

    test("is done by retention, for what comes to rest", async (t) => {
      const store = create(t);
      await (await stored(store, [PROMPT, ...words(20), ANSWER])).close();
      const driver = store.open({ retention: { compactAfter: "1h" } });
      await driver.insertEvent(event("now", 1));
      await until(async () => (await driver.countEvents({ sessionId: "s" })) === 3);
      const open = () => store.open({ retention: { compactAfter: "1m" } });
      assert.throws(open, {
        code: "ERR_PERSIST_INVALID_ARG",
        message: /compactAfter must be "10m"/,
      });
    });
  });
}
