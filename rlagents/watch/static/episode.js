// An episode by agent step, from the JSON beside its video.

/** What happened in an episode: which step a frame belongs to, rewards, values and their scales. */
export class Episode {
  /** @param {object} data the sidecar */
  constructor(data) {
    this.frame = data.frame ?? []; // of several games at once there is no one list of steps
    this.action = data.action ?? [];
    this.reward = data.reward ?? [];
    this.values = data.values ?? [];
    this.firstStep = data.first_step ?? 0; // of a part of an episode
    this.numSteps = data.episodic_length ?? this.frame.length;
    this.probabilities = data.values_are === "probabilities";
    this.names = data.action_names ?? null;
    this.framesPerSecond = data.frames_per_second;
    this.numFrames = data.num_frames;
    this.hasValues = this.values.some((values) => values !== null);
    let sum = data.return_before ?? 0;
    this.returns = this.reward.map((reward) => (sum += reward));
    this.notable = notableSteps(this.reward);
    this.scale = this.probabilities ? { low: 0, high: 1 } : scaleOf(this.values);
    this.spread = spreadOf(this.values);
  }

  /** Return how many steps are shown. */
  get length() {
    return this.frame.length;
  }

  /** Return the step that a frame belongs to: the last one whose picture is not after it. */
  stepAt(frame) {
    let low = 0;
    let high = this.frame.length; // the first step whose picture is after `frame`
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.frame[middle] <= frame) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }

  /** Return an action's name. */
  name(action) {
    return this.names?.[action] ?? `action ${action}`;
  }

  /** Return how many actions there are, as far as the episode tells. */
  get numActions() {
    return this.values.find((values) => values !== null)?.length ?? this.names?.length ?? 0;
  }

  /** Return one number for how good the step looked: the chosen action's value, or null. */
  value(step) {
    return this.values[step]?.[this.action[step]] ?? null;
  }

  /** Return the first step after `step` with a reward worth looking at, null if there is none. */
  nextNotable(step) {
    return this.notable.find((candidate) => candidate > step) ?? null;
  }
}

/** Return the steps whose reward is not the one that most steps have. */
function notableSteps(rewards) {
  const counts = new Map();
  for (const reward of rewards) counts.set(reward, (counts.get(reward) ?? 0) + 1);
  let common = 0;
  for (const [reward, times] of counts) {
    if (times > (counts.get(common) ?? 0)) common = reward;
  }
  return rewards.flatMap((reward, step) => (reward === common ? [] : [step]));
}

/** Return the lowest and the highest value of an episode, and zero if it is near. */
function scaleOf(rows) {
  let low = Infinity;
  let high = -Infinity;
  for (const values of rows) {
    for (const value of values ?? []) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (low > high) return { low: 0, high: 1 };
  if (low > 0 && low < high - low) low = 0;
  if (high < 0 && -high < high - low) high = 0;
  return low === high ? { low: low - 1, high: high + 1 } : { low, high };
}

/** Return the largest distance of an action's value from the mean over the actions. */
function spreadOf(rows) {
  let spread = 0;
  for (const values of rows) {
    if (values === null) continue;
    const mean = meanOf(values);
    for (const value of values) spread = Math.max(spread, Math.abs(value - mean));
  }
  return spread || 1;
}

/** Return the mean of some numbers. */
export function meanOf(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
