"""Measures servers that run, whoever started them."""

import argparse

import httpx

from lingbi.bench.client import Target
from lingbi.bench.series import Sides, each_round, in_turn
from lingbi.client.addresses import base_url
from lingbi.errors import ConfigurationError
from lingbi.smoke.main import served_models

ONE = "one worker"


def measure_urls(options: argparse.Namespace, sides: Sides) -> None:
    """Measure what answers at the given URLs, into sides; with --worker, in turns with one of its workers alone.

    Answers have no fixed length: not every server accepts ignore_eos.
    """
    key = options.api_key_file.read_text().strip() if options.api_key_file else None
    first, *others = map(base_url, options.url)
    worker = base_url(options.worker) if options.worker else None
    for url in (first, *others, *([worker] if worker else [])):
        with httpx.Client(base_url=url, trust_env=False) as client:
            options.model = model_to_ask(served_models(client, key), options.model)
    all_of_them = f"{options.workers} workers" if worker else "server"
    sides |= {all_of_them: {"rounds": []}}
    steps = {all_of_them: each_round(Target(first, key, options.model, tuple(others)), options, fixed_length=False)}
    if worker:
        sides |= {ONE: {"rounds": []}}
        target = Target(worker, key, options.model)
        steps[ONE] = each_round(target, options, fixed_length=False, of_workers=options.workers)
    in_turn(steps, sides)


def model_to_ask(served: list[str], asked: str | None) -> str:
    """The model that is measured, of those that a server offers. Raises ConfigurationError where that is not said."""
    if asked in served or (asked is None and len(served) == 1):
        return asked or served[0]
    why = "several models are served" if asked is None else f"{asked!r} is not served"
    raise ConfigurationError(f"{why}; give one of these in --model: {', '.join(served)}")


def check_workers(options: argparse.Namespace) -> str | None:
    """What is wrong with the options of several workers, or None; fills in how many they are."""
    if options.worker and not options.url:
        return "--worker is one of the workers behind --url: give that too"
    if options.workers and not options.worker:
        return "--workers says how many of --worker answer at --url: give that too"
    if not options.worker:
        return None
    options.workers = options.workers or len(options.url)
    if options.workers < 2:
        return "--worker is compared with several: give their URLs in --url, or a gateway's there and --workers"
    return None
