// The strip under a video: the value (or the return) over the whole episode, and its rewards.
// It is the video's slider too.

import { el } from "./dom.js";
import { clock } from "./format.js";
import { colour, onTheme } from "./theme.js";

const LANE = 18; // pixels for the rewards, at the bottom
const TOP = 14; // pixels for the label

/** A chart of the episode that can be clicked and dragged to seek. */
export class Strip {
  #screen;
  #seek;

  /**
   * @param {Screen} screen whose episode is drawn
   * @param {(time: number) => void} seek called with the time that was pointed at
   */
  constructor(screen, seek) {
    this.#screen = screen;
    this.#seek = seek;
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.head = el("span", { class: "head" });
    this.label = el("span", { class: "strip-label" });
    this.element = el(
      "div",
      {
        class: "strip", role: "slider", tabindex: 0, "aria-label": "Position in the episode",
        "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0,
        pointerdown: (event) => this.#grab(event),
        pointermove: (event) => event.buttons & 1 && this.#point(event),
      },
      this.canvas, this.head, this.label,
    );
    screen.addEventListener("loaded", () => this.#draw());
    screen.addEventListener("frame", () => this.#move());
    new ResizeObserver(() => this.#draw()).observe(this.element);
    onTheme(() => this.#draw());
  }

  #grab(event) {
    if (event.button !== 0) return;
    this.element.setPointerCapture(event.pointerId);
    this.#point(event);
  }

  #point(event) {
    const box = this.element.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    this.#seek(share * this.#screen.duration);
  }

  #move() {
    const { frame, numFrames, duration, fps } = this.#screen;
    const share = frame / Math.max(1, numFrames - 1);
    this.head.style.transform = `translateX(${share * this.element.clientWidth}px)`;
    this.element.setAttribute("aria-valuenow", frame);
    this.element.setAttribute("aria-valuetext", `${clock(frame / fps)} of ${clock(duration)}`);
  }

  #draw() {
    const { episode, numFrames } = this.#screen;
    const width = this.element.clientWidth;
    const height = this.element.clientHeight;
    if (!episode || !width) return;
    this.element.setAttribute("aria-valuemax", numFrames - 1);
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const x = (step) => (episode.frame[step] / Math.max(1, numFrames - 1)) * width;
    this.label.textContent = labelOf(episode);
    drawRewards(pen, episode, x, height);
    const line = episode.hasValues
      ? episode.frame.map((_, step) => episode.value(step))
      : episode.returns;
    drawLine(pen, line, x, width, episode.notable.length ? height - LANE : height);
    this.#move();
  }
}

/** Return what the line is of. */
function labelOf(episode) {
  if (episode.length === 0) return "";
  if (!episode.hasValues) return "return so far";
  return episode.probabilities ? "probability of the action" : "value of the action";
}

/** Draw each reward worth looking at as a bar in a lane at the bottom, up or down. */
function drawRewards(pen, episode, x, height) {
  if (!episode.notable.length) return;
  const middle = height - LANE / 2;
  pen.fillStyle = colour("--line");
  pen.fillRect(0, middle - 0.5, x(episode.length - 1), 1);
  const largest = episode.notable.reduce((most, step) => Math.max(most, Math.abs(episode.reward[step])), 0);
  for (const step of episode.notable) {
    const reward = episode.reward[step];
    const length = Math.max(3, (Math.abs(reward) / (largest || 1)) * (LANE / 2 - 1));
    pen.fillStyle = colour(reward >= 0 ? "--up" : "--down");
    pen.fillRect(x(step) - 1, reward >= 0 ? middle - length : middle, 3, length);
  }
}

/** Draw a line of numbers; where many fall on one pixel, from the lowest to the highest of them. */
function drawLine(pen, values, x, width, height) {
  const known = values.filter((value) => Number.isFinite(value));
  if (!known.length) return;
  const low = known.reduce((a, b) => Math.min(a, b));
  const high = known.reduce((a, b) => Math.max(a, b));
  const y = (value) => height - 4 - ((value - low) / (high - low || 1)) * (height - 6 - TOP);
  pen.strokeStyle = colour("--accent");
  pen.lineWidth = 1.25;
  pen.lineJoin = "round";
  pen.beginPath();
  let column = null;
  let started = false;
  const flush = () => {
    if (!column) return;
    for (const value of [column.first, column.low, column.high, column.last]) {
      if (started) pen.lineTo(column.at, y(value));
      else pen.moveTo(column.at, y(value));
      started = true;
    }
  };
  values.forEach((value, step) => {
    if (!Number.isFinite(value)) return;
    const at = Math.round(x(step));
    if (!column || column.at !== at) {
      flush();
      column = { at, first: value, low: value, high: value, last: value };
    }
    column.low = Math.min(column.low, value);
    column.high = Math.max(column.high, value);
    column.last = value;
  });
  flush();
  if (known.length === 1) pen.lineTo(width, y(known[0]));
  pen.stroke();
}
