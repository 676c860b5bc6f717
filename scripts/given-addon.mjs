/** Prints the path of the one addon in the folder `addon`, in the system's own notation. */
import { readdirSync } from "node:fs";
import { join, resolve } from "node:path";

const found = readdirSync("addon", { recursive: true }).filter((name) => name.endsWith(".node"));
if (found.length !== 1) throw new Error(`there are ${found.length} addons`);
console.log(resolve(join("addon", found[0])));
