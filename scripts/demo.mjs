/** Installs, builds and runs the main job, on SQLite or `postgres`: see examples/restore.mjs. */
import { choose } from "../examples/support/stores.mjs";
import { build, install, requireCompilers, run } from "./setup.mjs";

const store = choose(process.argv[2]);
requireCompilers();
install();
build("release");
run(process.execPath, ["examples/restore.mjs", store]);
