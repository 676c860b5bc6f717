/** The classes around the addon: what may stand in a driver's place, and whose classes its values are of. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import { type Context, createContext, runInContext } from "node:vm";
import * as main from "../index.js";
import { PostgresSessionPersistDriver, ReplayView, SQLiteSessionPersistDriver } from "../index.js";
import { allEvents, event, file, open, rejection, session } from "./support/fixtures.ts";

const refused = { name: "TypeError", code: "ERR_PERSIST_INVALID_ARG" };

test("a driver works behind a proxy", async (t) => {
  const calls: PropertyKey[] = [];
  const driver = new Proxy(open(t), {
    get(target, name, receiver) {
      calls.push(name);
      return Reflect.get(target, name, receiver);
    },
  });
  await driver.updateSession(session("s"));
  assert.equal((await driver.getSession("s"))?.id, "s");
  assert.ok(calls.includes("updateSession") && calls.includes("getSession"));
});

test("a driver works behind a proxy that wraps what it gives", async (t) => {
  const deep = <T extends object>(target: T): T =>
    new Proxy(target, {
      get(target, name, receiver) {
        const value: unknown = Reflect.get(target, name, receiver);
        return value instanceof Object && Object.isExtensible(value) ? deep(value) : value;
      },
    });
  assert.equal(await deep({ driver: open(t) }).driver.getSession("s"), undefined);
});

test("an object that inherits from a driver is one", async (t) => {
  const driver = Object.create(open(t)) as SQLiteSessionPersistDriver;
  await driver.insertEvent(event("s", 1));
  assert.equal((await allEvents(driver.replayView(), "s")).length, 1);
});

test("a subclass is a driver with methods of its own", async (t) => {
  class Counting extends SQLiteSessionPersistDriver {
    inserted = 0;
    override insertEvent(...args: [any, any?]) {
      this.inserted += 1;
      return super.insertEvent(...(args as [any, any]));
    }
  }
  const driver = new Counting({ filename: file(t) });
  t.after(() => driver.close());
  await driver.insertEvent(event("s", 1));
  assert.equal(driver.inserted, 1);
  assert.equal((await allEvents(driver, "s")).length, 1);
  assert.ok(driver instanceof SQLiteSessionPersistDriver);
  assert.equal(driver.constructor, Counting);
});

test("using calls the close() of a subclass", () => {
  let closed = 0;
  class Counting extends SQLiteSessionPersistDriver {
    override close() {
      closed += 1;
      super.close();
    }
  }
  {
    using _driver = new Counting();
  }
  assert.equal(closed, 1);
});

test("await using closes a PostgreSQL driver", async () => {
  let driver;
  {
    await using scoped = new PostgresSessionPersistDriver();
    driver = scoped;
  }
  assert.equal((await rejection(driver.getSession("s"))).code, "ERR_PERSIST_CLOSED");
});

test("a copy of a driver's fields is no driver", (t) => {
  const driver = open(t);
  const copy = { ...driver, getSession: driver.getSession };
  assert.throws(() => copy.getSession("s"), refused);
});

for (const [name, { prototype }] of Object.entries({
  SQLiteSessionPersistDriver,
  PostgresSessionPersistDriver,
  ReplayView,
})) {
  const methods = new Map<string, Function>();
  for (let at = prototype; at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const key of Object.getOwnPropertyNames(at)) {
      if (key !== "constructor") methods.set(key, (prototype as any)[key]);
    }
  }

  test(`${name}: a method of something else is refused`, () => {
    for (const method of methods.values()) {
      for (const something of [undefined, null, {}, "s", prototype]) {
        assert.throws(() => method.call(something, "s"), refused, method.name);
      }
    }
  });

  test(`${name}: methods have names, and no loop sees them`, () => {
    for (const [key, method] of methods) assert.equal(method.name, key);
    for (const seen in prototype) assert.fail(seen);
    assert.ok(methods.has("getSession") && methods.has("insertEvent"));
  });
}

test("methods tell how many arguments they take", () => {
  const { prototype } = SQLiteSessionPersistDriver;
  const lengths = { getSession: 1, updateSession: 1, listEvents: 1, insertEvent: 2, close: 0 };
  for (const [name, length] of Object.entries(lengths)) {
    assert.equal(prototype[name as keyof typeof lengths].length, length, name);
  }
});

for (const [name, Class] of Object.entries({
  SQLiteSessionPersistDriver,
  PostgresSessionPersistDriver,
})) {
  test(`${name} says that it must be called with new`, () => {
    const call = Class as unknown as (options: object) => unknown;
    const message = `${name} must be called with new`;
    for (const withoutNew of [() => call({}), () => call.call(new Class(), {})]) {
      assert.throws(withoutNew, { ...refused, message });
    }
  });
}

test("a view isn't made without a driver", () => {
  const View = ReplayView as unknown as new () => ReplayView;
  assert.throws(() => new View(), refused);
});

test("a view is a ReplayView", (t) => {
  assert.ok(open(t).replayView() instanceof ReplayView);
});

test("a printed driver shows which database it is of, and its state", async (t) => {
  const driver = open(t);
  const shown = "SQLiteSessionPersistDriver { filename: ':memory:', state: 'ok' }";
  assert.equal(inspect(driver), shown);
  assert.equal(inspect({ driver }, { depth: 0 }), "{ driver: [SQLiteSessionPersistDriver] }");
  const connectionString = "postgres://u:sesame@127.0.0.1:1/app";
  const postgres = new PostgresSessionPersistDriver({ connectionString, schema: "tenant" });
  await postgres.close();
  assert.equal(
    inspect(postgres, { breakLength: Infinity }),
    "PostgresSessionPersistDriver " +
      "{ host: '127.0.0.1:1', database: 'app', schema: 'tenant', state: 'closed' }",
  );
  assert.equal(inspect(driver.replayView()), "ReplayView {}");
  assert.equal(JSON.stringify(driver), "{}");
});

test("not even hidden fields of a driver show how it connects", async () => {
  const poolConfig = { user: "sesame", password: "sesame", host: "a.invalid", database: "d" };
  const driver = new PostgresSessionPersistDriver({ poolConfig });
  for (const what of [driver, driver.replayView()]) {
    assert.doesNotMatch(inspect(what, { showHidden: true, depth: 9 }), /sesame/);
  }
  await driver.close();
});

/** Loads the package as Jest does: each file of it is a function that is evaluated in the context. */
function loadIn(context: Context): typeof main {
  const loaded = new Map<string, { exports: unknown }>();
  const load = (path: string): unknown => {
    if (!path.endsWith(".js")) return createRequire(import.meta.url)(path);
    const { resolve } = createRequire(path);
    const known = loaded.get(path);
    if (known) return known.exports;
    const module = { exports: {} };
    loaded.set(path, module);
    const names = "module, exports, require, __filename, __dirname";
    const source = `(function (${names}) {${readFileSync(path, "utf8")}\n})`;
    const evaluate = runInContext(source, context, { filename: path });
    const requireThere = (name: string) => load(resolve(name));
    evaluate(module, module.exports, requireThere, path, dirname(path));
    return module.exports;
  };
  return load(fileURLToPath(new URL("../index.js", import.meta.url))) as typeof main;
}

/** A context that has loaded the package. */
function realm(): Context & { main: typeof main } {
  const context = createContext({ process });
  return Object.assign(context, { main: loadIn(context) });
}

/** What the code of a realm gives. */
const within = (context: Context, code: string) => runInContext(code, context);

test("a realm has classes of its own", () => {
  assert.notEqual(realm().main.SQLiteSessionPersistDriver, SQLiteSessionPersistDriver);
});

test("copies of the package in a realm share their classes", () => {
  const context = realm();
  const copy = loadIn(context);
  assert.notEqual(copy, context.main);
  assert.equal(copy.SQLiteSessionPersistDriver, context.main.SQLiteSessionPersistDriver);
  assert.deepEqual(Object.keys(context).sort(), ["main", "process"]);
});

test("a session is an object of the realm", async () => {
  const context = realm();
  const driver = new context.main.SQLiteSessionPersistDriver();
  await driver.updateSession(session("s", { sessionInit: { mcpServers: [] } }));
  const { sessionInit } = (await driver.getSession("s"))!;
  assert.deepStrictEqual(sessionInit, within(context, "({ mcpServers: [] })"));
  driver.close();
});

test("a page and its items are objects of the realm", async () => {
  const context = realm();
  const driver = new context.main.SQLiteSessionPersistDriver();
  await driver.insertEvent(event("s", 1, { id: "a", payload: { deep: [1] } }));
  const page = await driver.listEvents({ sessionId: "s" });
  const expected = JSON.stringify({ items: page.items });
  assert.deepStrictEqual(page, within(context, `(${expected})`));
  driver.close();
});

test("a replay is an object of the realm", async () => {
  const context = realm();
  const driver = new context.main.SQLiteSessionPersistDriver();
  await driver.insertEvent(event("s", 1));
  const replay = await driver.replay("s");
  assert.deepStrictEqual(replay, within(context, `(${JSON.stringify(replay)})`));
  driver.close();
});

test("what a call rejects with is an error of the realm", async () => {
  const context = realm();
  const driver = new context.main.SQLiteSessionPersistDriver();
  const wrong = await rejection(driver.getSession(5 as never));
  assert.ok(wrong instanceof within(context, "TypeError"));
  driver.close();
  const closed = await rejection(driver.getSession("s"));
  assert.ok(closed instanceof within(context, "Error") && !(closed instanceof Error));
});

test("what is thrown is an error of the realm", () => {
  const context = realm();
  const { SQLiteSessionPersistDriver, buildReplayText, postgresSchemaSql } = context.main;
  for (const call of [
    () => new SQLiteSessionPersistDriver({ filename: 5 as never }),
    () => new SQLiteSessionPersistDriver().replayView(5 as never),
    () => SQLiteSessionPersistDriver.prototype.close.call({}),
    () => buildReplayText(5 as never),
    () => postgresSchemaSql("no name"),
  ]) {
    assert.throws(call, (error) => error instanceof within(context, "TypeError"), `${call}`);
  }
});

test("another realm's driver leaves ours as it is", async (t) => {
  const filename = file(t);
  const ours = open(t, { filename });
  const context = realm();
  const theirs = new context.main.SQLiteSessionPersistDriver({ filename });
  const written = [theirs.updateSession(session("s")), ours.updateSession(session("s"))];
  await Promise.all(written);
  const [mine, other] = [await ours.getSession("s"), await theirs.getSession("s")];
  theirs.close();
  assert.ok(mine instanceof Object);
  assert.ok(other instanceof within(context, "Object") && !(other instanceof Object));
});

test("a realm that replaces JSON.stringify later doesn't change what is stored", async () => {
  const context = realm();
  const driver = new context.main.SQLiteSessionPersistDriver();
  within(context, `JSON.stringify = () => '"replaced"'; JSON.parse = () => "replaced";`);
  await driver.updateSession(session("s", { sessionInit: { kept: true } }));
  assert.equal((await driver.getSession("s"))?.sessionInit.kept, true);
  driver.close();
});
