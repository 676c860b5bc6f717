/** Starts the published sandbox-agent server, with the scripted agent as its agent `mock`. */
import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const READY_WITHIN_MS = 30_000;

function serverBinary() {
  const name = process.platform === "win32" ? "sandbox-agent.exe" : "sandbox-agent";
  const cli = createRequire(import.meta.url).resolve("@sandbox-agent/cli/package.json");
  const platform = `${process.platform}-${process.arch}`;
  const path = createRequire(cli).resolve(`@sandbox-agent/cli-${platform}/bin/${name}`);
  // npm leaves the run bit off where it runs no install scripts.
  chmodSync(path, 0o755);
  return path;
}

function installMockAgent(dataHome) {
  const folder = join(dataHome, "sandbox-agent", "bin", "agent_processes");
  mkdirSync(folder, { recursive: true });
  const agent = fileURLToPath(new URL("mock-agent.mjs", import.meta.url));
  const launcher = join(folder, "mock-acp");
  writeFileSync(launcher, `#!/bin/sh\nexec "${process.execPath}" "${agent}" "$@"\n`);
  chmodSync(launcher, 0o755);
}

/** A port of this machine that nobody listens on. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer().on("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

async function untilHealthy(baseUrl, server) {
  const end = Date.now() + READY_WITHIN_MS;
  while (Date.now() < end && server.exitCode === null) {
    const health = await fetch(`${baseUrl}/v1/health`).catch(() => undefined);
    if (health?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  server.kill("SIGKILL");
  throw new Error("the sandbox-agent server did not become healthy");
}

/**
 * @param {string} dataHome where the server keeps its agents; a folder of the caller's own
 * @param {number} [port] default: one that is free
 * @returns {Promise<{ baseUrl: string, stop: () => Promise<void> }>}
 */
export async function startServer(dataHome, port) {
  installMockAgent(dataHome);
  port ??= await freePort();
  const listen = ["--host", "127.0.0.1", "--port", String(port)];
  const server = spawn(serverBinary(), ["server", "--no-telemetry", "--no-token", ...listen], {
    env: { ...process.env, XDG_DATA_HOME: dataHome },
    stdio: "ignore",
  });
  const exited = new Promise((resolve) => server.once("exit", resolve));
  const baseUrl = `http://127.0.0.1:${port}`;
  await untilHealthy(baseUrl, server);
  const stop = async () => {
    server.kill();
    await exited;
  };
  return { baseUrl, stop };
}
