"""draw, vary, blend, edit, inpaint and compose as a user meets them: what is wrong is one line and exit code 2."""

import io
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
import unclip_toy
from PIL import Image

from flaxgen import verbs
from flaxgen.cli import main
from flaxgen.data import Data, open_source
from flaxgen.family import sheets
from flaxgen.family.pictures import read_about

FOUR = ["--num", "4"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures of many kinds, by name."""
    folder = tmp_path_factory.mktemp("pictures")
    source = open_source(Data(source="scenes", image_size=64, size=2))
    scene = Image.fromarray(source[0]["image"])
    scene.save(folder / "a.png")
    Image.fromarray(source[1]["image"]).save(folder / "b.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[8:40, 8:40] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(mask[:48]).save(folder / "low.png")
    Image.fromarray(0 * mask).save(folder / "black.png")
    scene.convert("L").save(folder / "grey.png")
    scene.convert("RGBA").save(folder / "rgba.png")
    scene.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.asarray(scene.convert("L"), np.uint16) * 257).save(folder / "deep.png")
    scene.resize((2000, 3)).save(folder / "wide.png")
    (folder / "giant.png").write_bytes(claiming(20_000, (folder / "a.png").read_bytes()))
    (folder / "large.png").write_bytes(claiming(12_000, (folder / "a.png").read_bytes()))
    (folder / "text.png").write_text("no picture")
    return folder


def claiming(side, png):
    """A PNG whose header claims that many pixels a side."""
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def read_request(path):
    """What a picture was drawn by; of pictures that were given their paths."""
    about = read_about(path)["request"]
    return {name: value.get("path") if isinstance(value, dict) else value for name, value in about.items()}


def test_draw_writes_pictures_that_know_how_they_were_made(toy, tmp_path, capsys):
    out = tmp_path / "deep" / "out.png"
    draw = ["draw", "a red circle", "--model", str(toy.model), *FOUR, "--guidance", "2.5", "--seed", "3"]
    assert main([*draw, "--out", str(out)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == f"wrote {out}: 4 pictures of 64x64, draw, seed 3"
    assert said.err == ""
    with Image.open(out) as picture:
        assert list(picture.text) == ["flaxgen"]
        about = json.loads(picture.text["flaxgen"])
    told = about["request"]
    assert {"captions": ["a red circle"], "seed": 3, "guidance": 2.5, "verb": "draw"}.items() <= told.items()
    assert {"through": "diffusion", "num": 4, "candidates": 1}.items() <= told.items()
    assert about["settings"]["guidance"] == 2.5
    assert (about["model"], about["step"]) == (str(toy.model), unclip_toy.STEPS)
    assert about["weights"] == verbs.load(toy.model).fingerprint
    assert main([*draw, "--out", str(tmp_path / "out.npz")]) == 0
    samples = np.load(tmp_path / "out.npz")["samples"]
    assert (samples.shape, samples.dtype) == ((4, 64, 64, 3), np.uint8)
    with Image.open(out) as grid:
        np.testing.assert_array_equal(np.asarray(grid), sheets.grid(samples))
    singles = sorted(out.with_suffix("").iterdir())
    assert [path.name for path in singles] == ["000.png", "001.png", "002.png", "003.png"]
    for i, path in enumerate(singles):
        with Image.open(path) as single:
            np.testing.assert_array_equal(np.asarray(single), samples[i])
        assert read_about(path) == {**about, "picture": i, "of": 4, "score": read_about(path)["score"]}
    scores = " ".join(f"{read_about(path)['score']:.3f}" for path in singles)
    assert lines[1:] == [f"  CLIP score {scores}  a red circle"]


VERBS = {
    "vary": (["{a}", *FOUR], {"image": "{a}", "invert": False, "candidates": 1}),
    "vary of candidates": (["{a}", "--num", "2", "--candidates", "2"], {"num": 2, "candidates": 2}),
    "vary inverted": (["{a}", *FOUR, "--invert", "--eta", "0.5"], {"invert": True, "eta": 0.5}),
    "blend": (["{a}", "{b}", "--num", "3"], {"a": "{a}", "b": "{b}"}),
    "edit": (
        ["{a}", "--from", "a red circle", "--to", "a blue ring", "--num", "3", "--strength", "0.25"],
        {"image": "{a}", "caption_from": "a red circle", "caption_to": "a blue ring", "strength": 0.25},
    ),
    "inpaint": (
        ["{a}", "{mask}", "a ring", *FOUR],
        {"image": "{a}", "mask": "{mask}", "caption": "a ring", "through": "diffusion"},
    ),
}


@pytest.mark.parametrize(("arguments", "told"), VERBS.values(), ids=VERBS)
def test_every_verb_writes_a_picture(arguments, told, toy, files, tmp_path, request):
    verb, out = request.node.callspec.id.split()[0], tmp_path / "out.png"
    names = {"a": files / "a.png", "b": files / "b.png", "mask": files / "mask.png"}
    arguments = [argument.format(**names) for argument in arguments]
    assert main([verb, *arguments, "--model", str(toy.model), "--out", str(out)]) == 0
    expected = {key: value.format(**names) if isinstance(value, str) else value for key, value in told.items()}
    about = read_request(out)
    assert {key: about[key] for key in expected} == expected
    assert (about["verb"], about["seed"]) == (verb, 0)


def test_inpainting_keeps_what_is_not_marked(toy, files, tmp_path):
    arguments = ["inpaint", str(files / "a.png"), str(files / "mask.png"), "a ring", "--model", str(toy.model), *FOUR]
    assert main([*arguments, "--out", str(tmp_path / "out.npz")]) == 0
    drawn = np.load(tmp_path / "out.npz")["samples"]
    with Image.open(files / "a.png") as image, Image.open(files / "mask.png") as mask:
        before, marked = np.asarray(image), np.asarray(mask) > 0
    assert np.count_nonzero(drawn[:, ~marked] != before[None][:, ~marked]) == 0


@pytest.mark.parametrize("name", ["grey.png", "rgba.png", "cmyk.jpg", "deep.png", "wide.png"])
def test_pictures_of_every_kind_are_taken(name, toy, files, tmp_path, capsys):
    vary = ["vary", str(files / name), "--model", str(toy.model), *FOUR, "--out", str(tmp_path / "out.npz")]
    assert main(vary) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("caption", ["", "красный круг над синим квадратом"[:9], "赤い丸", "🔴⬆️🟦", "\udcff"])
def test_captions_of_every_kind_are_drawn(caption, toy, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert main(["draw", caption, "--model", str(toy.model), *FOUR, "--out", str(out)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "has never seen the word" not in line]
    assert len(lines) <= 1, "at most the line that says that it was cut"
    assert read_request(out)["captions"] == [caption]
    assert main(["show", str(out)]) == 0
    assert caption.encode("utf-8", "replace").decode() in capsys.readouterr().out


def test_a_caption_that_is_too_long_is_cut_with_one_warning(toy, tmp_path, capsys):
    caption = ("a red circle above a blue square " * 400)[:10_000]
    out = tmp_path / "out.png"
    assert main(["draw", caption, "--model", str(toy.model), *FOUR, "--out", str(out)]) == 0
    said = "warning: captions longer than 16 tokens are cut to that, the first of them before "
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert error.removeprefix(said).strip("'\n") in caption
    assert error.count("\n") == 1
    assert read_request(out)["captions"] == [caption]


DRAW = ["draw", "a ring", "--model", "{model}", "--out", "{tmp}/out.png"]
VARY = ["vary", "--model", "{model}", "--out", "{tmp}/out.png"]
EDIT = ["edit", "{a}", "--from", "a", "--to", "b", "--model", "{model}", "--out", "{tmp}/out.png"]
INPAINT = ["inpaint", "--model", "{model}", "--out", "{tmp}/out.png"]
COMPOSE = ["compose", "{tmp}/new"]
BAD = [
    ([*DRAW, "--num", "0"], "--num 0: expected 1 or more"),
    ([*DRAW, "--num", "-3"], "--num -3: expected 1 or more"),
    ([*DRAW, "--candidates", "0"], "--candidates 0: expected 1 or more"),
    ([*DRAW, "--guidance", "nan"], "--guidance nan: expected 0 or more"),
    ([*DRAW, "--guidance", "inf"], "--guidance inf: expected 0 or more"),
    ([*DRAW, "--guidance", "-1"], "--guidance -1.0: expected 0 or more"),
    ([*DRAW, "--prior-guidance", "nan"], "--prior-guidance nan: expected 0 or more"),
    (
        [*DRAW, "--prior-guidance", "2", "--through", "text"],
        "--prior-guidance 2.0 needs a prior: --through text has none",
    ),
    ([*DRAW, "--steps", "0"], "--steps 0: expected 1 or more"),
    ([*DRAW, "--steps", "99"], "steps=99 is more than"),
    ([*DRAW, "--seed", "-1"], "--seed -1: expected 0 to 4294967295"),
    ([*DRAW, "--seed", str(2**80)], f"--seed {2**80}: expected 0 to"),
    (["draw", "a ring", "--model", "{model}", "--out", "{tmp}/out.tif"], "expected a name that ends in .png, .jpg"),
    (["draw", "a ring", "--model", "{model}", "--out", "{folder}"], "is a directory: expected the name of a file"),
    (["draw", "a ring", "--model", "{model}", "--out", "{a}/out.png"], "{a}"),
    (["draw", "a ring", "--model", "{tmp}/none", "--out", "{tmp}/out.png"], "none is no run or model directory"),
    (
        ["draw", "a ring", "--model", "{decoder}", "--out", "{tmp}/out.png"],
        "draws from CLIP embeddings alone: draw with the unCLIP that `flaxgen compose`",
    ),
    ([*DRAW, "--parallel", "jit", "--mesh", "data=2"], "needs --parallel mesh"),
    ([*VARY, "{tmp}/none.png"], "none.png"),
    ([*VARY, "{tmp}"], "Is a directory"),
    ([*VARY, "{files}/text.png"], "text.png: not one of JPEG, PNG"),
    ([*VARY, "{files}/giant.png"], "giant.png"),
    ([*VARY, "{files}/large.png"], "large.png: 12000x12000 pixels, more than the"),
    ([*VARY, "{a}", "--eta", "0.5"], "--eta 0.5 is for variations from inverted noise: give --invert too"),
    ([*VARY, "{a}", "--invert", "--eta", "2"], "--eta 2.0: expected 0 to 1"),
    ([*VARY, "{a}", "--invert", "--eta", "nan"], "--eta nan: expected 0 to 1"),
    (["blend", "{a}", "{tmp}/none.png", "--model", "{model}", "--out", "{tmp}/out.png"], "none.png"),
    ([*EDIT, "--strength", "0"], "--strength 0.0: expected a number above 0, at most 1"),
    ([*EDIT, "--strength", "nan"], "--strength nan: expected a number above 0, at most 1"),
    ([*EDIT, "--strength", "2"], "--strength 2.0: expected a number above 0, at most 1"),
    (
        ["edit", "{a}", "--from", "a", "--model", "{model}", "--out", "{tmp}/out.png"],
        "an edit needs two captions: --from what the picture shows, --to what it should show",
    ),
    ([*INPAINT, "{a}", "{files}/low.png", "a"], "the mask is 64x48 and the image 64x64: expected one size"),
    ([*INPAINT, "{a}", "{files}/black.png", "a"], "the mask marks nothing"),
    ([*INPAINT, "{a}", "{files}/none.png", "a"], "none.png"),
    (
        ["draw", "a", "--model", "{without_prior}", "--out", "{tmp}/a.png"],
        "lacks the part 'prior': vary, blend and edit",
    ),
    (["draw", "a", "--model", "{without_clip}", "--out", "{tmp}/a.png"], "lacks the part 'clip': draw, vary, blend"),
    (["draw", "a", "--model", "{mixed}", "--out", "{tmp}/a.png"], "prior: this stage was trained with the CLIP"),
    ([*COMPOSE, "clip"], "clip: expected PART=DIR, for example clip=runs/clip"),
    ([*COMPOSE, "critic={decoder}"], "part critic is not known: expected some of clip, prior"),
    (
        [*COMPOSE, "clip={decoder}"],
        "clip: {decoder} is of type UnclipDecoder: expected a run or model directory of type Clip",
    ),
    ([*COMPOSE, "clip={tmp}"], "clip: {tmp} is no run or model directory"),
    ([*COMPOSE, "clip={clip}", "clip={clip}"], "clip is given twice"),
    ([*COMPOSE, "ar_prior={prior}"], "has the net DiffusionPrior: expected ARPrior"),
    ([*COMPOSE, "upsampler_2={upsampler_1}"], "give both, or call it upsampler_1"),
    ([*COMPOSE, "clip={other}", "prior={prior}"], "prior: this stage was trained with the CLIP"),
    (["compose", "{model}", "clip={clip}"], "is not empty: choose a new directory"),
    (["sample", "{model}", "--out", "{tmp}/a.png"], "is an unclip model: it has no sample"),
    (["sample", "{clip}", "--out", "{tmp}/a.png"], "embeds pictures and captions and draws nothing"),
    (["sample", "{prior}", "--out", "{tmp}/a.png"], "makes embeddings"),
    (["sample", "{decoder}", "--out", "{tmp}/a.png"], "draws from CLIP embeddings alone"),
    (["sample", "{upsampler_1}", "--out", "{tmp}/a.png"], "upsampler model: it has no sample"),
    (["upscale", "{upsampler_1}", "{a}", "--seed", "-1", "--out", "{tmp}/a.png"], "--seed -1: expected 0 to"),
    (["export", "{model}", "{tmp}/new"], "is of unclip, a model directory already"),
]


@pytest.fixture(scope="module")
def places(toy, files, tmp_path_factory):
    """What stands in braces above, but for the test's own folder."""
    folder = tmp_path_factory.mktemp("models")
    other = unclip_toy.with_another_clip(toy, folder / "other")
    for name, removed in (("without_prior", "prior"), ("without_clip", "clip"), ("mixed", "clip")):
        shutil.copytree(toy.model, folder / name)
        shutil.rmtree(folder / name / removed)
    shutil.copytree(other, folder / "mixed" / "clip")
    (folder / "folder.png").mkdir()
    named = {name: folder / name for name in ("other", "without_prior", "without_clip", "mixed")}
    named |= {"folder": folder / "folder.png", "files": files, "a": files / "a.png", "model": toy.model, **toy.runs}
    return {name: str(path) for name, path in named.items()}


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[f"{a[0]}-{m[:40]}" for a, m in BAD])
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, places, tmp_path, capsys):
    filled = [argument.format(**places, tmp=tmp_path) for argument in arguments]
    assert main(filled) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"flaxgen {arguments[0]}: error: ")
    assert message.format(**places, tmp=tmp_path) in line
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "out.png").exists()


def test_without_a_model_that_is_shipped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verbs, "MODELS", tmp_path / "none")
    assert main(["draw", "a ring", "--out", str(tmp_path / "out.png")]) == 2
    assert capsys.readouterr().err.endswith("this installation comes without a model: name one with --model DIR\n")


def test_compose_and_info(toy, tmp_path, capsys):
    arguments = [f"{name}={toy.runs[name]}" for name in ("clip", "decoder")]
    assert main(["compose", str(tmp_path / "new"), *arguments, "--half"]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'new'}: clip, decoder\n"
    assert main(["info", str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert "decoder" in said
    for name in ("clip", "prior", "decoder", "upsampler_1"):
        assert main(["info", str(toy.runs[name])]) == 0
        assert "parameters" in capsys.readouterr().out


def test_export_of_a_stage(toy, tmp_path):
    assert main(["export", str(toy.runs["clip"]), str(tmp_path / "clip")]) == 0
    assert (tmp_path / "clip" / "tokenizer.json").is_file()


def test_the_bar_shows_the_stage_that_runs(toy, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert main(["draw", "a ring", "--model", str(toy.model), *FOUR, "--out", str(tmp_path / "out.npz")]) == 0
    for stage in ("text", "prior", "decoder", "upsampler to 32 px", "upsampler to 64 px"):
        assert f"{stage}:" in terminal.getvalue()
