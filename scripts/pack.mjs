/** Packs what is published, as tarballs: the main package, and one for this platform. */
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { addLegal } from "./legal.mjs";
import { addonName, packageFolder } from "./portable.mjs";
import { npm, root } from "./setup.mjs";

const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));

/** The names of all platforms' packages, each with the version that it must have. */
function platforms(version) {
  const folders = readdirSync(join(root, "npm"));
  const names = folders.map((name) => readJson(join(root, "npm", name, "package.json")).name);
  return Object.fromEntries(names.map((name) => [name, version]));
}

/** What the main package says of the platforms' packages, so that one is found. */
const WAYS = {
  /** What `napi prepublish` adds: whoever installs it fetches the one that fits. */
  published: (names) => ({ optionalDependencies: names }),
  /** Nothing, as no registry has them: npm asks for optional peers, too. What is installed beside it is found. */
  local: () => ({}),
};

function pack(folder, destination) {
  const { name, version } = readJson(join(folder, "package.json"));
  npm(["pack", "--silent", "--pack-destination", destination], { cwd: folder, stdio: "ignore" });
  return join(destination, `${name}-${version}.tgz`);
}

function stageMain(folder, way) {
  const manifest = readJson(join(root, "package.json"));
  mkdirSync(folder, { recursive: true });
  for (const name of [...manifest.files, "README.md", "LICENSE"]) {
    cpSync(join(root, name), join(folder, name), { recursive: true });
  }
  Object.assign(manifest, WAYS[way](platforms(manifest.version)));
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest, null, 2));
}

function stagePlatform(folder, target, addon) {
  cpSync(packageFolder(target), folder, {
    recursive: true,
    filter: (path) => !path.endsWith(".node"),
  });
  copyFileSync(addon, join(folder, addonName(target)));
  addLegal(folder);
}

/**
 * Packs the main package and the one that holds this addon of a target into an empty folder, and returns
 * the tarballs' paths.
 * @param {string} target
 * @param {string} addon
 * @param {string} destination
 * @param {"published" | "local"} way
 */
export function packAll(target, addon, destination, way) {
  const stage = join(root, "target", "packed", way);
  for (const folder of [stage, destination]) rmSync(folder, { recursive: true, force: true });
  mkdirSync(destination, { recursive: true });
  const [main, platform] = ["main", "platform"].map((name) => join(stage, name));
  stageMain(main, way);
  stagePlatform(platform, target, addon);
  return {
    main: pack(main, destination),
    platform: pack(platform, destination),
    addon: join(platform, addonName(target)),
  };
}

/** The files of a tarball. */
export function contents(tarball) {
  const listed = execFileSync("tar", ["-tzf", tarball], { encoding: "utf8" });
  return listed
    .trim()
    .split("\n")
    .map((line) => line.replace("package/", ""));
}
