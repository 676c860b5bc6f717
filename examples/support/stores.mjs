/**
 * The databases that the demo runs on: what a driver takes to use each, where it is for a reader, and
 * its end. Imports nothing that has to be installed or built, as the demo can be asked for one that
 * there isn't before that.
 */
import { mkdirSync } from "node:fs";
import { join, relative } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const data = fileURLToPath(new URL("../../demo-data", import.meta.url));
const tool = fileURLToPath(new URL("query.mjs", import.meta.url));
const shown = (path) => relative(process.cwd(), path);

/** Commands that show what is stored, one a line: the database's own shell, and Node's for who has none. */
const commands = (shell, place) => [
  `${shell} ${place}`,
  `node ${shown(tool)} ${place} "SELECT id, agent, created_at FROM sessions"`,
];
const print = (lines) => console.log(lines.map((line) => line && `   ${line}`).join("\n"));

/** A new folder in demo-data/: what earlier runs left there is theirs. */
function newFolder() {
  mkdirSync(data, { recursive: true });
  for (let run = 1; ; run += 1) {
    const folder = join(data, String(run));
    try {
      mkdirSync(folder);
      return folder;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
  }
}

/** A file, which stays. */
async function startSQLite() {
  const filename = join(newFolder(), "sandbox-agent.db");
  const place = shown(filename);
  const end = async () => print(["To look into it:", "", ...commands("sqlite3", place)]);
  return { options: { filename }, place, end };
}

function untilEnter(question) {
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  return new Promise((resolve) => {
    terminal.once("close", resolve);
    terminal.question(question, () => terminal.close());
  });
}

/** A server of the demo's own, which ends with it. */
async function startPostgres() {
  const { startPostgres } = await import("../../scripts/postgres.mjs");
  const server = await startPostgres();
  const end = async () => {
    // In CI nobody is there to look.
    if (process.stdin.isTTY && process.stdout.isTTY) {
      print(["To look into it, in another terminal:", "", ...commands("psql", server.url)]);
      await untilEnter("\n   The server runs until you press Enter. ");
    }
    await server.stop();
  };
  return { options: { connectionString: server.url }, place: server.url, end };
}

export const stores = {
  sqlite: { driver: "SQLiteSessionPersistDriver", start: startSQLite },
  postgres: { driver: "PostgresSessionPersistDriver", start: startPostgres },
};

/** The name of a store; for one that there isn't, says so and ends the process. */
export function choose(name = "sqlite") {
  if (Object.hasOwn(stores, name)) return name;
  console.error(`There is no demo on "${name}": it runs on ${Object.keys(stores).join(" or ")}.`);
  process.exit(1);
}
