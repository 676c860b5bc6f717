/**
 * The addon, for the realm that this file is loaded in: values and errors that it makes are of this
 * realm's classes. A context of `node:vm`, and so each test file of Jest, is a realm of its own, and
 * has the addon in common with the others.
 */
"use strict";

const { Binding } = require("./load.js");
const { tell } = require("./tell.js");

module.exports = new Binding(JSON.parse, JSON.stringify, Object, Error, TypeError, tell);
