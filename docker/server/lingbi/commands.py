"""The module of each command, which scripts/NAME and, in the server's image, `lingbi NAME` run with `python -m`."""

MODULES = {
    "batch": "lingbi.cli.batch",
    "bench": "lingbi.bench",
    "doctor": "lingbi.launch.doctor",
    "down": "lingbi.launch.down",
    "fetch": "lingbi.cli.fetch",
    "health": "lingbi.launch.health",
    "key": "lingbi.cli.key",
    "pipeline": "lingbi.cli.pipeline",
    "plan": "lingbi.cli.plan",
    "service": "lingbi.launch.service",
    "smoke": "lingbi.smoke",
    "up": "lingbi.launch.up",
    "usage": "lingbi.cli.usage",
    "verify-model": "lingbi.cli.verify_model",
    "weights": "lingbi.weights",
}
