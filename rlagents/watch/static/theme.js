// The style sheet's colours, for what is drawn by scripts.

const dark = window.matchMedia("(prefers-color-scheme: dark)");

/** Return a colour of the style sheet, such as --accent. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Call something whenever light becomes dark, or dark light. */
export function onTheme(redraw) {
  dark.addEventListener("change", redraw);
}
