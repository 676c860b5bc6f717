/** Runs test files on Node's test runner, with a database. */
import { spawn } from "node:child_process";
import { root } from "./setup.mjs";

/** The database, and what tests learn of it by their environment. */
async function startDatabase() {
  if (process.env.TEST_DATABASE_URL) return { environment: {}, stop: async () => {} };
  // It needs what `install` has installed.
  const { sharedEnvironment, startPostgres } = await import("./postgres.mjs");
  const server = await startPostgres();
  const environment = { TEST_DATABASE_URL: server.url, ...sharedEnvironment() };
  return { environment, stop: () => server.stop() };
}

/** Runs the files to their end, an interruption included, and returns the exit code. */
function run(files, environment) {
  const options = ["--import", "tsx", "--test", "--test-reporter=spec", "--test-concurrency=2"];
  const tests = spawn(process.execPath, [...options, ...files], {
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

/** Runs the files, and sets the exit code. */
export async function runNodeTests(files, environment = {}) {
  const database = await startDatabase();
  try {
    process.exitCode = await run(files, { ...database.environment, ...environment });
  } finally {
    await database.stop();
  }
}
