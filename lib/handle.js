/**
 * The addon's `Driver` in an object of ours. It is under a symbol, not in a private field, so that
 * proxies of the object, and objects that inherit from it, are drivers too.
 */
"use strict";

const { invalidArgument } = require("./errors.js");

const HANDLE = Symbol("sandbox-agent-persist.handle");

/**
 * Makes an object hold a handle, for good and unseen by whoever copies or prints it. The handle is
 * frozen, as proxies that wrap what they give, such as Vue's, then give it as it is.
 */
exports.hold = (object, handle) =>
  Object.defineProperty(object, HANDLE, { value: Object.freeze(handle) });

/** Whether an object holds a handle. */
exports.holds = (object) => object?.[HANDLE] !== undefined;

/** The handle of `this`, in a method. */
exports.handleOf = (object) => {
  const handle = object?.[HANDLE];
  if (handle === undefined) {
    throw invalidArgument("a method must be called on the driver or the view that it belongs to");
  }
  return handle;
};
