/** index.d.ts, as users' compilers see it: strict, and with library checks on. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const require = createRequire(import.meta.url);
const tsc = require.resolve("typescript/package.json").replace(/package\.json$/, "bin/tsc");
const strict = ["--ignoreConfig", "--noEmit", "--strict", "--target", "es2022"];
const module = ["--module", "nodenext", "--moduleResolution", "nodenext"];

async function compiles(name: string, ...flags: string[]) {
  const source = fileURLToPath(new URL(`types/${name}.ts`, import.meta.url));
  const args = [tsc, ...strict, ...module, ...flags, source];
  const failed = await promisify(execFile)(process.execPath, args).then(
    () => "",
    ({ stdout, stderr }) => `${stdout}${stderr}`,
  );
  assert.equal(failed, "");
}

const checked = ["--skipLibCheck", "false"];

test("the types stand alone, without Node's", () =>
  compiles("alone", ...checked, "--lib", "es2022", "--types", ""));

test("what may be undefined may be given as undefined", () =>
  compiles("alone", ...checked, "--lib", "es2022", "--types", "", "--exactOptionalPropertyTypes"));

test("the types stand beside Node's", () =>
  compiles("alone", ...checked, "--lib", "es2022", "--types", "node"));

test("the types stand beside the compiler's own Symbol.dispose", () =>
  compiles("dispose", ...checked, "--lib", "es2022,esnext.disposable", "--types", ""));

test("the driver is a SessionPersistDriver of SDK 0.2 and 0.3", () =>
  compiles("sdk-0.2", ...checked, "--lib", "es2022", "--types", ""));

test("the driver is a SessionPersistDriver of the published SDK 0.4", () =>
  compiles("sdk-0.4", "--skipLibCheck", "--lib", "es2022,dom", "--types", "node"));

test("exports are named for require and for import", async () => {
  const required = require("../index.js");
  const imported = await import("../index.js");
  assert.equal(typeof required.SQLiteSessionPersistDriver, "function");
  assert.equal(imported.SQLiteSessionPersistDriver, required.SQLiteSessionPersistDriver);
  assert.equal(required.SQLiteSessionPersistDriver.name, "SQLiteSessionPersistDriver");
  assert.equal(imported.PostgresSessionPersistDriver, required.PostgresSessionPersistDriver);
  assert.equal(required.PostgresSessionPersistDriver.name, "PostgresSessionPersistDriver");
  assert.equal(imported.postgresSchemaSql, required.postgresSchemaSql);
});
