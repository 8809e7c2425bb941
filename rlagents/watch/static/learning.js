// The learning curve of a run: episodes, their mean, evaluations, and the videos on it.

import { Chart, faint, timeUnit } from "./charts.js";
import { otherwise, percent } from "./format.js";
import { colour } from "./theme.js";

/** The chart of a run; every point and every mark of it can be played. */
export class LearningCurve {
  #chart;

  /**
   * @param {HTMLElement} element where it is drawn
   * @param {object} actions what a click does
   * @param {(id: string) => void} actions.playVideo
   * @param {(episode: number) => void} actions.playEpisode
   */
  constructor(element, { playVideo, playEpisode }) {
    this.#chart = new Chart(element, (point) => {
      const { play, key } = point.customdata ?? {};
      if (play === "video") playVideo(key);
      if (play === "episode") playEpisode(key);
    });
  }

  /**
   * Draw the curve.
   *
   * @param {object} details of the run
   * @param {object} curves of the run
   * @param {"step" | "time"} axis
   * @param {object | null} shown the video in the player
   */
  draw(details, curves, axis, shown) {
    this.#chart.draw(() => drawing(details, curves, axis, shown));
  }
}

function drawing(details, curves, axis, shown) {
  const { episodes, mean } = curves.training;
  const inTime = axis === "time";
  const last = [...episodes, ...details.evaluations].map((row) => row.wall_time_s ?? 0);
  const unit = timeUnit(last.reduce((a, b) => Math.max(a, b), 0));
  const at = (row) => (inTime ? timeOf(row, details, unit) : row.step);
  const videos = details.videos.filter((video) => at(video) !== null);
  const marked = shown && details.videos.find((video) => video.id === shown.id);
  return {
    traces: [
      episodeTrace(episodes, at),
      meanTrace(mean, inTime, unit),
      evaluationTrace(details.evaluations, at),
      videoTrace(videos, at),
      shownTrace(marked ?? shown, at),
    ],
    layout: {
      uirevision: axis, // zoomed stays zoomed until the axis is another one
      showlegend: true,
      margin: { t: 30 },
      xaxis: { title: { text: inTime ? unit.title : "agent steps" } },
      yaxis: { title: { text: "return" } },
    },
  };
}

/** Return when something was, in the axis's unit; null where that is not known. */
function timeOf(row, details, unit) {
  let seconds = row.wall_time_s ?? null;
  if (seconds === null) {
    seconds = details.evaluations.find((other) => other.step === row.step)?.wall_time_s ?? null;
  }
  return seconds === null ? null : seconds / unit.divide;
}

function episodeTrace(episodes, at) {
  return {
    name: "episodes", type: "scatter", mode: "markers",
    x: episodes.map(at), y: episodes.map((row) => row.return),
    customdata: episodes.map((row) => ({ play: "episode", key: row.episode, length: row.length })),
    marker: { size: 6, color: faint("--ink", 0.28) },
    hovertemplate:
      "episode %{customdata.key}<br>return %{y}, %{customdata.length} steps<br>click to watch<extra></extra>",
  };
}

function meanTrace(mean, inTime, unit) {
  return {
    name: "mean of 100", type: "scatter", mode: "lines",
    x: inTime ? mean.wall_time_s.map((value) => value / unit.divide) : mean.step,
    y: mean.return,
    line: { color: colour("--accent"), width: 2.2 },
    hoverinfo: "skip",
  };
}

function evaluationTrace(evaluations, at) {
  return {
    name: "evaluations", type: "scatter", mode: "lines+markers",
    x: evaluations.map(at), y: evaluations.map((row) => row.mean_return),
    customdata: evaluations.map((row) => ({
      ...row, completed: percent(row.success_rate, "completed, "),
    })),
    error_y: {
      type: "data", symmetric: false, thickness: 1.2, width: 3, color: faint("--evaluation", 0.6),
      array: evaluations.map((row) => row.max_return - row.mean_return),
      arrayminus: evaluations.map((row) => row.mean_return - row.min_return),
    },
    line: { color: faint("--evaluation", 0.35), width: 1, dash: "dot" },
    marker: { size: 8, symbol: "diamond", color: colour("--evaluation") },
    hovertemplate:
      "evaluation at %{customdata.step:,}<br>mean %{y:.4~g} of %{customdata.episodes} episodes" +
      "<br>%{customdata.completed}%{customdata.min_return:.4~g} to %{customdata.max_return:.4~g}<extra></extra>",
  };
}

function videoTrace(videos, at) {
  return {
    name: "videos", type: "scatter", mode: "markers",
    x: videos.map(at), y: videos.map((video) => video.return),
    customdata: videos.map((video) => ({
      play: "video", key: video.id,
      title: (video.kind === "training" ? `training episode ${video.episode}` : "evaluation")
        + (video.completed ? ", completed" : "") + otherwise(video),
    })),
    marker: {
      size: 15, symbol: "triangle-right", color: colour("--video"),
      line: { color: colour("--card"), width: 1.5 },
    },
    hovertemplate: "video: %{customdata.title}<br>return %{y:.4~g}<br>click to play<extra></extra>",
  };
}

/** A ring around what is in the player. */
function shownTrace(video, at) {
  const known = video && at(video) !== null;
  return {
    name: "shown now", type: "scatter", mode: "markers", showlegend: false, hoverinfo: "skip",
    x: known ? [at(video)] : [], y: known ? [video.return] : [],
    marker: {
      size: 24, symbol: "circle-open", color: colour("--video"), line: { width: 2 },
    },
  };
}
