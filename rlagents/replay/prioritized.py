"""Prioritized experience replay, the proportional variant: Schaul et al. (2016).

Transition i is drawn with probability (Eq. 1)

    P(i) = p_i^alpha / sum_k p_k^alpha,    p_i = |TD error of its last update| + epsilon

and its part of the loss is multiplied by an importance weight (Section 3.4), which takes out the
more of the bias, the nearer beta is to 1:

    w_i = (1 / M * 1 / P(i))^beta / max_j w_j

A new transition has the highest priority of all updates so far, at least 1 (Algorithm 1, lines 2
and 6). A batch takes one draw from each of B equal shares of the sum (Appendix B.2.1).

Differences from the paper:
- The maximum is taken over the batch, and not over all that is held, as most implementations have
  it. M, the number of transitions, then makes no difference.
- Of an n-step transition, which has no reward and successor of its own before n steps are over,
  'new' means the step in which it has become complete.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rlagents.files import load_array, read_json, save_array
from rlagents.replay.ring import Batch, Drawn, TransitionRing
from rlagents.replay.sum_tree import Masses, SumTree
from rlagents.schedules import LinearSchedule
from rlagents.types import FloatArray, IntArray, Transition


class PrioritizedReplay:
    """Samples the last transitions of N environments by their priorities.

    The tree has a mass, p^alpha, for each slot of the ring. It is 0 where no complete transition
    begins, and anything else where one does.

    Args:
        ring: holds the transitions.
        generator: draws the samples.
        exponent: alpha; 0 makes all transitions equal.
        importance: beta, over the agent steps.
        epsilon: added to each TD error, so that none is never seen again.
    """

    def __init__(
        self,
        ring: TransitionRing,
        generator: np.random.Generator,
        *,
        exponent: float,
        importance: LinearSchedule,
        epsilon: float,
    ) -> None:
        self.importance = importance
        self._ring = ring
        self._generator = generator
        self._exponent = exponent
        self._epsilon = epsilon
        self._highest = 1.0  # priority so far
        self._tree = SumTree(ring.num_envs * ring.rows)

    def __len__(self) -> int:
        """Return the number of transitions held."""
        return len(self._ring)

    def observe(self, transition: Transition) -> None:
        """Append one step of every environment."""
        before = self._ring.head.copy()
        self._ring.observe(transition)
        self._renew(before)

    def interrupt(self) -> None:
        """Close the running episodes: their next observation will never come."""
        self._ring.interrupt()
        self._renew(self._ring.head)

    def _renew(self, before: IntArray) -> None:
        """Give a mass to what has become complete, and take it from what no longer is.

        Args:
            before: [N] int64, the number of rows written when all masses were right.
        """
        ring = self._ring
        # A step writes one row, or two where it ends an episode, and completes transitions that
        # began up to n rows earlier. It overwrites as many of the oldest rows, and the stacks of
        # those that follow them lose a frame.
        newest = np.arange(1, min(ring.n_step + 2, ring.rows) + 1)
        oldest = np.arange(ring.rows, ring.rows - ring.stack + 1, -1)
        back = np.concatenate([newest, oldest])
        rows = (ring.head[:, None] - back).ravel()  # [N * K]
        envs = np.repeat(np.arange(ring.num_envs), len(back))
        leaves = envs * ring.rows + rows % ring.rows
        masses = self._tree.masses[leaves]
        is_new = (rows >= before[envs]) | (masses == 0)
        masses = np.where(is_new, self._highest**self._exponent, masses)
        self._tree.set(leaves, np.where(ring.complete(envs, rows), masses, 0.0))

    def sample(self, step: int = 0) -> Batch:
        """Draw B transitions by priority, with replacement, among all that are complete.

        Args:
            step: agent steps so far, which say what beta is.
        """
        total = self._tree.total
        if total == 0:
            raise RuntimeError("replay holds no complete transition yet")
        ring = self._ring
        count = ring.batch_size
        shares = (np.arange(count) + self._generator.random(count)) * (total / count)
        leaves = self._tree.find(shares)
        envs, slots = np.divmod(leaves, ring.rows)
        newest = ring.head[envs] - 1
        rows = newest - (newest - slots) % ring.rows
        importance = importance_weights(self._tree.masses[leaves], self.importance.at(step))
        return ring.gather(envs, rows)._replace(weights=importance, drawn=Drawn(leaves, rows))

    def update_priorities(self, drawn: Drawn, errors: FloatArray) -> None:
        """Set the priorities of those transitions of a batch that are still held.

        Args:
            drawn: of what `sample` returned.
            errors: [B] float32, its TD errors, of either sign.
        """
        priorities = np.abs(errors).astype(np.float64) + self._epsilon
        self._highest = max(self._highest, float(priorities.max()))
        held = self._ring.complete(drawn.leaves // self._ring.rows, drawn.rows)
        self._tree.set(drawn.leaves[held], priorities[held] ** self._exponent)

    def save(self, directory: Path) -> None:
        """Write everything held, but not the generator, to `directory`."""
        self._ring.save(directory)
        masses = self._tree.masses.reshape(self._ring.num_envs, self._ring.rows)
        save_array(directory / "masses.npy", masses[:, : self._ring.filled])
        text = json.dumps({"highest": self._highest})
        (directory / "priorities.json").write_text(text, encoding="utf-8")

    def load(self, directory: Path) -> None:
        """Read back what `save` wrote.

        Raises:
            OSError: a file cannot be read.
            ValueError: it is damaged, or was saved with another capacity or number of environments.
        """
        ring = self._ring
        ring.load(directory)
        held = load_array(directory / "masses.npy", np.float64, (ring.num_envs, ring.filled))
        if not (held >= 0).all() or not np.isfinite(held.sum()):
            raise ValueError("masses.npy: expected numbers, 0 or more")
        masses = np.zeros((ring.num_envs, ring.rows))
        masses[:, : ring.filled] = held
        self._tree.set_all(masses.ravel())
        highest = read_json(directory / "priorities.json").get("highest")
        if not isinstance(highest, float) or not 0 < highest < np.inf:
            raise ValueError(f"priorities.json: expected a number above 0, got {highest!r:.80}")
        self._highest = highest


def importance_weights(masses: Masses, beta: float) -> FloatArray:
    """Return (M * P(i))^-beta, divided by the largest of the batch.

    Args:
        masses: [B] float64, p^alpha of each transition, above 0.
        beta: 0 makes all equal, 1 corrects in full.

    Returns:
        [B] float32, at most 1.
    """
    importance: FloatArray = ((masses.min() / masses) ** beta).astype(np.float32)
    return importance
