"""Super Mario Bros. (NES), where the package with the game is installed: docs/mario.md."""
