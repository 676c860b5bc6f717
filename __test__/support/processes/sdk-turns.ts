/** Has an agent work on sessions, until a signal ends it. */
import { SandboxAgent } from "sandbox-agent";
import { gracefulShutdown } from "../../../index.js";
import { openEither } from "../either.ts";

const [options, baseUrl, cwd, ids, text] = process.argv.slice(2) as [string, ...string[]];
const persist = openEither(JSON.parse(options));
const sdk = await SandboxAgent.connect({ baseUrl: baseUrl!, persist });
await gracefulShutdown(sdk, persist, { signals: ["SIGTERM"], timeoutMs: 60_000 });
await Promise.all(
  JSON.parse(ids!).map(async (id: string) => {
    const session = await sdk.createSession({ id, agent: "mock", cwd: cwd! });
    await session.prompt([{ type: "text", text: text! }]);
  }),
);
setInterval(() => {}, 60_000);
