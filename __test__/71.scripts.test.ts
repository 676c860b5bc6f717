/** The first look at a fresh clone: what the commands say, and the demo. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { folder, onWindows } from "./support/fixtures.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const TRACKED = [
  ...["Cargo.toml", "package.json", "package-lock.json", "binding.js", "index.js"],
  ...["examples", "lib", "scripts"],
];

/** A clone in which nothing was installed or built. */
function freshClone(t: TestContext): string {
  const path = folder(t);
  for (const name of TRACKED) cpSync(join(root, name), join(path, name), { recursive: true });
  return path;
}

function node(cwd: string, args: string[], env: NodeJS.ProcessEnv = {}) {
  const { NAPI_RS_NATIVE_LIBRARY_PATH: _, ...rest } = process.env;
  return spawnSync(process.execPath, args, { cwd, encoding: "utf8", env: { ...rest, ...env } });
}

/** A PATH on which there is Node and nothing else. */
function withoutCompilers(t: TestContext): NodeJS.ProcessEnv {
  const bin = folder(t);
  symlinkSync(process.execPath, join(bin, "node"));
  return { PATH: bin };
}

for (const script of ["demo", "test", "bench", "pack-local", "test-package"]) {
  test(`${script} says what is missing and how to get it, before anything is done`, (t) => {
    const clone = freshClone(t);
    if (script === "test")
      cpSync(join(root, "__test__/50.types.test.ts"), join(clone, "__test__/50.types.test.ts"));
    const { status, stdout, stderr } = node(clone, [`scripts/${script}.mjs`], withoutCompilers(t));
    assert.deepEqual([status, stdout], [1, ""]);
    assert.match(stderr, /^The addon is built with Rust, which isn't here\..*rustup\.rs/);
    if (!onWindows) assert.match(stderr, /C compiler/);
    assert.doesNotMatch(stderr, /^ +at /m);
    assert.ok(!existsSync(join(clone, "node_modules")));
  });
}

test("a Rust that is too old is named", { skip: onWindows }, (t) => {
  const env = withoutCompilers(t);
  writeFileSync(join(env.PATH!, "cargo"), "#!/bin/sh\necho cargo 1.63.0", { mode: 0o755 });
  const { status, stderr } = node(freshClone(t), ["scripts/demo.mjs"], env);
  assert.equal(status, 1);
  assert.match(
    stderr,
    /^The addon is built with Rust [\d.]+ or later; this is 1\.63\.0\. .*rustup/,
  );
});

test("a demo on a database that there isn't is refused before anything else", (t) => {
  const env = withoutCompilers(t);
  const { status, stdout, stderr } = node(freshClone(t), ["scripts/demo.mjs", "mysql"], env);
  assert.deepEqual([status, stdout], [1, ""]);
  assert.equal(stderr, 'There is no demo on "mysql": it runs on sqlite or postgres.\n');
});

const FAILURE = `try { require(".") } catch ({ code, message }) { console.log(code, message) }`;

test("a clone that isn't built says how it is built", (t) => {
  const clone = freshClone(t);
  const { stdout } = node(clone, ["-e", FAILURE]);
  assert.match(stdout, /^ERR_PERSIST_NOT_LOADED .*This is a clone .*"npm run build"/s);
  assert.doesNotMatch(stdout, /lock file/);
});

test("a package of a clone without its platform's says how that is packed", (t) => {
  const clone = freshClone(t);
  rmSync(join(clone, "Cargo.toml"));
  const { stdout } = node(clone, ["-e", FAILURE]);
  assert.match(stdout, /^ERR_PERSIST_NOT_LOADED .*"npm run pack:local".*install both/s);
});

test("nothing that npm installs in a clone asks for a newer Node than 20", () => {
  const { satisfies } = createRequire(import.meta.url)("semver");
  const newest20 = "20.20.2";
  for (const name of ["package-lock.json", "__test__/package/package-lock.json"]) {
    const { packages } = JSON.parse(readFileSync(join(root, name), "utf8"));
    const wanted = Object.entries<{ engines?: { node?: string } }>(packages);
    const tooNew = wanted.filter(([, { engines }]) => !satisfies(newest20, engines?.node ?? "*"));
    assert.deepEqual(tooNew, [], name);
  }
});

for (const store of ["sqlite", "postgres"]) {
  test(`the demo on ${store}: a session goes on after kill -9`, (t) => {
    const given = process.env.NAPI_RS_NATIVE_LIBRARY_PATH;
    const env = given ? { NAPI_RS_NATIVE_LIBRARY_PATH: given } : {};
    const { status, stdout, stderr } = node(root, ["examples/restore.mjs", store], env);
    const [kept] = /demo-data.\d+/.exec(stdout) ?? [];
    t.after(() => kept && rmSync(join(root, kept), { recursive: true }));
    assert.deepEqual([status, stderr], [0, ""]);
    assert.match(stdout, /all that the application had seen\./);
    assert.match(stdout, /session\/update +\| \d+/);
    assert.match(stdout, /numbered without gaps\./);
    assert.match(stdout, /The session is back\./);
    // Without a terminal nobody is waited for.
    assert.doesNotMatch(stdout, /press Enter/);
  });
}

test("the demo leaves what an earlier one stored, and prints commands that show it", (t) => {
  const places = ["first", "second"].map(() => {
    const { stdout } = node(root, ["examples/restore.mjs"], process.env);
    const [, place] = /sqlite3 (\S+)/.exec(stdout)!;
    t.after(() => rmSync(join(root, dirname(place!)), { recursive: true }));
    const [, tool, query] = /node (\S+) \S+ "(.*)"/.exec(stdout)!;
    assert.match(node(root, [tool!, place!, query!]).stdout, /demo +\| mock/);
    return place!;
  });
  assert.notEqual(places[0], places[1]);
  for (const place of places) assert.ok(existsSync(join(root, place)));
});
