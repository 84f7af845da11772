"""GET /v1/admin/queue: what the worker that answers has under way, and of whom."""

from starlette.requests import Request

from lingbi.http.admin.administrators import check_administrator
from lingbi.http.protocol.queue import KeyUnderWay, Queue
from lingbi.http.service import Service


async def admin_queue(service: Service, request: Request) -> Queue:
    """How full this worker is. Raises NotPermitted."""
    check_administrator(request)
    admission, generator = service.admission, service.generator
    waiting = min(admission.inside, len(generator.places.turns)) if generator else 0  # lines of batches wait there too
    keys = [KeyUnderWay(key=name, requests=count) for name, count in admission.by_key.most_common() if count]
    return Queue(
        model=service.readiness.model,
        phase=service.readiness.report()["phase"],
        running=admission.inside - waiting,
        waiting=waiting,
        limit=admission.limit,
        batch_lines=service.running_lines(),
        keys=keys,
    )
