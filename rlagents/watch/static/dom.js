// Elements made from text and attributes. Data never passes through innerHTML.

const SVG = "http://www.w3.org/2000/svg";

/** Return a new element; `text` is its text, functions are listeners, true and false are flags. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Return a new SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children);
  return element;
}

/** Return the element of an id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Set an element's text, only if it is another one: what has not changed is not drawn again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const ICONS = {
  play: "M7 4.5v15l12-7.5z",
  pause: "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z",
  back: "M16.5 5v14L7.5 12zM5 5h2v14H5z",
  forward: "M7.5 5v14l9-7zM17 5h2v14h-2z",
  star: "M12 3.5l2.6 5.4 5.9.8-4.3 4.1 1.1 5.9L12 16.8l-5.3 2.9 1.1-5.9L3.5 9.7l5.9-.8z",
  eye: "M12 5.5c4.7 0 8.2 3.6 9.5 6.5-1.3 2.9-4.8 6.5-9.5 6.5S3.8 14.9 2.5 12C3.8 9.1 7.3 5.5 12 5.5zm0 3a3.5 3.5 0 100 7 3.5 3.5 0 000-7z",
  full: "M4 4h6v2H6v4H4zM14 4h6v6h-2V6h-4zM4 14h2v4h4v2H4zM18 14h2v6h-6v-2h4z",
  save: "M11 3h2v9l3.5-3.5 1.4 1.4L12 15.8 6.1 9.9l1.4-1.4L11 12zM4 18h16v2H4z",
};

/** Return one of the page's icons. */
export function icon(name) {
  return svg(
    "svg",
    { viewBox: "0 0 24 24", width: 18, height: 18, "aria-hidden": "true", class: "icon" },
    svg("path", { d: ICONS[name], fill: "currentColor", "fill-rule": "evenodd" }),
  );
}

/**
 * Fill a group with radio buttons that look like one switch.
 *
 * @param {HTMLElement} element the group
 * @param {[string, string][]} options values and labels
 * @param {string} chosen the value to begin with
 * @param {(value: string) => void} onChange called with the value that was chosen
 */
export function choice(element, options, chosen, onChange) {
  const name = `${element.id || "choice"}-${Math.random().toString(36).slice(2)}`;
  element.replaceChildren(
    ...options.map(([value, label]) =>
      el(
        "label",
        {},
        el("input", {
          type: "radio", name, value, checked: value === chosen, change: () => onChange(value),
        }),
        el("span", { text: label }),
      ),
    ),
  );
}

/** Return a small drawing of a row of numbers. */
export function sparkline(values, width = 120, height = 28) {
  const known = values.filter((value) => Number.isFinite(value));
  const drawing = svg("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, class: "spark", "aria-hidden": "true",
    preserveAspectRatio: "none",
  });
  if (known.length < 2) return drawing;
  const low = Math.min(...known);
  const span = Math.max(...known) - low || 1;
  const points = values
    .map((value, index) => [index, value])
    .filter(([, value]) => Number.isFinite(value))
    .map(([index, value]) => {
      const x = 2 + (index / (values.length - 1)) * (width - 4);
      const y = height - 3 - ((value - low) / span) * (height - 6);
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    });
  const first = points[0].split(",")[0];
  const last = points[points.length - 1];
  drawing.append(
    svg("polygon", {
      points: `${first},${height} ${points.join(" ")} ${last.split(",")[0]},${height}`,
      class: "spark-area",
    }),
    svg("polyline", { points: points.join(" "), class: "spark-line" }),
    svg("circle", {
      cx: last.split(",")[0], cy: last.split(",")[1], r: 2, class: "spark-end",
    }),
  );
  return drawing;
}
