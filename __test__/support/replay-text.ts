/** The SDK's rules in plain JavaScript: what replay is measured against. */
import type { SessionEvent } from "../../index.js";

export const PREFIX =
  "Previous session history is replayed below as JSON-RPC envelopes. Use it as context before responding to the latest user prompt.\n";
export const CUT = "\n[history truncated]";

type Line = Pick<SessionEvent, "createdAt" | "sender" | "payload">;

/** The SDK's text of these events, as its documentation describes it. */
export function referenceText(events: readonly Line[], maxChars = 12_000): string | null {
  const lines = events.map(({ createdAt, sender, payload }) =>
    JSON.stringify({ createdAt, sender, payload }),
  );
  if (lines.length === 0) return null;
  let room = maxChars - PREFIX.length;
  const misfit = lines.findIndex((line) => {
    room -= line.length + 1;
    return room < 0;
  });
  const fitting = misfit < 0 ? lines : lines.slice(0, misfit);
  return PREFIX + fitting.map((line) => `${line}\n`).join("") + (misfit < 0 ? "" : CUT);
}
