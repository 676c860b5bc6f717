/** What is in the packages, and what is not. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { test } from "node:test";
import { addonName, hostTarget } from "../../scripts/portable.mjs";
import { root } from "../../scripts/setup.mjs";
import { contents } from "../../scripts/pack.mjs";
import { packages, run } from "./support.ts";

const MIB = 2 ** 20;
const manifestOf = (tarball: string) =>
  JSON.parse(execFileSync("tar", ["-xzOf", tarball, "package/package.json"], { encoding: "utf8" }));

test("the main package holds the loader, the classes, the types and the docs, in less than 150 kB", () => {
  assert.deepEqual(contents(packages.main).sort(), [
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "binding.js",
    "docs/api.md",
    "docs/deploying.md",
    "docs/design.md",
    "docs/errors.md",
    "docs/getting-started.md",
    "docs/guarantees.md",
    "docs/operations.md",
    "docs/performance.md",
    "docs/postgres.md",
    "docs/recipes.md",
    "docs/replay.md",
    "docs/sqlite.md",
    "docs/telemetry.md",
    "index.d.ts",
    "index.js",
    "lib/classes.js",
    "lib/compact.js",
    "lib/copies.js",
    "lib/drivers.js",
    "lib/durations.js",
    "lib/errors.js",
    "lib/files.js",
    "lib/handle.js",
    "lib/limits.js",
    "lib/load.js",
    "lib/options.js",
    "lib/prune.js",
    "lib/realm.js",
    "lib/rest.js",
    "lib/retention.js",
    "lib/shutdown.js",
    "lib/streams.js",
    "lib/telemetry.js",
    "lib/tell.js",
    "lib/texts.js",
    "lib/upkeep.js",
    "package.json",
  ]);
  assert.ok(statSync(packages.main).size < 150_000);
});

test("a platform's package holds the addon and its licences", () => {
  assert.deepEqual(contents(packages.platform).sort(), [
    "LICENSE",
    "README.md",
    "THIRD_PARTY_LICENSES.md",
    "package.json",
    addonName(hostTarget()),
  ]);
});

test("nothing runs at install, and nothing else is installed", () => {
  for (const tarball of [packages.main, packages.platform]) {
    const { scripts = {}, dependencies = {}, name } = manifestOf(tarball);
    for (const script of ["preinstall", "install", "postinstall", "prepare"]) {
      assert.equal(scripts[script], undefined, `${name}: ${script}`);
    }
    assert.deepEqual(dependencies, {});
  }
});

test("a platform's package says where it can be used", () => {
  const { os, cpu, libc, version } = manifestOf(packages.platform);
  assert.deepEqual([os, cpu], [[process.platform], [process.arch]]);
  if (process.platform === "linux") assert.deepEqual(libc, ["glibc"]);
  const { optionalDependencies } = manifestOf(packages.main);
  assert.equal(Object.keys(optionalDependencies).length, 7);
  assert.ok(Object.values(optionalDependencies).every((wanted) => wanted === version));
});

test("the addon is smaller than 8 MiB and has no symbols of its own", () => {
  assert.ok(statSync(packages.addon).size < 8 * MIB);
  assert.ok(!readFileSync(packages.addon).includes(".symtab"));
});

test("the addon names no folder of the machine that built it", () => {
  const text = readFileSync(packages.addon, "latin1");
  for (const path of [homedir(), root]) assert.ok(!text.includes(path), path);
});

test(
  "on Linux it asks for no glibc newer than 2.17",
  { skip: process.platform !== "linux" },
  () => {
    // The dynamic string table names each version of glibc that a symbol is wanted of.
    const names = readFileSync(packages.addon, "latin1").match(/\bGLIBC_[\d.]+(?=\0)/g) ?? [];
    const wanted = names.map((name) => name.slice("GLIBC_".length).split(".").map(Number));
    assert.ok(wanted.length > 0);
    for (const [major = 0, minor = 0] of wanted) assert.ok(major === 2 && minor <= 17);
  },
);

test("it is loaded within 15 ms and 10 MB", async () => {
  const program = `
    const loads = [];
    const memory = process.memoryUsage().rss;
    const began = performance.now();
    require(process.argv[1]);
    console.log(JSON.stringify({ ms: performance.now() - began, bytes: process.memoryUsage().rss - memory }));`;
  const runs: { ms: number; bytes: number }[] = [];
  for (let time = 0; time < 5; time += 1) {
    runs.push(JSON.parse(await run(process.execPath, ["-e", program, packages.addon])));
  }
  const least = (name: "ms" | "bytes") => Math.min(...runs.map((figures) => figures[name]));
  console.log(
    `loading takes ${least("ms").toFixed(1)} ms and ${(least("bytes") / 1e6).toFixed(1)} MB`,
  );
  assert.ok(least("bytes") < 10e6);
});
