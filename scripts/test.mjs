/**
 * All tests: Rust's, then Node's on a debug build and a database. `npm test -- 10 41` runs only
 * the Node tests whose file begins so. TEST_DATABASE_URL is the URL of a PostgreSQL to use; unset,
 * one is started. NAPI_RS_NATIVE_LIBRARY_PATH is the path of an addon to test; unset, one is built.
 */
import { readdirSync } from "node:fs";
import { runNodeTests } from "./node-tests.mjs";
import { build, install, requireCompilers, root, run, stage } from "./setup.mjs";

const chosen = process.argv.slice(2);
const files = readdirSync(`${root}/__test__`)
  .filter((name) => name.endsWith(".test.ts"))
  .filter((name) => chosen.length === 0 || chosen.some((prefix) => name.startsWith(prefix)))
  .sort();
if (files.length === 0) {
  console.error(`no test file begins with ${chosen.join(" or ")}`);
  process.exit(1);
}

// An addon that is given is what is to be tested.
const isGiven = Boolean(process.env.NAPI_RS_NATIVE_LIBRARY_PATH);
if (!isGiven) requireCompilers();
install();
if (!isGiven && chosen.length === 0) {
  stage("cargo test: the first time this takes some minutes");
  run("cargo", ["test", "--", "--quiet"]);
}
if (!isGiven) build("debug");
stage("node --test");
await runNodeTests(files.map((name) => `__test__/${name}`));
