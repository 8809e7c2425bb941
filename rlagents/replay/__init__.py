"""Where experience waits to be learned from: replay and trajectories, each frame kept once."""
