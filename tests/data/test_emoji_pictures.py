import itertools

import numpy as np
import pytest
from emoji_files import is_ground, write_emoji
from PIL import Image

from flaxgen.data import Data, DataError, Order, batches, identity, open_source
from flaxgen.data.cutouts import cut_out, find_files
from flaxgen.data.emoji import GAP, HELD_OUT, ONE, ORDER, SLANT, SPLITS, TWO, EmojiPictures
from flaxgen.scenes.emoji import FALSE, MARGIN, NAMES

COUNT = 400
ROUNDING = 1e-9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_emoji(tmp_path_factory.mktemp("emoji"))


def pictures(folder, split, size=64, count=COUNT, seed=0):
    return EmojiPictures(str(folder), split, seed, count, size)


def test_an_element_depends_on_seed_split_and_index_alone(folder):
    image = pictures(folder, "train", count=10)[7]["image"]
    np.testing.assert_array_equal(image, pictures(folder, "train", count=1000)[7]["image"])
    others = pictures(folder, "train", seed=1)[7], pictures(folder, "seen")[7], pictures(folder, "train")[6]
    assert not any(np.array_equal(image, other["image"]) for other in others)
    closeups = [pictures(folder, "closeups", count=n)[7] for n in (10, 1000)]
    np.testing.assert_array_equal(*(closeup["image"] for closeup in closeups))


def test_the_same_picture_at_every_size(folder):
    for i in range(20):
        small, large = (pictures(folder, "train", size)[i] for size in (32, 128))
        assert small["text"] == large["text"]
        averaged = large["image"].reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
        assert np.abs(small["image"] - averaged).mean() < 6


def test_things_stand_as_it_is_said_and_apart(folder):
    source = pictures(folder, "train")
    for picture in map(source.picture, range(COUNT)):
        for thing in picture.things:
            assert min(thing.x, thing.y) - thing.extent / 2 >= MARGIN - ROUNDING
            assert max(thing.x, thing.y) + thing.extent / 2 <= 1 - MARGIN + ROUNDING
        axis, other = ("y", "x") if picture.relation == "above" else ("x", "y")
        for a, b in itertools.pairwise(picture.things):
            along, across = getattr(b, axis) - getattr(a, axis), getattr(b, other) - getattr(a, other)
            assert along >= (a.extent + b.extent) / 2 + GAP - ROUNDING
            assert abs(across) <= SLANT * along + ROUNDING


def test_sizes_are_what_they_are_called(folder):
    for picture in map(pictures(folder, "seen").picture, range(COUNT)):
        limits = {1: ONE, 2: TWO}.get(len(picture.things), {})
        for thing in picture.things if limits else ():
            low, high = limits[str(thing.size)]
            assert low <= thing.extent <= high


def test_captions_are_true_and_their_contradictions_are_not(folder):
    source = pictures(folder, "train")
    for i in range(COUNT):
        picture, row = source.picture(i), source.row(i)
        relation, things = row.relation, row.things
        if relation in ("right of", "below"):
            row = row.turned()
            relation, things = row.relation, row.things
        assert relation == picture.relation
        assert [thing.name for thing in things] == [thing.name for thing in picture.things]
        assert all(said.size in (None, real.size) for said, real in zip(things, picture.things, strict=True))
        example = source[i] if i < 60 else None
        if example:
            assert len(example["false_texts"]) == FALSE
            assert example["text"] == source.text(i)
            assert example["text"] not in example["false_texts"]
            assert all(thing.name in example["text"] for thing in things)


def test_one_two_and_three_things_of_all_names(folder):
    source = pictures(folder, "train", count=4 * COUNT)
    drawn = [source.picture(i) for i in range(4 * COUNT)]
    shares = [np.mean([len(p.things) == count for p in drawn]) for count in (1, 2, 3)]
    np.testing.assert_allclose(shares, (0.45, 0.45, 0.1), atol=0.04)
    assert {thing.name for p in drawn for thing in p.things} == set(NAMES.values())


def test_pairs_of_the_novel_split_are_never_in_training(folder):
    for split in SPLITS[:3]:
        for picture in map(pictures(folder, split).picture, range(COUNT)):
            for a, b in itertools.combinations(picture.things, 2):
                assert (frozenset((a.name, b.name)) in HELD_OUT) == (split == "novel")
    pairs = len(ORDER) * (len(ORDER) - 1) / 2
    assert len(HELD_OUT) / pairs == pytest.approx(0.1, abs=0.01)
    assert {name for pair in HELD_OUT for name in pair} == set(ORDER)


def test_what_is_drawn_stands_where_it_is_said_to(folder):
    source = pictures(folder, "train", size=128)
    for i in range(20):
        drawn, picture = ~is_ground(source[i]["image"]), source.picture(i)
        for thing in picture.things:
            x, y = round(thing.x * 128), round(thing.y * 128)
            assert drawn[y + round(thing.extent * 128 * 0.3), x]
        lone = np.ones_like(drawn)
        for thing in picture.things:
            box = [round((place + sign * thing.extent / 2) * 128) for place in (thing.y, thing.x) for sign in (-1, 1)]
            lone[max(0, box[0] - 1) : box[1] + 1, max(0, box[2] - 1) : box[3] + 1] = False
        assert not (drawn & lone).any()


def test_closeups_have_labels(folder):
    source = open_source(Data(source="emoji", path=str(folder), split="closeups", image_size=32, size=300))
    assert source.num_classes == len(NAMES)
    assert source.class_names == tuple(sorted(NAMES.values()))
    labels = [int(source[i]["label"]) for i in range(300)]
    assert source[0]["image"].shape == (32, 32, 3)
    assert len(set(labels)) > 100
    assert source[3]["text"] == sorted(NAMES.values())[labels[3]]


def test_cut_out_loses_the_white_outside_and_keeps_the_white_inside(folder):
    cut = np.asarray(cut_out(next(iter(find_files(str(folder)).values()))))
    assert cut.shape == (32, 32, 4)
    assert (cut[:, [0, 1, 2, 3, -4, -3, -2, -1], 3] == 0).all()
    assert (cut[8:16, 12:20] == 255).all()
    assert (cut[2:6, 6:26, 3] == 255).all()


def test_the_rim_of_a_cut_out_is_a_mixture(tmp_path):
    """A disc of one colour, drawn softly on white, is laid over black without a white rim."""
    big = np.full((256, 256, 3), 255.0)
    y, x = np.mgrid[:256, :256] - 127.5
    big[np.hypot(x, y) < 90] = (200, 40, 40)
    Image.fromarray(big.reshape(64, 4, 64, 4, 3).mean((1, 3)).astype(np.uint8)).save(tmp_path / "1f431.png")
    cut = np.asarray(cut_out(tmp_path / "1f431.png"), np.float32)
    over_black = cut[..., :3] * cut[..., 3:] / 255
    assert over_black[..., 1].max() <= 44


def test_batches_and_identity(folder):
    data = Data(source="emoji", path=str(folder), image_size=32, size=64)
    batch = next(batches(open_source(data), Order(0, 4), start_step=0, fields=("image", "text"), threads=2))
    assert batch["image"].shape == (4, 32, 32, 3)
    again = identity(data)
    (folder / "1f431.png").write_bytes((folder / "1f436.png").read_bytes())
    assert again["content"] != identity(data)["content"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": ""}, "data.path is not set: give a folder of emoji such as Noto's 1f431.png with --set data.path"),
        ({"path": "/nowhere"}, "data.path /nowhere is no folder"),
        ({"split": "best"}, "data.split='best' of emoji is not known: use one of test, train, seen, novel, closeups"),
        ({"image_size": 8}, "data.image_size=8 is too small for emoji"),
        ({"flip": True}, "captions of emoji say left and right"),
        ({"channels": 1}, "captions of emoji say left and right"),
    ],
)
def test_refuses(folder, changes, said):
    with pytest.raises(DataError, match=said):
        open_source(Data(**{"source": "emoji", "path": str(folder), "image_size": 32, **changes}))


def test_missing_and_empty_files_are_named(tmp_path):
    folder = write_emoji(tmp_path)
    Image.new("RGB", (8, 8), "white").save(folder / "1f431.png")
    with pytest.raises(DataError, match=r"1f431.png shows nothing but white"):
        pictures(folder, "train")
    (folder / "1f431.png").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 150 emoji, such as 1f431.png \(cat\)"):
        pictures(folder, "train")


@pytest.mark.parametrize("name", ["emoji_u1f431.png", "1F431.jpg", "2764-fe0f.png", "emoji_u2764_fe0f.webp"])
def test_names_of_noto_and_twemoji_are_known(folder, name):
    target = folder / name
    try:
        Image.new("RGB", (8, 8), "black").save(target)
        assert len(find_files(str(folder))) == len(NAMES)
        assert target in find_files(str(folder)).values() or (folder / name.lower().replace("jpg", "png")).exists()
    finally:
        target.unlink()
