/** A primary that confirms a commit once its standby has it, and that standby. */
import { startPostgres } from "./postgres.ts";
import { until } from "./waiting.ts";

const IN_STEP_WITHIN_MS = 30_000;
const STANDBY = "standby";

/** Starts both. */
export async function startPair() {
  const primary = await startPostgres();
  await primary.stop();
  primary.config.synchronous_standby_names = STANDBY;
  const follow = `host=127.0.0.1 port=${primary.port} user=postgres application_name=${STANDBY}`;
  const [standby] = await Promise.all([
    startPostgres({
      copyOf: primary.folder,
      files: { "standby.signal": "" },
      config: { primary_conninfo: follow },
    }),
    primary.start(),
  ]);
  const isInStep = async () => {
    const [row] = await primary.query("SELECT sync_state FROM pg_stat_replication");
    return row?.sync_state === "sync";
  };
  await until(isInStep, "the standby follows its primary", IN_STEP_WITHIN_MS);

  return {
    primary,
    standby,
    /** Kills the primary and makes the standby the new one. */
    failOver: async () => {
      await primary.kill();
      await standby.promote();
    },
    stop: async () => {
      await Promise.all([primary.stop("immediate"), standby.stop("immediate")]);
    },
  };
}
