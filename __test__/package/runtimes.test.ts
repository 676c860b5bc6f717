/** The same suite in every runtime that is here. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { appendFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { sql } from "../support/postgres.ts";
import { folder, installed, project, run } from "./support.ts";

const CALLS = 200;
const PARTS = ["SQLite", "Postgres", "replay", "close", "exit with work in flight"] as const;
const smoke = fileURLToPath(new URL("smoke.mjs", import.meta.url));

/** What starts each runtime; a package of another platform isn't there. */
const runtimes: [name: string, program: string, ...args: string[]][] = [
  ["Node 20", join(installed, "node20/bin/node")],
  ["Node 22", join(installed, "node22/bin/node")],
  ["Node 24", join(installed, "node24/bin/node")],
  ["Node 26", join(installed, "node26/bin/node")],
  ["Bun", join(installed, "@oven/bun-linux-x64/bin/bun")],
  ["Deno", join(installed, "@deno/linux-x64-glibc/deno"), "run", "--allow-all"],
];

let app: string;
let module: string;
before(async () => {
  app = await project([]);
  module = join(app, "node_modules/sandbox-agent-persist/index.js");
});
const schemas: string[] = [];
after(async () => {
  for (const schema of schemas) await sql(`DROP SCHEMA IF EXISTS ${schema} CASCADE`);
});

for (const [name, program, ...args] of runtimes) {
  const isHere = existsSync(program);
  test(name, { skip: isHere ? false : "not for this platform" }, async () => {
    const place = folder();
    const schema = `smoke_${randomBytes(6).toString("hex")}`;
    schemas.push(schema);
    const part = (...given: string[]) => {
      const [which, ...rest] = given;
      return run(program, [...args, smoke, which!, module, ...rest], { cwd: app });
    };
    const { TEST_DATABASE_URL } = process.env;
    const outcomes = [
      await part("sqlite", join(place, "a.db")),
      await part("postgres", TEST_DATABASE_URL!, schema),
      await part("exit", join(place, "b.db"), String(CALLS)),
      await part("count", join(place, "b.db"), String(CALLS)),
    ];
    await part("exit-worker", join(place, "c.db"), String(CALLS));
    outcomes.push(await part("count", join(place, "c.db"), String(CALLS)));
    for (const outcome of outcomes) assert.equal(outcome.trim().split("\n").at(-1), "ok");
    const version = await run(program, ["--version"]);
    const results = process.env.TEST_RUNTIME_RESULTS;
    const ran = Object.fromEntries(PARTS.map((title) => [title, "yes"]));
    const row = { runtime: `${name.split(" ")[0]} ${/\d+\.\d+\.\d+/.exec(version)?.[0]}`, ...ran };
    if (results) appendFileSync(results, `${JSON.stringify(row)}\n`);
  });
}
