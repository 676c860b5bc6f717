/**
 * Packs this clone for use before a release: two tarballs in dist/, the main package and this platform's,
 * which install anywhere with one command and without a network. `npm run pack:local -- <target>` does so
 * for another platform, or for an older Linux, with an addon as it is published: see portable.mjs.
 */
import { relative, join } from "node:path";
import { packAll } from "./pack.mjs";
import { addonName, buildPortable, hostTarget, neededGlibc, targets } from "./portable.mjs";
import { build, install, requireCompilers, root } from "./setup.mjs";

/** As a shell reads it. */
const quoted = (path) => (/[^\w./:@\\-]/.test(path) ? `"${path}"` : path);

function buildHere() {
  build("release");
  return join(root, addonName(hostTarget()));
}

const [wanted] = process.argv.slice(2);
if (wanted && !targets.includes(wanted)) {
  console.error(`There is no target "${wanted}": there are\n  ${targets.join("\n  ")}`);
  process.exit(1);
}
requireCompilers();
install();
const addon = wanted ? buildPortable(wanted) : buildHere();
const target = wanted ?? hostTarget();
const { main, platform } = packAll(target, addon, join(root, "dist"), "local");
const glibc = target.endsWith("gnu") && neededGlibc(addon);

console.log(`
Packed ${relative(process.cwd(), main)}
   and ${relative(process.cwd(), platform)}${glibc ? `, for glibc ${glibc} or later` : ""}

In your application:

  npm install ${quoted(main)} ${quoted(platform)}
`);
