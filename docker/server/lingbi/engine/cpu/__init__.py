"""The engine on a CPU: plain torch in TurboMind's place."""
