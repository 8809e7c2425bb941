// Training episodes on demand: the server plays them again, and says how far it is.

import { ApiError, getJson, runUrl } from "./api.js";

const PERIOD_MS = 300;

/**
 * Have a training episode rebuilt.
 *
 * @param {string} run the run's id
 * @param {number} episode its number
 * @param {(progress: number) => boolean} onProgress called with 0 to 1; false gives up waiting
 * @return {Promise<object | null>} its video, null if nobody waits for it any more
 * @throws {ApiError} it cannot be rebuilt
 */
export async function rebuild(run, episode, onProgress) {
  const url = runUrl(run, "training", episode);
  let answer = await getJson(url, { method: "POST" });
  while (answer.state !== "ready") {
    if (answer.state === "failed" || answer.state === "none") {
      throw new ApiError(answer.error ?? `Episode ${episode} could not be rebuilt.`, 500);
    }
    if (!onProgress(answer.progress)) return null;
    await new Promise((resolve) => setTimeout(resolve, PERIOD_MS));
    answer = await getJson(url);
  }
  return onProgress(1) ? answer.video : null;
}
