"""What A1111's clients send and read: its names of what we call otherwise."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from flaxgen.family.request import Spec
from flaxgen.zoo.latent.config import SOLVERS

TITLES = {
    "pndm": "PLMS", "ddim": "DDIM", "euler": "Euler", "euler_a": "Euler a", "heun": "Heun", "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_karras": "DPM++ 2M Karras", "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_karras": "DPM++ 2M SDE Karras", "unipc": "UniPC", "lcm": "LCM",
}  # fmt: skip
"""Samplers by the names that A1111 shows."""
OWN = ("default", "automatic", "")
"""Samplers that mean the model's own."""
NAMES = {
    "steps": "steps", "cfg_scale": "guidance", "negative_prompt": "negative", "sampler_name": "sampler",
    "denoising_strength": "strength", "mask_blur": "feather",
}  # fmt: skip
"""Fields of a request by the names that A1111 has for them."""
SHOWN = {
    "steps": "Steps", "sampler": "Sampler", "guidance": "CFG scale", "seed": "Seed",
    "strength": "Denoising strength", "feather": "Mask blur",
}  # fmt: skip
SAID = ("prompt", "seed", "width", "height", "batch_size", "n_iter", "init_images", "mask", "inpainting_mask_invert")
WITHOUT_EFFECT = ("send_images", "save_images", "override_settings_restore_afterwards", "do_not_save_samples")
"""What changes no picture."""
Whole = Annotated[int, Field(ge=1, le=64)]


class Body(BaseModel):
    """The body of txt2img; what else clients send is taken and changes nothing, and the reply says so."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    prompt: str | None = ""
    negative_prompt: str | None = ""
    seed: int | None = -1
    steps: int | None = None
    cfg_scale: float | None = None
    sampler_name: str | None = None
    width: Annotated[int, Field(ge=1, le=8192)] | None = None
    height: Annotated[int, Field(ge=1, le=8192)] | None = None
    batch_size: Whole | None = 1
    n_iter: Whole | None = 1
    override_settings: dict[str, Any] | None = None
    send_images: bool | None = True


class FromPicture(Body):
    """The body of img2img."""

    init_images: Annotated[list[str], Field(min_length=1, max_length=1)]
    mask: str | None = None
    denoising_strength: float | None = None
    mask_blur: int | None = None
    inpainting_mask_invert: int | None = 0


class Pasted(BaseModel):
    """A picture to read."""

    image: str


def ours_of(body: Body, offered: Mapping[str, Spec]) -> tuple[dict[str, Any], list[str]]:
    """The fields of a request that a body says, and what it says that changes nothing."""
    fields: dict[str, Any] = {"num": (body.batch_size or 1) * (body.n_iter or 1)}
    prompt = next((name for name in ("captions", "caption") if name in offered), None)
    if prompt is not None:
        fields[prompt] = [body.prompt or ""] if prompt == "captions" else body.prompt or ""
    given, ignored = body.model_dump(exclude_unset=True), [] if prompt or not body.prompt else ["prompt"]
    for name, value in given.items():
        if name in (*SAID, *WITHOUT_EFFECT) or value in (None, "", [], {}, False):
            continue
        ours = NAMES.get(name)
        if name == "override_settings":
            ignored += [one for one in value if one != "sd_model_checkpoint"]
        elif ours is None or ours not in offered:
            ignored.append(name[:64])
        elif ours != "sampler":
            fields[ours] = value
        elif str(value).lower() not in OWN:
            fields[ours] = solver(value)
    return fields, ignored


def solver(name: str) -> str:
    """Our name of a sampler; what is not known stays, and is refused by its name."""
    return next((ours for ours, title in TITLES.items() if name.lower() in (ours, title.lower())), name)


def samplers() -> dict[str, list[str]]:
    """Samplers with their other names."""
    return {"default": []} | {TITLES.get(name, name): [name] for name in SOLVERS}


def parameters_of(model: str, verb: str, request: Mapping[str, Any], size: tuple[int, int] | None) -> dict[str, Any]:
    """What a picture was drawn by, under A1111's names."""
    captions = request.get("captions") or [request.get("caption") or ""]
    said: dict[str, Any] = {"Prompt": "\n".join(map(str, captions)), "Negative prompt": request.get("negative") or ""}
    said |= {title: request[name] for name, title in SHOWN.items() if request.get(name) is not None}
    said |= {} if size is None else {"Size": f"{size[0]}x{size[1]}"}
    return said | {"Model": model, "Verb": verb}


def infotext(said: Mapping[str, Any]) -> str:
    """These as the text that A1111 shows below a picture."""
    lines = [str(said["Prompt"])]
    lines += [f"Negative prompt: {said['Negative prompt']}"] if said["Negative prompt"] else []
    rest = {name: value for name, value in said.items() if name not in ("Prompt", "Negative prompt")}
    return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in rest.items())])
