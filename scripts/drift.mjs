/** Fails if the generated files that are committed aren't what a build generates. */
import { build, run } from "./setup.mjs";

build("debug");
run("git", ["diff", "--exit-code", "--", "binding.js", "binding.d.ts"]);
