// Everything that was logged, as small charts; each is drawn when it comes into view.

import { Chart, timeUnit } from "./charts.js";
import { el, setText } from "./dom.js";
import { number } from "./format.js";
import { colour } from "./theme.js";

// These are the learning curve itself.
const LEFT_OUT = new Set(["charts/episodic_return", "eval/episodic_return"]);
const FIRST = ["eval/success_rate", "charts/success_rate", "charts/SPS", "charts/epsilon"];

/** The small charts of a run. */
export class Multiples {
  #element;
  #charts = new Map();
  #visible = new Set();
  #observer;

  constructor(element) {
    this.#element = element;
    this.#observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) this.#visible.delete(entry.target.dataset.key);
        else {
          this.#visible.add(entry.target.dataset.key);
          this.#drawOne(entry.target.dataset.key);
        }
      }
    }, { rootMargin: "200px" });
  }

  /** Draw the metrics that are in view; the others when they come into it. */
  draw(metrics, axis) {
    this.metrics = metrics;
    this.axis = axis;
    const keys = Object.keys(metrics).filter((key) => !LEFT_OUT.has(key)).sort(inOrder);
    for (const key of keys) {
      if (!this.#charts.has(key)) this.#add(key);
      const { value } = metrics[key];
      setText(this.#charts.get(key).last, number(value[value.length - 1] ?? null, 4));
    }
    if (keys.length === 0) {
      this.#element.replaceChildren(el("p", { class: "quiet", text: "Nothing has been logged yet." }));
    }
    for (const key of this.#visible) this.#drawOne(key);
  }

  #add(key) {
    if (this.#charts.size === 0) this.#element.replaceChildren();
    const chart = el("div", { class: "chart small", role: "img", "aria-label": `Curve of ${key}` });
    const last = el("span", { class: "last" });
    const [table, name] = key.includes("/") ? key.split(/\/(.*)/s) : ["", key];
    const element = el(
      "figure", { "data-key": key },
      el("figcaption", {}, el("span", { class: "quiet", text: table ? `${table} / ` : "" }), name, last),
      chart,
    );
    this.#charts.set(key, { chart: new Chart(chart), last, element });
    const before = [...this.#element.children].find((child) => inOrder(child.dataset.key, key) > 0);
    this.#element.insertBefore(element, before ?? null);
    this.#observer.observe(element);
  }

  #drawOne(key) {
    const metric = this.metrics[key];
    if (!metric) return;
    const inTime = this.axis === "time";
    const unit = timeUnit(metric.wall_time_s[metric.wall_time_s.length - 1] ?? 0);
    this.#charts.get(key).chart.draw(() => ({
      traces: [{
        type: "scatter", mode: metric.value.length > 1 ? "lines" : "markers",
        x: inTime ? metric.wall_time_s.map((value) => value / unit.divide) : metric.step,
        y: metric.value,
        line: { color: colour("--accent"), width: 1.5 },
        hovertemplate: `%{y:.5~g}<br>%{x:.4~s} ${inTime ? unit.title : "steps"}<extra></extra>`,
      }],
      layout: {
        uirevision: this.axis, hovermode: "x", margin: { l: 40, r: 8, t: 4, b: 22 },
        xaxis: { nticks: 5, tickfont: { size: 10 } }, yaxis: { nticks: 4, tickfont: { size: 10 } },
      },
    }));
  }
}

function inOrder(one, other) {
  const rank = (key) => (FIRST.includes(key) ? FIRST.indexOf(key) : FIRST.length);
  return rank(one) - rank(other) || one.localeCompare(other);
}
