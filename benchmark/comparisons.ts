/** What is compared, as data. */
import type { DatabaseName, DriverName } from "./drivers.ts";
import type { Workload } from "./trial.ts";

/** Of times less is better, of rates more. */
export type Unit = "ms" | "events/s" | "calls/s";

export type Comparison = {
  title: string;
  database: DatabaseName;
  unit: Unit;
  /** By driver, in the order in which they take turns; `native` is what others are compared with. */
  workloads: Partial<Record<DriverName, Workload>>;
  /** The smallest ratio that we aim at, by peer. */
  aims: Partial<Record<DriverName, number>>;
  /** The longest time that we aim at, by driver, in milliseconds. */
  mostMs?: Partial<Record<DriverName, number>>;
  /** How many trials are enough, where they are long. */
  mostTrials?: number;
};

type Aims = Comparison["aims"];

const workloads = (names: DriverName[], of: (name: DriverName) => Workload) =>
  Object.fromEntries(names.map((name) => [name, of(name)]));

const insertion = (
  database: DatabaseName,
  sessions: number,
  events: Partial<Record<DriverName, number>>,
  aims: Aims,
): Comparison => ({
  title: `${database}: insert, ${sessions} session${sessions === 1 ? "" : "s"}`,
  database,
  unit: "events/s",
  workloads: workloads(Object.keys(events) as DriverName[], (name) => ({
    kind: "insert",
    sessions,
    events: events[name]!,
  })),
  aims,
});

const reading = (
  database: DatabaseName,
  events: number,
  names: DriverName[],
  aims: Aims,
  mostTrials?: number,
): Comparison => ({
  title: `${database}: read ${events.toLocaleString("en-US")} events, 100 a page`,
  database,
  unit: "ms",
  workloads: workloads(names, () => ({ kind: "read", events })),
  aims,
  mostTrials,
});

/** What the SDK does to restore a session. `native` does it on the driver itself. */
const resuming = (
  database: DatabaseName,
  events: number,
  peers: DriverName[],
  mostMs: number,
  aims: Aims = {},
  mostTrials?: number,
): Comparison => ({
  title: `${database}: resume a session of ${events.toLocaleString("en-US")} events`,
  database,
  unit: "ms",
  workloads: workloads(["native, view", "native", ...peers], () => ({ kind: "resume", events })),
  aims,
  mostMs: { "native, view": mostMs },
  mostTrials,
});

/** Of peers, `native` is to be at least so many times as fast. */
const batches = (database: DatabaseName, batch: number, peers: DriverName[], aims: Aims) => ({
  title: `${database}: insertEvents, batches of ${batch.toLocaleString("en-US")}`,
  database,
  unit: "events/s" as const,
  workloads: workloads(["native", ...peers], () => ({
    kind: "insertEvents",
    batch,
    events: 100_000,
  })),
  aims,
});

const deleting = (database: DatabaseName, events: number): Comparison => ({
  title: `${database}: delete ${events.toLocaleString("en-US")} events, 16 sessions inserting`,
  database,
  unit: "ms",
  workloads: workloads(["native"], () => ({ kind: "delete", events })),
  aims: {},
  mostTrials: 3,
});

const streaming = (database: DatabaseName): Comparison => ({
  title: `${database}: stream 200,000 events`,
  database,
  unit: "events/s",
  workloads: workloads(["native", "native, listEvents"], () => ({
    kind: "stream",
    events: 200_000,
  })),
  aims: {},
});

const sdk = (database: DatabaseName, names: DriverName[], aims: Aims): Comparison => ({
  title: `${database}: SDK and server, 8 × 500 chunks until the app saw all`,
  database,
  unit: "ms",
  workloads: workloads(names, () => ({ kind: "sdk", sessions: 8, chunks: 500 })),
  aims,
});

const SQLITE: DriverName[] = ["native", "tuned", "typescript"];
const POSTGRES: DriverName[] = ["native", "native, prepared", "typescript"];
const BATCHES_TO_SQLITE: DriverName[] = ["native, insertEvent", "transaction"];
const BATCHES_TO_POSTGRES: DriverName[] = [
  ...(["native, prepared", "native, insertEvent", "COPY", "multi-row INSERT"] as const),
];
// How many events a driver gets is what it does in some seconds.
const onPostgres = (native: number, typescript: number) => ({
  native,
  "native, prepared": native,
  typescript,
});

export const comparisonsOf = (isQuick: boolean): Comparison[] => [
  insertion("SQLite", 1, { native: 6_000, tuned: 3_000, typescript: 1_000 }, { tuned: 0.85 }),
  insertion("SQLite", 8, { native: 20_000, tuned: 10_000, typescript: 1_000 }, { tuned: 3 }),
  insertion(
    "SQLite",
    32,
    { native: 40_000, tuned: 20_000, typescript: 1_000 },
    { tuned: 5, typescript: 20 },
  ),
  insertion("SQLite", 200, { native: 80_000, tuned: 40_000, typescript: 1_000 }, { tuned: 6 }),
  batches("SQLite", 1_000, BATCHES_TO_SQLITE, { transaction: 1 }),
  batches("SQLite", 10_000, BATCHES_TO_SQLITE, { transaction: 1 }),
  deleting("SQLite", isQuick ? 100_000 : 1_000_000),
  streaming("SQLite"),
  reading("SQLite", 10_000, SQLITE, { tuned: 1 }),
  reading("SQLite", 100_000, SQLITE, { typescript: 10 }, 3),
  resuming("SQLite", 1_000, ["tuned", "typescript"], 3),
  resuming("SQLite", 10_000, ["tuned", "typescript"], 3),
  resuming("SQLite", 100_000, ["tuned", "typescript"], 3, { typescript: 10 }, 3),
  {
    title: "SQLite: getSession",
    database: "SQLite",
    unit: "calls/s",
    workloads: workloads(SQLITE, () => ({ kind: "getSession", calls: 40_000 })),
    aims: { tuned: 1 },
  },
  sdk("SQLite", SQLITE, { typescript: 8 }),
  insertion("Postgres", 1, onPostgres(4_000, 4_000), { typescript: 1 }),
  insertion("Postgres", 32, onPostgres(40_000, 9_600), { typescript: 4 }),
  insertion("Postgres", 200, onPostgres(80_000, 10_000), { typescript: 6 }),
  batches("Postgres", 1_000, BATCHES_TO_POSTGRES, { COPY: 0.5 }),
  batches("Postgres", 10_000, BATCHES_TO_POSTGRES, { COPY: 0.5 }),
  deleting("Postgres", isQuick ? 100_000 : 1_000_000),
  streaming("Postgres"),
  reading("Postgres", 10_000, POSTGRES, { typescript: 10 }),
  // Ours alone, for time per event: the TypeScript driver's total grows with their square.
  reading("Postgres", 100_000, ["native", "native, prepared"], {}, 3),
  resuming("Postgres", 1_000, ["typescript"], 10),
  resuming("Postgres", 10_000, ["typescript"], 10),
  // The TypeScript driver takes minutes.
  resuming("Postgres", 100_000, ["typescript"], 10, { typescript: 50 }, 1),
  sdk("Postgres", POSTGRES, { typescript: 2 }),
];
