/** Telling a user's `onError` of an error. */
"use strict";

const KIND = "SandboxAgentPersistWarning";
const NESTED =
  "onError called a driver, and that call failed too: of such an error onError isn't told, as it would never end";
const warned = new Set();
let isTelling = false;

/** What it throws, or rejects with, is a warning of the process, once: nobody is to fail by it. */
exports.tell = (onError, error, operation, sessionId) => {
  if (isTelling) return warnOnce("nested", () => NESTED);
  const context = sessionId === null ? { operation } : { operation, sessionId };
  isTelling = true;
  try {
    const told = onError(error, context);
    if (typeof told?.then === "function") told.then(undefined, warn);
  } catch (reason) {
    warn(reason);
  } finally {
    isTelling = false;
  }
};

const warn = (reason) => warnOnce("failed", () => `onError failed: ${textOf(reason)}`);

function warnOnce(what, text) {
  if (warned.has(what)) return;
  warned.add(what);
  try {
    process.emitWarning(text(), KIND);
  } catch {
    // An application's own: nobody is to fail by it.
  }
}

function textOf(reason) {
  try {
    return String(reason);
  } catch {
    return "what it threw can't be shown";
  }
}
