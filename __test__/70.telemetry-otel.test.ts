/** The program of docs/telemetry.md, with OpenTelemetry's SDK. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { context, metrics, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { SQLiteSessionPersistDriver } from "../index.js";
import { event, file, rejection } from "./support/fixtures.ts";
import { addressOf, databaseUrl } from "./support/postgres.ts";
import { openPostgres, systems } from "./support/telemetry.ts";

const HOUR_MS = 3_600_000;
const spans = new InMemorySpanExporter();
const measured = new InMemoryMetricExporter(AggregationTemporality.DELTA);
const meters = new MeterProvider({
  readers: [
    new PeriodicExportingMetricReader({ exporter: measured, exportIntervalMillis: HOUR_MS }),
  ],
});
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
trace.setGlobalTracerProvider(
  new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] }),
);
metrics.setGlobalMeterProvider(meters);
after(() => meters.shutdown());
await runDocumented();

/** Runs the program in the document, from where it finds what it imports. */
async function runDocumented() {
  const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));
  const document = readFileSync(path("../docs/telemetry.md"), "utf8");
  const folder = mkdtempSync(path("../node_modules/.telemetry-"));
  after(() => rmSync(folder, { recursive: true }));
  const program = join(folder, "program.mjs");
  writeFileSync(program, /```js\n(.*?)```/s.exec(document)![1]!);
  await import(pathToFileURL(program).href);
}

beforeEach(async () => {
  await meters.forceFlush();
  measured.reset();
  spans.reset();
});

const spansNamed = (name: string) => spans.getFinishedSpans().filter((span) => span.name === name);

/** The spans of what is called under a span, and that span. */
async function under(work: () => Promise<unknown>) {
  const tracer = trace.getTracer("application");
  return tracer.startActiveSpan("request", async (parent) => {
    await work();
    parent.end();
    return parent.spanContext();
  });
}

/** What was measured of calls, an item for each set of attributes. */
async function measurements() {
  await meters.forceFlush();
  const scopes = measured.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics);
  const all = scopes.flatMap(({ metrics }) => metrics);
  assert.ok(all.every(({ descriptor }) => descriptor.name === "db.client.operation.duration"));
  assert.ok(all.every(({ descriptor }) => descriptor.unit === "s"));
  return all.flatMap(({ dataPoints }) => dataPoints as any[]);
}

for (const [system, opened] of Object.entries(systems)) {
  const attributesOf = (operation: string) => ({
    "db.system.name": system,
    "db.operation.name": operation,
  });

  test(`${system}: a call is a span of the conventions`, async (t) => {
    const driver = opened(t);
    await driver.insertEvent("s", event("s", 1));
    const [span] = spansNamed("insertEvent");
    assert.equal(span!.kind, SpanKind.CLIENT);
    assert.equal(span!.status.code, SpanStatusCode.UNSET);
    assert.deepEqual(span!.attributes, attributesOf("insertEvent"));
  });

  test(`${system}: spans of calls are children of the active span`, async (t) => {
    const driver = opened(t);
    const parent = await under(async () => {
      await driver.insertEvent("s", event("s", 1));
      await Promise.all([driver.getSession("s"), driver.replay("s")]);
    });
    for (const name of ["insertEvent", "getSession", "replay"]) {
      const [span] = spansNamed(name);
      assert.equal(span!.parentSpanContext?.spanId, parent.spanId, name);
      assert.equal(span!.spanContext().traceId, parent.traceId, name);
    }
  });

  test(`${system}: a span says how many rows were returned`, async (t) => {
    const driver = opened(t);
    await driver.insertEvent("s", event("s", 1));
    await driver.listEvents({ sessionId: "s" });
    const [span] = spansNamed("listEvents");
    assert.equal(span!.attributes["db.response.returned_rows"], 1);
  });

  test(`${system}: a span says how many writes a batch has`, async (t) => {
    await opened(t).insertEvents([event("s", 1), event("s", 2)]);
    const [span] = spansNamed("insertEvents");
    assert.equal(span!.attributes["db.operation.batch.size"], 2);
  });

  test(`${system}: a span says what kind of error there was`, async (t) => {
    const driver = opened(t);
    await driver.close();
    await rejection(driver.getSession("s"));
    const [span] = spansNamed("getSession");
    assert.deepEqual(span!.status, { code: SpanStatusCode.ERROR });
    assert.equal(span!.attributes["error.type"], "ERR_PERSIST_CLOSED");
  });

  test(`${system}: durations of calls are measured in seconds`, async (t) => {
    const driver = opened(t);
    await driver.insertEvent("s", event("s", 1));
    await driver.insertEvent("s", event("s", 2));
    await driver.close();
    await rejection(driver.insertEvent("s", event("s", 3)));
    const points = (await measurements()).filter(
      ({ attributes }) => attributes["db.operation.name"] === "insertEvent",
    );
    const attributes = attributesOf("insertEvent");
    assert.deepEqual(
      points.map(({ attributes, value }) => [attributes, value.count]),
      [
        [attributes, 2],
        [{ ...attributes, "error.type": "ERR_PERSIST_CLOSED" }, 1],
      ],
    );
    const { boundaries } = points[0].value.buckets;
    assert.deepEqual(boundaries, [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]);
    assert.ok(points[0].value.sum > 0 && points[0].value.sum < 10);
  });
}

test("sqlite: opening is a span", async (t) => {
  const parent = await under(async () => void systems.sqlite(t));
  const [span] = spansNamed("connect");
  assert.deepEqual(span!.attributes, {
    "db.system.name": "sqlite",
    "db.operation.name": "connect",
  });
  assert.equal(span!.parentSpanContext?.spanId, parent.spanId);
});

test("sqlite: a failed opening is a span without the file's name", async (t) => {
  const filename = `${file(t)}/nowhere`;
  assert.throws(() => new SQLiteSessionPersistDriver({ filename }));
  const [span] = spansNamed("connect");
  assert.equal(span!.attributes["error.type"], "ERR_PERSIST_CANNOT_OPEN");
  const { attributes, events, status } = span!;
  assert.ok(!JSON.stringify({ attributes, events, status }).includes(filename));
});

test("postgresql: an attempt to connect is a span with the server's address", async (t) => {
  await openPostgres(t).countEvents();
  const { host, port } = addressOf(databaseUrl());
  const [span] = spansNamed("connect");
  assert.deepEqual(span!.attributes, {
    "db.system.name": "postgresql",
    "db.operation.name": "connect",
    "server.address": host,
    "server.port": port,
  });
});
