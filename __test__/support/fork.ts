import { fork, type ChildProcess, type ForkOptions } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const program = (name: string) => fileURLToPath(new URL(`processes/${name}.ts`, import.meta.url));

/** Starts one of the programs in `processes/`, as a user's process. */
export const start = (name: string, args: string[], options: ForkOptions = {}): ChildProcess =>
  fork(program(name), args, { execArgv: ["--import", "tsx"], stdio: "pipe", ...options });

/** Runs one to its end. */
export async function runToEnd(name: string, args: string[], options: ForkOptions = {}) {
  const child = start(name, args, options);
  const messages: any[] = [];
  let stderr = "";
  child.on("message", (message) => messages.push(message));
  child.stderr?.on("data", (data) => (stderr += data));
  const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
  return { code, signal, stderr, messages };
}
