/** Makes docs/api.md of index.d.ts. With `--check` it only fails if the page isn't what that makes. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as prettier from "prettier";
import { npm, root, run } from "./setup.mjs";

const tools = join(root, "scripts", "api");
const page = join(root, "docs", "api.md");

async function generate() {
  const folder = mkdtempSync(join(tmpdir(), "api-"));
  try {
    const typedoc = join(tools, "node_modules", "typedoc", "bin", "typedoc");
    run(process.execPath, [typedoc, "--logLevel", "Warn", "--out", folder], { cwd: tools });
    const text = readFileSync(join(folder, "api.md"), "utf8");
    return await prettier.format(text, { ...(await prettier.resolveConfig(page)), filepath: page });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

npm(["ci", "--no-audit", "--no-fund", "--ignore-scripts"], { cwd: tools });
const generated = await generate();
if (!process.argv.includes("--check")) {
  writeFileSync(page, generated);
} else if (readFileSync(page, "utf8") !== generated) {
  console.error("docs/api.md isn't what index.d.ts says: run `npm run api`");
  process.exitCode = 1;
}
