"""What a request passes once its body is read, before anything is done with it: the background's room, and quotas."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from lingbi.engine.prompts import template_tokens
from lingbi.http.admission.estimates import Costs, most_of
from lingbi.http.middleware.accounting import RECORD
from lingbi.http.middleware.door import ACCOUNT, ASKER, INSIDE
from lingbi.http.protocol.answers import FLEX
from lingbi.model.catalogue import image_tokens, largest_image

LONGEST_SESSION, LONGEST_TEMPLATE = 32_768, 1024  # tokens; of the published models' half as many and fewer

if TYPE_CHECKING:
    from starlette.requests import Request

    from lingbi.accounts.facts import KeyFacts
    from lingbi.engine.generation import Generator
    from lingbi.http.protocol.requests import Sampled
    from lingbi.http.request_log import Record
    from lingbi.http.service import Service
    from lingbi.settings import Settings


async def let_in(service: Service, request: Request, body: Sampled) -> None:
    """Put a request into the background that asks for it, and have it keep to its key's limits.

    Raises Busy, OverQuota and QuotasAway.
    """
    scope = request.scope
    if body.service_tier == FLEX and INSIDE not in scope:
        service.admission.enter_background()
        scope[ASKER] = scope[ASKER].in_background
    key: KeyFacts = scope[ACCOUNT]
    record: Record = scope[RECORD]
    if not scope[ASKER].is_background:
        service.background.arrive(id(record))  # ids of requests are the clients' to choose
    if key.limits and service.quotas and record.use:
        asked = most_of(body, costs_of(service.generator, service.settings))
        record.headers, record.use.charged_at = await service.quotas.admit(record.use.name, key, asked)


@lru_cache(maxsize=1)
def costs_of(generator: Generator | None, settings: Settings) -> Costs:
    """What a model's sessions hold, and its images and its prompts' form take; the most of any model until it is loaded."""
    largest = largest_image(settings.hd_num)
    if generator is None:
        image = image_tokens(None, *largest, settings.hd_num)
        return Costs(settings.session_len or LONGEST_SESSION, image, LONGEST_TEMPLATE)
    image = image_tokens(generator.engine.needs.folder.image_side, *largest, settings.hd_num)
    return Costs(generator.session_len, image, template_tokens(generator.form, generator.tokenizer))
