/** What every command needs first: the dependencies and the addon. Uses nothing but Node. */
import { spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";

export { requireCompilers } from "./requirements.mjs";

export const root = fileURLToPath(new URL("..", import.meta.url));

/** Says what begins, and may take minutes. */
export const stage = (text) => console.log(`> ${text}`);

/** Runs a command and ends the process with its exit code if it fails. */
export function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit", ...options });
  if (error) {
    console.error(`${command} could not be started: ${error.message}`);
    process.exit(1);
  }
  if (status !== 0) process.exit(status ?? 1);
}

/** Runs npm, the one that runs us where there is one. */
export function npm(args, options = {}) {
  const cli = process.env.npm_execpath;
  if (cli) run(process.execPath, [cli, ...args], options);
  // On Windows npm is a script of the shell's.
  else run("npm", args, { shell: process.platform === "win32", ...options });
}

export function install() {
  const installed = `${root}/node_modules/.package-lock.json`;
  const isCurrent =
    existsSync(installed) &&
    statSync(installed).mtimeMs >= statSync(`${root}/package-lock.json`).mtimeMs;
  if (isCurrent) return;
  stage("npm ci");
  npm(["ci", "--no-audit", "--no-fund"]);
}

/**
 * Builds the addon: `debug`, quick to build, or `release`, as the package has it. The command is always
 * the same, as the napi CLI has cargo build all of the crate again for another one, such as a quiet one.
 */
export function build(profile) {
  const script = profile === "release" ? "build" : "build:debug";
  stage(`npm run ${script}: the first time this takes some minutes`);
  npm(["run", "--silent", script]);
}
