"""The module of each command, which scripts/NAME and, in the server's image, `lingbi NAME` run with `python -m`."""

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
