/**
 * Async iterators over any number of rows: a page at a time, the next when the last is used up, so
 * that a slow reader holds no more than a page. Nothing is open between two pages.
 */
"use strict";

const { invalidArgument } = require("./errors.js");
const { requireSignal } = require("./options.js");

/** Sessions that satisfy the request. `handle` gives what to call for the next page. */
exports.streamSessions = (handle, request) =>
  stream(request, ({ signal, ...wanted }) =>
    rows((page) => handle().readSessions(page), wanted, signal),
  );

/** Events that satisfy the request, of one session or of all. */
exports.streamEvents = (handle, request) =>
  stream(request, ({ signal, ...wanted }) =>
    wanted.sessionId === undefined
      ? eventsOfAll(handle, wanted, signal)
      : eventsOf(handle, wanted, signal),
  );

/**
 * What is opened for the request as it is now: what the caller does with it later has no effect. A
 * wrong one is told of by `next()`, as any error is.
 */
function stream(request, open) {
  let wanted;
  try {
    wanted = read(request);
  } catch (error) {
    return rejecting(error);
  }
  return open(wanted);
}

async function* rejecting(error) {
  throw error;
}

function read(request = {}) {
  if (typeof request !== "object" || request === null) {
    throw invalidArgument("request must be an object");
  }
  const { cursor, limit, ...wanted } = request;
  if (cursor !== undefined || limit !== undefined) {
    throw invalidArgument("request.cursor and request.limit are of lists: a stream has no pages");
  }
  requireSignal("request.signal", wanted.signal);
  return wanted;
}

const eventsOf = (handle, wanted, signal) =>
  rows((page) => handle().readEvents(page), wanted, signal);

/**
 * Sessions in order, each with its events, then the events of sessions that have no record. Which
 * these are is asked first: one that gets its record meanwhile is met among the others, or not.
 */
async function* eventsOfAll(handle, wanted, signal) {
  const withoutRecord = await idsWithoutRecord(handle, wanted, signal);
  const events = (sessionId) => eventsOf(handle, { ...wanted, sessionId }, signal);
  const { order } = wanted;
  for await (const { id } of rows((page) => handle().readSessions(page), { order }, signal)) {
    withoutRecord.delete(id);
    yield* events(id);
  }
  for (const id of withoutRecord) yield* events(id);
}

async function idsWithoutRecord(handle, wanted, signal) {
  const ids = new Set();
  let last;
  do {
    if (signal?.aborted) throw signal.reason;
    const page = handle().sessionsWithoutRecord(wanted, last);
    const { items } = await unlessAborted(page, signal);
    for (const id of items) ids.add(id);
    last = items.at(-1);
  } while (last !== undefined);
  return ids;
}

async function* rows(readPage, wanted, signal) {
  let cursor;
  do {
    if (signal?.aborted) throw signal.reason;
    const { items, nextCursor } = await unlessAborted(readPage({ ...wanted, cursor }), signal);
    for (const item of items) {
      if (signal?.aborted) throw signal.reason;
      yield item;
    }
    cursor = nextCursor;
  } while (cursor !== undefined);
}

/** The promise, but rejected as soon as the signal is aborted. */
function unlessAborted(promise, signal) {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    const settled = () => signal.removeEventListener("abort", abort);
    promise.then(resolve, reject).then(settled, settled);
  });
}
