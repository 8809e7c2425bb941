// A run's state as a badge.

import { el, setText } from "./dom.js";

const MEANINGS = {
  running: "training now",
  finished: "trained to its end",
  stopped: "stopped and saved; `rlagents resume` goes on",
  failed: "ended with an error",
  lost: "says that it runs, but its process is gone",
  unreadable: "its files cannot be read",
};

/** Return a new badge; `setState` gives it its state. */
export function badge() {
  return el("span", { class: "badge" });
}

/** Give a badge a state. */
export function setState(element, state) {
  element.dataset.state = state;
  setText(element, state);
  element.title = MEANINGS[state] ?? state;
}
