/**
 * What building takes beside Node. Says what is missing and how to get it, before anything is done:
 * cargo's own words for it come late, and with a stack.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const isWindows = process.platform === "win32";

const RUSTUP = isWindows
  ? "winget install Rustlang.Rustup"
  : "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y";
const HOW_TO_GET_RUST = `Get it through rustup, whose page is https://rustup.rs:

  ${RUSTUP}

Then open a new terminal, so that cargo is on the PATH.`;
const HOW_TO_GET_C = {
  linux: "On Debian and Ubuntu: apt install build-essential. On Alpine: apk add build-base.",
  darwin: "It is a part of Xcode's tools: xcode-select --install",
};

const oldestRust = () =>
  /^rust-version = "(.*)"$/m.exec(readFileSync(`${root}/Cargo.toml`, "utf8"))[1];

function isOlder(version, than) {
  const [major, minor] = version.split(".").map(Number);
  const [leastMajor, leastMinor] = than.split(".").map(Number);
  return major < leastMajor || (major === leastMajor && minor < leastMinor);
}

/**
 * What is wrong with Rust, if anything is. In this folder rustup runs the version that is pinned, and
 * installs it first, which it says itself.
 */
function lackOfRust() {
  const { error, status, stdout } = spawnSync("cargo", ["--version"], {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (error) return `The addon is built with Rust, which isn't here. ${HOW_TO_GET_RUST}`;
  if (status !== 0) return `The addon is built with Rust, which is here but doesn't run.`;
  const [version] = /\d+\.\d+\.\d+/.exec(stdout) ?? [];
  const oldest = oldestRust();
  if (!version || !isOlder(version, oldest)) return undefined;
  return `The addon is built with Rust ${oldest} or later; this is ${version}. ${HOW_TO_GET_RUST}`;
}

/** On Windows the compiler is found in the registry, and rustup asks for it. */
function lackOfC() {
  const { error } = spawnSync(process.env.CC ?? "cc", ["--version"], { stdio: "ignore" });
  if (isWindows || !error) return undefined;
  return `SQLite is built with a C compiler, and there is no cc. ${HOW_TO_GET_C[process.platform] ?? ""}`;
}

/** Ends the process if the addon can't be built here. */
export function requireCompilers() {
  const lacks = [lackOfRust(), lackOfC()].filter(Boolean);
  if (lacks.length === 0) return;
  console.error(lacks.join("\n\n"));
  process.exit(1);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) requireCompilers();
