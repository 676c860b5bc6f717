/**
 * The package may be there more than once, as where an application has it under two names. Copies in
 * one realm that have the addon in common, and so are of one version, share their classes: a driver of
 * one is an instance of the other's.
 */
"use strict";

const { Binding } = require("./load.js");

const COPIES = Symbol.for("sandbox-agent-persist.copies");

/** What the first copy has made, for this copy too. */
exports.shared = (make) => {
  if (!Object.hasOwn(globalThis, COPIES)) {
    Object.defineProperty(globalThis, COPIES, { value: new WeakMap() });
  }
  const copies = globalThis[COPIES];
  if (!copies.has(Binding)) copies.set(Binding, make());
  return copies.get(Binding);
};
