/**
 * Servers that don't outlive this process, however it ends, and the folder they live in.
 * Windows has no users to change to and no signals: there they run as we do and end hard.
 */
import { execFileSync, spawn } from "node:child_process";
import { chmodSync, chownSync, mkdtempSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

// Below the ports that systems give to outgoing connections: a client that keeps trying a port of
// those while its server is down can end up connected to itself, and the port is taken.
const LOWEST_PORT = 20_000;
const HIGHEST_PORT = 32_000;

const idOfNobody = (flag) => Number(execFileSync("id", [flag, "nobody"], { encoding: "utf8" }));

let user;
/**
 * Whom servers run as: PostgreSQL and PgBouncer refuse to run as root.
 * @returns {{ uid?: number, gid?: number }} for spawn
 */
export function serverUser() {
  user ??= process.getuid?.() === 0 ? { uid: idOfNobody("-u"), gid: idOfNobody("-g") } : {};
  return user;
}

/** Gives a file or folder to the user that servers run as. */
export function giveToServer(path) {
  const { uid, gid } = serverUser();
  if (uid !== undefined) chownSync(path, uid, gid);
}

let run;
function startRun() {
  const folder = mkdtempSync(join(tmpdir(), "persist-run-"));
  chmodSync(folder, 0o755);
  const script = fileURLToPath(new URL("watchdog.mjs", import.meta.url));
  const watchdog = spawn(process.execPath, [script, folder], {
    // Detached, so that Ctrl-C doesn't reach it; its input ends when this process does.
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  watchdog.unref();
  watchdog.stdin.unref();
  watchdog.stdin.on("error", () => {});
  return { folder, watchdog };
}

/** This process's folder for servers, removed after its end; others may read it. */
export function runFolder() {
  run ??= startRun();
  return run.folder;
}

/** A new folder in it, of the servers' user alone. */
export function serverFolder(name) {
  const folder = mkdtempSync(join(runFolder(), `${name}-`));
  giveToServer(folder);
  return folder;
}

/** Starts a server that ends with this process, and doesn't keep it running. */
export function spawnServer(command, args, options = {}) {
  const cwd = runFolder();
  const child = spawn(command, args, { cwd, detached: true, ...serverUser(), ...options });
  if (child.pid) run.watchdog.stdin.write(`+${child.pid}\n`);
  child.once("exit", () => run.watchdog.stdin.write(`-${child.pid}\n`));
  child.unref();
  return child;
}

/** Resolves once a child has ended. */
export function ended(child) {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  child.ref();
  return new Promise((resolve) => child.once("exit", () => resolve()));
}

const canListen = (port) =>
  new Promise((resolve) => {
    const probe = createServer().on("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });

/** @returns {Promise<number>} a port of 127.0.0.1 that nobody listens on */
export async function freePort() {
  for (;;) {
    const port = LOWEST_PORT + Math.floor(Math.random() * (HIGHEST_PORT - LOWEST_PORT));
    if (await canListen(port)) return port;
  }
}
