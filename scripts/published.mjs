/** Fails if a platform's package is published already, in this version, with other contents. */
import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { root } from "./setup.mjs";

function npmJson(args, cwd) {
  const shell = process.platform === "win32";
  const { stdout } = spawnSync("npm", [...args, "--json"], { cwd, shell, encoding: "utf8" });
  return JSON.parse(stdout);
}

for (const platform of readdirSync(join(root, "npm"))) {
  const folder = join(root, "npm", platform);
  const { name, version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const [packed] = npmJson(["pack", "--dry-run"], folder);
  const published = npmJson(["view", `${name}@${version}`, "dist.integrity"], folder);
  if (published.error?.code === "E404") continue;
  if (published !== packed.integrity) {
    console.error(
      `${name} ${version} is published and differs, or npm can't tell: release another version`,
    );
    process.exit(1);
  }
}
