/**
 * Retention: a driver that prunes by itself, within seconds of its first write, each minute, and when a
 * session that it writes has grown. Its timers keep neither the process nor the driver alive.
 */
"use strict";

// Not the global ones: an application's tests may have put others there, which stand still.
const { performance } = require("node:perf_hooks");
const { clearInterval, setInterval } = require("node:timers");
const { Compaction } = require("./compact.js");
const { Pass } = require("./prune.js");
const { inBackground } = require("./upkeep.js");

/** Between two looks whether there is something to do. */
const LOOK_MS = 250;
/** Between the beginnings of two passes … */
const EACH_MS = 60_000;
/** … and of two that look at all sessions, and not only at those that this driver has written. */
const ALL_EACH_MS = 3_600_000;
/** A session has grown by this share of what it may have. */
const GROWTH = 0.1;

/** Keeps the store of a handle within limits for as long as the handle is used. */
exports.keepWithin = (limits, handle) => {
  const { maxEventsPerSession = Infinity } = limits;
  handle.watchGrowth(Math.ceil(maxEventsPerSession * GROWTH));
  // The timer must not be why the driver is never collected.
  const weak = new WeakRef(handle);
  const retention = new Retention(limits);
  const timer = setInterval(() => {
    const handle = weak.deref();
    if (handle === undefined || isClosed(handle) || retention.isOver) clearInterval(timer);
    else void retention.look(handle);
  }, LOOK_MS);
  timer.unref();
};

class Retention {
  #limits;
  #isWorking = false;
  #lastBegun = -Infinity;
  #lastOfAll = -Infinity;
  /** Sessions that this driver has written, and that aren't compacted since. */
  #written = new Set();
  /** Whether it was seen that the store can be written. */
  #isWritable = false;
  /** Whether it never will be pruned. */
  isOver = false;

  constructor(limits) {
    this.#limits = limits;
  }

  async look(handle) {
    const wasUsed = handle.quietMs() !== Infinity;
    if (this.#isWorking || !wasUsed) return;
    this.#isWorking = true;
    try {
      await this.#work(handle);
    } catch (error) {
      // Else onError was told, and what is left will be found again.
      if (error.code === "ERR_PERSIST_READ_ONLY") this.#giveUp();
    } finally {
      this.#isWorking = false;
    }
  }

  async #work(handle) {
    const grown = handle.takeGrown();
    const isDue = performance.now() - this.#lastBegun >= EACH_MS;
    if (!isDue && grown.length === 0) return;
    const submit = handle.forRetention();
    const how = inBackground(() => isClosed(handle));
    const pass = new Pass(handle, submit, how);
    if (!isDue) return void (await pass.trim(grown, this.#limits.maxEventsPerSession));
    this.#lastBegun = performance.now();
    if (!this.#isWritable) {
      await submit.prune({ sessions: [], before: 0 });
      this.#isWritable = true;
    }
    const written = handle.takeWritten();
    const isOfAll = written === null || performance.now() - this.#lastOfAll >= ALL_EACH_MS;
    if (await (isOfAll ? this.#all(pass, submit, how) : this.#those(written, pass, submit, how))) {
      if (isOfAll) this.#lastOfAll = this.#lastBegun;
    }
  }

  /** Whether it came to its end. */
  async #all(pass, submit, how) {
    this.#written.clear();
    if (!(await pass.run(this.#limits))) return false;
    const { compactAfter } = this.#limits;
    if (compactAfter === undefined) return true;
    const idleBefore = Date.now() - compactAfter;
    return new Compaction(submit, how, { idleBefore }).all({ before: idleBefore });
  }

  /** As `#all`, where what other sessions hold needn't be looked at. */
  async #those(written, pass, submit, how) {
    const { maxEventsPerSession, compactAfter, ...others } = this.#limits;
    if (maxEventsPerSession !== undefined && !(await pass.trim(written, maxEventsPerSession))) {
      return false;
    }
    if (!(await pass.run(others))) return false;
    if (compactAfter === undefined) return true;
    for (const id of written) this.#written.add(id);
    for (const id of this.#written) {
      const compaction = new Compaction(submit, how, { idleBefore: Date.now() - compactAfter });
      if (!(await compaction.of([id]))) return false;
      // Else it isn't at rest yet.
      if (compaction.progress.sessions > 0) this.#written.delete(id);
    }
    return true;
  }

  #giveUp() {
    this.isOver = true;
    try {
      process.emitWarning(
        "the store is read-only, so its retention has no effect: another driver must prune it",
        "SandboxAgentPersistWarning",
      );
    } catch {
      // An application's own: nobody is to fail by it.
    }
  }
}

const isClosed = (handle) => handle.health().state === "closed";
