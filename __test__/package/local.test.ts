/** What `npm run pack:local` packs, installed by each package manager where no registry has it. */
import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { environment, folder, installed, packages, run, write } from "./support.ts";

const { main, platform } = packages.local;
const NAME = "sandbox-agent-persist";
/** Stores a session and reads it, under the name that the application has the package by. */
const program = (name: string) => `
  const { SQLiteSessionPersistDriver } = require("${name}");
  const persist = new SQLiteSessionPersistDriver({ filename: "a.db" });
  const session = { id: "s", agent: "a", agentSessionId: "b", lastConnectionId: "c", createdAt: 1 };
  persist
    .updateSession(session)
    .then(() => persist.getSession("s"))
    .then(({ agent }) => persist.close(console.log(agent === "a" ? "ok" : agent)));
`;

/** A registry that has nothing, and what it was asked for. */
let registry: Server;
let asked: string[];
let env: NodeJS.ProcessEnv;
before(async () => {
  registry = createServer(({ url }, response) => {
    asked.push(url!);
    response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => registry.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(registry.address() as AddressInfo).port}`;
  env = {
    ...environment,
    // Caches and settings of its own, and no look at whether it is the newest.
    HOME: folder(),
    npm_config_registry: url,
    npm_config_cache: folder(),
    npm_config_audit: "false",
    npm_config_update_notifier: "false",
    YARN_NPM_REGISTRY_SERVER: url,
    YARN_UNSAFE_HTTP_WHITELIST: "127.0.0.1",
    YARN_ENABLE_TELEMETRY: "0",
    YARN_GLOBAL_FOLDER: folder(),
  };
});
beforeEach(() => (asked = []));
after(() => registry?.close());

const managers: Record<string, { program: string; add: string; files?: Record<string, string> }> = {
  npm: { program: process.env.npm_execpath!, add: "install" },
  pnpm: { program: join(installed, "pnpm/bin/pnpm.cjs"), add: "add" },
  "Yarn 1": { program: join(installed, "yarn/bin/yarn.js"), add: "add" },
  Yarn: {
    program: join(installed, "@yarnpkg/cli-dist/bin/yarn.js"),
    add: "add",
    files: { ".yarnrc.yml": "nodeLinker: node-modules\n", "yarn.lock": "" },
  },
};

for (const [name, { program: manager, add, files }] of Object.entries(managers)) {
  const install = async (...wanted: string[]) => {
    const path = folder();
    write(path, { "package.json": JSON.stringify({ name: "app", private: true }), ...files });
    await run(process.execPath, [manager, add, ...wanted], { cwd: path, env });
    return path;
  };
  const works = async (path: string, as = NAME) => {
    const printed = await run(process.execPath, ["-e", program(as)], { cwd: path, env });
    assert.equal(printed.trim(), "ok");
  };

  test(`${name} installs both with one command, and asks no registry`, async () => {
    await works(await install(main, platform));
    assert.deepEqual(asked, []);
  });

  test(`${name} installs them under an old driver's name, and asks no registry`, async () => {
    const alias = "@sandbox-agent/persist-sqlite";
    await works(await install(`${alias}@file:${main}`, platform), alias);
    assert.deepEqual(asked, []);
  });
}
