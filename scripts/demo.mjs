/** Installs, builds and runs the main job, on SQLite or `postgres`: see examples/restore.mjs. */
import { build, install, run } from "./setup.mjs";

console.log("Installing and building; the first time this takes some minutes …");
install();
build("release");
run(process.execPath, ["examples/restore.mjs", ...process.argv.slice(2)]);
