"""Which jobs that wait are drawn together with the next one: of other users, and of one program."""

import json
from collections.abc import Mapping

from flaxgen.app import asking
from flaxgen.app.catalogue import Entry
from flaxgen.app.line import Line
from flaxgen.app.messages import Asked, Job
from flaxgen.app.store import Store

OWN = ("captions", "caption", "caption_from", "caption_to", "negative", "seed", "first")
"""Fields that each picture may have its own of."""
COUNTS = ("num", "frames", "candidates")
"""Fields that multiply how many there are."""


def likeness(entry: Entry, job: Job | Asked) -> str:
    """Equal for jobs of one model, one verb, one size of batch and one value of every field but those of OWN and
    pictures: for these a stage is one program with one set of strengths."""
    kind = entry.verbs[job.verb]
    free = {*OWN, "num", *(name for name, spec in asking.offered(kind).items() if spec.is_picture)}
    many = len(job.request.get("captions") or ".")
    for name in COUNTS:
        many *= job.request.get(name) or 1
    same = {name: value for name, value in job.request.items() if name not in free}
    return json.dumps([entry.name, job.verb, (many - 1).bit_length(), same], sort_keys=True)


def companions(entries: Mapping[str, Entry], store: Store, line: Line, first: str, most: int) -> list[str]:
    """Takes out of the line what is drawn with the job `first`, `most` with it: of each other user the next one, if it
    is like that. A job that was being drawn when the server was killed is drawn alone."""
    job = store.job(first)
    if job is None or job.model not in entries or not store.is_fresh(first):
        return []
    wanted, joined = likeness(entries[job.model], job), []
    for user, id in line.nexts(except_of=store.owner(first)):
        if len(joined) + 1 >= most:
            break
        other = store.job(id)
        if other is None or (other.model, other.verb) != (job.model, job.verb) or not store.is_fresh(id):
            continue
        if likeness(entries[job.model], other) == wanted and line.take_next(user, id):
            joined.append(id)
    return joined
