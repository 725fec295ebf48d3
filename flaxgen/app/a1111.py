"""The API of A1111's web UI, as its clients speak it: a job of the caller's, in the same line as the page's.

What is process-wide there belongs to the caller here: progress, interrupt and the chosen model.
"""

import base64
import io
import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from PIL import Image, ImageOps

from flaxgen.app import asking, uploads
from flaxgen.app.a1111_bodies import Body, FromPicture, Pasted, infotext, ours_of, parameters_of, samplers
from flaxgen.app.catalogue import Entry
from flaxgen.app.messages import Job
from flaxgen.app.replies import Ascii, Failure
from flaxgen.app.sizes import Size, plan_size, resized
from flaxgen.app.studio import Studio
from flaxgen.app.submitting import about, read_request, run, with_strength
from flaxgen.app.waiting import Preview, begin, contents, finish

CHOICES = 4_096
"""Callers whose choice of a model is remembered, at most."""
MODEL = "sd_model_checkpoint"
DATA_URL = re.compile(r"data:image/[a-z]{1,8};base64,")
VERBS = ("draw", "vary", "inpaint")


class Desk(NamedTuple):
    """What callers left: the model that each chose, and the last preview of what is drawn for each."""

    chosen: OrderedDict[str, str]
    previews: dict[str, str]


class Task(NamedTuple):
    """A job to do: fields of the request and pictures of it, the size of what comes of it, and what of the body
    changes nothing."""

    verb: str
    fields: dict[str, Any]
    files: dict[str, bytes]
    size: Size | None
    ignored: list[str]


def make_router(studio: Studio) -> APIRouter:
    """The routes below /sdapi/v1."""
    router, desk = APIRouter(default_response_class=Ascii), Desk(OrderedDict(), {})
    _add_drawing(router, studio, desk)
    _add_progress(router, studio, desk)
    _add_options(router, studio, desk)
    _add_lists(router, studio)
    return router


def _add_drawing(router: APIRouter, studio: Studio, desk: Desk) -> None:
    @router.post("/sdapi/v1/txt2img")
    async def txt2img(body: Body, request: Request) -> dict[str, Any]:
        """Draws what a prompt says, as A1111's web UI does; `draw` of the caller's model."""
        return await _answer(studio, desk, request, body, "draw", {})

    @router.post("/sdapi/v1/img2img")
    async def img2img(body: FromPicture, request: Request) -> dict[str, Any]:
        """Draws from a picture, as A1111's web UI does: with a mask `inpaint`, without one `vary`."""
        files = {"image": _decoded(body.init_images[0], "init_images")}
        if body.mask is not None:
            mask = _decoded(body.mask, "mask")
            inverted = bool(body.inpainting_mask_invert)
            files["mask"] = await run(_mask, files["image"], mask, inverted, studio.limits.pixels)
        return await _answer(studio, desk, request, body, "inpaint" if "mask" in files else "vary", files)

    @router.post("/sdapi/v1/png-info")
    async def png_info(body: Pasted, request: Request) -> dict[str, Any]:
        """What a picture says that it was drawn by; nothing of it is kept."""
        try:
            read = await run(read_request, studio, request.state.user, _decoded(body.image, "image"))
        except Failure as failure:
            if failure.status != 404:
                raise
            return {"info": "", "items": {}, "parameters": {}}
        said = parameters_of(read.model, read.verb, read.request, None)
        return {"info": infotext(said), "items": {"flaxgen": json.dumps(read.model_dump())}, "parameters": said}


async def _answer(
    studio: Studio, desk: Desk, request: Request, body: Body, verb: str, files: dict[str, bytes]
) -> dict[str, Any]:
    """Asks for a job and answers with its pictures."""
    user, named = request.state.user, (body.override_settings or {}).get(MODEL)
    entry = _entry(studio, desk, user, named, verb)
    task = _task(studio, entry, verb, body, files)
    job = await begin(studio, user, entry.name, verb, task.fields, task.files)

    def see(preview: Preview) -> None:
        desk.previews[user] = preview["png"]

    try:
        found = await finish(studio, user, job.id, request, see)
    finally:
        desk.previews.pop(user, None)
    return await run(_reply, studio, user, body, task, found)


def _task(studio: Studio, entry: Entry, verb: str, body: Body, files: dict[str, bytes]) -> Task:
    kind = asking.verbs_of(entry)[verb]
    size = (body.width, body.height) if body.width and body.height else None
    plan = plan_size(entry, kind, size, "width")
    fields, ignored = ours_of(body, asking.offered(kind))
    seed = secrets.randbits(32) if body.seed is None or body.seed < 0 else body.seed
    return Task(verb, {**fields, "seed": seed, **plan.fields}, files, plan.resize, ignored)


def _reply(studio: Studio, user: str, body: Body, task: Task, job: Job) -> dict[str, Any]:
    drawn = contents(studio, user, job.pictures)
    files = [resized(png, task.size) for png in drawn]
    with Image.open(io.BytesIO(files[0]), formats=["PNG"]) as picture:
        asked = _with_used_strength(studio, drawn[0], job.request)
        said = parameters_of(job.model, job.verb, asked, picture.size)
    seeds, text = [said["Seed"]] * len(files), infotext(said)
    info = {
        "prompt": body.prompt or "", "all_prompts": [body.prompt or ""] * len(files),
        "negative_prompt": body.negative_prompt or "", "seed": said["Seed"], "all_seeds": seeds,
        "width": picture.width, "height": picture.height, "steps": said.get("Steps"), "batch_size": len(files),
        "sampler_name": said.get("Sampler"), "cfg_scale": said.get("CFG scale"), "sd_model_name": job.model,
        "denoising_strength": said.get("Denoising strength"), "index_of_first_image": 0,
        "infotexts": [text] * len(files), "job_timestamp": str(int(job.created)), "ignored": task.ignored,
        "pictures": job.pictures,
    }  # fmt: skip
    images = [] if body.send_images is False else [base64.b64encode(png).decode() for png in files]
    echoed = type(body).model_fields.keys() - {"init_images", "mask", "override_settings"}
    return {"images": images, "parameters": body.model_dump(include=set(echoed)), "info": json.dumps(info)}


def _with_used_strength(studio: Studio, png: bytes, request: Mapping[str, Any]) -> dict[str, Any]:
    """The request with the strength that its picture says was used; as it is where the picture is larger than what may
    be sent, or says too much to be read."""
    try:
        return with_strength(about(studio, png), request)
    except Failure:
        return dict(request)


def _add_progress(router: APIRouter, studio: Studio, desk: Desk) -> None:
    @router.get("/sdapi/v1/progress")
    def progress(request: Request, skip_current_image: bool = False) -> dict[str, Any]:
        """How far the caller's own jobs are."""
        user = request.state.user
        waiting = [job for _, job in studio.store.unfinished(user)]
        job = _current(waiting)
        share = 0.0 if job is None else job.step / max(job.steps, 1)
        state = {
            "skipped": False, "interrupted": False, "stopping_generation": False, "job": "" if job is None else job.id,
            "job_count": len(waiting), "job_timestamp": "0" if job is None else str(int(job.created)), "job_no": 0,
            "sampling_step": 0 if job is None else job.step, "sampling_steps": 0 if job is None else job.steps,
        }  # fmt: skip
        text = None if job is None else f"{job.state} with {job.model}"
        image = None if skip_current_image else desk.previews.get(user)
        return {"progress": share, "eta_relative": 0.0, "state": state, "current_image": image, "textinfo": text}

    @router.post("/sdapi/v1/interrupt")
    def interrupt(request: Request) -> dict[str, Any]:
        """Ends the caller's job that runs, or else the one that comes next."""
        return _cancel(studio, request.state.user)

    @router.post("/sdapi/v1/skip")
    def skip(request: Request) -> dict[str, Any]:
        """The same: a job here is not made of several."""
        return _cancel(studio, request.state.user)


def _cancel(studio: Studio, user: str) -> dict[str, Any]:
    job = _current([job for _, job in studio.store.unfinished(user)])
    if job is not None:
        studio.worker.cancel(user, job.id)
    return {}


def _current(jobs: list[Job]) -> Job | None:
    """The job that runs, or else the oldest."""
    return next((job for job in jobs if job.state == "running"), jobs[0] if jobs else None)


def _add_options(router: APIRouter, studio: Studio, desk: Desk) -> None:
    def options_of(user: str) -> dict[str, Any]:
        return {MODEL: desk.chosen.get(user, _able(studio)[0]), "samples_format": "png"}

    @router.get("/sdapi/v1/options")
    def options(request: Request) -> dict[str, Any]:
        """The caller's options, of which the model alone can be changed."""
        return options_of(request.state.user)

    @router.post("/sdapi/v1/options")
    def choose(body: dict[str, Any], request: Request) -> None:
        """Chooses the caller's model; all else may only stay as it is."""
        user = request.state.user
        fixed = options_of(user)
        for name, value in body.items():
            if name != MODEL and (name not in fixed or value != fixed[name]):
                raise Failure(400, f"{name[:64]} cannot be set here: expected {MODEL}", name[:64])
        if MODEL in body:
            desk.chosen[user] = _known(studio, body[MODEL])
            desk.chosen.move_to_end(user)
            if len(desk.chosen) > CHOICES:
                desk.chosen.popitem(last=False)


def _add_lists(router: APIRouter, studio: Studio) -> None:
    @router.get("/sdapi/v1/sd-models")
    def models() -> list[dict[str, Any]]:
        """The models; none has a file name that anybody outside is told."""
        rest = {"hash": None, "sha256": None, "config": None}
        return [{"title": name, "model_name": name, "filename": name, **rest} for name in _able(studio)]

    @router.get("/sdapi/v1/samplers")
    def known_samplers() -> list[dict[str, Any]]:
        """The samplers of models that let one choose; "default" is the model's own."""
        return [{"name": name, "aliases": aliases, "options": {}} for name, aliases in samplers().items()]

    @router.get("/sdapi/v1/upscalers")
    def upscalers() -> list[dict[str, Any]]:
        """None: pictures are drawn larger by the verb `upscale` of a model that has it."""
        return [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4}]


def _able(studio: Studio) -> list[str]:
    """Models that can do something here.

    Raises:
        Failure: if none can.
    """
    able = [name for name, entry in studio.entries.items() if set(VERBS) & asking.verbs_of(entry).keys()]
    if not able:
        raise Failure(404, "no model of this studio draws what a prompt says", kind="not_found")
    return able


def _known(studio: Studio, name: Any) -> str:
    """The name of a model; clients may show it with a hash behind it.

    Raises:
        Failure: if there is none.
    """
    known, plain = _able(studio), name.partition(" [")[0] if isinstance(name, str) else ""
    if plain not in known:
        raise Failure(404, f"{MODEL}: there is no such model: expected {', '.join(known)}", MODEL, "not_found")
    return plain


def _entry(studio: Studio, desk: Desk, user: str, named: Any, verb: str) -> Entry:
    """The model that is named or was chosen, or the first that has the verb."""
    name = _known(studio, named) if named else desk.chosen.get(user)
    able = [entry for entry in studio.entries.values() if verb in asking.verbs_of(entry)]
    found = next((entry for entry in able if name in (None, entry.name)), None)
    if found is None:
        known = ", ".join(entry.name for entry in able) or "another studio: no model here does that"
        raise Failure(400, f"{name or 'the studio'} has no {verb!r}: expected {known}", MODEL)
    return found


def _decoded(text: str, field: str) -> bytes:
    """A picture in base64, which may be a data URL; never the address of one."""
    try:
        return base64.b64decode(DATA_URL.sub("", text, count=1), validate=True)
    except ValueError:
        raise Failure(400, f"{field}: expected a picture in base64", field) from None


def _mask(image: bytes, mask: bytes, inverted: bool, most: int) -> bytes:
    """White where the picture is drawn anew, at the size of the picture: A1111 marks by white, or, where the mask is
    transparent somewhere, by what is opaque."""
    try:
        _, width, height = uploads.reencode(image, uploads.kind_of(image), most)
        png, _, _ = uploads.reencode(mask, uploads.kind_of(mask), most)
    except uploads.Refused as error:
        raise Failure(400, f"init_images, mask: {error}", "mask") from error
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        marked = picture.getchannel("A") if uploads.has_hole(picture) else picture.convert("L")
    marked = ImageOps.invert(marked) if inverted else marked
    file = io.BytesIO()
    marked.resize((width, height), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()
