/** Packs what is published, as tarballs: the main package, and one for this platform. */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { addLegal } from "./legal.mjs";
import { addonName, packageFolder } from "./portable.mjs";
import { npm, root } from "./setup.mjs";

const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));

/** What `napi prepublish` adds: the packages of all platforms. */
function platformDependencies(version) {
  const folders = readdirSync(join(root, "npm"));
  const names = folders.map((name) => readJson(join(root, "npm", name, "package.json")).name);
  return Object.fromEntries(names.map((name) => [name, version]));
}

function pack(folder, destination) {
  npm(["pack", "--silent", "--pack-destination", destination], { cwd: folder, stdio: "ignore" });
}

/** Packs both into an empty folder, and returns the tarballs' paths. */
export function packAll(target, destination) {
  rmSync(destination, { recursive: true, force: true });
  const main = join(destination, "main");
  const platform = join(destination, "platform");
  const manifest = readJson(join(root, "package.json"));
  mkdirSync(main, { recursive: true });
  for (const name of [...manifest.files, "README.md", "LICENSE"]) {
    cpSync(join(root, name), join(main, name), { recursive: true });
  }
  manifest.optionalDependencies = platformDependencies(manifest.version);
  writeFileSync(join(main, "package.json"), JSON.stringify(manifest, null, 2));
  cpSync(packageFolder(target), platform, { recursive: true });
  addLegal(platform);
  pack(main, destination);
  pack(platform, destination);
  const name = (folder) => {
    const { name, version } = readJson(join(folder, "package.json"));
    return join(destination, `${name}-${version}.tgz`);
  };
  return { main: name(main), platform: name(platform), addon: join(platform, addonName(target)) };
}

/** The files of a tarball. */
export function contents(tarball) {
  const listed = execFileSync("tar", ["-tzf", tarball], { encoding: "utf8" });
  return listed
    .trim()
    .split("\n")
    .map((line) => line.replace("package/", ""));
}
