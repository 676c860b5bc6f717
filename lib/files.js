/** Calls that write a file, with a look at it now and then. */
"use strict";

// Not the global ones: an application's tests may have put others there, which stand still.
const { clearInterval, setInterval } = require("node:timers");
const { requireFunction, requireOptions, requireSignal } = require("./options.js");

/** Between two looks. */
const LOOK_MS = 100;

/** `handle` is the driver's, `submit` what to call in its place to have the call told of. */
exports.backup = async (handle, submit, path, options = {}) => {
  requireOptions(options, ["onProgress", "signal", "fileMode"]);
  const { onProgress, signal, fileMode } = options;
  await watched(handle, { onProgress, signal }, (job) => submit.backup(path, fileMode, job));
};

/** As `backup`. */
exports.shrink = async (handle, submit, options = {}) => {
  requireOptions(options, ["onProgress", "signal"]);
  return watched(handle, options, (job) => submit.shrink(job));
};

/** What a call gives that writes a file. Aborting rejects with the signal's reason. */
async function watched(handle, { onProgress, signal }, begin) {
  requireFunction("options.onProgress", onProgress);
  requireSignal("options.signal", signal);
  if (signal?.aborted) throw signal.reason;
  const { bytes } = await handle.stats();
  const job = handle.newFileJob();
  const abort = () => job.cancel();
  let failure;
  const look = () => {
    const written = job.bytes();
    try {
      onProgress?.({ bytes: written, totalBytes: Math.max(written, bytes.database) });
    } catch (error) {
      failure ??= { error };
      abort();
    }
  };
  const timer = setInterval(look, LOOK_MS);
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  try {
    const result = await begin(job);
    if (failure !== undefined) throw failure.error;
    const written = job.bytes();
    onProgress?.({ bytes: written, totalBytes: written });
    return result;
  } catch (error) {
    if (failure !== undefined) throw failure.error;
    if (signal?.aborted) throw signal.reason;
    throw error;
  } finally {
    clearInterval(timer);
    signal?.removeEventListener("abort", abort);
  }
}
