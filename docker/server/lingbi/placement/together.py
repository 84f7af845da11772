"""Two cards that hold one copy of a model together (LINGBI_TP): where that can work."""

from collections.abc import Sequence

from lingbi.errors import ConfigurationError
from lingbi.model.gpus import CPU, Gpu
from lingbi.settings import Settings

AUTO, PAIR = "auto", 2


def check_together(settings: Settings, engine: str, gpus: Sequence[Gpu]) -> None:
    """Raise ConfigurationError where the settings want two cards for one copy of a model, and that cannot work."""
    if settings.tp != str(PAIR):
        return
    check_alone(settings)
    if engine == CPU:
        raise ConfigurationError(f"LINGBI_TP={PAIR} is for GPUs, and the engine is {CPU}; LINGBI_TP=1")
    if slices := [gpu.device for gpu in gpus if is_slice(gpu)]:
        raise ConfigurationError(
            f"LINGBI_TP={PAIR}: {slices[0]} is a slice of a GPU, and slices cannot work together; give whole GPUs, or LINGBI_TP=1"
        )
    if len(gpus) < PAIR:
        raise ConfigurationError(f"LINGBI_TP={PAIR}, and {len(gpus)} GPU(s) are here; LINGBI_TP=1")


def check_alone(settings: Settings) -> None:
    """Raise ConfigurationError where cards are to work together and others share them too."""
    if settings.tp != str(PAIR):
        return
    if settings.on_demand:
        raise ConfigurationError(f"LINGBI_TP={PAIR} and LINGBI_ON_DEMAND do not go together; leave one away")
    if "," in settings.model:
        raise ConfigurationError(
            f"LINGBI_TP={PAIR} is for one model, and LINGBI_MODEL={settings.model!r} names several; name one, or LINGBI_TP=1"
        )


def may_share(settings: Settings, gpus: Sequence[Gpu]) -> bool:
    """Whether LINGBI_TP=auto may take two of these cards for one copy."""
    return len(gpus) >= PAIR and not settings.on_demand and not any(map(is_slice, gpus))


def is_slice(gpu: Gpu) -> bool:
    return gpu.device.startswith("MIG-")
