/** Installs, builds and runs the main job: see examples/restore.mjs. */
import { build, install, run } from "./setup.mjs";

install();
build("debug");
run(process.execPath, ["examples/restore.mjs"]);
