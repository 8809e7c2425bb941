// Several screens that go together: one time for all, each ends by itself.

const FOLLOW_MS = 100;
const NEAR_S = 0.012; // closer than a picture of most games
const FAR_S = 0.4; // further off than this is sought, not caught up with
const NUDGE = 0.15;

/**
 * Plays screens in step. It is controlled as a screen is; the longest one that is not over leads,
 * the others are slowed or hurried until they are where it is.
 */
export class Ensemble extends EventTarget {
  #screens;
  #playing = false;
  #rate = 1;

  /** @param {Screen[]} screens that go together */
  constructor(screens) {
    super();
    this.#screens = screens;
    for (const screen of screens) {
      screen.addEventListener("frame", () => this.dispatchEvent(new Event("frame")));
      screen.addEventListener("state", () => this.#changed());
      screen.addEventListener("loaded", () => {
        screen.rate = this.#rate;
        this.dispatchEvent(new Event("loaded"));
      });
    }
    setInterval(() => this.#follow(), FOLLOW_MS);
  }

  get #loaded() {
    return this.#screens.filter((screen) => screen.episode);
  }

  /** Return the screen whose time counts: the longest. */
  get #leader() {
    const longest = (a, b) => (b.duration > a.duration ? b : a);
    return this.#loaded.length ? this.#loaded.reduce(longest) : this.#screens[0];
  }

  get paused() {
    return !this.#playing;
  }

  get time() {
    return this.#leader.time;
  }

  get duration() {
    return this.#leader.duration;
  }

  get rate() {
    return this.#rate;
  }

  set rate(rate) {
    this.#rate = rate;
    for (const screen of this.#screens) screen.rate = rate;
    this.dispatchEvent(new Event("state"));
  }

  /** Play all; from the beginning if all are over. */
  play() {
    if (!this.#loaded.length) return;
    this.seek(this.#leader.ended ? 0 : this.time);
    this.#playing = true;
    this.#start();
    this.dispatchEvent(new Event("state"));
  }

  pause() {
    this.#playing = false;
    for (const screen of this.#loaded) screen.pause();
    if (this.#loaded.length) this.seek(this.time); // the same moment for all
    this.dispatchEvent(new Event("state"));
  }

  /** Show a time; a screen that is over by then shows its last picture. */
  seek(time) {
    for (const screen of this.#loaded) screen.seek(time);
    if (this.#playing) this.#start();
  }

  /** Pause, and go on by some of the leader's frames. */
  move(frames) {
    if (!this.#loaded.length) return;
    if (this.#playing) this.pause();
    const leader = this.#leader;
    const at = Math.round(leader.time * leader.fps) + frames;
    this.seek((Math.min(Math.max(0, at), leader.numFrames - 1) + 0.25) / leader.fps);
  }

  toggleOverlay() {
    for (const screen of this.#loaded) screen.toggleOverlay();
  }

  #start() {
    for (const screen of this.#loaded) if (!screen.ended && screen.paused) screen.play();
  }

  /** Keep the others where the leader is. */
  #follow() {
    if (!this.#playing) return;
    const leader = this.#leader;
    for (const screen of this.#loaded) {
      if (screen === leader || screen.ended || screen.paused) continue;
      const ahead = screen.time - leader.time;
      if (Math.abs(ahead) > FAR_S) screen.seek(leader.time);
      else if (Math.abs(ahead) > NEAR_S) screen.nudge(1 - Math.sign(ahead) * NUDGE);
      else screen.nudge(1);
    }
  }

  #changed() {
    if (this.#playing && this.#loaded.every((screen) => screen.paused || screen.ended)) {
      if (this.#leader.ended) this.#playing = false;
    }
    this.dispatchEvent(new Event("state"));
  }
}
