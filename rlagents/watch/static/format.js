// Numbers, durations and dates as people read them.

const COUNT = new Intl.NumberFormat("en-US");
const SHORT = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });

/** Return a count with separators: 12,345; a dash for none. */
export function count(value) {
  return Number.isFinite(value) ? COUNT.format(value) : "–";
}

/** Return a count in few letters: 12.3K; a dash for none. */
export function short(value) {
  return Number.isFinite(value) ? SHORT.format(value) : "–";
}

/** Return a number with at most `digits` decimals, none that are zero; a dash for none. */
export function number(value, digits = 2) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 10 ** -digits) return value.toExponential(1);
  return value.toLocaleString("en-US", { maximumFractionDigits: digits });
}

/** Return a share, 0 to 1, and what it is of: 97 % completed; nothing for none. */
export function percent(share, what) {
  return Number.isFinite(share) ? `${Number((100 * share).toPrecision(3))} % ${what}` : "";
}

/** Return a number with a fixed number of decimals and a true minus. */
export function fixed(value, digits) {
  if (value === null || !Number.isFinite(value)) return "–";
  return value.toFixed(digits).replace("-", "−");
}

/** Return a duration: 45 s, 12 min, 3.2 h. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${number(seconds / 3600, 1)} h`;
  return `${number(seconds / 86400, 1)} days`;
}

/** Return how long ago something was. */
export function ago(epoch) {
  if (!epoch) return "–";
  const seconds = Date.now() / 1000 - epoch;
  return seconds < 5 ? "now" : `${duration(seconds)} ago`;
}

/** Return a position in a video: 1:02.35. */
export function clock(seconds) {
  const hundredths = Math.floor(Math.max(0, seconds) * 100 + 1e-6);
  const minutes = Math.floor(hundredths / 6000);
  const rest = ((hundredths % 6000) / 100).toFixed(2);
  return `${minutes}:${rest.padStart(5, "0")}`;
}

/** Return which of an evaluation's episodes a video shows; nothing for the first. */
export function numberOf(video) {
  if (video.kind === "tiled") return ", several at once";
  return video.episode ? `, episode ${count(video.episode)}` : "";
}

/** Return how an episode was not played as in training; nothing where it was. */
export function otherwise(video) {
  return video.otherwise ? `, ${video.otherwise}` : "";
}

/** Return what a video shows, in few words. */
export function videoTitle(video) {
  const end = (video.completed ? ", completed" : "") + otherwise(video);
  return video.kind === "training"
    ? `Training episode ${count(video.episode)}${end}`
    : `Evaluation at ${count(video.step)} steps${numberOf(video)}${end}`;
}
