/** What trails: lists, close(), idle() and gracefulShutdown() wait for what an application is in the middle of. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, test, type TestContext } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import Database from "better-sqlite3";
import {
  gracefulShutdown,
  PostgresSessionPersistDriver,
  SQLiteSessionPersistDriver,
  type ListPage,
  type SessionEvent,
} from "../index.js";
import { chain } from "./support/chain.ts";
import { allEvents, event, file, open, rejection, session } from "./support/fixtures.ts";
import { runToEnd, start } from "./support/fork.ts";
import { openPostgres, openWith, whileHolding } from "./support/postgres-around.ts";
import { databaseUrl, freshSchema } from "./support/postgres.ts";
import { refused } from "./support/refusals.ts";
import { relayed } from "./support/relay.ts";
import { timed } from "./support/waiting.ts";

const LENGTH = 40;
const MIDDLE = 30;
/** For how long a list waits at most. What takes this long on a busy machine tells nothing. */
const LIST_WAIT_MS = 250;
const GENEROUS_MS = 10_000;

type Driver = SQLiteSessionPersistDriver | PostgresSessionPersistDriver;
type Page = Promise<ListPage<SessionEvent>>;
type Place = { driver: Driver; another: () => Driver };

const places: Record<string, (t: TestContext) => Promise<Place>> = {
  SQLite: async (t) => {
    const filename = file(t);
    return { driver: open(t, { filename }), another: () => open(t, { filename }) };
  },
  "PostgreSQL, far away": async (t) => {
    const { relay, options, straight } = await relayed(t);
    relay.delayMs = 1;
    const driver = openWith(t, options);
    await driver.listSessions();
    return { driver, another: () => openWith(t, straight) };
  },
};

/** The session's events as another driver finds them. */
const stored = async ({ another }: Place, sessionId: string) =>
  (await allEvents(another(), sessionId)).length;

/** Goes on with a session until it is told to stop. */
function endless(driver: Driver, sessionId: string) {
  let isStopped = false;
  let written = 0;
  const run = async () => {
    while (!isStopped) {
      written += 1;
      await driver.insertEvent(sessionId, event(sessionId, written));
    }
  };
  const ended = run();
  // It may reject before anybody looks.
  ended.catch(() => {});
  const stop = () => {
    isStopped = true;
    return ended;
  };
  return { ended, stop, written: () => written };
}

/**
 * What a list gives that is begun in the middle of a chain, and the chain's end. A machine that is too
 * busy for the chain to end in time gets another chance.
 */
async function inTheMiddle(
  place: Place,
  begin: (list: () => void) => unknown,
  list = (sessionId: string): Page => place.driver.listEvents({ sessionId }),
) {
  for (let attempt = 1; ; attempt += 1) {
    const sessionId = `s${attempt}`;
    let page: Page | undefined;
    let began = 0;
    const listed = new Promise<ListPage<SessionEvent>>((resolve) => {
      const look = () => {
        began = performance.now();
        page = list(sessionId);
        resolve(page);
      };
      void chain(place.driver, sessionId, LENGTH, (index) => index === MIDDLE && begin(look));
    });
    const { items } = await listed;
    const took = performance.now() - began;
    if (took < LIST_WAIT_MS || attempt === 10) return { sessionId, shown: items.length };
  }
}

for (const [name, at] of Object.entries(places)) {
  describe(`${name}: a list`, () => {
    const moments: [string, (list: () => void) => unknown][] = [
      ["while a call is outstanding", (list) => setImmediate(list)],
      ["between two calls", (list) => list()],
    ];
    for (const [when, begin] of moments) {
      test(`that is begun in the middle of a chain, ${when}, shows all of it`, async (t) => {
        const place = await at(t);
        const { sessionId, shown } = await inTheMiddle(place, begin);
        assert.equal(shown, LENGTH);
        assert.equal(await stored(place, sessionId), LENGTH);
      });
    }

    test("of a view waits too", async (t) => {
      const place = await at(t);
      const view = place.driver.replayView({ maxEvents: Infinity, coalesce: false });
      const list = (sessionId: string) => view.listEvents({ sessionId });
      const { shown } = await inTheMiddle(place, (look) => look(), list);
      assert.equal(shown, LENGTH);
    });

    test("and then close() lose nothing", async (t) => {
      const place = await at(t);
      const { sessionId, shown } = await inTheMiddle(place, (list) => setImmediate(list));
      await place.driver.close();
      assert.equal(shown, LENGTH);
      assert.equal(await stored(place, sessionId), LENGTH);
    });

    test("of a later page doesn't wait", async (t) => {
      const { driver } = await at(t);
      await driver.insertEvents([event("s", -2), event("s", -1)]);
      const { nextCursor } = await driver.listEvents({ sessionId: "s", limit: 1 });
      assert.ok(nextCursor);
      const going = endless(driver, "s");
      const order: string[] = [];
      const first = driver.listEvents({ sessionId: "s" }).then(() => order.push("first page"));
      const later = driver
        .listEvents({ sessionId: "s", cursor: nextCursor })
        .then(() => order.push("later page"));
      await Promise.all([first, later]);
      await going.stop();
      assert.deepEqual(order, ["later page", "first page"]);
    });

    test("of a session that goes on and on waits for a quarter of a second", async (t) => {
      const { driver } = await at(t);
      const going = endless(driver, "s");
      const { milliseconds } = await timed(driver.listEvents({ sessionId: "s" }));
      const written = going.written();
      await turn();
      await going.stop();
      assert.ok(going.written() >= written && milliseconds < GENEROUS_MS, `${milliseconds} ms`);
      assert.ok(milliseconds >= LIST_WAIT_MS - 10, `${milliseconds} ms`);
    });

    test("of another session doesn't wait", async (t) => {
      const { driver } = await at(t);
      const going = endless(driver, "s");
      const order: string[] = [];
      const own = driver.listEvents({ sessionId: "s" }).then(() => order.push("own"));
      const other = driver.listEvents({ sessionId: "t" }).then(() => order.push("other"));
      await Promise.all([own, other]);
      await going.stop();
      assert.deepEqual(order, ["other", "own"]);
    });

    test("that is wrong rejects as it does at rest, at once", async (t) => {
      const { driver } = await at(t);
      const own = new Error("the caller's own");
      const throwing = (name: string) =>
        Object.defineProperty({ sessionId: "s" } as any, name, {
          get: () => {
            throw own;
          },
          enumerable: true,
        });
      const wrong: any[] = [undefined, null, 5, {}, { sessionId: 5 }];
      wrong.push({ sessionId: "s", sender: "x" }, { sessionId: "s", afterIndex: "1" });
      wrong.push({ sessionId: "s", order: "up" }, throwing("sessionId"), throwing("cursor"));
      wrong.push(throwing("limit"), throwing("method"));
      const list = (request: any) => rejection(driver.listEvents(request));
      const atRest = await Promise.all(wrong.map(list));
      const going = endless(driver, "s");
      const first = driver.listEvents({ sessionId: "s" }).then(() => "a right one");
      const busy = Promise.all(wrong.map(list));
      assert.notEqual(await Promise.race([busy, first]), "a right one");
      await Promise.all([going.stop(), first]);
      const told = (errors: any[]) =>
        errors.map(({ name, code, message }) => [name, code, message]);
      assert.deepEqual(told(await busy), told(atRest));
      assert.deepEqual(new Set(atRest.map(({ name }) => name)), new Set(["TypeError", "Error"]));
      assert.equal(atRest.filter((error) => error === own).length, 4);
    });

    test("is read when it is called, whatever becomes of its request", async (t) => {
      const { driver } = await at(t);
      class Request {
        #wanted = "s";
        get sessionId() {
          return this.#wanted;
        }
        change() {
          this.#wanted = "t";
        }
      }
      const request = new Request();
      const inserted = driver.insertEvent("s", event("s", 1));
      const page = driver.listEvents(request);
      request.change();
      assert.equal((await page).items.length, 1);
      await inserted;
    });
  });
}

test("a list doesn't stand still with the timers that a test has put in place", async (t) => {
  const driver = open(t, { filename: file(t) });
  t.mock.timers.enable({ apis: ["setTimeout", "setImmediate"] });
  const inserted = driver.insertEvent("s", event("s", 1));
  assert.equal((await driver.listEvents({ sessionId: "s" })).items.length, 1);
  assert.deepEqual(await driver.idle({ quietMs: 20 }), { timedOut: false });
  await inserted;
});

test("SQLite: a list that waits is rejected by close()", async (t) => {
  const driver = open(t, { filename: file(t) });
  const payload = "x".repeat(5_000_000);
  const written = driver.insertEvent("s", event("s", 1, { payload }));
  const page = refused(driver.listEvents({ sessionId: "s" }), "ERR_PERSIST_CLOSED");
  await turn();
  driver.close();
  await Promise.all([page, written]);
});

test("PostgreSQL: lists that wait go on before a deletion that is called then", async (t) => {
  const schema = freshSchema(t);
  const driver = openPostgres(t, { schema });
  await driver.updateSession(session("s"));
  const row = `SELECT FROM ${schema}.sessions FOR UPDATE`;
  await whileHolding(row, async (release) => {
    await driver.insertEvent("s", event("s", 1));
    const lists = [driver, driver.replayView()].map((lists) =>
      lists.listEvents({ sessionId: "s" }),
    );
    const deleted = driver.deleteSession("s");
    // They would be held until the deletion has ended, had they not gone on.
    for (const { items } of await Promise.all(lists)) assert.equal(items.length, 1);
    await release();
    assert.equal(await deleted, true);
  });
});

test("PostgreSQL: close() waits for a list and for the chain that it waits for", async (t) => {
  const place = await places["PostgreSQL, far away"]!(t);
  const { driver } = place;
  await new Promise<void>((resolve, reject) => {
    const begin = (index: number) => index === MIDDLE && setImmediate(resolve);
    chain(driver, "s", LENGTH, begin).catch(reject);
  });
  const page = driver.listEvents({ sessionId: "s" });
  const began = performance.now();
  const closed = driver.close();
  const shown = (await page).items.length;
  const took = performance.now() - began;
  await closed;
  assert.ok(shown === LENGTH || took >= LIST_WAIT_MS, `${shown} after ${took} ms`);
  assert.equal(await stored(place, "s"), LENGTH);
});

describe("idle()", () => {
  test("resolves at once after a long quiet", async (t) => {
    const driver = open(t);
    await driver.listSessions();
    assert.deepEqual(await driver.idle({ quietMs: 60_000, timeoutMs: 60_000 }), {
      timedOut: false,
    });
  });

  test("waits for a chain, and for the quiet after it", async (t) => {
    const driver = open(t, { filename: file(t) });
    let ended = 0;
    const chained = chain(driver, "s", LENGTH).then(() => (ended = performance.now()));
    assert.deepEqual(await driver.idle({ quietMs: 50, timeoutMs: 60_000 }), { timedOut: false });
    const now = performance.now();
    await chained;
    assert.ok(ended > 0 && now - ended >= 45, `${now - ended} ms`);
  });

  test("looks once where it may not wait", async (t) => {
    const driver = open(t, { filename: file(t) });
    const inserted = driver.insertEvent("s", event("s", 1));
    assert.deepEqual(await driver.idle({ timeoutMs: 0 }), { timedOut: true });
    await inserted;
    assert.deepEqual(await driver.idle({ quietMs: 0, timeoutMs: 0 }), { timedOut: false });
  });

  const outstanding: [string, string, (driver: Driver) => Promise<unknown>, boolean][] = [
    ["a write", "events", (driver) => driver.insertEvent("s", event("s", 1)), true],
    ["getSession", "sessions", (driver) => driver.getSession("s"), true],
    ["listEvents", "events", (driver) => driver.listEvents({ sessionId: "s" }), false],
    ["a stream", "events", (driver) => driver.streamEvents({ sessionId: "s" }).next(), false],
  ];
  for (const [what, table, call, counts] of outstanding) {
    test(`${counts ? "waits for" : "doesn't wait for"} ${what}`, async (t) => {
      const schema = freshSchema(t);
      const driver = openPostgres(t, { schema });
      await driver.listSessions();
      await whileHolding(`LOCK TABLE ${schema}.${table}`, async (release) => {
        const called = call(driver);
        const options = { quietMs: 20, timeoutMs: counts ? 200 : 60_000 };
        assert.deepEqual(await driver.idle(options), { timedOut: counts });
        await release();
        await called;
      });
    });
  }

  test("resolves after close()", async (t) => {
    const drivers = [open(t, { filename: file(t) }), openPostgres(t)];
    for (const driver of drivers) {
      await driver.insertEvent("s", event("s", 1));
      await driver.close();
      assert.deepEqual(await driver.idle({ quietMs: 60_000 }), { timedOut: false });
    }
  });

  test("resolves when close() comes", async (t) => {
    const driver = open(t, { filename: file(t) });
    await driver.insertEvent("s", event("s", 1));
    const idle = driver.idle({ quietMs: 300, timeoutMs: 60_000 });
    driver.close();
    assert.deepEqual(await idle, { timedOut: false });
  });

  const wrong = [null, 5, "x", { quiet: 1 }, { quietMs: -1 }, { quietMs: 1.5 }];
  for (const options of [...wrong, { timeoutMs: "1" }, { timeoutMs: Infinity }, { quietMs: NaN }]) {
    test(`refuses ${JSON.stringify(options)}`, async (t) => {
      const error = await rejection(open(t).idle(options as any));
      assert.deepEqual([error.name, error.code], ["TypeError", "ERR_PERSIST_INVALID_ARG"]);
      assert.match(error.message, /^options/);
    });
  }

  test("keeps the process alive while it waits", async () => {
    const { code, stderr } = await runToEnd("idle-alive", []);
    assert.deepEqual([code, stderr], [0, '{"timedOut":false}']);
  });
});

describe("close()", () => {
  const options: [string, (t: TestContext) => object][] = [
    ["SQLite", (t) => ({ filename: file(t) })],
    ["PostgreSQL", (t) => ({ connectionString: databaseUrl(), schema: freshSchema(t) })],
  ];
  for (const [name, of] of options) {
    test(`${name}: calls after it reject, and one warning names gracefulShutdown`, async (t) => {
      const { code, messages } = await runToEnd("late-call", [JSON.stringify(of(t))]);
      assert.equal(code, 0);
      const [{ early, warnings, codes }] = messages;
      assert.deepEqual(codes, ["ERR_PERSIST_CLOSED", "ERR_PERSIST_CLOSED"]);
      assert.equal(early, 0, "what was called before it isn't late");
      assert.equal(warnings.length, 1);
      assert.match(warnings[0], /gracefulShutdown/);
    });
  }

  test("PostgreSQL: waits for what comes meanwhile", async (t) => {
    const place = await places["PostgreSQL, far away"]!(t);
    const chained = chain(place.driver, "s", LENGTH);
    await Promise.all([place.driver.close(), chained]);
    assert.equal(await stored(place, "s"), LENGTH);
  });

  test("PostgreSQL: waits for two seconds at most, and the second waits for the first", async (t) => {
    const place = await places["PostgreSQL, far away"]!(t);
    const going = endless(place.driver, "s");
    const order: string[] = [];
    const closed = timed(place.driver.close() as Promise<void>);
    void closed.then(() => order.push("first"));
    const again = (place.driver.close() as Promise<void>).then(() => order.push("second"));
    await refused(going.ended, "ERR_PERSIST_CLOSED");
    const { error, milliseconds } = await closed;
    await again;
    assert.equal(error, undefined);
    assert.ok(milliseconds >= 1_990 && milliseconds < GENEROUS_MS, `${milliseconds} ms`);
    assert.deepEqual(new Set(order), new Set(["first", "second"]));
    assert.equal(await stored(place, "s"), going.written() - 1, "all but the one that rejected");
  });

  test("PostgreSQL: ends during an outage", async (t) => {
    const { relay, options } = await relayed(t);
    const driver = openWith(t, { ...options, retryTimeoutMs: 500 });
    await driver.listSessions();
    await relay.refuse(true);
    relay.cutAll();
    const lost = refused(driver.insertEvent("s", event("s", 1)), "ERR_PERSIST_UNAVAILABLE");
    const { error, milliseconds } = await timed(driver.close());
    await lost;
    assert.equal(error, undefined);
    assert.ok(milliseconds < GENEROUS_MS, `${milliseconds} ms`);
  });

  test("SQLite: `await using` waits for what comes meanwhile", async (t) => {
    assert.ok(Symbol.asyncDispose, "every Node from 20 on has it");
    const filename = file(t);
    let chained: Promise<void>;
    {
      await using scoped = new SQLiteSessionPersistDriver({ filename });
      chained = chain(scoped, "s", LENGTH);
    }
    await chained;
    assert.equal((await allEvents(open(t, { filename }), "s")).length, LENGTH);
  });
});

describe("gracefulShutdown()", () => {
  /** An SDK and a driver that note what is called. A step may do something of its own. */
  function fakes(steps: Record<string, () => Promise<unknown>> = {}) {
    const called: string[] = [];
    const step = (name: string) => async () => {
      called.push(name);
      await steps[name]?.();
    };
    const driver: any = { idle: step("idle"), close: step("close") };
    return { called, sdk: { dispose: step("dispose") as () => Promise<void> }, driver };
  }
  const STEPS = ["idle", "dispose", "idle", "close"];
  const never = () => new Promise<void>(() => {});
  const failing = (message: string) => () => Promise.reject(new Error(message));

  test("waits, has the SDK take leave, waits, and closes", async () => {
    const { called, sdk, driver } = fakes();
    assert.equal(await gracefulShutdown(sdk, driver), undefined);
    assert.deepEqual(called, STEPS);
  });

  for (const hanging of ["idle", "dispose", "close"]) {
    test(`ends in time though ${hanging} hangs, and takes all steps`, async () => {
      const { called, sdk, driver } = fakes({ [hanging]: never });
      const { error, milliseconds } = await timed(
        gracefulShutdown(sdk, driver, { timeoutMs: 300 }),
      );
      assert.equal(error, undefined);
      assert.deepEqual(called, STEPS);
      assert.ok(milliseconds < GENEROUS_MS, `${milliseconds} ms`);
    });
  }

  test("leaves time for what comes after an agent that goes on and on", async (t) => {
    const driver = openPostgres(t);
    const going = endless(driver, "s");
    let disposed: number | undefined;
    const sdk = {
      dispose: async () => {
        const { milliseconds } = await timed(going.stop());
        disposed = milliseconds;
      },
    };
    await gracefulShutdown(sdk, driver, { timeoutMs: 3_000 });
    assert.notEqual(disposed, undefined, "the SDK has taken leave");
    await refused(driver.getSession("s"), "ERR_PERSIST_CLOSED");
  });

  test("tells of the first failure when all is done", async () => {
    const { called, sdk, driver } = fakes({ dispose: failing("one"), close: failing("two") });
    assert.equal((await rejection(gracefulShutdown(sdk, driver))).message, "one");
    assert.deepEqual(called, STEPS);
  });

  test("gives the first promise the second time", async () => {
    const { called, sdk, driver } = fakes();
    const first = gracefulShutdown(sdk, driver);
    assert.equal(gracefulShutdown(sdk, driver), first);
    await first;
    assert.equal(gracefulShutdown(sdk, driver), first);
    assert.deepEqual(called, STEPS);
  });

  test("closes a real driver", async (t) => {
    for (const driver of [open(t, { filename: file(t) }), openPostgres(t)]) {
      const chained = chain(driver, "s", 5);
      await gracefulShutdown({ dispose: async () => {} }, driver);
      await chained;
      await refused(driver.getSession("s"), "ERR_PERSIST_CLOSED");
    }
  });

  test("refuses wrong arguments", async (t) => {
    const { sdk, driver, called } = fakes();
    const wrong: [unknown, unknown, unknown?][] = [
      [undefined, driver],
      [{}, driver],
      [sdk, undefined],
      [sdk, open(t).replayView()],
      [sdk, driver, null],
      [sdk, driver, 5],
      [sdk, driver, { timeout: 1 }],
      [sdk, driver, { timeoutMs: -1 }],
      [sdk, driver, { timeoutMs: 1e12 }],
      [sdk, driver, { quietMs: 0.5 }],
      [sdk, driver, { quietMs: 1e12 }],
      [sdk, driver, { signals: "SIGTERM" }],
      [sdk, driver, { signals: ["SIGHUP"] }],
    ];
    for (const given of wrong) {
      const error = await rejection((gracefulShutdown as any)(...given));
      assert.deepEqual([error.name, error.code], ["TypeError", "ERR_PERSIST_INVALID_ARG"]);
    }
    assert.deepEqual(called, []);
  });

  const notOnWindows = { skip: process.platform === "win32" && "it has no signals" };
  const databases: [string, (t: TestContext) => [object, () => Driver]][] = [
    [
      "SQLite",
      (t) => {
        const options = { filename: file(t) };
        return [options, () => open(t, options)];
      },
    ],
    [
      "PostgreSQL",
      (t) => {
        const options = { connectionString: databaseUrl(), schema: freshSchema(t) };
        return [options, () => openWith(t, options)];
      },
    ],
  ];
  /** Databases that nothing can be stored in, for longer than a call may wait. */
  const stuck: Record<string, (t: TestContext) => object> = {
    SQLite: (t) => {
      const filename = file(t);
      new SQLiteSessionPersistDriver({ filename }).close();
      const other = new Database(filename);
      t.after(() => other.close());
      other.exec("BEGIN IMMEDIATE");
      return { filename };
    },
    PostgreSQL: () => ({ connectionString: "postgres://u@127.0.0.1:1/d" }),
  };
  for (const [name, of] of databases) {
    test(`${name}: a signal ends the process when a chain is stored`, notOnWindows, async (t) => {
      const [options, another] = of(t);
      const child = start("shut-down", [JSON.stringify(options), "chain", "200"]);
      child.on("message", (what) => what === "20" && child.kill("SIGTERM"));
      const [code, signal] = await once(child, "exit");
      assert.deepEqual([code, signal], [0, null]);
      assert.equal((await allEvents(another(), "s")).length, 200);
    });

    test(
      `${name}: what can't be stored holds the end up no longer than it may`,
      notOnWindows,
      async (t) => {
        const options = JSON.stringify(stuck[name]!(t));
        const child = start("shut-down", [options, "chain", "1", "1000"]);
        let printed = "";
        child.stderr!.on("data", (data) => (printed += data));
        child.on("message", (what) => what === "ready" && child.kill("SIGTERM"));
        const { milliseconds } = await timed(once(child, "close"));
        assert.equal(child.exitCode, 1, printed);
        assert.match(printed, /ERR_PERSIST_INCOMPLETE/);
        assert.ok(milliseconds < 20_000, `${milliseconds} ms, of the 30 s that one call may wait`);
      },
    );

    test(`${name}: a second signal ends it at once`, notOnWindows, async (t) => {
      const [options, another] = of(t);
      const child = start("shut-down", [JSON.stringify(options), "hang", "20"]);
      let acknowledged = 0;
      child.on("message", (what) => {
        if (what === "20") child.kill("SIGTERM");
        if (what === "dispose") child.kill("SIGTERM");
        else if (Number(what) > 0) acknowledged += 1;
      });
      const { error, milliseconds } = await timed(
        once(child, "exit").then((ended) => assert.deepEqual(ended, [143, null])),
      );
      assert.equal(error, undefined);
      assert.ok(milliseconds < 25_000, `${milliseconds} ms, though it could have waited a minute`);
      assert.equal((await allEvents(another(), "s")).length, acknowledged);
    });
  }
});
