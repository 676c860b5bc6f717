/** `npm version` runs this with the new version in package.json: everything else that names it follows. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build, install, npm, root, run } from "./setup.mjs";

const manifest = join(root, "Cargo.toml");
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
writeFileSync(
  manifest,
  readFileSync(manifest, "utf8").replace(/^version = ".*"$/m, `version = "${version}"`),
);
install();
npm(["exec", "--no", "napi", "version"]);
// Cargo.lock and binding.js name it too.
build("debug");
run("git", ["add", "Cargo.toml", "Cargo.lock", "binding.js", "npm"]);
