// Several runs, or several moments of one: side by side in step, and as curves over seeds.

import { ApiError, Resource, getJson, poll, runUrl } from "./api.js";
import { readAddress, writeAddress } from "./address.js";
import { Chart, faint, literal, timeUnit } from "./charts.js";
import { byId, choice, el, setText } from "./dom.js";
import { Ensemble } from "./ensemble.js";
import { count, number, numberOf, otherwise, short } from "./format.js";
import { notify, settle } from "./notices.js";
import { Panel } from "./panel.js";
import { OverlaySwitch, nextReward } from "./player.js";
import { Screen } from "./screen.js";
import { Strip } from "./strip.js";
import { colour } from "./theme.js";
import { Transport } from "./transport.js";
import { latestVideo, sortVideos } from "./video-list.js";

const MOST_PLAYERS = 4;
const PERIOD_MS = 5000;
const ADDRESS_MS = 1000;

const runs = [...new Set(JSON.parse(byId("main").dataset.runs))];
const sources = new Map(runs.map((run) => [run, new Resource(runUrl(run))]));
const details = new Map();
const settings = { x: "step", what: "evaluation", statistic: "mean", ...chosenSettings() };
const chart = new Chart(byId("curve"));
let seats = [];
let ensemble = null;
let curves = null;
let addressTimer = null;

/** Return what the address says about the curves. */
function chosenSettings() {
  const { x, what, statistic } = readAddress();
  return {
    ...(x === "time" && { x: "time" }),
    ...(what === "training" && { what }),
    ...(statistic === "iqm" && { statistic }),
  };
}

/** One of the players: which run, which video, and the screen. */
class Seat {
  constructor(place) {
    this.place = place;
    this.screen = new Screen();
    this.panel = new Panel(this.screen);
    this.strip = new Strip(this.screen, (time) => ensemble.seek(time));
    this.overlay = new OverlaySwitch(this.screen);
    this.runSelect = el(
      "select", { "aria-label": `Run of player ${place + 1}`, change: () => this.choose(this.runSelect.value) },
      ...runs.map((run) => el("option", { value: run, text: run })),
    );
    this.videoSelect = el("select", {
      "aria-label": `Video of player ${place + 1}`,
      change: () => this.show(this.runSelect.value, this.videoSelect.value),
    });
    this.element = el(
      "section", { class: "seat player", "aria-label": `Player ${place + 1}` },
      el("div", { class: "seat-head" }, this.runSelect, this.videoSelect, this.overlay.element),
      el("div", { class: "watch-grid" }, this.screen.element, this.panel.element),
      this.strip.element,
    );
    this.screen.element.addEventListener("click", () => {
      if (!this.screen.episode) return;
      if (ensemble.paused) ensemble.play();
      else ensemble.pause();
    });
    this.screen.addEventListener("frame", () => (this.element.dataset.frame = this.screen.frame));
    this.screen.addEventListener("problem", (event) => notify(`video-${place}`, event.detail));
    this.screen.addEventListener("loaded", () => {
      this.element.dataset.video = this.screen.video.id;
      this.element.classList.add("ready");
      settle(`video-${place}`);
    });
  }

  /** Choose a run; the video is the one that is named, else the latest. */
  choose(run, id = null, time = ensemble.time) {
    this.runSelect.value = run;
    const videos = this.list(run);
    const found = videos.find((video) => video.id === id) ?? latestVideo(videos) ?? videos[0];
    if (found) this.show(run, found.id, time);
    else this.screen.say("This run has no video yet.");
  }

  /** Offer the videos of a run, and return them; the one that was chosen stays so. */
  list(run) {
    const videos = sortVideos(details.get(run)?.videos ?? []);
    const ids = [run, ...videos.map((video) => video.id)].join("/");
    if (ids === this.listed) return videos;
    this.listed = ids;
    const chosen = this.videoSelect.value;
    this.videoSelect.replaceChildren(
      ...videos.map((video) => el("option", { value: video.id, text: optionOf(video) })),
    );
    if (videos.some((video) => video.id === chosen)) this.videoSelect.value = chosen;
    this.videoSelect.disabled = videos.length === 0;
    return videos;
  }

  async show(run, id, time = ensemble.time) {
    const { videos, config, action_names: names } = details.get(run);
    this.videoSelect.value = id;
    ensemble.pause();
    await this.screen.load(run, videos.find((video) => video.id === id), {
      time, names, pixel: config?.recording?.scale ?? 1, overlay: this.screen.overlay,
    });
  }
}

function optionOf(video) {
  const what = video.kind === "training"
    ? `training episode ${count(video.episode)}`
    : `${short(video.step)} steps${numberOf(video)}${otherwise(video)}`;
  return `${what}: ${number(video.return)}`;
}

/** Take the seats: a run each, or two for two moments of a single run. */
function takeSeats() {
  const shown = runs.length === 1 ? [runs[0], runs[0]] : runs.slice(0, MOST_PLAYERS);
  seats = shown.map((_, place) => new Seat(place));
  const screens = seats.map((seat) => seat.screen);
  ensemble = new Ensemble(screens);
  const transport = new Transport(ensemble, byId("side-by-side"), () =>
    nextReward(screens, (time) => ensemble.seek(time)));
  byId("transport").append(transport.element);
  byId("players").append(...seats.map((seat) => seat.element));
  for (const name of ["frame", "state", "loaded"]) {
    ensemble.addEventListener(name, () => (addressTimer ??= setTimeout(keepAddress, ADDRESS_MS)));
  }
  const address = readAddress();
  shown.forEach((run, place) => {
    const [given, id] = (address[`p${place}`] ?? "").split("/");
    const asked = runs.includes(given) ? given : run;
    const first = sortVideos(details.get(asked)?.videos ?? [])[0]?.id ?? null;
    // Two moments of one run: its first video beside its latest.
    const other = runs.length === 1 && place === 0 ? first : null;
    seats[place].choose(asked, id ?? other, Number(address.t) || 0);
  });
}

function keepAddress() {
  addressTimer = null;
  const players = seats.map((seat, place) => [
    `p${place}`, seat.screen.video ? `${seat.screen.run}/${seat.screen.video.id}` : null,
  ]);
  writeAddress({ ...Object.fromEntries(players), t: (ensemble.time + 0.004).toFixed(3) });
}

async function readDetails() {
  await Promise.all(runs.map(async (run) => {
    try {
      const changed = await sources.get(run).read();
      if (changed) details.set(run, changed);
      settle(`run-${run}`);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 0) throw error;
      notify(`run-${run}`, error.message);
    }
  }));
}

async function update() {
  await readDetails();
  if (!ensemble) takeSeats();
  else for (const seat of seats) seat.list(seat.runSelect.value);
  if (details.size) await readCurves();
}

async function readCurves() {
  const query = wanted();
  const answer = await getJson(`/api/curves?${query}`);
  if (query !== wanted()) return; // the switches have moved on meanwhile
  curves = answer;
  drawCurves();
}

/** Return the query that the switches ask for. */
function wanted() {
  const query = new URLSearchParams(runs.filter((run) => details.has(run)).map((run) => ["run", run]));
  query.append("x", settings.x === "time" ? "wall_time_s" : "step");
  query.append("what", settings.what);
  query.append("statistic", settings.statistic);
  return query.toString();
}

function drawCurves() {
  const { x, what, statistic } = settings;
  chart.draw(() => {
    const inTime = x === "time";
    const ends = curves.groups.map((group) => group.x[group.x.length - 1] ?? 0);
    const unit = inTime ? timeUnit(Math.max(0, ...ends)) : { title: "agent steps", divide: 1 };
    return {
      traces: curves.groups.flatMap((group, place) => groupTraces(group, place, unit)),
      layout: {
        uirevision: `${x} ${what}`,
        showlegend: true,
        margin: { t: 30 },
        xaxis: { title: { text: unit.title } },
        yaxis: { title: { text: `${what} return, ${statistic === "iqm" ? "interquartile mean" : "mean"}` } },
      },
    };
  });
  byId("groups").replaceChildren(
    ...curves.groups.map((group, place) => el(
      "li", {},
      el("span", { class: "swatch", style: `background: var(--series-${place % 6})` }),
      el("span", { text: group.label }),
      el("span", { class: "quiet", text: ` ${group.runs.length === 1 ? "1 run" : `${group.runs.length} runs`}: ${group.runs.join(", ")}` }),
    )),
  );
  const standing = "Runs that differ in nothing but the seed are one group; the band covers 95 %.";
  setText(byId("curve-notes"), [standing, ...curves.notes].join(" "));
}

function groupTraces(group, place, unit) {
  const series = `--series-${place % 6}`;
  const x = group.x.map((value) => value / unit.divide);
  const shared = { type: "scatter", x, legendgroup: String(place) };
  const edge = { ...shared, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
  return [
    { ...edge, y: group.low },
    { ...edge, y: group.high, fill: "tonexty", fillcolor: faint(series, 0.16) },
    {
      ...shared, y: group.center, name: literal(group.label),
      mode: group.x.length > 40 ? "lines" : "lines+markers",
      line: { color: colour(series), width: 2.2 }, marker: { size: 5 },
      customdata: group.center.map((_, at) => [group.low[at], group.high[at]]),
      hovertemplate: `%{y:.4~g} (%{customdata[0]:.4~g} to %{customdata[1]:.4~g})<extra></extra>`,
    },
  ];
}

function makeSwitches(refresh) {
  const set = (key) => (value) => {
    settings[key] = value;
    writeAddress({ [key]: value });
    refresh();
  };
  choice(byId("what"), [["evaluation", "Evaluation"], ["training", "Training"]], settings.what, set("what"));
  choice(byId("statistic"), [["mean", "Mean"], ["iqm", "IQM"]], settings.statistic, set("statistic"));
  choice(byId("axis"), [["step", "Steps"], ["time", "Time"]], settings.x, set("x"));
}

if (runs.length === 0) {
  byId("empty").hidden = false;
  byId("side-by-side").hidden = true;
  byId("curves").hidden = true;
} else {
  setText(byId("names"), runs.join(", "));
  makeSwitches(poll(update, () => PERIOD_MS));
}
