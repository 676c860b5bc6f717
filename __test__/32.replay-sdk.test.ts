/** The published SDK restores through a view, end to end, on either database. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { allEvents } from "./support/fixtures.ts";
import { FRONT_MARK } from "./support/replay.ts";
import { CUT, PREFIX } from "./support/replay-text.ts";
import { ask, chunkOf, databases, lives, type Persist } from "./support/sdk.ts";

const CHUNKS = 20_000;
const SESSION = "s";

/** All events, those before the last prompt, and what that prompt began with. */
async function lastPrompt(persist: Persist) {
  const events = await allEvents(persist, SESSION, 1_000);
  const at = events.findLastIndex(({ payload }) => payload.method === "session/prompt");
  const replayed: string = events[at]!.payload.params.prompt[0].text;
  return { events, earlier: events.slice(0, at), replayed };
}
const lines = (replayed: string) =>
  replayed
    .trimEnd()
    .split("\n")
    .slice(1)
    .map((line) => JSON.parse(line));

for (const [name, create] of Object.entries(databases)) {
  test(`${name}: a long session is resumed with its newest text, again and again`, async (t) => {
    const live = lives(t, create(t));
    const resume = (turn: number) =>
      live(
        async (sdk, persist) => {
          const resumed = await sdk.resumeSession(SESSION);
          assert.equal((await sdk.getEvents({ sessionId: SESSION })).items.length <= 50, true);
          await ask(resumed, `stream ${10 + turn} 30`, `${10 + turn} `);
          const { events, earlier, replayed } = await lastPrompt(persist);

          assert.ok(replayed.startsWith(PREFIX) && replayed.length <= 12_000);
          assert.equal(replayed.split(PREFIX).length, 2, "replays don't nest");
          assert.ok(!replayed.includes(CUT.trim()), "the SDK had nothing to cut");
          const told = lines(replayed).map(({ payload }) => payload);
          const texts = told.map((payload) => payload.params?.update?.content?.text ?? "");
          const spoken = earlier.map(chunkOf).filter((text) => text !== undefined);
          if (turn === 1) {
            // The answer to a prompt may overtake chunks: then it stands between two texts, or alone
            // before one if too little room is left for the other.
            const newest = texts.join("").replace(FRONT_MARK, "");
            assert.ok(newest.length > 10_000, "as much as there is room for");
            assert.ok(spoken.join("").endsWith(newest), "the newest text");
          } else {
            assert.ok(
              texts.some((text) => text.endsWith(spoken.at(-1))),
              "the newest text",
            );
            const prompts = told.filter(({ method }) => method === "session/prompt");
            assert.equal(prompts.length, turn - 1, "the turns since are told");
            for (const { params } of prompts) {
              assert.equal(params.prompt.length, 1);
              assert.match(params.prompt[0].text, /^stream 1\d 30$/);
            }
          }
          assert.ok(
            events.every(({ eventIndex }, at) => eventIndex === at + 1),
            "numbering goes on",
          );
        },
        (persist) => persist.replayView(),
      );

    await live(async (sdk, _, cwd) => {
      const session = await sdk.createSession({ id: SESSION, agent: "mock", cwd });
      await ask(session, `stream ${CHUNKS} 30`, `${CHUNKS} `);
    });
    for (const turn of [1, 2, 3]) await resume(turn);
  });
}
