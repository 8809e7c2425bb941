// Sentences about what went wrong: visible, dismissible, one for each key.

import { byId, el } from "./dom.js";

const shown = new Map();
const dismissed = new Map();

/** Show a sentence; one of the same key is replaced. One that was dismissed does not come again. */
export function notify(key, text) {
  if (dismissed.get(key) === text || shown.get(key)?.text === text) return;
  shown.get(key)?.element.remove();
  const close = el("button", {
    class: "close", "aria-label": "Dismiss", text: "×",
    click: () => {
      dismissed.set(key, text);
      remove(key);
    },
  });
  const element = el("div", { class: "notice", "data-key": key }, el("p", { text }), close);
  shown.set(key, { element, text });
  byId("notices").append(element);
}

/** Take a sentence away, since it is no longer true. */
export function settle(key) {
  dismissed.delete(key);
  remove(key);
}

function remove(key) {
  shown.get(key)?.element.remove();
  shown.delete(key);
}
