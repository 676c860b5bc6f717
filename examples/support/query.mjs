/**
 * What SQL finds in a database of the demo's, through other packages than the one that wrote it:
 * `node examples/support/query.mjs <file or URL> "SELECT …"`.
 */
import { fileURLToPath } from "node:url";

async function querySQLite(filename, text) {
  const { default: Database } = await import("better-sqlite3");
  const database = new Database(filename, { readonly: true, fileMustExist: true });
  try {
    return database.prepare(text).all();
  } finally {
    database.close();
  }
}

async function queryPostgres(connectionString, text) {
  const { default: pg } = await import("pg");
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

/** The rows that a query finds. */
export const query = (database, text) =>
  database.startsWith("postgres:") ? queryPostgres(database, text) : querySQLite(database, text);

/** Rows as psql shows them, in lines. */
export function table(rows) {
  if (rows.length === 0) return ["(no rows)"];
  const lines = [Object.keys(rows[0]), ...rows.map((row) => Object.values(row).map(String))];
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const [head, ...body] = lines.map((line) =>
    ` ${line.map((value, column) => value.padEnd(widths[column])).join(" | ")}`.trimEnd(),
  );
  return [head, widths.map((width) => "-".repeat(width + 2)).join("+"), ...body];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [database, text] = process.argv.slice(2);
  console.log(table(await query(database, text)).join("\n"));
}
