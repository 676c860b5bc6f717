import { fork, type ChildProcess, type ForkOptions } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";

const program = (name: string) => new URL(`processes/${name}.ts`, import.meta.url);

/** Starts one of the programs in `processes/`, as a user's process. */
export const start = (name: string, args: string[], options: ForkOptions = {}): ChildProcess =>
  fork(fileURLToPath(program(name)), args, {
    execArgv: ["--import", "tsx"],
    stdio: "pipe",
    ...options,
  });

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

// A worker doesn't inherit tsx; this registers it before the program is loaded.
const bootstrap = `
  import { register } from ${JSON.stringify(import.meta.resolve("tsx/esm/api"))};
  register();
  await import(${JSON.stringify(program("worker").href)});
`;

/** Starts a worker thread that inserts events with a driver of its own, and tells of each. */
export const startWorker = (workerData: { options: object; sessionId: string; count: number }) =>
  new Worker(new URL(`data:text/javascript,${encodeURIComponent(bootstrap)}`), { workerData });
