/** Puts the licences into the platforms' packages: each holds an addon, and the addon what these are of. */
import { copyFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { root } from "./setup.mjs";

export const LEGAL = ["LICENSE", "THIRD_PARTY_LICENSES.md"];

export function addLegal(folder) {
  for (const name of LEGAL) copyFileSync(join(root, name), join(folder, name));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const name of readdirSync(join(root, "npm"))) addLegal(join(root, "npm", name));
}
