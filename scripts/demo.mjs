/** Installs, builds and runs the main job: see examples/restore.mjs. */
import { build, install, run } from "./setup.mjs";

console.log("Installing and building; the first time this takes some minutes …");
install();
build("release");
run(process.execPath, ["examples/restore.mjs"]);
