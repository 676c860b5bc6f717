/** A backup, with a look at it now and then. */
"use strict";

// Not the global ones: an application's tests may have put others there, which stand still.
const { clearInterval, setInterval } = require("node:timers");
const { requireFunction, requireOptions, requireSignal } = require("./options.js");

/** Between two looks. */
const LOOK_MS = 100;

/** `handle` is the driver's, `submit` what to call in its place to have the call told of. */
exports.backup = async (handle, submit, path, options = {}) => {
  const { onProgress, signal, fileMode } = read(options);
  if (signal?.aborted) throw signal.reason;
  const { bytes } = await handle.stats();
  const job = handle.newBackup();
  const abort = () => job.cancel();
  const look = () => {
    const copied = job.bytes();
    onProgress?.({ bytes: copied, totalBytes: Math.max(copied, bytes.database) });
  };
  const timer = setInterval(look, LOOK_MS);
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  try {
    await submit.backup(path, fileMode, job);
    const copied = job.bytes();
    onProgress?.({ bytes: copied, totalBytes: copied });
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw error;
  } finally {
    clearInterval(timer);
    signal?.removeEventListener("abort", abort);
  }
};

function read(options) {
  requireOptions(options, ["onProgress", "signal", "fileMode"]);
  const { onProgress, signal, fileMode } = options;
  requireFunction("options.onProgress", onProgress);
  requireSignal("options.signal", signal);
  return { onProgress, signal, fileMode };
}
