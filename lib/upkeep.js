/**
 * What pruning and compaction have in common: both find what has to be done by reading, off the path of
 * writes, and do it in steps that the addon sizes so that nobody waits long for one. Each step looks again,
 * in the transaction that deletes.
 */
"use strict";

// Not the global ones: an application's tests may have put others there, which stand still.
const { performance } = require("node:perf_hooks");
const { setTimeout } = require("node:timers");
const { invalidArgument } = require("./errors.js");
const { requireFunction, requireMs, requireSignal } = require("./options.js");

/** Between two tries, while another process works. */
const ELSEWHERE_MS = 100;
/** Between two calls of `onProgress`. */
const PROGRESS_MS = 100;

/** The names of options that say how. */
exports.HOW = ["dryRun", "maxDurationMs", "signal", "onProgress"];

/** How such a work is to be done, out of options. */
exports.readHow = ({ dryRun = false, maxDurationMs, signal, onProgress }) => {
  if (typeof dryRun !== "boolean") throw invalidArgument("options.dryRun must be true or false");
  if (maxDurationMs !== undefined) requireMs({ maxDurationMs });
  requireSignal("options.signal", signal);
  requireFunction("options.onProgress", onProgress);
  const end = performance.now() + (maxDurationMs ?? Infinity);
  return {
    isDry: dryRun,
    isOver: () => signal?.aborted === true || performance.now() >= end,
    tell: atMostEvery(PROGRESS_MS, onProgress),
    tellLast: onProgress ?? (() => {}),
    pause: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  };
};

/** How it is done where nobody has called for it. */
exports.inBackground = (isOver) => ({
  isDry: false,
  isOver,
  tell() {},
  pause: (ms) => new Promise((resolve) => setTimeout(resolve, ms).unref()),
  onlyAlone: true,
});

/**
 * One step, `take`, that others rest from for as long as it took; again while another process works,
 * unless that ends it: `undefined`.
 */
exports.step = async ({ isDry, pause, onlyAlone }, take) => {
  for (;;) {
    const begun = performance.now();
    const came = await take();
    if (!came.isElsewhere) {
      if (!isDry) await pause(performance.now() - begun);
      return came;
    }
    if (onlyAlone) return undefined;
    await pause(ELSEWHERE_MS);
  }
};

/** Pages of ids of sessions that something may have to be done for. */
exports.candidates = async function* (submit, of, isOver) {
  let cursor;
  do {
    if (isOver()) return;
    const page = await submit.pruneCandidates(of, cursor);
    yield page.items;
    cursor = page.nextCursor;
  } while (cursor !== undefined);
};

/** Pages of ids of sessions that have events and no record. */
exports.withoutRecord = async function* (submit, isOver) {
  let last;
  for (;;) {
    if (isOver()) return;
    const { items } = await submit.sessionsWithoutRecord({}, last);
    if (items.length === 0) return;
    yield items;
    last = items.at(-1);
  }
};

/** Calls a function no more often than that. */
function atMostEvery(ms, call = () => {}) {
  let last = -Infinity;
  return (value) => {
    const now = performance.now();
    if (now - last < ms) return;
    last = now;
    call(value);
  };
}
