/**
 * Loads the addon: `binding.js`, which the napi CLI generates, finds it. What is added here is an error
 * that says what was tried and what to do.
 */
"use strict";

const { existsSync } = require("node:fs");
const { join } = require("node:path");
const { version, optionalDependencies } = require("../package.json");

const PREBUILT = ["linux x64", "linux arm64", "darwin x64", "darwin arm64", "win32 x64"];
/** What the generated loader looks for when all else has failed, and nobody has built. */
const UNBUILT = /sandbox-agent-persist(\.wasi\.cjs|-wasm32-wasi)/;
const MISSING = /cannot find (module|package)|resolution failed/i;
/** What helps, by what an attempt said. */
const REMEDIES = [
  [
    /^WASI binding/,
    "There is none of WebAssembly: unset NAPI_RS_FORCE_WASI and NAPI_RS_WASI_FLAVOR.",
  ],
  [/GLIBC_/, "It needs glibc 2.17 or later, or musl 1.2."],
  [
    /^What was loaded|version mismatch/,
    "The package and its addon must be of one version: install them again or, in a clone, build again.",
  ],
  [
    /permission denied|EACCES|EPERM/i,
    "See that this process may read the file and enter its folders.",
  ],
  [
    /failed to map segment/,
    "Its folder is on a file system that is mounted with noexec: install it on another.",
  ],
  [
    /cannot open shared object file|specified module could not be found|library not loaded/i,
    "A library that it needs is missing on this system.",
  ],
];

try {
  module.exports = require("../binding.js");
} catch (error) {
  throw unloadable(attemptsOf(error));
}
// Another package's addon can be loaded: the variable that names one is every napi-rs package's.
if (typeof module.exports.Binding !== "function") {
  throw unloadable([new Error("What was loaded is another package's addon")]);
}
if (module.exports.VERSION !== version) {
  const loaded = `What was loaded is the addon of version ${module.exports.VERSION}`;
  throw unloadable([new Error(`${loaded}, and this is ${version}`)]);
}

/** The causes of the generated loader's error, each of which is an attempt. */
function attemptsOf(error) {
  const attempts = [];
  for (let cause = error.cause; cause; cause = cause.cause) {
    if (!UNBUILT.test(cause.message)) attempts.push(cause);
  }
  return attempts.length > 0 ? attempts : [error];
}

function unloadable(attempts) {
  const lines = [
    `sandbox-agent-persist could not load its addon on ${platform()}.`,
    "Tried:",
    ...attempts.map(({ message }) => `- ${String(message).split("\nRequire stack:")[0]}`),
    advice(attempts),
  ];
  const failure = new Error(lines.join("\n"));
  failure.code = "ERR_PERSIST_NOT_LOADED";
  return failure;
}

function platform() {
  const { platform, arch, versions } = process;
  const name = ["bun", "deno"].find((name) => versions[name]) ?? "node";
  return `${platform} ${arch}${libc()}, ${name} ${versions[name]}`;
}

/** Of Linux, where the runtime tells: Deno asks for permission. */
function libc() {
  const header = process.platform === "linux" && allowed(() => process.report.getReport().header);
  if (!header) return "";
  return header.glibcVersionRuntime ? `, glibc ${header.glibcVersionRuntime}` : ", musl";
}

function allowed(look) {
  try {
    return look();
  } catch {
    return undefined;
  }
}

/** No package has the source of the addon. */
function isClone() {
  return allowed(() => existsSync(join(__dirname, "..", "Cargo.toml"))) === true;
}

function advice(attempts) {
  const isAny = (pattern) => attempts.some(({ message }) => pattern.test(message));
  const given = allowed(() => process.env.NAPI_RS_NATIVE_LIBRARY_PATH);
  if (isAny(/loading addons is disabled/)) {
    return "Start Node with --allow-addons where it has --permission, and without --no-addons.";
  }
  if (isAny(/--allow-/)) {
    return "Deno needs --allow-ffi, --allow-env and --allow-read for it.";
  }
  if (given) {
    return `Nothing else was tried, as NAPI_RS_NATIVE_LIBRARY_PATH is "${given}": correct or unset it. It must be an absolute path that ends in .node.`;
  }
  const isMissing = attempts.every(({ message }) => MISSING.test(message));
  if (isMissing && isClone()) {
    return `This is a clone of its repository, in which nothing was built yet: run "npm run build" in ${join(__dirname, "..")}`;
  }
  if (!PREBUILT.includes(`${process.platform} ${process.arch}`)) {
    return `There is none for this platform, only for ${PREBUILT.join(", ")}. It can be built from its source.`;
  }
  // Only what is published names the platforms' packages as its dependencies.
  if (isMissing && !optionalDependencies) {
    return [
      'It is in a package of its own, which "npm run pack:local" packs beside this one, in dist/ of the clone:',
      "install both, in one command. Each is for one platform: see that it is this one.",
    ].join("\n");
  }
  if (isMissing) {
    return [
      "It is an optional dependency that isn't installed. Install again on the platform that it is for, with",
      "optional dependencies: without --omit=optional, which may stand in .npmrc too. If that doesn't help, the",
      "lock file was made where the other platforms were left out: remove it and node_modules, and install.",
    ].join("\n");
  }
  const remedy = REMEDIES.find(([pattern]) => isAny(pattern));
  return remedy ? remedy[1] : "The file is damaged, or for another machine: install it again.";
}
