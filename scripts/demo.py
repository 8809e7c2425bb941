"""`make demo`: train CartPole to solved, evaluate it, record a video, say where everything is."""

from __future__ import annotations

import argparse
import time

import rlagents


def main() -> None:
    """Run the demo in `runs/`."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    began = time.monotonic()
    run = rlagents.train("cartpole-dqn", seed=1)
    evaluation = run.evaluate(episodes=100)
    (video,) = run.record(output=run.directory / "videos" / "demo.mp4")
    solved = "solved" if evaluation.mean_return >= 475 else "not solved"
    print(
        f"\nCartPole is {solved}: mean return {evaluation.mean_return:.1f} of at most 500, over "
        f"100 episodes, after {time.monotonic() - began:.0f} s.\n\n"
        f"  watch it play    {video}\n"
        f"  all videos       {run.directory / 'videos'}\n"
        f"  in the browser   .venv/bin/rlagents watch\n"
        f"  train for Pong   .venv/bin/rlagents train pong-dqn\n"
    )


if __name__ == "__main__":
    main()
