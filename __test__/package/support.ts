/** Projects that have the packed packages installed, and an environment without compilers. */
import { execFile, type ExecFileOptions } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const root = fileURLToPath(new URL("../../", import.meta.url));
const TIME_LIMIT_MS = 300_000;

type Packed = { main: string; platform: string; addon: string };
/** The tarballs as published, and as `npm run pack:local` packs them; scripts/test-package.mjs has made them. */
export const packages: Packed & { local: Packed } = JSON.parse(process.env.TEST_PACKAGES ?? "{}");
/** What this folder has installed. */
export const installed = fileURLToPath(new URL("node_modules/", import.meta.url));
export const COMPILERS = ["cargo", "rustc", "cc", "gcc", "g++", "clang", "make", "python3"];

const folders: string[] = [];
process.on("exit", () => {
  for (const path of folders) rmSync(path, { recursive: true, force: true });
});
/** A folder of the caller's own, removed when the process ends. */
export function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "persist-package-"));
  folders.push(path);
  return path;
}

/** Only Node and a shell are on the path. */
function bareEnvironment(): NodeJS.ProcessEnv {
  const bin = folder();
  symlinkSync(process.execPath, join(bin, "node"));
  symlinkSync("/bin/sh", join(bin, "sh"));
  const { HOME, TMPDIR, TEST_DATABASE_URL } = process.env;
  const npmSettings = Object.entries(process.env).filter(([name]) => name.startsWith("npm_config"));
  return { ...Object.fromEntries(npmSettings), HOME, TMPDIR, TEST_DATABASE_URL, PATH: bin };
}
export const environment = bareEnvironment();

/** Runs a program without compilers in sight, and returns what it printed. */
export async function run(program: string, args: string[], options: ExecFileOptions = {}) {
  const { stdout } = await promisify(execFile)(program, args, {
    env: environment,
    timeout: TIME_LIMIT_MS,
    maxBuffer: 2 ** 26,
    ...options,
  });
  return stdout.toString();
}

export const npm = (args: string[], cwd: string) =>
  run(process.execPath, [process.env.npm_execpath!, ...args, "--no-audit", "--no-fund"], { cwd });

/** A folder with both packages and others installed, under the names that an application knows it by. */
export async function project(
  others: string[],
  { names = [], from = packages }: { names?: string[]; from?: Packed } = {},
): Promise<string> {
  const path = folder();
  writeFileSync(join(path, "package.json"), JSON.stringify({ private: true }));
  const aliases = names.map((name) => `${name}@file:${from.main}`);
  const main = aliases.length > 0 ? aliases : [from.main];
  await npm(["install", ...main, from.platform, ...others], path);
  return path;
}

/** Writes files into a project. */
export function write(path: string, files: Record<string, string>) {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(path, name, ".."), { recursive: true });
    writeFileSync(join(path, name), text);
  }
}

/** The README's snippets that connect: on SQLite, on PostgreSQL, and through a view. */
export function snippets(): [sqlite: string, postgres: string, view: string] {
  const readme = readFileSync(join(root, "README.md"), "utf8");
  const blocks = [...readme.matchAll(/```ts\n(.*?)```/gs)].map(([, code]) => code!);
  const connects = blocks.filter((code) => code.includes("SandboxAgent.connect"));
  return connects.slice(0, 3) as [string, string, string];
}

/** What a snippet is followed by, to see that it works: a session is streamed and read. */
export const continuation = (id: string) => `
const session = await sdk.createSession({ id: "${id}", agent: "mock", cwd: process.cwd() });
await session.prompt([{ type: "text", text: "stream 3 20" }]);
const stored = async () => (await persist.listEvents({ sessionId: "${id}" })).items;
// The last chunk may be stored after the prompt is answered.
while (!(await stored()).some(({ payload }) => payload.params?.update?.content?.text?.startsWith("3 "))) {
  await new Promise((resolve) => setTimeout(resolve, 10));
}
await sdk.dispose();
await persist.close();
console.log("ok");
`;
