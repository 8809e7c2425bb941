// The picture: a video with its overlay's video stacked on it, and the frame that is shown.

import { getJson, runUrl } from "./api.js";
import { el } from "./dom.js";
import { Episode } from "./episode.js";

const FOLLOW_MS = 200;
const DRIFT_S = 0.04; // the hidden video is put right when it is further off
const FALLBACK_RATE = 30; // frames a second of a video about which nothing is known
const WASTE = 1.08; // whole multiples of a game's pixel, unless a half one is so much larger
const COARSE = 320; // pixels across: a wider game is a drawing, which is scaled smoothly

/**
 * Shows one video. Events: "loaded", "frame" (another frame is shown), "state" (playing, speed,
 * overlay), "problem" (its `detail` is a sentence).
 */
export class Screen extends EventTarget {
  #generation = 0;
  #wanted = null; // the frame of a seek under way
  #rate = 1;
  #follower = null;
  #last = null; // the overlay that was shown last

  constructor() {
    super();
    this.plain = this.#makeVideo();
    this.over = this.#makeVideo();
    this.front = this.plain;
    this.message = el("div", { class: "stage-message" });
    this.element = el("div", { class: "stage" }, this.plain, this.over, this.message);
    this.episode = null;
    this.video = null;
    this.overlay = null;
    this.pixel = 1;
    this.frame = 0;
    this.say("Choose a video.");
    new ResizeObserver(() => this.#fit()).observe(this.element);
  }

  /** Show a sentence in place of the picture, with progress from 0 to 1 if it is given. */
  say(text, progress = null) {
    this.message.replaceChildren(el("p", { text }));
    if (progress !== null) {
      this.message.append(el("progress", { max: 1, value: progress, "aria-label": text }));
    }
    this.message.hidden = false;
    this.element.classList.add("covered");
  }

  /**
   * Show a video.
   *
   * @param {string} run the run's id
   * @param {object} video as the server lists it
   * @param {object} options
   * @param {number} options.time where to begin, in seconds
   * @param {boolean} options.play whether to play at once
   * @param {string | null} options.overlay the overlay to show, if the video has it
   * @param {number} options.pixel how many of the video's pixels make one of the game's
   * @param {string[] | null} options.names of the actions, where the video does not tell
   */
  async load(run, video, { time = 0, play = false, overlay = null, pixel = 1, names = null } = {}) {
    const generation = ++this.#generation;
    this.run = run;
    this.video = video;
    this.pixel = pixel;
    this.episode = null;
    this.overlay = null;
    this.frame = 0;
    this.#wanted = null;
    this.#bring(this.plain);
    this.#clear(this.over);
    this.say("Loading…");
    const [opened, read] = await Promise.allSettled([
      this.#open(this.plain, runUrl(run, "video", video.id)),
      getJson(runUrl(run, "video", video.id, "data")),
    ]);
    if (generation !== this.#generation) return;
    if (opened.status === "rejected") {
      this.say("This video cannot be played.");
      this.#complain(`The video ${video.id} cannot be played; perhaps it is damaged or was deleted.`);
      return;
    }
    const known = read.status === "fulfilled" ? withoutNull(read.value) : this.#pictureOnly();
    this.episode = new Episode({ action_names: names, ...known });
    this.message.hidden = true;
    this.element.classList.remove("covered");
    this.#fit();
    this.#applyRate();
    this.go(this.#frameAt(time));
    this.dispatchEvent(new Event("loaded"));
    if (overlay && this.overlays.includes(overlay)) await this.showOverlay(overlay);
    if (play && generation === this.#generation) this.play();
    if (read.status === "rejected") {
      this.#complain(`${read.reason.message} The picture is shown without steps and values.`);
    }
  }

  /** Return what is known of a video without its JSON: how long it is. */
  #pictureOnly() {
    const rate = this.video.frames_per_second ?? FALLBACK_RATE;
    const frames = Math.max(1, Math.round(this.plain.duration * rate));
    return { frame: [], action: [], reward: [], frames_per_second: rate, num_frames: frames };
  }

  #complain(detail) {
    this.dispatchEvent(new CustomEvent("problem", { detail }));
  }

  /** Return the overlays there are, by method. */
  get overlays() {
    return (this.video?.overlays ?? []).map((overlay) => overlay.method);
  }

  get fps() {
    return this.episode?.framesPerSecond ?? 30;
  }

  get numFrames() {
    return this.episode?.numFrames ?? 1;
  }

  get duration() {
    return this.episode ? this.numFrames / this.fps : 0;
  }

  /** Return when the picture that is shown (or sought) begins; while playing, the exact time. */
  get time() {
    return this.paused || this.#wanted !== null
      ? (this.#wanted ?? this.frame) / this.fps
      : this.front.currentTime;
  }

  get paused() {
    return this.front.paused;
  }

  get ended() {
    return (this.#wanted ?? this.frame) >= this.numFrames - 1;
  }

  get rate() {
    return this.#rate;
  }

  set rate(rate) {
    this.#rate = rate;
    this.#applyRate();
    this.dispatchEvent(new Event("state"));
  }

  /** Return the agent step that is shown. */
  get step() {
    return this.episode ? this.episode.stepAt(this.frame) : 0;
  }

  /** Play on; from the beginning if the end was reached. */
  play() {
    if (!this.episode) return;
    if (this.ended) this.go(0);
    for (const video of this.#active()) video.play().catch(() => {}); // refused: it stays paused
  }

  pause() {
    for (const video of this.#active()) video.pause();
  }

  /** Show the picture of a time in seconds. */
  seek(time) {
    this.go(this.#frameAt(time));
  }

  /** Show a frame. The middle of its time is sought, so that no rounding can hit a neighbour. */
  go(frame) {
    if (!this.episode) return;
    this.#wanted = Math.min(Math.max(0, frame), this.numFrames - 1);
    for (const video of this.#active()) video.currentTime = (this.#wanted + 0.5) / this.fps;
  }

  /** Show the picture that a step answers to. */
  goToStep(step) {
    this.go(this.episode.frame[step] ?? 0);
  }

  /** Pause, and go on by some frames. */
  move(frames) {
    this.pause();
    this.go((this.#wanted ?? this.frame) + frames);
  }

  /** Multiply the speed for a moment, to stay with others. */
  nudge(factor) {
    for (const video of this.#active()) video.playbackRate = this.#rate * factor;
  }

  /**
   * Show an overlay of a method, or none. The other video is brought to the same picture while it
   * is hidden, and only then shown.
   */
  async showOverlay(method) {
    const generation = this.#generation;
    this.overlay = method;
    this.#last = method ?? this.#last;
    this.dispatchEvent(new Event("state"));
    let next = this.plain;
    if (method) {
      next = this.over;
      if (next.dataset.method !== method) {
        try {
          await this.#open(next, runUrl(this.run, "video", this.video.id, "overlay", method));
        } catch {
          if (generation !== this.#generation || this.overlay !== method) return;
          this.overlay = null;
          this.dispatchEvent(new Event("state"));
          this.#complain(`The overlay ${method} of this video cannot be shown.`);
          return;
        }
        if (generation !== this.#generation || this.overlay !== method) return;
        next.dataset.method = method;
      }
    }
    if (next === this.front) return;
    next.playbackRate = this.#rate;
    next.currentTime = this.#position;
    if (!this.front.paused) next.play().catch(() => {});
    await pictureOf(next);
    if (generation !== this.#generation || this.overlay !== method) return;
    this.#bring(next);
  }

  /** Switch the overlay on or off: the one that was shown last, or the first. */
  toggleOverlay() {
    const last = this.overlays.includes(this.#last) ? this.#last : this.overlays[0];
    if (last) this.showOverlay(this.overlay ? null : last);
  }

  #makeVideo() {
    const video = el("video", { playsinline: true, muted: true, preload: "auto", tabindex: -1 });
    video.muted = true;
    video.disablePictureInPicture = true;
    const mine = (act) => () => video === this.front && act();
    for (const name of ["play", "pause", "ended"]) {
      video.addEventListener(name, mine(() => this.#changed()));
    }
    video.addEventListener("seeked", mine(() => {
      if (!this.episode) return;
      if (video.paused || this.#wanted !== null) this.#show(this.#frameAt(video.currentTime));
      this.#wanted = null;
    }));
    if (video.requestVideoFrameCallback) {
      const next = (_, picture) => {
        // A picture from before a seek that is under way would step back for a moment.
        if (video === this.front && this.episode && this.#wanted === null) {
          this.#show(Math.round(picture.mediaTime * this.fps));
        }
        video.requestVideoFrameCallback(next);
      };
      video.requestVideoFrameCallback(next);
    } else {
      const next = () => {
        if (video === this.front && this.episode && !video.paused && this.#wanted === null) {
          this.#show(this.#frameAt(video.currentTime));
        }
        requestAnimationFrame(next);
      };
      requestAnimationFrame(next);
    }
    return video;
  }

  /** Load a file into a video until its size and length are known. */
  #open(video, url) {
    return new Promise((resolve, reject) => {
      video.onloadedmetadata = () => resolve();
      video.onerror = () => reject(new Error(`${url} cannot be played`));
      delete video.dataset.method;
      video.src = url;
      video.load();
    });
  }

  #clear(video) {
    video.onerror = null;
    video.onloadedmetadata = null;
    delete video.dataset.method;
    if (!video.hasAttribute("src")) return;
    video.removeAttribute("src");
    video.load();
  }

  /** Put a video in front of the other one. */
  #bring(video) {
    this.front = video;
    this.plain.classList.toggle("front", video === this.plain);
    this.over.classList.toggle("front", video === this.over);
    this.dispatchEvent(new Event("state"));
  }

  /**
   * Return the time at which another video shows the same picture. A browser pauses with its clock
   * up to a picture behind what it shows, so at rest the picture counts, not the clock.
   */
  get #position() {
    return this.paused ? ((this.#wanted ?? this.frame) + 0.5) / this.fps : this.front.currentTime;
  }

  #active() {
    return this.over.dataset.method ? [this.plain, this.over] : [this.plain];
  }

  #applyRate() {
    for (const video of this.#active()) video.playbackRate = this.#rate;
  }

  #frameAt(time) {
    return Math.min(Math.max(0, Math.floor(time * this.fps + 1e-4)), this.numFrames - 1);
  }

  #show(frame) {
    this.frame = Math.min(frame, this.numFrames - 1);
    this.dispatchEvent(new Event("frame"));
  }

  #changed() {
    clearInterval(this.#follower);
    if (!this.front.paused) this.#follower = setInterval(() => this.#follow(), FOLLOW_MS);
    else this.#follow();
    if (this.front.ended) this.#show(this.numFrames - 1);
    this.dispatchEvent(new Event("state"));
  }

  /** Bring the hidden video to where the shown one is. */
  #follow() {
    const back = this.front === this.plain ? this.over : this.plain;
    if (!this.#active().includes(back) || back.seeking || this.front.seeking) return;
    if (Math.abs(back.currentTime - this.#position) > DRIFT_S) back.currentTime = this.#position;
    if (back.paused !== this.front.paused && !back.ended) {
      if (back.paused) back.play().catch(() => {});
      else back.pause();
    }
  }

  /** Choose the size of the picture: whole multiples of the game's pixels where they fit. */
  #fit() {
    const { videoWidth, videoHeight } = this.plain;
    if (!videoWidth) return;
    const ratio = window.devicePixelRatio || 1;
    const width = videoWidth / this.pixel;
    const height = videoHeight / this.pixel;
    const room = Math.min(
      (this.element.clientWidth * ratio) / width,
      (this.element.clientHeight * ratio) / height,
    );
    let zoom = room;
    if (room >= 1 && width <= COARSE) {
      const half = Math.floor(room * 2) / 2;
      zoom = half > Math.floor(room) * WASTE ? half : Math.floor(room);
    }
    const spare = zoom === room ? 1 : 0; // hides what rounding would leave at an edge
    for (const video of [this.plain, this.over]) {
      video.style.width = `${Math.ceil((width * zoom) / ratio) + spare}px`;
      video.style.height = `${Math.ceil((height * zoom) / ratio) + spare}px`;
      video.classList.toggle("smooth", zoom === room);
    }
    this.element.style.setProperty("--ratio", `${videoWidth} / ${videoHeight}`);
  }
}

/** Wait until the picture that was sought is there. */
function pictureOf(video) {
  return new Promise((resolve) => {
    const done = () => {
      video.removeEventListener("seeked", done);
      clearTimeout(timer);
      // One more turn of the screen: the picture is decoded, but perhaps not drawn yet.
      requestAnimationFrame(() => requestAnimationFrame(resolve));
    };
    const timer = setTimeout(done, 2000);
    if (video.seeking) video.addEventListener("seeked", done);
    else done();
  });
}

function withoutNull(data) {
  return Object.fromEntries(Object.entries(data).filter(([, value]) => value !== null));
}
