/**
 * All tests: Rust's, then Node's on a debug build and a database. `npm test -- 10 41` runs only
 * the Node tests whose file begins so. TEST_DATABASE_URL is the URL of a PostgreSQL to use; unset,
 * one is started. NAPI_RS_NATIVE_LIBRARY_PATH is the path of an addon to test; unset, one is built.
 */
import { readdirSync } from "node:fs";
import { runNodeTests } from "./node-tests.mjs";
import { build, install, root, run } from "./setup.mjs";

const chosen = process.argv.slice(2);
install();
// An addon that is given is what is to be tested.
if (!process.env.NAPI_RS_NATIVE_LIBRARY_PATH) {
  if (chosen.length === 0) run("cargo", ["test", "--quiet"]);
  build("debug");
}

const files = readdirSync(`${root}/__test__`)
  .filter((name) => name.endsWith(".test.ts"))
  .filter((name) => chosen.length === 0 || chosen.some((prefix) => name.startsWith(prefix)))
  .sort();
if (files.length === 0) {
  console.error(`no test file begins with ${chosen.join(" or ")}`);
  process.exit(1);
}

await runNodeTests(files.map((name) => `__test__/${name}`));
