/** The packed packages in an application: installed, imported, bundled, without a compiler. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { copyFileSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test, type TestContext } from "node:test";
import { startServer } from "../../examples/support/server.mjs";
import {
  COMPILERS,
  continuation,
  environment,
  folder,
  installed,
  packages,
  project,
  run,
  snippets,
  write,
} from "./support.ts";

/** Where the README's snippets look for the SDK's server. */
const PORT = 2468;
const NAME = "sandbox-agent-persist";
const SDK = "sandbox-agent@0.4.2";
/** Next's program, in an application that has it. */
const NEXT = "node_modules/next/dist/bin/next";
const [sqlite, postgres, view] = snippets();

let server: { stop(): Promise<void> };
let app: string;
before(async () => {
  server = await startServer(folder(), PORT);
  app = await project([SDK, "typescript@7.0.2", "@types/node@20"]);
});
after(() => server?.stop());

const runs = async (file: string, cwd = app) => {
  const env = { ...environment, DATABASE_URL: process.env.TEST_DATABASE_URL };
  const printed = await run(process.execPath, [file], { cwd, env });
  assert.equal(printed.trim().split("\n").at(-1), "ok");
};

test("there is no compiler in sight", async () => {
  for (const program of COMPILERS) {
    await assert.rejects(run(program, ["--version"]), { code: "ENOENT" }, program);
  }
});

test("as an ES module", async () => {
  write(app, { "esm.mjs": sqlite + continuation("esm") });
  await runs("esm.mjs");
});

test("through a view", async () => {
  const code = `import { SandboxAgent } from "sandbox-agent";
    import { SQLiteSessionPersistDriver } from "${NAME}";
    const persist = new SQLiteSessionPersistDriver({ filename: "./view.db" });
    ${view}${continuation("view")}`;
  write(app, { "view.mjs": code });
  await runs("view.mjs");
});

test("as CommonJS", async () => {
  const body = sqlite.replaceAll(/^import .*$/gm, "") + continuation("cjs");
  const code = `const { SQLiteSessionPersistDriver } = require("${NAME}");
    (async () => {
      const { SandboxAgent } = await import("sandbox-agent");
      ${body}
    })();`;
  write(app, { "commonjs.cjs": code });
  await runs("commonjs.cjs");
});

test("in TypeScript under strict", async () => {
  const compilerOptions = {
    ...{ strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true },
    ...{ module: "nodenext", target: "es2022", types: ["node"], skipLibCheck: true },
    ...{ outDir: "compiled" },
  };
  write(app, {
    "tsconfig.json": JSON.stringify({ compilerOptions, files: ["sqlite.mts", "postgres.mts"] }),
    "sqlite.mts": sqlite + continuation("typescript"),
    "postgres.mts": postgres + continuation("typescript-postgres"),
  });
  await run(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "."], { cwd: app });
  await runs("compiled/sqlite.mjs");
  await runs("compiled/postgres.mjs");
});

for (const [alias, code] of [
  ["@sandbox-agent/persist-sqlite", sqlite],
  ["@sandbox-agent/persist-postgres", postgres],
] as const) {
  test(`under the name ${alias}, with the application's code as it was`, async () => {
    const path = await project([SDK], { names: [alias] });
    assert.ok(code.includes(`from "${NAME}"`));
    const unchanged = code.replace(`from "${NAME}"`, `from "${alias}"`);
    write(path, { "app.mjs": unchanged + continuation(alias) });
    await runs("app.mjs", path);
  });
}

test("under both names in one application, with one copy of the addon", async () => {
  const names = ["@sandbox-agent/persist-sqlite", "@sandbox-agent/persist-postgres"];
  const path = await project([], { names });
  write(path, {
    "both.mjs": `import { SQLiteSessionPersistDriver as One } from "${names[0]}";
      import { SQLiteSessionPersistDriver as Other } from "${names[1]}";
      console.log(One === Other ? "ok" : "there are two copies");`,
  });
  await runs("both.mjs", path);
});

test("in a worker thread", async () => {
  write(app, {
    "worker.mjs": `import { Worker, isMainThread } from "node:worker_threads";
      import { SQLiteSessionPersistDriver } from "${NAME}";
      if (isMainThread) {
        new Worker(new URL(import.meta.url)).on("exit", (code) => console.log(code === 0 ? "ok" : code));
      } else {
        const persist = new SQLiteSessionPersistDriver({ filename: "worker.db" });
        if ((await persist.listSessions()).items.length !== 0) throw new Error("not empty");
        persist.close();
      }`,
  });
  await runs("worker.mjs");
});

test("bundled by esbuild", async () => {
  write(app, { "esbuild.mjs": sqlite + continuation("esbuild") });
  const esbuild = join(installed, "esbuild/bin/esbuild");
  const options = ["--bundle", "--platform=node", "--format=esm", "--packages=bundle"];
  const outside = [`--external:${NAME}`, "--external:@*"];
  await run(
    process.execPath,
    [esbuild, "esbuild.mjs", ...options, ...outside, "--outfile=bundled.mjs"],
    { cwd: app },
  );
  await runs("bundled.mjs");
});

test("built by Vite for a server", async () => {
  write(app, { "src/vite.mjs": sqlite + continuation("vite") });
  const vite = join(installed, "vite/bin/vite.js");
  await run(process.execPath, [vite, "build", "--ssr", "src/vite.mjs", "--outDir", "vite"], {
    cwd: app,
  });
  await runs("vite/vite.mjs");
});

/** Starts a server that Next has built, and returns its URL. */
async function startNext(t: TestContext, path: string, env: NodeJS.ProcessEnv): Promise<string> {
  const started = spawn(process.execPath, [NEXT, "start", "--port", "0"], { cwd: path, env });
  t.after(() => started.kill());
  return new Promise((resolve, reject) => {
    let printed = "";
    for (const stream of [started.stdout, started.stderr]) {
      stream.on("data", (data) => {
        printed += data;
        const found = /http:\/\/localhost:(\d+)/.exec(printed);
        if (found && printed.includes("Ready")) resolve(`http://127.0.0.1:${found[1]}`);
      });
    }
    started.once("exit", () => reject(new Error(printed)));
  });
}

for (const bundler of ["turbopack", "webpack"]) {
  test(`in a server built by Next with ${bundler}, marked as external`, async (t) => {
    const others = [SDK, "next@16.4.6", "react@19.3.1", "react-dom@19.3.1"];
    const path = await project(others, { from: packages.local });
    write(path, {
      "next.config.mjs": `export default {
        serverExternalPackages: ["${NAME}", "sandbox-agent"], turbopack: { root: import.meta.dirname } };`,
      "app/layout.jsx": `export default ({ children }) => <html><body>{children}</body></html>;`,
      "app/api/route.js": `import { SandboxAgent } from "sandbox-agent";
        import { SQLiteSessionPersistDriver } from "${NAME}";
        export const dynamic = "force-dynamic";
        export async function GET() {
          ${sqlite.replaceAll(/^import .*$/gm, "")}${continuation("next").replace(/console\.log\((.*)\);/, "return new Response($1);")}
        }`,
    });
    const env = { ...environment, NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: "production" as const };
    await run(process.execPath, [NEXT, "build", `--${bundler}`], { cwd: path, env });
    const response = await fetch(`${await startNext(t, path, env)}/api`);
    assert.deepEqual([response.status, await response.text()], [200, "ok"]);
  });
}

/** The main package alone, beside which a test puts what is loaded in the addon's place. */
async function mainAlone(): Promise<string> {
  const path = folder();
  write(path, { "package.json": JSON.stringify({ private: true }) });
  const tar = await run("/bin/sh", ["-c", `command -v tar || echo /bin/tar`], { env: process.env });
  await run(tar.trim(), ["-xzf", packages.main], { cwd: path, env: process.env });
  return path;
}

/** What loading it in this folder fails with. */
function failure(path: string, env = environment): Promise<string> {
  const code = `try { require("./package/index.js") } catch (error) { console.log(error.code + " " + error.message) }`;
  return run(process.execPath, ["-e", code], { cwd: path, env });
}

test("without its platform's package the loader says what to do", async () => {
  const printed = await failure(await mainAlone());
  assert.match(
    printed,
    /^ERR_PERSIST_NOT_LOADED sandbox-agent-persist could not load its addon on /,
  );
  assert.ok(printed.includes(`${process.platform} ${process.arch}`));
  assert.match(printed, /Cannot find module 'sandbox-agent-persist-/);
  assert.match(printed, /optional dependency/);
});

test("a platform's package of another version is not loaded", async () => {
  const path = await mainAlone();
  const manifest = join(path, "package", "package.json");
  const { version, ...rest } = JSON.parse(readFileSync(manifest, "utf8"));
  writeFileSync(manifest, JSON.stringify({ ...rest, version: "99.0.0" }));
  const env = { ...environment, NAPI_RS_NATIVE_LIBRARY_PATH: packages.addon };
  const printed = await failure(path, env);
  assert.match(printed, /^ERR_PERSIST_NOT_LOADED /);
  assert.ok(printed.includes(`the addon of version ${version}, and this is 99.0.0`), printed);
});

test("another package's addon is not loaded", async () => {
  const path = await mainAlone();
  write(path, { "other.js": "module.exports = { other: true };" });
  const env = { ...environment, NAPI_RS_NATIVE_LIBRARY_PATH: join(path, "other.js") };
  assert.match(await failure(path, env), /^ERR_PERSIST_NOT_LOADED .*another package's addon/s);
});

test(
  "a second copy of the addon is refused a file that the first has open",
  { skip: process.platform === "win32" && "locks are each handle's own" },
  async () => {
    const path = folder();
    copyFileSync(packages.addon, join(path, "copy.node"));
    const code = `
      const [one, other] = process.argv.slice(1).map((file) => {
        const { Binding } = require(file);
        return new Binding(JSON.parse, JSON.stringify, Object, Error, TypeError, () => {});
      });
      const first = one.openSqlite({ filename: "a.db" });
      try { other.openSqlite({ filename: "a.db" }) } catch (error) { console.log(error.code + " " + error.message) }
      one.openSqlite({ filename: "a.db" }).close();
      first.close();
      other.openSqlite({ filename: "a.db" }).close();`;
    const printed = await run(
      process.execPath,
      ["-e", code, packages.addon, join(path, "copy.node")],
      { cwd: path },
    );
    assert.match(printed, /^ERR_PERSIST_CANNOT_OPEN cannot open the database "a.db": .*copy/);
  },
);

for (const [what, runtimeOptions, remedy] of [
  ["addons are disabled", ["--no-addons"], /--allow-addons/],
  ["the file is damaged", [], /install it again/],
] as const) {
  test(`the loader says what helps when ${what}`, async () => {
    // Nothing in the path may be taken for a part of a message.
    const path = join(await mainAlone(), "wasi");
    renameSync(join(path, "..", "package"), path);
    const { name } = JSON.parse(readFileSync(join(packages.addon, "..", "package.json"), "utf8"));
    const place = join(path, "node_modules", name);
    write(place, {
      "package.json": JSON.stringify({ name, version: "0.0.0", main: "x.node" }),
      "x.node": "no addon",
    });
    const code = `try { require("./index.js") } catch (error) { console.log(error.message) }`;
    const printed = await run(process.execPath, [...runtimeOptions, "-e", code], { cwd: path });
    assert.match(printed, remedy);
    assert.doesNotMatch(printed, /isn't installed/);
  });
}
