// Charts by Plotly, which is loaded after the rest of the page works, in the style sheet's colours.

import { el } from "./dom.js";
import { notify } from "./notices.js";
import { colour, onTheme } from "./theme.js";

let loading = null;

/** Return Plotly, loading it at the first call. */
function plotly() {
  loading ??= new Promise((resolve, reject) => {
    document.head.append(
      el("script", {
        src: "/static/plotly.min.js", defer: true,
        load: () => resolve(window.Plotly),
        error: () => {
          notify("plotly", "The charts could not be loaded; everything else works. Reload the page to try again.");
          reject(new Error("/static/plotly.min.js could not be loaded"));
        },
      }),
    );
  });
  return loading;
}

/** Return a text as Plotly shows it literally: it reads some HTML in what it is given. */
export function literal(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Return a colour with an opacity from 0 to 1. */
export function faint(name, opacity) {
  const hex = colour(name).slice(1);
  const [red, green, blue] = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${red}, ${green}, ${blue}, ${opacity})`;
}

/** Return seconds as an axis: the unit that suits the longest of them. */
export function timeUnit(longest) {
  if (longest < 180) return { title: "seconds", divide: 1 };
  if (longest < 3 * 3600) return { title: "minutes", divide: 60 };
  return { title: "hours", divide: 3600 };
}

/** A chart that keeps its zoom when it is drawn anew. */
export class Chart {
  #element;
  #onClick;
  #draw = null;
  #ready = false;

  /**
   * @param {HTMLElement} element of a fixed height
   * @param {(point: object) => void} onClick called with the point that was clicked
   */
  constructor(element, onClick = null) {
    this.#element = element;
    this.#onClick = onClick;
    onTheme(() => this.#now());
  }

  /**
   * Draw, as soon as Plotly is there.
   *
   * @param {() => {traces: object[], layout: object}} draw called now, and when the theme changes
   */
  draw(draw) {
    this.#draw = draw;
    return this.#now();
  }

  async #now() {
    if (!this.#draw) return;
    let library;
    try {
      library = await plotly();
    } catch {
      return; // a notice says so
    }
    const { traces, layout } = this.#draw();
    await library.react(this.#element, traces, merge(baseLayout(), layout), {
      responsive: true, displayModeBar: false, doubleClick: "reset",
    });
    if (this.#ready) return;
    this.#ready = true;
    this.#element.classList.add("drawn");
    if (this.#onClick) {
      this.#element.on("plotly_click", (event) => event.points[0] && this.#onClick(event.points[0]));
    }
  }
}

function baseLayout() {
  const axis = {
    gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, ticks: "",
    automargin: true, fixedrange: false, tickfont: { color: colour("--muted") },
    title: { font: { color: colour("--muted"), size: 12 }, standoff: 8 },
  };
  return {
    autosize: true,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--ink") },
    margin: { l: 44, r: 12, t: 8, b: 40 },
    hovermode: "closest",
    hoverdistance: 24,
    // On a touch screen dragging scrolls the page.
    dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
    hoverlabel: {
      bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") },
      align: "left",
    },
    showlegend: false,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
    xaxis: axis,
    yaxis: { ...axis },
  };
}

/** Return a layout with another one laid over it, objects inside objects too. */
function merge(below, above) {
  const merged = { ...below };
  for (const [key, value] of Object.entries(above)) {
    const both = isObject(value) && isObject(below[key]);
    merged[key] = both ? merge(below[key], value) : value;
  }
  return merged;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
