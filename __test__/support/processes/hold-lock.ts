/** Holds the write lock of a database for a while. Another process: another copy of SQLite. */
import Database from "better-sqlite3";

const [filename, milliseconds] = process.argv.slice(2) as [string, string];
const database = new Database(filename);
database.exec("BEGIN IMMEDIATE");
process.send!("locked");
setTimeout(() => {
  database.exec("COMMIT");
  database.close();
  process.disconnect();
}, Number(milliseconds));
