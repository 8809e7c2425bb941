// The page of all runs: a table that is kept up to date row by row.

import { getJson, poll } from "./api.js";
import { badge, setState } from "./badge.js";
import { byId, el, setText, sparkline } from "./dom.js";
import { ago, count, number, percent, short } from "./format.js";

const PERIOD_MS = 2000;
// What a column is called, what it is sorted by, and whether high comes first.
const COLUMNS = [
  { key: "id", label: "Run", by: (run) => run.id.toLowerCase(), down: false },
  { key: "agent", label: "Agent", by: (run) => run.agent ?? "", down: false },
  { key: "state", label: "State", by: (run) => run.state, down: false },
  { key: "progress", label: "Progress", by: (run) => share(run), down: true },
  { key: "best", label: "Best evaluation", by: (run) => run.best_evaluation?.mean_return ?? null, down: true, numeric: true },
  { key: "recent", label: "Recent return", by: (run) => run.recent_return, down: true, numeric: true },
  { key: "videos", label: "Videos", by: (run) => run.videos, down: true, numeric: true },
  { key: "updated", label: "Updated", by: (run) => run.updated, down: true, numeric: true },
];

const rows = new Map();
const chosen = new Set();
let runs = [];
let sorted = { key: "updated", down: true };

/** One line of the table. */
class Row {
  constructor(id) {
    const href = `/run/${encodeURIComponent(id)}`;
    this.check = el("input", {
      type: "checkbox", "aria-label": `Choose ${id}`,
      change: () => choose(id, this.check.checked),
    });
    this.link = el("a", { href, class: "run-name", text: id });
    this.about = el("span", { class: "quiet about" });
    this.problem = el("span", { class: "row-problem", hidden: true });
    this.agent = el("span");
    this.badge = badge();
    this.bar = el("span", { class: "fill" });
    this.steps = el("span", { class: "quiet" });
    this.progress = el(
      "span", { class: "progress", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100 },
      this.bar,
    );
    this.best = el("span", { class: "strong" });
    this.bestStep = el("span", { class: "quiet" });
    this.recent = el("span", { class: "value" });
    this.completed = el("span", { class: "quiet" });
    this.spark = el("span", { class: "spark-place" });
    this.videos = el("span");
    this.updated = el("span");
    this.element = el(
      "tr", { "data-run": id },
      el("td", { class: "c-check" }, this.check),
      el("td", { class: "c-id" }, this.link, this.about, this.problem),
      el("td", { class: "c-agent" }, this.agent),
      el("td", { class: "c-state" }, this.badge),
      el("td", { class: "c-progress" }, this.progress, this.steps),
      el("td", { class: "c-best numeric", "data-label": "best" }, this.best, this.bestStep),
      el("td", { class: "c-recent numeric", "data-label": "recent" }, this.spark, this.recent, this.completed),
      el("td", { class: "c-videos numeric", "data-label": "videos" }, this.videos),
      el("td", { class: "c-updated numeric", "data-label": "updated" }, this.updated),
    );
    this.element.addEventListener("click", (event) => {
      if (!event.target.closest("a, input, td.c-check") && !getSelection().toString()) {
        location.href = href;
      }
    });
  }

  update(run) {
    setState(this.badge, run.state);
    setText(this.agent, run.agent ?? "–");
    const about = [run.env_id, run.recipe, run.seed !== null && run.seed !== undefined ? `seed ${run.seed}` : null];
    setText(this.about, about.filter(Boolean).join(" · "));
    this.problem.hidden = !run.problem;
    setText(this.problem, run.problem ?? "");
    const part = share(run) ?? 0;
    this.bar.style.width = `${(100 * part).toFixed(1)}%`;
    this.progress.setAttribute("aria-valuenow", Math.round(100 * part));
    this.progress.hidden = share(run) === null;
    const whole = run.total_steps ? `${short(run.step ?? 0)} ${bound(run)} ${short(run.total_steps)}` : "";
    setText(this.steps, whole);
    this.steps.title = run.total_steps ? `${count(run.step ?? 0)} of ${count(run.total_steps)} steps` : "";
    setText(this.best, number(run.best_evaluation?.mean_return ?? null).replace("-", "−"));
    setText(this.bestStep, run.best_evaluation ? `at ${short(run.best_evaluation.step)}` : "");
    setText(this.recent, number(run.recent_return ?? null).replace("-", "−"));
    setText(this.completed, percent(run.success_rate, "completed"));
    this.drawSpark(run.spark ?? []);
    setText(this.videos, String(run.videos ?? 0));
    setText(this.updated, ago(run.updated));
  }

  drawSpark(values) {
    const signature = values.join();
    if (signature === this.signature) return;
    this.signature = signature;
    this.spark.replaceChildren(sparkline(values, 84, 26));
  }
}

function share(run) {
  if (!run.total_steps) return null;
  // What was good enough before its last step is done, too.
  return run.state === "finished" ? 1 : Math.min(1, (run.step ?? 0) / run.total_steps);
}

function bound(run) {
  return run.state === "finished" && (run.step ?? 0) < run.total_steps ? "of at most" : "/";
}

function choose(id, on) {
  if (on) chosen.add(id);
  else chosen.delete(id);
  showChosen();
}

function showChosen() {
  const button = byId("compare");
  button.disabled = chosen.size === 0;
  setText(button, chosen.size ? `Compare ${chosen.size}` : "Compare");
  button.title = chosen.size === 1 ? "Compare two videos of this run" : "Tick the runs to compare";
}

function matching() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  return runs.filter((run) => {
    const text = [run.id, run.env_id, run.agent, run.recipe, run.state].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function inOrder(list) {
  const { by } = COLUMNS.find((column) => column.key === sorted.key);
  const sign = sorted.down ? -1 : 1;
  // What is not known stands last, in both directions.
  return [...list].sort((one, other) => {
    const [a, b] = [by(one) ?? null, by(other) ?? null];
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (a < b ? -1 : a > b ? 1 : 0);
  });
}

function show() {
  const visible = inOrder(matching());
  byId("empty").hidden = runs.length > 0;
  byId("runs").hidden = visible.length === 0;
  byId("none").hidden = runs.length === 0 || visible.length > 0;
  const body = byId("rows");
  const ids = new Set(visible.map((run) => run.id));
  for (const [id, row] of rows) if (!ids.has(id)) row.element.remove();
  visible.forEach((run, place) => {
    if (!rows.has(run.id)) rows.set(run.id, new Row(run.id));
    const { element } = rows.get(run.id);
    rows.get(run.id).update(run);
    if (body.children[place] !== element) body.insertBefore(element, body.children[place] ?? null);
  });
}

function summarise() {
  const counts = new Map();
  for (const run of runs) counts.set(run.state, (counts.get(run.state) ?? 0) + 1);
  setText(byId("summary"), [...counts].map(([state, times]) => `${times} ${state}`).join(", "));
}

function sortBy(key) {
  const column = COLUMNS.find((candidate) => candidate.key === key);
  sorted = { key, down: sorted.key === key ? !sorted.down : column.down };
  showSorted();
  show();
}

function showSorted() {
  for (const head of byId("columns").querySelectorAll("[data-key]")) {
    const mine = head.dataset.key === sorted.key;
    head.setAttribute("aria-sort", mine ? (sorted.down ? "descending" : "ascending") : "none");
  }
  byId("sort").value = sorted.key;
}

function makeColumns() {
  byId("columns").append(
    el("th", { scope: "col", class: "c-check" }, el("span", { class: "unseen", text: "Choose" })),
    ...COLUMNS.map((column) =>
      el(
        "th", { scope: "col", "data-key": column.key, class: column.numeric ? "numeric" : "" },
        el("button", { type: "button", text: column.label, click: () => sortBy(column.key) }),
      ),
    ),
  );
  byId("sort").append(...COLUMNS.map(({ key, label }) => el("option", { value: key, text: label })));
  byId("sort").addEventListener("change", (event) => sortBy(event.target.value));
  showSorted();
}

async function refresh() {
  ({ runs } = await getJson("/api/runs"));
  const ids = new Set(runs.map((run) => run.id));
  for (const [id, row] of rows) {
    if (ids.has(id)) continue;
    row.element.remove();
    rows.delete(id);
    chosen.delete(id);
  }
  showChosen();
  summarise();
  show();
}

makeColumns();
byId("filter").addEventListener("input", show);
byId("compare").addEventListener("click", () => {
  const query = [...chosen].map((id) => `run=${encodeURIComponent(id)}`).join("&");
  location.href = `/compare?${query}`;
});
poll(refresh, () => PERIOD_MS);
