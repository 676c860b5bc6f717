/** A turn of an agent at work, as the updates that it sends: thoughts, tools and an answer. */

const WORDS_A_CHUNK = 3;

/** A text as models stream it: a few words at a time. */
function chunks(sessionUpdate, text) {
  const words = text.match(/\S+\s*/g);
  const updates = [];
  while (words.length > 0) {
    const content = { type: "text", text: words.splice(0, WORDS_A_CHUNK).join("") };
    updates.push({ sessionUpdate, content });
  }
  return updates;
}

function tool(toolCallId, title, kind, result) {
  return [
    { sessionUpdate: "tool_call", toolCallId, title, kind, status: "pending" },
    { sessionUpdate: "tool_call_update", toolCallId, status: "in_progress" },
    { sessionUpdate: "tool_call_update", toolCallId, status: "completed", ...result },
  ];
}
const output = (text) => ({ content: [{ type: "content", content: { type: "text", text } }] });

const TEST_RUN = Array.from(
  { length: 120 },
  (_, at) => `ok ${at + 1} - invoices are rounded in currency ${at + 1}`,
).join("\n");

export const scriptedTurn = [
  ...chunks(
    "agent_thought_chunk",
    "The total is a cent too low. I should look at how the lines are rounded before they are added up.",
  ),
  ...tool(
    "call-1",
    "Read src/invoice.ts",
    "read",
    output(
      "export const total = (lines) => lines.reduce((sum, line) => sum + Math.floor(line.net * line.rate), 0);",
    ),
  ),
  ...chunks(
    "agent_message_chunk",
    "Each line is floored, so every line loses a part of a cent. I change it to round once. ",
  ),
  ...tool("call-2", "Edit src/invoice.ts", "edit", {
    content: [
      {
        type: "diff",
        path: "src/invoice.ts",
        oldText: "sum + Math.floor(line.net * line.rate), 0)",
        newText: "sum + line.net * line.rate, 0)",
      },
    ],
  }),
  ...tool(
    "call-3",
    "npm test",
    "execute",
    output(`${TEST_RUN}\n# pass 119\n# fail 1: refunds are rounded down`),
  ),
  ...chunks(
    "agent_message_chunk",
    `The totals are right now: lines are added up exactly, and the sum is rounded once, half away from
zero, as the tax office asks for. All but one of the tests pass. The one that fails, "refunds are
rounded down", expects the old behaviour for negative lines: a refund of 10.005 became 10.00, and it
is 10.01 now, the same as the invoice that it refunds. I think the test is wrong, as a customer would
otherwise lose a cent with each refund, but that is your decision: I have not changed the test. If you
want refunds to stay as they were, tell me, and I add a case for negative totals to src/invoice.ts.
What is left to do: change the test or the code for refunds, and run the suite once more.`,
  ),
];
