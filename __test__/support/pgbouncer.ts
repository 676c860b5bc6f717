/** PgBouncer, as people put it before their database, where it is installed. */
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { delimiter, join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  ended,
  freePort,
  giveToServer,
  serverFolder,
  spawnServer,
} from "../../scripts/children.mjs";
import { addressOf, atPort, databaseUrl } from "./postgres.ts";

const READY_WITHIN_MS = 10_000;
// Debian installs it where only root looks.
const FOLDERS = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin"];
const binary = FOLDERS.map((folder) => join(folder, "pgbouncer")).find((path) => existsSync(path));

/** Why tests that need PgBouncer are skipped, if they are. */
export const withoutPgBouncer = binary ? undefined : "PgBouncer isn't installed";

export interface PgBouncerOptions {
  /** URL of the database behind it. */
  target: string;
  /** Where it listens; a free one. */
  port?: number;
  /** Connections that it has to the database; 5. */
  poolSize?: number;
  /** Further settings of its ini file. */
  settings?: Record<string, string | number>;
}

function iniOf({ target, poolSize = 5, settings }: PgBouncerOptions, port: number): string {
  const { host, port: targetPort } = addressOf(target);
  const { username, password } = new URL(target);
  const secret = password && ` password=${decodeURIComponent(password)}`;
  const all = {
    listen_addr: "127.0.0.1",
    listen_port: port,
    unix_socket_dir: "",
    auth_type: "any",
    pool_mode: "transaction",
    default_pool_size: poolSize,
    ...settings,
  };
  return [
    "[databases]",
    `* = host=${host} port=${targetPort} user=${decodeURIComponent(username)}${secret}`,
    "[pgbouncer]",
    ...Object.entries(all).map(([name, value]) => `${name} = ${value}`),
    "",
  ].join("\n");
}

const accepts = (port: number) =>
  new Promise<boolean>((resolve) => {
    const probe = connect(port, "127.0.0.1", () => resolve((probe.destroy(), true)));
    probe.on("error", () => resolve(false));
  });

/** Starts one in transaction mode, its configuration otherwise bare. */
export async function startPgBouncer(options: PgBouncerOptions) {
  if (!binary) throw new Error(withoutPgBouncer);
  const folder = serverFolder("pgbouncer");
  const port = options.port ?? (await freePort());
  const ini = join(folder, "pgbouncer.ini");
  writeFileSync(ini, iniOf(options, port), { mode: 0o600 });
  giveToServer(ini);
  const log = `${folder}.log`;
  const output = openSync(log, "a");
  const child = spawnServer(binary, [ini], { stdio: ["ignore", output, output] });
  closeSync(output);

  const end = Date.now() + READY_WITHIN_MS;
  while (!(await accepts(port))) {
    if (child.exitCode !== null || Date.now() > end) {
      child.kill("SIGKILL");
      throw new Error(`PgBouncer did not start: ${readFileSync(log, "utf8")}`);
    }
    await sleep(10);
  }
  const stop = async () => {
    child.kill("SIGTERM");
    await ended(child);
  };
  return { url: atPort(options.target, port), port, log, stop };
}

/** One before the run's database, stopped after the test. */
export async function pooled(t: TestContext, options: Partial<PgBouncerOptions> = {}) {
  const pooler = await startPgBouncer({ target: databaseUrl(), ...options });
  t.after(() => pooler.stop());
  return pooler;
}
