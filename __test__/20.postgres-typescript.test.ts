/** On tables that a TypeScript driver of SDK 0.4 has made, and beside one. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inspect } from "node:util";
import type { SessionEvent } from "../index.js";
import { allEvents, event, session } from "./support/fixtures.ts";
import { databaseUrl, freshRole, freshSchema, sql } from "./support/postgres.ts";
import {
  openPostgres,
  openTypeScript,
  waitersIn,
  whileHolding,
} from "./support/postgres-around.ts";
import { schema0_4, snapshot } from "./support/postgres-layouts.ts";
import { warningsOf } from "./support/warnings.ts";

describe("a current schema of SDK 0.4", () => {
  test("opens without a change, for a role that can make none", async (t) => {
    const schema = await schema0_4(t);
    const { name, url } = await freshRole(t);
    await sql(`GRANT USAGE ON SCHEMA ${schema} TO ${name};
      GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA ${schema} TO ${name}`);
    const before = await snapshot(schema);
    const driver = openPostgres(t, { connectionString: url, schema });
    assert.deepEqual(await driver.listSessions(), { items: [] });
    assert.deepEqual(await snapshot(schema), before);
    await driver.updateSession(session("s", { modes: null }));
    await driver.insertEvent("s", event("s", 1));
    assert.deepEqual(await driver.getSession("s"), session("s", { modes: null }));
    assert.equal((await allEvents(driver, "s")).length, 1);
  });

  test("opens without a change for its owner", async (t) => {
    const schema = await schema0_4(t);
    const before = await snapshot(schema);
    await openPostgres(t, { schema }).listSessions();
    assert.deepEqual(await snapshot(schema), before);
  });

  test("opens while another transaction uses its tables", async (t) => {
    const schema = await schema0_4(t);
    await openTypeScript(t, schema).updateSession(session("s"));
    await whileHolding(`LOCK TABLE ${schema}.sessions IN ROW EXCLUSIVE MODE`, async () => {
      assert.equal((await openPostgres(t, { schema }).getSession("s"))!.id, "s");
      assert.equal(await waitersIn(schema), 0);
    });
  });

  test("drops the fields of a newer SDK with one warning; our own tables keep them", async (t) => {
    const newer = { later: { a: 1 } };
    const messages = await warningsOf(async () => {
      for (const schema of [await schema0_4(t), await schema0_4(t)]) {
        const driver = openPostgres(t, { schema });
        await driver.updateSession({ ...session("s"), ...newer });
        const sent = event("s", 1);
        await driver.insertEvent("s", { ...sent, ...newer } as SessionEvent);
        assert.deepEqual(await driver.getSession("s"), session("s"));
        assert.deepEqual(await allEvents(driver, "s"), [sent]);
      }
      const own = openPostgres(t);
      await own.updateSession({ ...session("s"), ...newer });
      assert.deepEqual(await own.getSession("s"), { ...session("s"), ...newer });
    });
    assert.equal(messages.length, 1, inspect(messages));
    assert.match(messages[0]!, /extra_json/);
  });

  test("columns of ours that somebody added to it keep the fields of a newer SDK", async (t) => {
    const schema = await schema0_4(t);
    await sql(`ALTER TABLE ${schema}.sessions ADD COLUMN extra_json jsonb;
      ALTER TABLE ${schema}.events ADD COLUMN extra_json jsonb`);
    const driver = openPostgres(t, { schema });
    const sent = { ...event("s", 1), later: ["\u0000"] };
    await driver.insertEvent("s", sent);
    assert.deepEqual(await allEvents(driver, "s"), [sent]);
  });
});

describe("beside a TypeScript driver", () => {
  test("it reads and writes the schema that ours made", async (t) => {
    const schema = freshSchema(t);
    const [ours, theirs] = [openPostgres(t, { schema }), openTypeScript(t, schema)];
    const full = session("s", {
      destroyedAt: 9,
      sandboxId: "box",
      sessionInit: { cwd: "/" },
      configOptions: [{ id: "model" }],
      modes: { a: 1 },
    });
    await ours.updateSession(full);
    assert.deepEqual(await theirs.getSession("s"), full);
    const sent = [event("s", 1), event("s", 2), event("s", 3)];
    await ours.insertEvent("s", sent[0]!);
    await theirs.insertEvent("s", sent[1]!);
    await ours.insertEvent("s", sent[2]!);
    assert.deepEqual(await allEvents(theirs, "s"), sent);
    assert.deepEqual(await allEvents(ours, "s"), sent);
    const replaced = { ...sent[0]!, payload: "theirs" };
    await theirs.insertEvent("s", replaced);
    assert.deepEqual((await ours.listEvents({ sessionId: "s", limit: 1 })).items, [replaced]);
    await theirs.updateSession(session("s", { modes: null }));
    assert.deepEqual(await ours.getSession("s"), session("s", { modes: null }));
  });

  test("ours reads and writes the schema that it made", async (t) => {
    const schema = freshSchema(t);
    const theirs = openTypeScript(t, schema);
    await theirs.updateSession(session("s", { sessionInit: { b: 1, aa: 2 } }));
    const sent = [event("s", 1), event("s", 2)];
    await theirs.insertEvent("s", sent[0]!);
    const ours = openPostgres(t, { schema });
    await ours.insertEvent("s", sent[1]!);
    assert.deepEqual(await ours.getSession("s"), session("s", { sessionInit: { b: 1, aa: 2 } }));
    assert.deepEqual(await allEvents(ours, "s"), sent);
    assert.deepEqual(await allEvents(theirs, "s"), sent);
  });

  test("each continues from the other's cursor", async (t) => {
    const schema = freshSchema(t);
    const [ours, theirs] = [openPostgres(t, { schema }), openTypeScript(t, schema)];
    const sent = Array.from({ length: 25 }, (_, index) => event("s", index));
    await Promise.all(sent.map((each) => ours.insertEvent("s", each)));
    await Promise.all(
      sent.map((_, index) => ours.updateSession(session(`s${index}`, { createdAt: index }))),
    );
    for (const [first, second] of [
      [ours, theirs],
      [theirs, ours],
    ] as const) {
      const head = await first.listEvents({ sessionId: "s", limit: 10 });
      const request = { sessionId: "s", limit: 100, cursor: head.nextCursor };
      const tail = await second.listEvents(request);
      assert.deepEqual([...head.items, ...tail.items], sent);
      const { nextCursor: cursor } = await first.listSessions({ limit: 10 });
      assert.equal((await second.listSessions({ cursor })).items[0]!.id, "s10");
    }
  });
});

for (const preparedStatements of [false, true]) {
  const how = preparedStatements ? ", with prepared statements" : "";
  test(`a cursor whose key no database takes is read as its offset${how}`, async (t) => {
    const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
    const driver = openPostgres(t, { ...options, preparedStatements });
    for (let at = 0; at < 6; at += 1) {
      await driver.insertEvent("s", event("s", at));
      await driver.updateSession(session(`s${at}`, { createdAt: at }));
    }
    /** The page's cursor as if for offset 4, and with another id in its key. */
    const craft = ({ nextCursor }: { nextCursor?: string }) => {
      const encoded = nextCursor!.slice(nextCursor!.indexOf("~") + 1);
      const [list, order] = JSON.parse(Buffer.from(encoded, "base64url").toString());
      const key = JSON.stringify([list, order, "a\u0000b"]);
      return `4~${Buffer.from(key).toString("base64url")}`;
    };
    const ofEvents = craft(await driver.listEvents({ sessionId: "s", limit: 2 }));
    const events = await driver.listEvents({ sessionId: "s", cursor: ofEvents });
    assert.deepEqual(
      events.items.map(({ eventIndex }) => eventIndex),
      [4, 5],
    );
    const ofSessions = craft(await driver.listSessions({ limit: 2 }));
    const sessions = await driver.listSessions({ cursor: ofSessions });
    assert.deepEqual(
      sessions.items.map(({ id }) => id),
      ["s4", "s5"],
    );
  });
}
