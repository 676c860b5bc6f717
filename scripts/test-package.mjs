/**
 * Tries the packages as their users meet them: packed, installed where there is no compiler, in every
 * runtime and bundler. Prints what was run where.
 */
import { existsSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { runNodeTests } from "./node-tests.mjs";
import { packAll } from "./pack.mjs";
import { buildPortable, hostTarget } from "./portable.mjs";
import { install, npm, requireCompilers, root } from "./setup.mjs";

const folder = join(root, "__test__", "package");
const results = join(root, "target", "runtimes.jsonl");

/** A table in Markdown, as the README has it. */
function table(rows) {
  const lines = [Object.keys(rows[0]), ...rows.map((row) => Object.values(row))];
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const shown = lines.map((line) => line.map((cell, at) => cell.padEnd(widths[at])).join(" | "));
  shown.splice(1, 0, widths.map((width) => "-".repeat(width)).join(" | "));
  return shown.map((line) => `| ${line} |`).join("\n");
}

// An addon that is given is what is to be tested, as for `npm test`.
const given = process.env.NAPI_RS_NATIVE_LIBRARY_PATH;
delete process.env.NAPI_RS_NATIVE_LIBRARY_PATH;
if (!given) requireCompilers();
install();
npm(["ci", "--no-audit", "--no-fund", "--ignore-scripts"], { cwd: folder });
const target = hostTarget();
const addon = given ?? buildPortable(target);
const packed = (way) => packAll(target, addon, join(root, "target", "packages", way), way);
const packages = { ...packed("published"), local: packed("local") };
rmSync(results, { force: true });
const beginnings = process.argv.slice(2);
const isWanted = (name) =>
  beginnings.length === 0 || beginnings.some((begin) => name.startsWith(begin));
const files = readdirSync(folder).filter((name) => name.endsWith(".test.ts") && isWanted(name));
await runNodeTests(
  files.map((name) => join("__test__", "package", name)),
  { TEST_PACKAGES: JSON.stringify(packages), TEST_RUNTIME_RESULTS: results },
);
if (existsSync(results)) {
  const rows = readFileSync(results, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  console.log(`\n${process.platform} ${process.arch}\n\n${table(rows)}`);
}
