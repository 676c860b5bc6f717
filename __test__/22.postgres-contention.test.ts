/** Locks, deadlocks and serialization failures: who waits, who tries again, who is left alone. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import type pg from "pg";
import type { SessionEvent } from "../index.js";
import { event, firstEvents, session } from "./support/fixtures.ts";
import { client, databaseUrl, freshSchema, sql } from "./support/postgres.ts";
import { beforeInsert, lockRow, openWith, waitingProcess } from "./support/postgres-around.ts";
import { timed, until } from "./support/waiting.ts";

const countOthers = async (schema: string) => {
  const text = `SELECT count(*)::int FROM ${schema}.events WHERE session_id LIKE 'other-%'`;
  return (await sql(text))[0].count;
};

test("two drivers that write the same ids in opposite order both succeed", async (t) => {
  const options = {
    connectionString: databaseUrl(),
    schema: freshSchema(t),
    poolConfig: { options: "-c deadlock_timeout=50ms" },
  };
  const drivers = [openWith(t, options), openWith(t, options)] as const;
  const ids = Array.from({ length: 100 }, (_, at) => `id-${at}`);
  for (let round = 0; round < 5; round += 1) {
    const calls = drivers.flatMap((driver, which) =>
      (which === 0 ? ids : ids.toReversed()).flatMap((id) => [
        driver.insertEvent(id, event(id, round, { id })),
        driver.updateSession(session(id, { createdAt: round })),
      ]),
    );
    await Promise.all(calls);
  }
  assert.equal((await drivers[0].listSessions({ limit: 1000 })).items.length, 100);
});

test("serialization failures are tried again", async (t) => {
  const options = {
    connectionString: databaseUrl(),
    schema: freshSchema(t),
    poolConfig: { options: "-c default_transaction_isolation=serializable" },
  };
  const drivers = [openWith(t, options), openWith(t, options)];
  await Promise.all(
    drivers.map(async (driver) => {
      for (let round = 1; round <= 50; round += 1) {
        await Promise.all(
          ["a", "b", "c"].map((id) => driver.insertEvent(id, event(id, round, { id }))),
        );
      }
    }),
  );
});

test("a deadlock that the driver loses is tried again", async (t) => {
  const [first, other] = [await client(t), await client(t)];
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const application_name = randomUUID();
  const poolConfig = { options: "-c deadlock_timeout=500ms", max: 1, application_name };
  const driver = openWith(t, { ...options, poolConfig });
  const write = (id: string) => driver.insertEvent(id, event(id, 1, { id }));
  await Promise.all(["a", "b", "c"].map(write));
  const lock = (connection: pg.Client, id: string) =>
    connection.query(`SELECT FROM ${options.schema}.events WHERE id = '${id}' FOR UPDATE`);
  await first.query("BEGIN");
  await lock(first, "c");
  // Waits first and looks last: it is left to the driver to find the deadlock.
  await other.query("SET deadlock_timeout = '20s'");
  await other.query("BEGIN");
  await lock(other, "b");

  const written = write("c");
  await waitingProcess(application_name);
  const both = Promise.all([write("a"), write("b")]);
  await first.query("ROLLBACK");
  await written;
  await waitingProcess(application_name);
  const start = Date.now();
  await lock(other, "a");
  assert.ok(Date.now() - start > 100, "it was the driver who gave way");
  await other.query("COMMIT");
  await both;
});

for (const [setting, sqlState] of [
  [undefined, undefined],
  ["lock_timeout", "55P03"],
  ["statement_timeout", "57014"],
] as const) {
  const which = setting ? `with ${setting}` : "without a timeout";
  test(`an event that somebody locks holds up no other session's, ${which}`, async (t) => {
    const locker = await client(t);
    const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
    const poolConfig = setting ? { [setting]: 200 } : {};
    const driver = openWith(t, { ...options, poolConfig, retryTimeoutMs: 8000 });
    await driver.insertEvent("s", event("s", 1, { id: "contested" }));
    await lockRow(locker, `${options.schema}.events`, "contested");

    let settled = 0;
    const insert = (sent: SessionEvent) =>
      timed(driver.insertEvent(sent.sessionId, sent).finally(() => (settled += 1)));
    const contested = event("s", 1, { id: "contested", payload: "newer" });
    const [before, after] = [firstEvents(15, "before"), firstEvents(15, "after")];
    const calls = [...before, contested, ...after].map(insert);
    const [locked] = calls.splice(before.length, 1);
    // Each half that it is in waits a second for the lock, without a timeout that says otherwise.
    await until(() => settled >= calls.length, "the others are settled", 7000);
    if (!setting) await locker.query("ROLLBACK");
    for (const { error } of await Promise.all(calls)) assert.equal(error, undefined);
    assert.equal(await countOthers(options.schema), calls.length);
    assert.equal((await locked!).error?.sqlState, sqlState);
  });
}

for (const sqlState of ["40001", "53400"]) {
  test(`a row for which a trigger raises ${sqlState} takes no other along`, async (t) => {
    const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
    const driver = openWith(t, { ...options, retryTimeoutMs: 1500 });
    await driver.listSessions();
    await beforeInsert(
      options.schema,
      `IF new.session_id = 'refused' THEN RAISE EXCEPTION 'no' USING ERRCODE = '${sqlState}'; END IF;`,
    );
    const insert = (sent: SessionEvent) => timed(driver.insertEvent(sent.sessionId, sent));
    const before = firstEvents(15, "before").map(insert);
    const refused = insert(event("refused", 1));
    const after = firstEvents(15, "after").map(insert);
    const outcomes = await Promise.all([...before, ...after]);
    assert.deepEqual(
      outcomes.flatMap(({ error }) => error?.message ?? []),
      [],
    );
    assert.equal((await refused).error?.sqlState, sqlState);
    assert.equal(await countOthers(options.schema), 30);
  });
}

test("sessions whose events went with one that is stuck go on", async (t) => {
  const locker = await client(t);
  const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
  const driver = openWith(t, { ...options, poolConfig: { lock_timeout: 100 } });
  await driver.listSessions();
  await beforeInsert(
    options.schema,
    `IF new.session_id = 'refused' AND NOT pg_try_advisory_xact_lock(26, 26) THEN
      RAISE EXCEPTION 'no' USING ERRCODE = '40001';
    END IF;`,
  );
  await locker.query("SELECT pg_advisory_lock(26, 26)");
  let settled = 0;
  const goOn = async (sent: SessionEvent) => {
    for (const eventIndex of [1, 2, 3]) {
      const next = event(sent.sessionId, eventIndex);
      await driver.insertEvent(next.sessionId, next);
    }
    settled += 1;
  };
  const before = firstEvents(15, "before").map(goOn);
  const stuck = driver.insertEvent("refused", event("refused", 1));
  const after = firstEvents(15, "after").map(goOn);
  const all = Promise.all([...before, ...after, stuck]);
  try {
    await until(() => settled === 30, "the other sessions go on", 3000);
  } finally {
    await locker.query("SELECT pg_advisory_unlock(26, 26)");
    await all;
  }
});
