/**
 * Waiting until an application is done with what it is in the middle of. The SDK hands a session's
 * events over one after another, each once the one before is stored, so when a prompt is answered the
 * last of them may be still to come.
 */
"use strict";

// Not the global ones: an application's tests may have put others in their place, which stand still.
const { performance } = require("node:perf_hooks");
const { clearTimeout, setImmediate, setTimeout } = require("node:timers");
const { requireMs, requireOptions } = require("./options.js");

/** Between two looks at what is outstanding. */
const LOOK_MS = 1;
/** For how long the first page of a session that goes on all the time waits. */
const MAX_LIST_WAIT_MS = 250;
/** What was settled so recently may lead to more in this very turn. */
const THIS_TURN = { quietMs: 10 };
/** `idle()`. */
const QUIET_MS = (exports.QUIET_MS = 300);
const TIMEOUT_MS = 5_000;

/** By handle: the lists that wait for a session, by its id, as what makes each go on at once. */
const waits = new WeakMap();

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * A list of events by a channel of telemetry.js. A first page is read once its session is at rest:
 * what is called in the turns until then is seen too.
 */
exports.listEvents = (channel, handle, request) => {
  const sessionId = sessionOfFirstPage(request);
  if (sessionId === undefined || isBetweenChains(handle, sessionId)) {
    return channel.of(handle).listEvents(request);
  }
  const wait = (submit) => whenAtRest(handle, sessionId, submit);
  return channel.after(handle, wait).listEvents(request);
};

/** Whether nothing is outstanding, nor may be in the middle of a chain of calls. */
const isBetweenChains = (handle, sessionId) =>
  handle.isAtRest(sessionId) && (isQuiet(handle, THIS_TURN) || handle.answersAtOnce());

function whenAtRest(handle, sessionId, submit) {
  const deadline = performance.now() + MAX_LIST_WAIT_MS;
  return new Promise((resolve) => {
    let timer;
    let isOver = false;
    const goOn = () => {
      isOver = true;
      clearTimeout(timer);
      forget(handle, sessionId, goOn);
      resolve(submit());
    };
    const look = () => {
      if (isOver) return;
      if (handle.isAtRest(sessionId) || performance.now() >= deadline) goOn();
      else timer = setTimeout(look, LOOK_MS);
    };
    remember(handle, sessionId, goOn);
    setImmediate(look);
  });
}

/** Lists that wait for a session go on: what is called now isn't to be seen by them. */
exports.endWaits = (handle, sessionId) => {
  for (const goOn of [...(waitsOf(handle).get(sessionId) ?? [])]) goOn();
};

/** All that wait go on, as before a close. */
exports.endAllWaits = (handle) => {
  for (const sessionId of [...waitsOf(handle).keys()]) exports.endWaits(handle, sessionId);
};

/** A view's lists wait as those of its driver. */
exports.waitTogether = (view, handle) => waits.set(view, waitsOf(handle));

function waitsOf(handle) {
  if (!waits.has(handle)) waits.set(handle, new Map());
  return waits.get(handle);
}

function remember(handle, sessionId, goOn) {
  const bySession = waitsOf(handle);
  if (!bySession.has(sessionId)) bySession.set(sessionId, new Set());
  bySession.get(sessionId).add(goOn);
}

function forget(handle, sessionId, goOn) {
  const bySession = waitsOf(handle);
  const lists = bySession.get(sessionId);
  lists.delete(goOn);
  if (lists.size === 0) bySession.delete(sessionId);
}

/**
 * The session whose first page is asked for, if the request says so; what is odd is for others. Runs
 * no getter: that is for who reads the arguments, once.
 */
function sessionOfFirstPage(request) {
  const valueOf = (name) => Object.getOwnPropertyDescriptor(request, name)?.value;
  try {
    const [sessionId, cursor] = [valueOf("sessionId"), valueOf("cursor")];
    return (cursor === undefined || cursor === null) && typeof sessionId === "string"
      ? sessionId
      : undefined;
  } catch {
    return undefined;
  }
}

/** Whether nothing is outstanding, and nothing has come for that long. */
const isQuiet = (handle, { quietMs }) => (handle.quietMs() ?? -1) >= quietMs;
exports.isQuiet = isQuiet;

/** Resolves when nothing has been outstanding, and nothing has come, for `quietMs`. */
exports.idle = async (handle, options = {}) => {
  requireOptions(options, ["quietMs", "timeoutMs"]);
  const { quietMs = QUIET_MS, timeoutMs = TIMEOUT_MS } = options;
  requireMs({ quietMs, timeoutMs });
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const quiet = handle.quietMs();
    if (quiet !== null && quiet >= quietMs) return { timedOut: false };
    const left = deadline - performance.now();
    if (left <= 0) return { timedOut: true };
    await pause(Math.min(left, quiet === null ? LOOK_MS : Math.max(LOOK_MS, quietMs - quiet)));
  }
};
