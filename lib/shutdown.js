/** The end of a server that uses the SDK: nothing that was on its way is lost. */
"use strict";

const { constants } = require("node:os");
const { performance } = require("node:perf_hooks");
const { clearTimeout, setTimeout } = require("node:timers");
const { invalidArgument } = require("./errors.js");
const { handleOf, holds } = require("./handle.js");
const { requireMs, requireOptions } = require("./options.js");
const { QUIET_MS } = require("./rest.js");

/** Less than the ten seconds that Docker gives. */
const TIMEOUT_MS = 8_000;
/** What waits until the last moment is answered in this time. */
const GRACE_MS = 200;
const SIGNALS = ["SIGTERM", "SIGINT"];
/** By driver: what was begun once isn't begun again. */
const begun = new WeakMap();

/**
 * Waits for what is on its way, has the SDK take leave, waits again, and closes the driver: all within
 * the timeout.
 */
exports.gracefulShutdown = function gracefulShutdown(sdk, driver, options) {
  let given;
  try {
    given = read(sdk, driver, options);
  } catch (error) {
    return Promise.reject(error);
  }
  const { signals, ...times } = given;
  const shutDown = () => {
    if (!begun.has(driver)) begun.set(driver, run(sdk, driver, times));
    return begun.get(driver);
  };
  if (signals === undefined) return shutDown();
  handle(signals, shutDown);
  return Promise.resolve();
};

async function run(sdk, driver, { quietMs, timeoutMs }) {
  const deadline = performance.now() + timeoutMs;
  const left = () => Math.max(0, Math.floor(deadline - performance.now()));
  // An agent that goes on and on, or a server that is gone, must leave time for what comes after.
  const half = () => Math.floor(left() / 2);
  const failures = [];
  const handle = holds(driver) ? handleOf(driver) : undefined;
  const rejectedBefore = handle?.metrics().calls.rejected;
  const attempt = (ms, step) => within(ms, step).catch((error) => failures.push(error));
  const idle = (ms) => attempt(ms, () => driver.idle({ quietMs, timeoutMs: ms }));
  await idle(half());
  await attempt(half(), () => sdk.dispose());
  await idle(half());
  // From a lock or an outage that lasts, the end of the process would wait too.
  handle?.endWithin(left());
  await attempt(left() + GRACE_MS, () => driver.close());
  if (failures.length > 0) throw failures[0];
  if (handle === undefined) return;
  const { queue, calls } = handle.metrics();
  const lost = calls.rejected - rejectedBefore + queue.calls;
  if (lost > 0) throw incomplete(lost, timeoutMs);
}

const incomplete = (calls, timeoutMs) =>
  Object.assign(
    new Error(
      `gracefulShutdown: ${calls} call${calls === 1 ? " was" : "s were"} rejected or not answered within ${timeoutMs} ms; ` +
        "what would have been stored may be lost",
    ),
    { code: "ERR_PERSIST_INCOMPLETE" },
  );

/** The step's end, or the end of the time for it. */
async function within(ms, step) {
  let timer;
  const timeout = new Promise((resolve) => (timer = setTimeout(resolve, ms)));
  try {
    await Promise.race([Promise.resolve().then(step), timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/** The first signal ends the process when all is done, a second at once. */
function handle(signals, shutDown) {
  let isUnderWay = false;
  for (const signal of new Set(signals)) {
    process.on(signal, () => {
      if (isUnderWay) process.exit(128 + constants.signals[signal]);
      isUnderWay = true;
      shutDown().then(
        () => process.exit(0),
        (error) => {
          console.error(error);
          process.exit(1);
        },
      );
    });
  }
}

function read(sdk, driver, options = {}) {
  if (typeof sdk?.dispose !== "function") {
    throw invalidArgument("sdk must have a method dispose, as what SandboxAgent.connect() gives");
  }
  if (typeof driver?.idle !== "function" || typeof driver.close !== "function") {
    throw invalidArgument("driver must be a driver of this package, not a view");
  }
  requireOptions(options, ["quietMs", "timeoutMs", "signals"]);
  const { quietMs = QUIET_MS, timeoutMs = TIMEOUT_MS, signals } = options;
  requireMs({ quietMs, timeoutMs });
  if (signals !== undefined && !(Array.isArray(signals) && signals.every(isSignal))) {
    throw invalidArgument('options.signals must be an array of "SIGTERM" and "SIGINT"');
  }
  return { quietMs, timeoutMs, signals };
}

const isSignal = (name) => SIGNALS.includes(name);
