/** What needs no driver. */
"use strict";

const addon = require("./realm.js");

exports.buildReplayText = function buildReplayText(events, maxChars) {
  return addon.buildReplayText(events, maxChars);
};

exports.postgresSchemaSql = function postgresSchemaSql(schema, options) {
  return addon.postgresSchemaSql(schema, options);
};
