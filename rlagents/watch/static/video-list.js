// The list of a run's videos: evaluations by step, then the training episodes that were rebuilt.

import { el, icon, setText } from "./dom.js";
import { count, number, numberOf, otherwise, short, videoTitle } from "./format.js";

/** A list of buttons, each of which plays a video. */
export class VideoList {
  #element;
  #play;
  #items = new Map();

  /**
   * @param {HTMLElement} element the list
   * @param {(id: string) => void} play called with the id of a video that was clicked
   */
  constructor(element, play) {
    this.#element = element;
    this.#play = play;
  }

  /** Show the videos; only what has changed is touched. */
  draw(videos, shown) {
    const sorted = sortVideos(videos);
    const ids = new Set(sorted.map((video) => video.id));
    for (const [id, item] of this.#items) {
      if (ids.has(id)) continue;
      item.remove();
      this.#items.delete(id);
    }
    sorted.forEach((video, place) => {
      if (!this.#items.has(video.id)) this.#items.set(video.id, this.#item(video));
      const item = this.#items.get(video.id);
      if (this.#element.children[place] !== item) {
        this.#element.insertBefore(item, this.#element.children[place] ?? null);
      }
      const current = video.id === shown?.id;
      const button = item.firstElementChild;
      if (current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
      setText(item.querySelector(".looks"), video.overlays?.length ? "overlay" : "");
      setText(item.querySelector(".end"), video.completed ? "completed" : "");
    });
  }

  #item(video) {
    const training = video.kind === "training";
    return el(
      "li", { "data-video": video.id },
      el(
        "button", { type: "button", title: `Play: ${videoTitle(video)}`, click: () => this.#play(video.id) },
        icon("play"),
        el("span", { class: "what" },
          training ? `Episode ${count(video.episode)}` : `${short(video.step)} steps`,
          el("span", { class: "quiet", text: training ? " training" : numberOf(video) + otherwise(video) })),
        el("span", { class: "end" }),
        el("span", { class: "looks quiet" }),
        el("span", { class: "long quiet", text: `${count(video.length)} steps` }),
        el("span", { class: "return", text: number(video.return).replace("-", "−") }),
      ),
    );
  }
}

/** Return videos in the order of the list. */
export function sortVideos(videos) {
  const rank = (video) => (video.kind === "training" ? 1 : 0);
  return [...videos].sort(
    (one, other) =>
      rank(one) - rank(other) ||
      (rank(one) ? one.episode - other.episode : one.step - other.step || one.episode - other.episode),
  );
}

/** Return the evaluation's video that was recorded last, played as in training; null if there is none. */
export function latestVideo(videos) {
  const evaluations = sortVideos(videos).filter((video) => video.kind === "evaluation" && !video.otherwise);
  return evaluations[evaluations.length - 1] ?? null;
}
