/**
 * The databases that the demo runs on. Each makes itself ready in an empty folder and says what
 * a driver takes to use it, what a process leaves in it, and how the reader can look.
 */
import { cpSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { PostgresSessionPersistDriver, SQLiteSessionPersistDriver } from "../../index.js";

const count = (number) => number.toLocaleString("en-US");
const shown = (path) => relative(process.cwd(), path);

/** A file. */
async function startSQLite(folder) {
  const filename = join(folder, "sandbox-agent.db");
  return {
    options: { filename },
    what: "a file",
    left: async () => [[shown(filename), `${count(statSync(filename).size)} bytes`]],
    end: async () => [
      `Its database is ${shown(filename)}; any SQLite shell opens it. The rest of demo-data/ is`,
      "the server's own.",
    ],
  };
}

const QUERIES = [
  `SELECT sender, coalesce(payload_json ->> 'method', 'a response') AS envelope,
       count(*), min(event_index) AS first, max(event_index) AS last
FROM events GROUP BY 1, 2 ORDER BY first;`,
  `SELECT event_index, sender, left(payload_json::text, 60) AS payload
FROM events WHERE event_index IN (1, (SELECT max(event_index) FROM events)) ORDER BY 1;`,
];

/** As psql shows rows. */
function table(rows) {
  const lines = [Object.keys(rows[0]), ...rows.map((row) => Object.values(row).map(String))];
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const [head, ...body] = lines.map((line) =>
    ` ${line.map((value, column) => value.padEnd(widths[column])).join(" | ")}`.trimEnd(),
  );
  return [head, widths.map((width) => "-".repeat(width + 2)).join("+"), ...body];
}

/** A server of the demo's own, which runs as long as the demo. */
async function startPostgres(folder) {
  const { startPostgres } = await import("../../scripts/postgres.mjs");
  const server = await startPostgres();
  const data = join(folder, "postgres");
  return {
    options: { connectionString: server.url },
    what: `a database, ${server.url}`,
    left: async () => {
      const bytes = "pg_total_relation_size(name::regclass)::float8 AS bytes";
      const rows = await server.query(
        `SELECT name, ${bytes} FROM unnest('{sessions,events}'::text[]) AS name`,
      );
      return rows.map(({ name, bytes }) => [name, `${count(bytes)} bytes, its indexes included`]);
    },
    end: async () => {
      const found = [];
      for (const query of QUERIES) {
        found.push(...query.split("\n"), ...table(await server.query(query)), "");
      }
      const [{ version }] = await server.query("SELECT split_part(version(), '.', 1) AS version");
      await server.stop();
      // It ran elsewhere: as root it is another user's, who may not come here.
      cpSync(server.folder, data, { recursive: true });
      return [
        "Its events, as SQL finds them:",
        "",
        ...found,
        `The server has ended. Its data is ${shown(data)}, which ${version} opens:`,
        "",
        `postgres -D ${shown(data)} -p ${server.port} -k "" &`,
        `psql ${server.url}`,
      ];
    },
  };
}

export const stores = {
  sqlite: { Driver: SQLiteSessionPersistDriver, start: startSQLite },
  postgres: { Driver: PostgresSessionPersistDriver, start: startPostgres },
};
