// Play, step, speed: the controls under a video, or under several that go together, and their keys.

import { el, icon, setText } from "./dom.js";
import { clock } from "./format.js";

const SPEEDS = [0.25, 0.5, 1, 2, 4];
const KEYS = [
  ["Space", "play, pause"],
  ["← →", "one frame back, forward"],
  ["Shift + ← →", "one second back, forward"],
  ["< >, or ↓ ↑ in the player", "slower, faster"],
  ["Home, End in the player", "first, last picture"],
  ["N", "next reward"],
  ["O", "overlay on, off"],
  ["F", "full screen"],
  ["?", "this list"],
];

/**
 * Controls of a target: something with play, pause, paused, time, duration, seek, move, rate, and
 * the events "frame", "state" and "loaded", such as a Screen.
 */
export class Transport {
  #target;
  #root;
  #toNext;

  /**
   * @param {EventTarget} target what is controlled
   * @param {HTMLElement} root what goes full screen, and where all keys are heard
   * @param {() => (() => void) | null} next what jumps to the next reward, null if there is none
   */
  constructor(target, root, next) {
    this.#target = target;
    this.#root = root;
    this.#toNext = next;
    this.playIcon = icon("play");
    this.playButton = this.#button("Play", this.playIcon, () => this.toggle(), "play");
    this.nextButton = this.#button("Next reward (N)", icon("star"), () => next()?.());
    this.clock = el("span", { class: "clock", text: "0:00.00 / 0:00.00" });
    this.speed = el(
      "select", { "aria-label": "Speed", change: () => (target.rate = Number(this.speed.value)) },
      ...SPEEDS.map((speed) => el("option", { value: speed, text: `${speed}×`, selected: speed === 1 })),
    );
    this.extras = el("span", { class: "extras" });
    this.help = this.#makeHelp();
    this.element = el(
      "div", { class: "transport", role: "group", "aria-label": "Playback" },
      this.#button("One frame back (←)", icon("back"), () => target.move(-1)),
      this.playButton,
      this.#button("One frame forward (→)", icon("forward"), () => target.move(1)),
      this.nextButton, this.clock, this.speed, this.extras,
      this.#button("Full screen (F)", icon("full"), () => this.#fullScreen()),
      el("button", {
        type: "button", class: "tool", text: "?", "aria-label": "Keys (?)", title: "Keys (?)",
        click: () => this.help.showModal(),
      }),
      this.help,
    );
    for (const name of ["frame", "state", "loaded"]) {
      target.addEventListener(name, () => this.update());
    }
    document.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #button(label, picture, click, kind = "") {
    return el(
      "button",
      { type: "button", class: `tool ${kind}`, "aria-label": label, title: label, click },
      picture,
    );
  }

  #makeHelp() {
    const close = el("button", { class: "primary", text: "Close", click: () => this.help.close() });
    return el(
      "dialog", { class: "help", "aria-label": "Keys" },
      el("h2", { text: "Keys" }),
      el("dl", {}, ...KEYS.flatMap(([key, act]) => [
        el("dt", {}, el("kbd", { text: key })), el("dd", { text: act }),
      ])),
      close,
    );
  }

  /** Play or pause. */
  toggle() {
    if (this.#target.paused) this.#target.play();
    else this.#target.pause();
  }

  /** Show where the target is. */
  update() {
    const { paused, time, duration, rate } = this.#target;
    setText(this.clock, `${clock(Math.min(time, duration))} / ${clock(duration)}`);
    const label = paused ? "Play" : "Pause";
    if (this.playButton.getAttribute("aria-label") !== label) {
      this.playButton.setAttribute("aria-label", label);
      this.playButton.title = `${label} (space)`;
      this.playButton.replaceChildren(icon(paused ? "play" : "pause"));
    }
    if (Number(this.speed.value) !== rate) this.speed.value = String(rate);
    const none = this.#toNext() === null;
    if (this.nextButton.disabled !== none) this.nextButton.disabled = none;
  }

  /** Change the speed by one place of the list. */
  #shift(places) {
    const now = SPEEDS.indexOf(this.#target.rate);
    this.#target.rate = SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, now + places))];
  }

  #fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.#root.requestFullscreen?.();
  }

  #onKey(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    const at = event.target instanceof Element ? event.target : document.body;
    if (at.matches("select, textarea, [contenteditable], input:not([type=checkbox])")) return;
    const inside = this.#root.contains(at);
    const act = this.#actOf(event, at, inside);
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** Return what a key does here, null for nothing. */
  #actOf(event, at, inside) {
    const target = this.#target;
    const far = event.shiftKey;
    switch (event.key) {
      case " ":
        return at.matches("button, a, summary, input") ? null : () => this.toggle();
      case "ArrowLeft":
        return () => (far ? target.seek(target.time - 1) : target.move(-1));
      case "ArrowRight":
        return () => (far ? target.seek(target.time + 1) : target.move(1));
      case "<":
        return () => this.#shift(-1);
      case ">":
        return () => this.#shift(1);
      case "ArrowDown":
        return inside ? () => this.#shift(-1) : null;
      case "ArrowUp":
        return inside ? () => this.#shift(1) : null;
      case "Home":
        return inside ? () => target.seek(0) : null;
      case "End":
        return inside ? () => target.seek(target.duration) : null;
      case "n":
        return this.#toNext();
      case "o":
        return () => target.toggleOverlay?.();
      case "f":
        return () => this.#fullScreen();
      case "?":
        return () => this.help.showModal();
      default:
        return null;
    }
  }
}
