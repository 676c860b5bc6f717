/** Histories to try replay on. */
import fc from "fast-check";
import type { SessionEvent } from "../../index.js";
import { event } from "./fixtures.ts";
import { PREFIX } from "./replay-text.ts";

/** Stands before a text whose beginning isn't there. */
export const FRONT_MARK = "[... earlier text elided ...] ";

export const KINDS = ["agent_message_chunk", "agent_thought_chunk", "user_message_chunk"] as const;

export const update = (fields: object, sessionId = "a") => ({
  jsonrpc: "2.0",
  method: "session/update",
  params: { sessionId, update: fields },
});
export const chunk = (text: string, kind: string = KINDS[0]) =>
  update({ sessionUpdate: kind, content: { type: "text", text } });
export const prompt = (...texts: string[]) => ({
  jsonrpc: "2.0",
  id: 7,
  method: "session/prompt",
  params: { sessionId: "a", prompt: texts.map((text) => ({ type: "text", text })) },
});

/** The text of a chunk. */
export function textOf({ payload }: SessionEvent): string | undefined {
  const { sessionUpdate, content } = payload?.params?.update ?? {};
  return KINDS.includes(sessionUpdate) && content?.type === "text" ? content.text : undefined;
}

const unit = fc.oneof(
  fc.constantFrom("\0", '"', "\\", "\n", "\u2028", "😀", "\ud83d", "\ude00", "é", "a", " "),
  fc.string({ unit: "binary", maxLength: 3 }),
);
/** Strings with everything that JSON escapes. */
export const hostileText = fc.array(unit, { maxLength: 12 }).map((units) => units.join(""));

const key = fc.oneof(
  fc.constantFrom(
    "0",
    "1",
    "10",
    "2",
    "4294967294",
    "4294967295",
    "01",
    "-1",
    "__proto__",
    "toJSON",
  ),
  hostileText,
);
const scalar = fc.oneof(
  fc.constantFrom<unknown>(1e21, -0, 1e-7, 0.1, 2 ** 53, -1.5e300, null, true, ""),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  hostileText,
);
/** Any JSON value, as `JSON.parse` makes it. */
export const jsonValue = fc
  .letrec((tie) => ({
    value: fc.oneof({ maxDepth: 4 }, scalar, tie("array"), tie("object")),
    array: fc.array(tie("value"), { maxLength: 4 }),
    object: fc
      .array(fc.tuple(key, tie("value")), { maxLength: 5 })
      .map((entries) => JSON.parse(JSON.stringify(Object.fromEntries(entries)))),
  }))
  .value.map((value) => JSON.parse(JSON.stringify(value)) as unknown);

const toolCall = fc
  .record(
    {
      sessionUpdate: fc.constantFrom("tool_call", "tool_call_update"),
      toolCallId: fc.constantFrom("t1", "t2"),
      status: fc.constantFrom("pending", "completed"),
      rawOutput: jsonValue,
      title: hostileText,
    },
    { requiredKeys: ["sessionUpdate"] },
  )
  .map((fields) => update(fields));
const longText = fc
  .tuple(hostileText, fc.integer({ min: 1, max: 900 }))
  .map(([text, times]) => text.repeat(times));
const chunks = fc
  .tuple(fc.array(hostileText, { minLength: 1, maxLength: 30 }), fc.constantFrom(...KINDS))
  .map(([texts, kind]) => texts.map((text) => chunk(text, kind)));
const payloads = fc.oneof(
  { weight: 4, arbitrary: chunks },
  { weight: 2, arbitrary: fc.array(toolCall, { minLength: 1, maxLength: 4 }) },
  fc.oneof(hostileText, longText).map((text) => [prompt(text)]),
  longText.map((text) => [prompt(`${PREFIX}${text}`, "go on")]),
  longText.map((text) => [chunk(text)]),
  jsonValue.map((value) => [value]),
);

/** The events of a session, in order. */
export const history = (sessionId: string) =>
  fc.array(payloads, { minLength: 1, maxLength: 12 }).map((groups) =>
    groups.flat().map((payload, at) => {
      const isPrompt = (payload as any)?.method === "session/prompt";
      const sender = isPrompt ? "client" : "agent";
      return event(sessionId, at + 1, { id: `${sessionId}-${at}`, sender, payload });
    }),
  );
