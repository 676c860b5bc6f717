/**
 * Compares the drivers: `npm run bench -- quick`.
 *
 * - `--only <text>`: only comparisons whose title has it, such as `sqlite`, `postgres`, `insert`.
 * - `--trials <number>`: how many of each.
 * - TEST_DATABASE_URL: a PostgreSQL to compare on; unset, one is started.
 *
 * Every trial is a process of its own; the drivers take turns, so that a noisy minute hits all
 * alike. Printed are medians, their spread, and ratios within this run.
 */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { cpus, release as systemRelease, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { comparisonsOf, type Comparison } from "./comparisons.ts";
import { DATABASES, type BenchmarkDatabase } from "./databases.ts";
import type { DatabaseName, DriverName } from "./drivers.ts";
import type { Figures, Trial, Workload } from "./trial.ts";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { trials: { type: "string" }, only: { type: "string", default: "" } },
});
const isQuick = positionals.includes("quick");
const trials = Number(values.trials ?? (isQuick ? 3 : 7));
const root = fileURLToPath(new URL("..", import.meta.url));
const NAME_WIDTH = 30;
const results = join(root, "benchmark", "results");
mkdirSync(results, { recursive: true });
const folder = mkdtempSync(join(results, "run-"));

// An interruption ends the running trial, and with it the run: what it has made is removed.
const interruption = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.once(signal, () => interruption.abort());
}

const median = (numbers: number[]) => {
  const sorted = numbers.toSorted((left, right) => left - right);
  return sorted[Math.floor(sorted.length / 2)]!;
};

/** The stored events that a workload begins with, if any. */
function historyOf(workload: Workload) {
  const { kind } = workload;
  if (kind !== "read" && kind !== "resume" && kind !== "stream" && kind !== "delete") return;
  return { events: workload.events, isChanged: kind === "delete" };
}

async function runTrial(
  { database: name, workloads }: Comparison,
  driver: DriverName,
  database: BenchmarkDatabase,
): Promise<Figures> {
  const workload = workloads[driver]!;
  const own = mkdtempSync(join(folder, "trial-"));
  const history = historyOf(workload);
  const { place, release } = await database.place(own, history);
  try {
    const program = fileURLToPath(new URL("trial.ts", import.meta.url));
    const trial: Trial = { database: name, driver, place, folder: own, workload };
    const { stdout, stderr } = await promisify(execFile)(
      process.execPath,
      ["--import", "tsx", program, JSON.stringify(trial)],
      { cwd: root, signal: interruption.signal },
    );
    // Where the SDK says that an event was not stored.
    process.stderr.write(stderr);
    return JSON.parse(stdout.trim().split("\n").at(-1)!);
  } finally {
    await release();
    rmSync(own, { recursive: true, force: true });
  }
}

function show(number: number): string {
  return number.toLocaleString("en-US", { maximumFractionDigits: number < 100 ? 1 : 0 });
}

async function compare(comparison: Comparison, database: BenchmarkDatabase) {
  const { title, unit, workloads, aims } = comparison;
  const names = Object.keys(workloads) as DriverName[];
  const figures = new Map<DriverName, Figures[]>(names.map((name) => [name, []]));
  for (let round = 0; round < Math.min(trials, comparison.mostTrials ?? trials); round += 1) {
    for (const name of names) figures.get(name)!.push(await runTrial(comparison, name, database));
  }
  const isTime = unit === "ms";
  const valuesOf = (name: DriverName) =>
    figures.get(name)!.map((it) => it[isTime ? "milliseconds" : "perSecond"]!);
  const ours = median(valuesOf("native"));
  const measured = (all: number[], unit: string) => {
    const spread = `${show(Math.min(...all))}–${show(Math.max(...all))}`;
    return `${`${show(median(all))} ${unit}`.padStart(18)}  [${spread}]`;
  };
  console.log(`\n${title}`);
  for (const name of names) {
    const all = valuesOf(name);
    const value = median(all);
    const workload = workloads[name]!;
    const each =
      workload.kind === "read"
        ? `  ${((value / workload.events) * 1000).toFixed(2)} ms per 1,000 events`
        : "";
    const stalls = figures.get(name)!.flatMap(({ worstStallMs }) => worstStallMs ?? []);
    const stall = stalls.length > 0 ? `  worst stall ${show(Math.max(...stalls))} ms` : "";
    const most = comparison.mostMs?.[name];
    let ratio = most === undefined ? "" : `  (aim ${most} ms: ${value <= most ? "met" : "missed"})`;
    if (name !== "native" && most === undefined) {
      const times = isTime ? value / ours : ours / value;
      const aim = aims[name];
      const verdict = aim === undefined ? "" : ` (aim ${aim}: ${times >= aim ? "met" : "missed"})`;
      ratio += `  native is ${times.toFixed(2)}×${verdict}`;
    }
    console.log(`  ${name.padEnd(NAME_WIDTH)}${measured(all, unit)}${each}${stall}${ratio}`);
    const seen = figures.get(name)!.map(({ more }) => more ?? {});
    for (const label of Object.keys(seen[0]!)) {
      const ofAll = seen.map((more) => more[label]!);
      console.log(`    ${label.padEnd(NAME_WIDTH)}${measured(ofAll, "")}`);
    }
  }
}

function environment(databases: Iterable<BenchmarkDatabase>) {
  const [cpu] = cpus();
  console.log(`${cpus().length} × ${cpu?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB`);
  console.log(`${process.platform} ${systemRelease()}, Node ${process.versions.node}`);
  for (const { description } of databases) console.log(description);
  console.log(`${trials} trials each, medians and [least–most]; every commit is synced to disk`);
}

const only = values.only.toLowerCase();
const comparisons = comparisonsOf(isQuick);
const chosen = comparisons.filter(({ title }) => title.toLowerCase().includes(only));
const histories = new Set<string>();
const databases = new Map<DatabaseName, BenchmarkDatabase>();
try {
  if (chosen.length === 0) {
    const titles = comparisons.map(({ title }) => title).join("\n");
    throw new Error(`no comparison has "${values.only}" in its title; there are\n${titles}`);
  }
  for (const name of new Set(chosen.map(({ database }) => database))) {
    databases.set(name, await DATABASES[name](folder));
  }
  environment(databases.values());
  for (const comparison of chosen) {
    const database = databases.get(comparison.database)!;
    const history = historyOf(comparison.workloads.native!);
    const made = `${comparison.database} ${history?.events}`;
    if (history !== undefined && !histories.has(made)) {
      histories.add(made);
      await database.fillHistory(history.events);
    }
    await compare(comparison, database);
  }
} finally {
  for (const database of databases.values()) await database.stop();
  rmSync(folder, { recursive: true, force: true });
}
