/**
 * Compares the drivers: `npm run bench -- quick`.
 *
 * Every trial is a process of its own; the drivers take turns, so that a noisy minute hits all
 * alike. Printed are medians, their spread, and ratios within this run.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import Database from "better-sqlite3";
import { TunedSQLiteDriver } from "../__test__/support/typescript-driver.ts";
import { DRIVERS, type DriverName } from "./drivers.ts";
import { benchmarkEvent, type Figures, type Workload } from "./trial.ts";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { trials: { type: "string" }, only: { type: "string" } },
});
const isQuick = positionals.includes("quick");
const trials = Number(values.trials ?? (isQuick ? 3 : 7));
const root = fileURLToPath(new URL("..", import.meta.url));
const results = join(root, "benchmark", "results");
mkdirSync(results, { recursive: true });
const folder = mkdtempSync(join(results, "run-"));

const median = (numbers: number[]) => {
  const sorted = numbers.toSorted((left, right) => left - right);
  return sorted[Math.floor(sorted.length / 2)]!;
};

function trial(name: DriverName, workload: Workload): Figures {
  const own = mkdtempSync(join(folder, `${name}-`));
  try {
    if (workload.kind === "read") {
      copyFileSync(join(folder, workload.source), join(own, workload.source));
    }
    const program = fileURLToPath(new URL("trial.ts", import.meta.url));
    const args = ["--import", "tsx", program, name, own, JSON.stringify(workload)];
    const output = execFileSync(process.execPath, args, { cwd: root, encoding: "utf8" });
    return JSON.parse(output.trim().split("\n").at(-1)!);
  } finally {
    rmSync(own, { recursive: true, force: true });
  }
}

/** A history for all drivers alike, as the tuned one lays it out. */
async function fillHistory(source: string, events: number) {
  const filename = join(folder, source);
  new TunedSQLiteDriver({ filename }).close();
  const database = new Database(filename);
  const insert = database.prepare("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)");
  database.transaction(() => {
    for (let index = 1; index <= events; index += 1) {
      const event = benchmarkEvent("history", index);
      const { id, sessionId, createdAt, connectionId, sender, payload } = event;
      const json = JSON.stringify(payload);
      insert.run(id, index, sessionId, createdAt, connectionId, sender, json);
    }
  })();
  database.pragma("wal_checkpoint(TRUNCATE)");
  database.close();
}

type Comparison = {
  title: string;
  unit: string;
  figure: string;
  /** Whether a larger figure is better. */
  isRate: boolean;
  workload: (name: DriverName) => Workload;
  /** The smallest ratio that we aim at, by peer. */
  aims: Partial<Record<DriverName, number>>;
  trials?: number;
};

const SLOW_EVENTS = 1_000;
const insertion = (sessions: number, events: number, aims: Comparison["aims"]): Comparison => ({
  title: `insert, ${sessions} session${sessions === 1 ? "" : "s"}`,
  unit: "events/s",
  figure: "perSecond",
  isRate: true,
  workload: (name) => {
    const count = name === "typescript" ? SLOW_EVENTS : name === "tuned" ? events / 2 : events;
    return { kind: "insert", sessions, events: Math.max(count, sessions * 4) };
  },
  aims,
});
const reading = (events: number, aims: Comparison["aims"], count: number): Comparison => ({
  title: `read ${events.toLocaleString("en-US")} events, 100 a page`,
  unit: "ms",
  figure: "milliseconds",
  isRate: false,
  workload: () => ({ kind: "read", source: `history-${events}.db`, events }),
  aims,
  trials: count,
});

const comparisons: Comparison[] = [
  insertion(1, 6_000, { tuned: 0.85 }),
  insertion(8, 20_000, { tuned: 3 }),
  insertion(32, 40_000, { tuned: 5, typescript: 20 }),
  insertion(200, 80_000, { tuned: 6 }),
  reading(10_000, { tuned: 1 }, trials),
  reading(100_000, { typescript: 10 }, Math.min(trials, 3)),
  {
    title: "getSession",
    unit: "calls/s",
    figure: "perSecond",
    isRate: true,
    workload: () => ({ kind: "getSession", calls: 40_000 }),
    aims: { tuned: 1 },
  },
  {
    title: "SDK and server, 8 × 500 chunks until the app saw all",
    unit: "ms",
    figure: "milliseconds",
    isRate: false,
    workload: () => ({ kind: "sdk", sessions: 8, chunks: 500 }),
    aims: { typescript: 8 },
  },
];

function show(number: number): string {
  return number.toLocaleString("en-US", { maximumFractionDigits: number < 100 ? 1 : 0 });
}

function compare(comparison: Comparison) {
  const names = Object.keys(DRIVERS) as DriverName[];
  const figures = new Map<DriverName, Figures[]>(names.map((name) => [name, []]));
  for (let round = 0; round < (comparison.trials ?? trials); round += 1) {
    for (const name of names) figures.get(name)!.push(trial(name, comparison.workload(name)));
  }
  const of = (name: DriverName, figure: string) => figures.get(name)!.map((it) => it[figure]!);
  const ours = median(of("native", comparison.figure));
  console.log(`\n${comparison.title}`);
  for (const name of names) {
    const all = of(name, comparison.figure);
    const spread = `${show(Math.min(...all))}–${show(Math.max(...all))}`;
    const value = `${show(median(all))} ${comparison.unit}`;
    const stalls = of(name, "worstStallMs").filter((stall) => stall !== undefined);
    const stall = stalls.length > 0 ? `  worst stall ${show(Math.max(...stalls))} ms` : "";
    let ratio = "";
    if (name !== "native") {
      const times = comparison.isRate ? ours / median(all) : median(all) / ours;
      const aim = comparison.aims[name];
      const verdict = aim === undefined ? "" : ` (aim ${aim}: ${times >= aim ? "met" : "missed"})`;
      ratio = `  native is ${times.toFixed(2)}×${verdict}`;
    }
    console.log(`  ${name.padEnd(11)}${value.padStart(18)}  [${spread}]${stall}${ratio}`);
  }
}

function environment() {
  const [cpu] = cpus();
  const sqlite = new Database(":memory:");
  console.log(`${cpus().length} × ${cpu?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB`);
  console.log(`${process.platform} ${release()}, Node ${process.versions.node}`);
  console.log(`better-sqlite3's SQLite ${sqlite.prepare("SELECT sqlite_version()").pluck().get()}`);
  sqlite.close();
  console.log(`${trials} trials each, medians and [least–most]; every commit is synced to disk`);
}

try {
  environment();
  const chosen = comparisons.filter(({ title }) => title.includes(values.only ?? ""));
  for (const events of [10_000, 100_000]) {
    const source = `history-${events}.db`;
    const isNeeded = chosen.some((it) => it.title.includes(events.toLocaleString("en-US")));
    if (isNeeded) await fillHistory(source, events);
  }
  for (const comparison of chosen) compare(comparison);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
