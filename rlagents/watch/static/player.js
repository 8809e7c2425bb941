// One screen with everything around it: values beside it, the strip and the controls under it.

import { el, icon } from "./dom.js";
import { Panel } from "./panel.js";
import { Screen } from "./screen.js";
import { Strip } from "./strip.js";
import { Transport } from "./transport.js";

const METHODS = { gradient: "Gradient", "grad-cam": "Grad-CAM", perturbation: "Perturbation" };

/** The player of a run's page. */
export class Player {
  constructor() {
    this.screen = new Screen();
    this.panel = new Panel(this.screen);
    this.strip = new Strip(this.screen, (time) => this.screen.seek(time));
    this.overlays = new OverlaySwitch(this.screen);
    this.element = el("div", { class: "player", tabindex: -1, role: "group", "aria-label": "Player" });
    this.transport = new Transport(this.screen, this.element, () => nextReward([this.screen]));
    this.save = el("a", {
      class: "tool", download: true, "aria-label": "Save the video", title: "Save the video",
    }, icon("save"));
    this.transport.extras.append(this.overlays.element, this.save);
    this.element.append(
      el("div", { class: "watch-grid" }, this.screen.element, this.panel.element),
      this.strip.element,
      this.transport.element,
    );
    this.screen.element.addEventListener("click", () => this.screen.episode && this.transport.toggle());
    this.screen.addEventListener("frame", () => (this.element.dataset.frame = this.screen.frame));
    this.screen.addEventListener("loaded", () => {
      this.element.dataset.video = this.screen.video.id;
      const { id, mime } = this.screen.video;
      this.save.href = this.screen.plain.src;
      this.save.download = `${id}.${mime === "video/webm" ? "webm" : "mp4"}`;
      this.element.classList.add("ready");
    });
  }
}

/** The switch between a video and its overlays; nothing is shown where there are none. */
export class OverlaySwitch {
  #screen;

  constructor(screen) {
    this.#screen = screen;
    this.select = el("select", {
      class: "overlay", "aria-label": "Overlay (O)", title: "Where the network looks (O)",
      change: () => screen.showOverlay(this.select.value || null),
    });
    this.element = el("span", { class: "overlay-switch", hidden: true }, icon("eye"), this.select);
    screen.addEventListener("loaded", () => this.#begin());
    screen.addEventListener("state", () => (this.select.value = screen.overlay ?? ""));
  }

  #begin() {
    const { overlays } = this.#screen;
    this.select.replaceChildren(
      el("option", { value: "", text: "No overlay" }),
      ...overlays.map((method) => el("option", { value: method, text: METHODS[method] ?? method })),
    );
    this.element.hidden = overlays.length === 0;
  }
}

/** Return what jumps to the next reward of the screens, null if there is none. */
export function nextReward(screens, seek = null) {
  let first = null;
  for (const screen of screens) {
    const step = screen.episode?.nextNotable(screen.step) ?? null;
    if (step === null) continue;
    const time = screen.episode.frame[step] / screen.fps;
    if (first === null || time < first.time) first = { screen, step, time };
  }
  if (first === null) return null;
  return () => (seek ? seek(first.time + 1e-3) : first.screen.goToStep(first.step));
}
