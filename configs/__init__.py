"""Recipes: one commented TOML file each. `rlagents list configs` shows them."""
