/** Trouble with a SQLite file: what `ready`, `health` and `onError` say of it. */
import assert from "node:assert/strict";
import { renameSync } from "node:fs";
import { once } from "node:events";
import { test } from "node:test";
import Database from "better-sqlite3";
import { type ErrorContext, SQLiteSessionPersistDriver } from "../index.js";
import { event, file, onWindows, open, rejection, session } from "./support/fixtures.ts";
import { start } from "./support/fork.ts";
import { until } from "./support/waiting.ts";

test("a driver whose file is gone is failing, and says why", { skip: onWindows }, async (t) => {
  const filename = file(t);
  const told: [unknown, ErrorContext][] = [];
  const onError = (error: Error, context: ErrorContext) => told.push([error, context]);
  const driver = open(t, { filename, onError });
  await driver.insertEvent("s", event("s", 1));
  renameSync(filename, `${filename}.old`);
  const before = Date.now();
  const error = await rejection(driver.insertEvent("s", event("s", 2)));
  assert.deepEqual(told, [[error, { operation: "insertEvent", sessionId: "s" }]]);
  assert.ok(error.message.endsWith(`("${filename}")`), error.message);
  const { state, since, lastError } = driver.health();
  assert.equal(state, "failing");
  assert.ok(since >= before - 1 && since <= Date.now() + 1);
  assert.equal(lastError?.code, "ERR_PERSIST_MOVED");
  assert.equal(lastError?.operation, "insertEvent");
  assert.equal((await rejection(driver.ready())).code, "ERR_PERSIST_MOVED");
});

test("a lock that lasts is told of while calls wait for it", async (t) => {
  const filename = file(t);
  const told: string[][] = [];
  const onError = (error: Error, { operation }: ErrorContext) =>
    told.push([operation, (error as Error & { code: string }).code]);
  const driver = open(t, { filename, onError });
  await driver.ready();
  const holder = start("hold-lock", [filename, "60000"]);
  t.after(() => holder.kill());
  await once(holder, "message");
  const waiting = driver.insertEvent("s", event("s", 1));
  await until(() => told.length > 0);
  assert.deepEqual(told, [["retry", "ERR_PERSIST_BUSY"]]);
  const { state, queuedCalls, oldestQueuedMs, lastError } = driver.health();
  assert.deepEqual([state, queuedCalls, lastError?.operation], ["degraded", 1, "retry"]);
  assert.ok(oldestQueuedMs >= 2_000);
  holder.kill();
  await waiting;
  assert.equal(driver.health().state, "ok");
  assert.equal(told.length, 1, "once, and no call has failed");
});

test("a trigger that refuses rows makes a driver unready", async (t) => {
  const filename = file(t);
  new SQLiteSessionPersistDriver({ filename }).close();
  const other = new Database(filename);
  other.exec(`CREATE TRIGGER closed BEFORE INSERT ON events
    BEGIN SELECT raise(ABORT, 'closed for today'); END`);
  other.close();
  const driver = open(t, { filename });
  assert.equal((await rejection(driver.ready())).code, "ERR_PERSIST_CONSTRAINT");
  assert.equal(driver.health().state, "failing");
  assert.deepEqual(await driver.listSessions(), { items: [] });
});

test("what is only to be shown holds up no end: a lock isn't waited for", async (t) => {
  const filename = file(t);
  const driver = new SQLiteSessionPersistDriver({ filename });
  await driver.updateSession(session("s"));
  const holder = start("hold-lock", [filename, "60000"]);
  t.after(() => holder.kill());
  await once(holder, "message");
  const ready = rejection(driver.ready());
  // So that the writer waits for the lock.
  await until(() => driver.health().oldestQueuedMs > 100);
  const began = Date.now();
  driver.close();
  assert.ok(Date.now() - began < 5_000, "a write would be waited for as long as the lock is held");
  assert.equal((await ready).code, "ERR_PERSIST_CLOSED");
});

test("rows that a table's constraints would take are what is tried", async (t) => {
  const filename = file(t);
  new SQLiteSessionPersistDriver({ filename }).close();
  const other = new Database(filename);
  other.exec(`CREATE TRIGGER strict BEFORE INSERT ON sessions
    WHEN new.agent = '' OR length(new.id) <> 36 OR new.created_at < 1000000000000
    BEGIN SELECT raise(ABORT, 'no'); END`);
  other.close();
  await open(t, { filename }).ready();
});
