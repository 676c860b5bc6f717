/**
 * The release addon as it is published: on Linux built with zig's C compiler and linker, so that it asks
 * for no glibc newer than 2.17. `node scripts/portable.mjs [target]` puts it into npm/.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { root, run, stage } from "./setup.mjs";

const BINARY = "sandbox-agent-persist";
const OLDEST_GLIBC = "2.17";
/** Names of cargo and of the packages, and what cargo calls the library. */
const TARGETS = {
  "x86_64-unknown-linux-gnu": { package: "linux-x64-gnu", library: "lib*.so", glibc: true },
  "aarch64-unknown-linux-gnu": { package: "linux-arm64-gnu", library: "lib*.so", glibc: true },
  "x86_64-unknown-linux-musl": { package: "linux-x64-musl", library: "lib*.so" },
  "aarch64-unknown-linux-musl": { package: "linux-arm64-musl", library: "lib*.so" },
  "x86_64-apple-darwin": { package: "darwin-x64", library: "lib*.dylib" },
  "aarch64-apple-darwin": { package: "darwin-arm64", library: "lib*.dylib" },
  "x86_64-pc-windows-msvc": { package: "win32-x64-msvc", library: "*.dll" },
};
const ARCHITECTURES = { x64: "x86_64", arm64: "aarch64" };
const SYSTEMS = { linux: "unknown-linux-gnu", darwin: "apple-darwin", win32: "pc-windows-msvc" };

export function hostTarget() {
  const target = `${ARCHITECTURES[process.arch]}-${SYSTEMS[process.platform]}`;
  const isMusl =
    process.platform === "linux" && !process.report.getReport().header.glibcVersionRuntime;
  return isMusl ? target.replace("gnu", "musl") : target;
}
/** The names of all targets. */
export const targets = Object.keys(TARGETS);
/** The folder of a target's package. */
export const packageFolder = (target) => join(root, "npm", TARGETS[target].package);
/** The name of a target's addon. */
export const addonName = (target) => `${BINARY}.${TARGETS[target].package}.node`;

/** The newest glibc that an addon asks for: its dynamic string table names each. */
export function neededGlibc(addon) {
  const names = readFileSync(addon, "latin1").match(/\bGLIBC_[\d.]+(?=\0)/g) ?? [];
  const versions = names.map((name) => name.slice("GLIBC_".length));
  const inOrder = versions.sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
  return inOrder.at(-1);
}

/** An environment of Python with zig and cargo-zigbuild, of the versions that are written down. */
function zigEnvironment() {
  const folder = join(root, "target", "zig");
  const bin = join(folder, process.platform === "win32" ? "Scripts" : "bin");
  if (!existsSync(join(bin, "cargo-zigbuild"))) {
    run("python3", ["-m", "venv", folder]);
    const requirements = fileURLToPath(new URL("requirements.txt", import.meta.url));
    run(join(bin, "pip"), [
      "install",
      "--quiet",
      "--disable-pip-version-check",
      "-r",
      requirements,
    ]);
  }
  return { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH}` };
}

function rustFlags(target) {
  const cargo = process.env.CARGO_HOME ?? join(homedir(), ".cargo");
  const sources = join(cargo, "registry", "src");
  // The addon names no folder of the machine that built it.
  const flags = [`--remap-path-prefix=${sources}=crates`, `--remap-path-prefix=${root}=`];
  // A library to load must leave libc to who loads it.
  if (target.endsWith("musl")) flags.push("-Ctarget-feature=-crt-static");
  // Windows has no C runtime of the compiler's until something installs it.
  if (target.endsWith("msvc")) flags.push("-Ctarget-feature=+crt-static");
  return flags;
}

/** Rust's own library for a target, which rustup has for those that aren't the machine's. */
function installTarget(target) {
  const print = ["--print", "target-libdir", "--target", target];
  const { stdout } = spawnSync("rustc", print, { cwd: root, encoding: "utf8" });
  if (!existsSync(stdout.trim())) run("rustup", ["target", "add", target]);
}

/** Builds the addon of a target and puts it into its package. */
export function buildPortable(target) {
  const { library, glibc } = TARGETS[target];
  installTarget(target);
  const isLinux = target.includes("linux");
  const env = isLinux ? zigEnvironment() : { ...process.env };
  // Encoded, as a path may have spaces.
  env.CARGO_ENCODED_RUSTFLAGS = rustFlags(target).join("\x1f");
  const command = isLinux ? "zigbuild" : "build";
  stage(`cargo ${command} for ${target}: the first time this takes some minutes`);
  const triple = glibc ? `${target}.${OLDEST_GLIBC}` : target;
  run("cargo", [command, "--release", "--locked", "--target", triple], { env });
  const name = library.replace("*", BINARY.replaceAll("-", "_"));
  const addon = join(packageFolder(target), addonName(target));
  copyFileSync(join(root, "target", target, "release", name), addon);
  return addon;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log(buildPortable(process.argv[2] ?? hostTarget()));
}
