// The configuration and what the run was made with, as a table that can be searched.

import { byId, el } from "./dom.js";

let signature = "";

/** Fill the table from a run's details; it is left alone if nothing has changed. */
export function fillConfig(details) {
  const rows = [
    ...flat(details.config ?? {}),
    ...flat({ versions: details.versions ?? {}, hardware: details.hardware ?? {} }),
    ["git commit", details.git_commit],
    ["threads", details.threads],
    ["reproducible", details.reproducible],
  ].filter(([, value]) => value !== undefined);
  const now = JSON.stringify(rows);
  if (now === signature) return;
  signature = now;
  byId("config").replaceChildren(
    ...rows.map(([key, value]) =>
      el("tr", {}, el("th", { scope: "row", text: key }), el("td", { text: said(value) }))),
  );
  search();
}

/** Return the leaves of nested tables with dotted names. */
function flat(table, prefix = "") {
  return Object.entries(table).flatMap(([key, value]) => {
    const nested = typeof value === "object" && value !== null && !Array.isArray(value);
    return nested ? flat(value, `${prefix}${key}.`) : [[prefix + key, value]];
  });
}

function said(value) {
  if (value === null || value === undefined) return "none";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function search() {
  const words = byId("config-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of byId("config").rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
}

byId("config-filter").addEventListener("input", search);
