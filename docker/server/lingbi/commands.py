"""Which module each command is: scripts/NAME runs it with `python -m`, and so does `lingbi NAME` in the server's image."""

MODULES = {
    "bench": "lingbi.bench",
    "doctor": "lingbi.launch.doctor",
    "down": "lingbi.launch.down",
    "fetch": "lingbi.cli.fetch",
    "health": "lingbi.launch.health",
    "key": "lingbi.cli.key",
    "pipeline": "lingbi.cli.pipeline",
    "plan": "lingbi.cli.plan",
    "smoke": "lingbi.smoke",
    "up": "lingbi.launch.up",
    "verify-model": "lingbi.cli.verify_model",
    "weights": "lingbi.weights",
}
