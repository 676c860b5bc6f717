/** Installs, builds the release addon and compares the drivers: see benchmark/bench.ts. */
import { build, install, requireCompilers, run } from "./setup.mjs";

requireCompilers();
install();
build("release");
run(process.execPath, ["--import", "tsx", "benchmark/bench.ts", ...process.argv.slice(2)]);
