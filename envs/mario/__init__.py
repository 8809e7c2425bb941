"""Super Mario Bros. (NES), where the package with the game is installed: docs/mario.md."""

from rlagents.envs.mario.env import MarioEnv
from rlagents.envs.mario.rewards import Played
from rlagents.envs.mario.specs import mario_names, mario_spec

__all__ = ["MarioEnv", "Played", "mario_names", "mario_spec"]
