/**
 * All tests: Rust's, then Node's on a debug build and a database. `npm test -- 10 41` runs only
 * the Node tests whose file begins so. TEST_DATABASE_URL is the URL of a PostgreSQL to use; unset,
 * one is started.
 */
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { build, install, root, run } from "./setup.mjs";

const chosen = process.argv.slice(2);
install();
if (chosen.length === 0) run("cargo", ["test", "--quiet"]);
build("debug");

const files = readdirSync(`${root}/__test__`)
  .filter((name) => name.endsWith(".test.ts"))
  .filter((name) => chosen.length === 0 || chosen.some((prefix) => name.startsWith(prefix)))
  .sort();
if (files.length === 0) {
  console.error(`no test file begins with ${chosen.join(" or ")}`);
  process.exit(1);
}

/** The database, and what tests learn of it by their environment. */
async function startDatabase() {
  if (process.env.TEST_DATABASE_URL) return { environment: {}, stop: async () => {} };
  // It needs what `install` has installed.
  const { sharedEnvironment, startPostgres } = await import("./postgres.mjs");
  const server = await startPostgres();
  const environment = { TEST_DATABASE_URL: server.url, ...sharedEnvironment() };
  return { environment, stop: () => server.stop() };
}

/** Runs the tests to their end, an interruption included, and returns the exit code. */
function runTests(environment) {
  const options = ["--import", "tsx", "--test", "--test-reporter=spec", "--test-concurrency=2"];
  const tests = spawn(process.execPath, [...options, ...files.map((name) => `__test__/${name}`)], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, ...environment },
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(signal, () => tests.kill(signal));
  }
  return new Promise((resolve, reject) => {
    tests.once("error", reject).once("exit", (code) => resolve(code ?? 1));
  });
}

const database = await startDatabase();
try {
  process.exitCode = await runTests(database.environment);
} finally {
  await database.stop();
}
