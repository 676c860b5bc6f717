/** Reads a database as of one moment for a while, so that its log must stay. */
import Database from "better-sqlite3";

const [filename, milliseconds] = process.argv.slice(2) as [string, string];
const database = new Database(filename, { readonly: true });
database.exec("BEGIN");
database.prepare("SELECT count(*) FROM events").get();
process.send!("reads");
setTimeout(() => {
  database.exec("COMMIT");
  database.close();
  process.disconnect();
}, Number(milliseconds));
