/**
 * Started by children.mjs. Reads the process ids of servers that began (`+`) and ended (`-`);
 * when its input ends, so has the process that wrote them, killed or not: ends what is left of
 * them and removes their folder.
 */
import { readFileSync, rmSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const PATIENCE_MS = 5_000;
const [folder] = process.argv.slice(2);
const running = new Set();

function signal(pid, name) {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}
/** Ended, but still listed: in containers often nobody collects orphans. */
function isZombie(pid) {
  try {
    return /\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}
const isAnyRunning = () => [...running].some((pid) => signal(pid, 0) && !isZombie(pid));

for await (const line of createInterface({ input: process.stdin })) {
  const pid = Number(line.slice(1));
  if (line.startsWith("+")) running.add(pid);
  else running.delete(pid);
}
// To PostgreSQL: end at once, and see to it that your children do.
for (const pid of running) signal(pid, "SIGQUIT");
const end = Date.now() + PATIENCE_MS;
while (isAnyRunning() && Date.now() < end) await sleep(20);
for (const pid of running) signal(pid, "SIGKILL");
rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
