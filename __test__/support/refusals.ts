/** What is refused, and that a refusal gives nothing away. */
import assert from "node:assert/strict";
import { inspect } from "node:util";
import { PostgresSessionPersistDriver } from "../../index.js";

/** What no error and no driver may show, and a part of it that survives any quoting. */
export const SECRET = "open sesame'\\&%";
export const HINT = /sesame/;

/** Everything that a look at an error or a driver shows. */
export const shown = (what: unknown) => inspect(what, { depth: 9, showHidden: true });

/** Options that the constructor must refuse. */
export function refuses(options: unknown, message: RegExp | string) {
  let thrown: unknown;
  try {
    new PostgresSessionPersistDriver(options as {});
  } catch (error) {
    thrown = error;
  }
  assert.ok(thrown instanceof TypeError, `${inspect(options)}: ${inspect(thrown)}`);
  assert.equal((thrown as any).code, "ERR_PERSIST_INVALID_ARG");
  if (typeof message === "string") assert.equal(thrown.message, message);
  else assert.match(thrown.message, message);
  assert.doesNotMatch(shown(thrown), HINT);
}

/** What a call rejected with: its class and code, and that it quotes no row, URL or password. */
export function assertRefused(
  outcome: PromiseSettledResult<unknown>,
  code: string,
  sqlState: string | undefined,
): Error & Record<string, unknown> {
  assert.ok(outcome.status === "rejected", "it resolved");
  const error = outcome.reason;
  assert.ok(error instanceof Error && !(error instanceof TypeError), shown(error));
  assert.deepEqual(
    [error.name, (error as any).code, (error as any).sqlState],
    ["Error", code, sqlState],
    shown(error),
  );
  assert.doesNotMatch(shown(error), HINT);
  assert.doesNotMatch(shown(error), /postgres(ql)?:\/\//);
  return error as Error & Record<string, unknown>;
}

/** The same of a call that is still on its way. */
export const refused = async (call: Promise<unknown>, code: string, sqlState?: string) =>
  assertRefused((await Promise.allSettled([call]))[0], code, sqlState);
