/**
 * Loads the addon: `binding.js`, which the napi CLI generates, finds it. What is added here is an error
 * that says what was tried and what to do.
 */
"use strict";

const PREBUILT = ["linux x64", "linux arm64", "darwin x64", "darwin arm64", "win32 x64"];

try {
  module.exports = require("./binding.js");
} catch (error) {
  throw unloadable(error);
}

/** @param {Error} error of the generated loader, each of whose causes is an attempt */
function unloadable(error) {
  const attempts = [];
  for (let cause = error.cause; cause; cause = cause.cause) {
    const [message] = String(cause.message ?? cause).split("\n");
    // Nobody has built these: the loader looks for them when all else has failed.
    if (!message.includes("wasi")) attempts.push(message);
  }
  const lines = [
    `sandbox-agent-persist could not load its addon on ${platform()}.`,
    "Tried:",
    ...(attempts.length > 0 ? attempts : [error.message]).map((attempt) => `- ${attempt}`),
    advice(attempts),
  ];
  const failure = new Error(lines.join("\n"), { cause: error });
  failure.code = "ERR_PERSIST_NOT_LOADED";
  return failure;
}

function platform() {
  const { platform, arch, versions } = process;
  const runtime = versions.bun
    ? `Bun ${versions.bun}`
    : versions.deno
      ? `Deno ${versions.deno}`
      : `Node ${versions.node}`;
  return `${platform} ${arch}${platform === "linux" ? `, ${libc()}` : ""}, ${runtime}`;
}

function libc() {
  const glibc = process.report?.getReport().header?.glibcVersionRuntime;
  return glibc ? `glibc ${glibc}` : "musl or another libc than glibc";
}

function advice(attempts) {
  const given = process.env.NAPI_RS_NATIVE_LIBRARY_PATH;
  if (given)
    return "Nothing else was tried, as NAPI_RS_NATIVE_LIBRARY_PATH is set: correct or unset it.";
  if (!PREBUILT.includes(`${process.platform} ${process.arch}`)) {
    return `There is none for this platform, only for ${PREBUILT.join(", ")}. It can be built from its source.`;
  }
  const isMissing = (attempt) => /cannot find (module|package)/i.test(attempt);
  if (!attempts.every(isMissing)) {
    return "An addon is there, but the system refuses it. On Linux it needs glibc 2.17 or later, or musl 1.2.";
  }
  return [
    "It comes as an optional dependency, one for each platform. Most often it is missing because",
    "node_modules or the lock file was made on another platform, or with --omit=optional. On the platform",
    "that it runs on, remove node_modules and package-lock.json and run npm install.",
  ].join("\n");
}
