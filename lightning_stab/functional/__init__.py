"""Pure tensor mathematics: torch and the standard library only."""
