/** What can be tried of a release without releasing: see .github/workflows/release.yml. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { addLegal } from "../../scripts/legal.mjs";
import { folder, installed, run } from "./support.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const napi = join(root, "node_modules/@napi-rs/cli/dist/cli.js");
const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));

test("the workflow is one that GitHub takes", async () => {
  const validator = join(installed, "@action-validator/cli/cli.mjs");
  const workflow = join(root, ".github/workflows/release.yml");
  await run(process.execPath, [validator, workflow], { env: process.env });
});

test("the addons of all platforms find their packages, and the main package names these", async () => {
  const stage = folder();
  for (const name of ["package.json", "binding.js", "index.js", "index.d.ts", "npm"]) {
    cpSync(join(root, name), join(stage, name), {
      recursive: true,
      filter: (path) => !path.endsWith(".node"),
    });
  }
  const platforms = readdirSync(join(stage, "npm"));
  assert.equal(platforms.length, 7);
  for (const platform of platforms) {
    const artifact = join(stage, "artifacts", `addon-${platform}`, platform);
    mkdirSync(artifact, { recursive: true });
    writeFileSync(join(artifact, `sandbox-agent-persist.${platform}.node`), "a placeholder");
  }
  for (const platform of platforms) addLegal(join(stage, "npm", platform));
  const options = { cwd: stage, env: process.env };
  await run(process.execPath, [napi, "artifacts"], options);
  for (const platform of platforms) {
    const addon = `sandbox-agent-persist.${platform}.node`;
    assert.ok(existsSync(join(stage, "npm", platform, addon)), addon);
  }
  const prepublish = ["prepublish", "-t", "npm", "--no-gh-release"];
  await run(process.execPath, [napi, ...prepublish, "--dry-run"], options);
  assert.equal(readJson(join(stage, "package.json")).optionalDependencies, undefined);
  await run(process.execPath, [napi, ...prepublish, "--skip-optional-publish"], options);
  const { optionalDependencies, version } = readJson(join(stage, "package.json"));
  const names = platforms.map((platform) => `sandbox-agent-persist-${platform}`);
  assert.deepEqual(optionalDependencies, Object.fromEntries(names.map((name) => [name, version])));
});

test("every crate that is linked in is in the list of licences", () => {
  const licences = readFileSync(join(root, "THIRD_PARTY_LICENSES.md"), "utf8");
  for (const target of readJson(join(root, "package.json")).napi.targets) {
    const tree = ["tree", "--edges", "normal", "--prefix", "none", "--locked", "--target", target];
    const lines = execFileSync("cargo", tree, { cwd: root, encoding: "utf8" }).trim().split("\n");
    // Macros are of the compiler.
    const crates = lines.filter((line) => line && !line.includes("(proc-macro)"));
    const names = crates.map((line) => line.split(" ").slice(0, 2).join(" ").replace(" v", " "));
    const missing = names
      .filter((name) => !name.startsWith("sandbox-agent-persist "))
      .filter((name) => !licences.includes(`- ${name}`));
    assert.deepEqual([...new Set(missing)], [], target);
  }
});
