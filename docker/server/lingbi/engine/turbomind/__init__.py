"""What lingbi adds to TurboMind on a GPU."""
