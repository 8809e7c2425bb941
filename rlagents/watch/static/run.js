// The page of one run: what it is, how it learns, and how it plays.

import { Resource, poll, runUrl } from "./api.js";
import { readAddress, writeAddress } from "./address.js";
import { badge, setState } from "./badge.js";
import { fillConfig } from "./config.js";
import { byId, choice, el, setText } from "./dom.js";
import { ago, count, duration, number, percent, videoTitle } from "./format.js";
import { LearningCurve } from "./learning.js";
import { Multiples } from "./metrics.js";
import { notify, settle } from "./notices.js";
import { Player } from "./player.js";
import { rebuild } from "./rebuild.js";
import { VideoList, latestVideo } from "./video-list.js";

const LIVE_MS = 2000;
const QUIET_MS = 5000;
const ADDRESS_MS = 1000;

const run = byId("main").dataset.run;
const player = new Player();
const { screen } = player;
const curve = new LearningCurve(byId("curve"), { playVideo, playEpisode });
const multiples = new Multiples(byId("metrics"));
const list = new VideoList(byId("videos"), playVideo);
const stateBadge = badge();
const detailsSource = new Resource(runUrl(run));
const curvesSource = new Resource(`${runUrl(run, "curves")}?points=800`);

let details = null;
let curves = null;
let axis = readAddress().x === "time" ? "time" : "step";
let waitingFor = null; // the training episode that is being rebuilt
let known = new Set(); // the videos that were there at the last look
const rebuilt = new Map(); // training episodes that were rebuilt since the page was opened
let addressTimer = null;
const moments = makeMoments();

function makeMoments() {
  const of = (name, label, act) => {
    const detail = el("span", { class: "quiet" });
    const button = el("button", { type: "button", disabled: true, "data-moment": name, click: act }, `${label} `, detail);
    byId("moments").append(button);
    return { button, detail };
  };
  const episode = (name) => () => playEpisode(details.milestones[name].episode);
  return {
    best: of("best", "Best", episode("best")),
    worst: of("worst", "Worst", episode("worst")),
    first_point: of("first_point", "First point", episode("first_point")),
    latest: of("latest", "Latest video", () => playVideo(latestVideo(details.videos).id)),
  };
}

function showDetails() {
  setState(stateBadge, details.state);
  showFacts();
  showRemarks();
  for (const name of ["best", "worst", "first_point"]) {
    const episode = details.milestones[name];
    moments[name].button.disabled = !episode || !details.can_rebuild;
    moments[name].button.title = episode
      ? `Training episode ${count(episode.episode)}, at ${count(episode.step)} steps`
      : "There is no such episode yet";
    setText(moments[name].detail, episode ? number(episode.return).replace("-", "−") : "");
  }
  moments.latest.button.disabled = latestVideo(details.videos) === null;
  byId("number").max = Math.max(0, details.episodes - 1);
  byId("click-hint").hidden = !details.can_rebuild;
  setText(byId("rebuild-note"), details.can_rebuild ? "" : (details.why_not ?? ""));
  setText(byId("videos-count"), String(details.videos.length));
  list.draw(details.videos, screen.video);
  fillConfig(details);
}

/** Return the steps a second: now, or of the whole run once it is over, whose last line tells of an evaluation. */
function speedOf(series) {
  const last = (series?.value.length ?? 0) - 1;
  if (last < 0) return null;
  return details.state === "running" ? series.value[last] : series.step[last] / series.wall_time_s[last];
}

/** Return a mean return and, where it is told, the share of episodes that were completed. */
function result(meanReturn, successRate) {
  return [number(meanReturn), percent(successRate, "completed")].filter(Boolean).join(", ");
}

function showFacts() {
  const { metrics } = curves ?? { metrics: {} };
  const speed = speedOf(metrics["charts/SPS"]);
  const best = details.best_evaluation;
  const left = details.total_steps - details.step;
  const facts = [
    ["Environment", details.env_id],
    ["Agent", details.agent],
    ["Recipe", details.recipe],
    ["Seed", details.seed],
    ["Steps", `${count(details.step)} / ${count(details.total_steps)}`],
    ["Steps/s", speed === null ? "–" : number(speed, 0)],
    ["Best evaluation", best ? `${result(best.mean_return, best.success_rate)} at ${count(best.step)}` : "–"],
    ["Mean of last 100", result(details.recent_return, details.success_rate)],
    details.state === "running" && speed
      ? ["Left", `about ${duration(left / speed)}`]
      : ["Updated", ago(details.updated)],
  ];
  const element = byId("facts");
  facts.forEach(([name, value], place) => {
    if (!element.children[place]) element.append(el("div", {}, el("dt"), el("dd")));
    const [term, text] = element.children[place].children;
    setText(term, name);
    setText(text, String(value ?? "–").replace(/^-(?=\d)/, "−"));
  });
}

function showRemarks() {
  const remarks = [
    ...(details.error ? [["error", details.error]] : []),
    ...(details.problem ? [["error", details.problem]] : []),
    ...details.notes.map((note) => ["note", note]),
  ];
  const signature = JSON.stringify(remarks);
  if (byId("remarks").dataset.signature === signature) return;
  byId("remarks").dataset.signature = signature;
  byId("remarks").replaceChildren(...remarks.map(([kind, text]) => el("p", { class: `remark ${kind}`, text })));
}

function showCurves() {
  if (!details || !curves) return;
  curve.draw(details, curves, axis, screen.video);
  multiples.draw(curves.metrics, axis);
}

/** Return when a training episode ended, null if the curve does not have it. */
function timeOf(episode) {
  const rows = curves?.training.episodes ?? [];
  return rows.find((row) => row.episode === episode)?.wall_time_s ?? null;
}

/** Play a video of the run; `options` go to the screen. */
async function show(video, options = {}) {
  waitingFor = null;
  setText(byId("watching-title"), videoTitle(video));
  const load = screen.load(run, video, {
    pixel: details.config?.recording?.scale ?? 1,
    names: details.action_names,
    overlay: screen.overlay,
    ...options,
  });
  list.draw(details.videos, video);
  showCurves();
  await load;
}

/** Add the episodes that were rebuilt to the videos that the server lists. */
function addRebuilt() {
  const listed = new Set(details.videos.map((video) => video.id));
  details.videos.push(...[...rebuilt.values()].filter((video) => !listed.has(video.id)));
}

/** Return which training episode an id names, null if it is a video's that was recorded. */
function episodeOf(id) {
  const match = /^training-(\d+)$/.exec(id ?? "");
  return match && Number(match[1]);
}

function playVideo(id) {
  if (episodeOf(id) !== null) {
    playEpisode(episodeOf(id));
    return;
  }
  const video = details.videos.find((candidate) => candidate.id === id);
  if (!video) return;
  focusPlayer();
  show(video, { play: true });
}

/** Play a training episode. The server is asked each time: it keeps the last ones only. */
async function playEpisode(episode, options = { play: true }) {
  focusPlayer();
  if (!details.can_rebuild) {
    notify("rebuild", details.why_not ?? "Training episodes of this run cannot be rebuilt.");
    return;
  }
  waitingFor = episode;
  screen.pause();
  const text = `Playing training episode ${count(episode)} again…`;
  screen.say(text, 0);
  try {
    const video = await rebuild(run, episode, (progress) => {
      if (waitingFor === episode) screen.say(text, progress);
      return waitingFor === episode;
    });
    if (!video) return;
    settle("rebuild");
    rebuilt.set(video.id, { ...video, wall_time_s: timeOf(episode) });
    addRebuilt();
    setText(byId("videos-count"), String(details.videos.length));
    await show(video, options);
    refresh();
  } catch (error) {
    if (waitingFor !== episode) return;
    waitingFor = null;
    screen.say(error.message);
    notify("rebuild", error.message);
  }
}

function focusPlayer() {
  player.element.focus({ preventScroll: true });
  const box = byId("watching").getBoundingClientRect();
  if (box.top < 0 || box.top > window.innerHeight * 0.6) {
    byId("watching").scrollIntoView({ behavior: "smooth", block: "start" });
  }
}

/** Show what the address asks for, else the latest video, at rest. */
function showFirst() {
  const { video: id, t, overlay } = readAddress();
  const options = { time: Number(t) || 0, overlay: overlay ?? null };
  const video = details.videos.find((candidate) => candidate.id === id);
  if (episodeOf(id) !== null) playEpisode(episodeOf(id), options);
  else if (video) show(video, options);
  else if (latestVideo(details.videos)) {
    if (id) notify("address", `This run has no video ${id}; the latest one is shown.`);
    show(latestVideo(details.videos));
  } else {
    screen.say(
      details.can_rebuild
        ? "No video has been recorded yet. Click a point of the curve to watch that episode."
        : "No video has been recorded yet.",
    );
  }
}

/** Play what was recorded since the last look, if that is wanted and nothing else is playing. */
function follow() {
  const latest = latestVideo(details.videos);
  const fresh = latest && !known.has(latest.id);
  known = new Set(details.videos.map((video) => video.id));
  if (!fresh) return;
  if (screen.video === null && waitingFor === null) show(latest);
  else if (byId("follow").checked && screen.paused && waitingFor === null) show(latest, { play: true });
}

function keepAddress() {
  addressTimer = null;
  if (!screen.episode) return;
  // A quarter into the picture, so that rounding does not fall back to the one before.
  const time = (screen.frame + 0.25) / screen.fps;
  writeAddress({
    video: screen.video.id, t: time.toFixed(3), overlay: screen.overlay,
    x: axis === "time" ? "time" : null,
  });
}

async function update() {
  const changed = await detailsSource.read();
  const first = details === null;
  if (changed) {
    details = changed;
    addRebuilt();
    showDetails();
  }
  if (first) {
    byId("grid").hidden = false;
    known = new Set(details.videos.map((video) => video.id));
    showFirst();
  } else follow();
  const fresh = await curvesSource.read();
  if (fresh) curves = fresh;
  if (fresh || changed) {
    showFacts();
    showCurves();
  }
  settle("deleted");
}

/** Say what keeps a run from being shown; what was read before stays on the page. */
function onError(error) {
  if (details === null) {
    setState(stateBadge, "unreadable");
    byId("remarks").replaceChildren(el("p", { class: "remark error", text: error.message }));
    byId("grid").hidden = true;
  } else if (error.status === 404) {
    notify("deleted", `${error.message} What was read before stays here.`);
  } else return false;
  return true;
}

byId("state").append(stateBadge);
byId("player").append(player.element);
choice(byId("axis"), [["step", "Steps"], ["time", "Time"]], axis, (value) => {
  axis = value;
  writeAddress({ x: axis === "time" ? "time" : null });
  showCurves();
});
byId("episode").addEventListener("submit", (event) => {
  event.preventDefault();
  if (details && byId("number").value !== "") playEpisode(Number(byId("number").value));
});
for (const name of ["frame", "state", "loaded"]) {
  screen.addEventListener(name, () => (addressTimer ??= setTimeout(keepAddress, ADDRESS_MS)));
}
screen.addEventListener("problem", (event) => notify("video", event.detail));
screen.addEventListener("loaded", () => settle("video"));
window.addEventListener("hashchange", () => details && showFirst());
const refresh = poll(update, () => (details?.state === "running" ? LIVE_MS : QUIET_MS), onError);
