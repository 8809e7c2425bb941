// What the agent does in the picture that is shown: action, reward, return, and its values as bars.

import { choice, el, setText } from "./dom.js";
import { meanOf } from "./episode.js";
import { count, fixed, number } from "./format.js";

const MODES = [["value", "Value"], ["difference", "Difference"]];

/** The numbers and bars beside a screen. */
export class Panel {
  #screen;
  #rows = [];
  #mode = "value";
  #step = -1;

  /** @param {Screen} screen whose steps are shown */
  constructor(screen) {
    this.#screen = screen;
    this.step = this.#fact("Step");
    this.reward = this.#fact("Reward");
    this.total = this.#fact("Return");
    this.action = el("p", { class: "action-now", text: "–" });
    this.title = el("h3", { text: "Values" });
    this.modes = el("div", { class: "choice small", role: "radiogroup", "aria-label": "Bars show" });
    choice(this.modes, MODES, this.#mode, (mode) => {
      this.#mode = mode;
      this.#step = -1;
      this.update();
    });
    this.bars = el("ul", { class: "bars" });
    this.without = el("p", { class: "quiet", text: "Values are not kept while training; the action is." });
    this.element = el(
      "div", { class: "panel" },
      el("dl", { class: "now" }, ...[this.step, this.reward, this.total].map((fact) => fact.parentNode)),
      el("div", { class: "now-action" }, el("h3", { text: "Action" }), this.action),
      el("div", { class: "values" },
        el("div", { class: "values-head" }, this.title, this.modes), this.bars, this.without),
    );
    screen.addEventListener("loaded", () => this.#begin());
    screen.addEventListener("frame", () => this.update());
  }

  #fact(name) {
    const value = el("dd", { text: "–" });
    el("div", {}, el("dt", { text: name }), value);
    return value;
  }

  #begin() {
    const { episode } = this.#screen;
    this.element.classList.toggle("none", episode.length === 0);
    const named = episode.hasValues || episode.names !== null;
    this.#rows = Array.from({ length: named ? episode.numActions : 0 }, (_, action) => {
      const fill = el("span", { class: "fill" });
      const value = el("span", { class: "number" });
      const element = el(
        "li", { "data-action": action },
        el("span", { class: "name", text: episode.name(action), title: episode.name(action) }),
        value, el("span", { class: "track" }, fill),
      );
      return { element, fill, value };
    });
    this.bars.replaceChildren(...this.#rows.map((row) => row.element));
    this.bars.classList.toggle("plain", !episode.hasValues);
    setText(this.title, !episode.hasValues ? "Actions" : episode.probabilities ? "Probabilities" : "Values");
    this.modes.hidden = !episode.hasValues || episode.probabilities;
    this.without.hidden = episode.hasValues;
    this.#step = -1;
    this.update();
  }

  /** Show the step of the screen's frame. */
  update() {
    const { episode, step } = this.#screen;
    if (!episode || step === this.#step || !episode.length) return;
    this.#step = step;
    const reward = episode.reward[step];
    setText(this.step, `${count(episode.firstStep + step + 1)} / ${count(episode.numSteps)}`);
    setText(this.reward, signed(reward, episode.notable.length > 0));
    setText(this.total, number(episode.returns[step], 2).replace("-", "−"));
    const sign = episode.notable.length === 0 ? 0 : Math.sign(reward);
    this.reward.dataset.sign = sign > 0 ? "up" : sign < 0 ? "down" : "none";
    setText(this.action, episode.name(episode.action[step]));
    this.#drawBars(episode, step);
    this.element.dataset.step = step;
  }

  #drawBars(episode, step) {
    const values = episode.values[step] ?? null;
    const differences = this.#mode === "difference" && !episode.probabilities;
    const mean = values && differences ? meanOf(values) : 0;
    const low = differences ? -episode.spread : episode.scale.low;
    const high = differences ? episode.spread : episode.scale.high;
    const zero = position(Math.min(Math.max(0, low), high), low, high);
    this.#rows.forEach((row, action) => {
      row.element.classList.toggle("chosen", action === episode.action[step]);
      if (values === null) return;
      const value = values[action] - mean;
      const end = position(value, low, high);
      row.fill.style.left = `${(Math.min(zero, end) * 100).toFixed(2)}%`;
      row.fill.style.width = `${(Math.abs(end - zero) * 100).toFixed(2)}%`;
      setText(row.value, fixed(value, decimals(high - low)));
    });
  }
}

function position(value, low, high) {
  return Math.min(1, Math.max(0, (value - low) / (high - low)));
}

/** Return how many decimals tell values apart on a scale of this width. */
function decimals(width) {
  return Math.min(5, Math.max(0, 2 - Math.floor(Math.log10(width)) + (width < 10 ? 1 : 0)));
}

function signed(value, marked) {
  const text = number(value, 3).replace("-", "−");
  return marked && value > 0 ? `+${text}` : text;
}
