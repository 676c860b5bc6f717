import { setTimeout as sleep } from "node:timers/promises";

/** The process warnings of ours while `body` runs. */
export async function warningsOf(body: () => unknown): Promise<string[]> {
  const messages: string[] = [];
  const listener = ({ name, message }: Error) => {
    if (name === "SandboxAgentPersistWarning") messages.push(message);
  };
  process.on("warning", listener);
  try {
    await body();
    // Warnings are emitted in a later turn.
    await sleep(10);
  } finally {
    process.off("warning", listener);
  }
  return messages;
}
