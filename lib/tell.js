/** Telling a user's `onError` of an error. */
"use strict";

const KIND = "SandboxAgentPersistWarning";
let hasWarned = false;

/** What it throws, or rejects with, is a warning of the process, once: nobody else is to fail by it. */
exports.tell = (onError, error, operation, sessionId) => {
  const context = sessionId === null ? { operation } : { operation, sessionId };
  try {
    const told = onError(error, context);
    if (typeof told?.then === "function") told.then(undefined, warn);
  } catch (reason) {
    warn(reason);
  }
};

function warn(reason) {
  if (hasWarned) return;
  hasWarned = true;
  process.emitWarning(`onError failed: ${textOf(reason)}`, KIND);
}

function textOf(reason) {
  try {
    return String(reason);
  } catch {
    return "what it threw can't be shown";
  }
}
