"""Threads that decode share a bounded memory."""

import ctypes
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from flaxgen.data import Data, decode, open_source
from flaxgen.data.memory import Memory


class Counting(Memory):
    """Remembers how much was held at most, and how often."""

    def __init__(self, size):
        super().__init__(size)
        self.most, self.times = 0, 0

    def hold(self, wanted):
        held = super().hold(wanted)

        class Held:
            def __enter__(inner):
                held.__enter__()
                self.most, self.times = max(self.most, self.size - self.free), self.times + 1

            def __exit__(inner, *error):
                return held.__exit__(*error)

        return Held()


def test_no_more_is_held_than_there_is_and_all_get_theirs():
    memory = Counting(100)
    rng = np.random.default_rng(0)

    def use(wanted):
        with memory.hold(wanted):
            time.sleep(0.0005)
            return wanted

    wanted = rng.integers(1, 150, 200).tolist()  # more than there are is all of them
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(use, wanted)) == wanted
    assert memory.free == 100
    assert memory.times == 200
    assert 50 < memory.most <= 100


@pytest.mark.timeout(20)
def test_a_large_share_is_not_passed_over():
    memory, order = Memory(10), []

    def use(name, wanted):
        with memory.hold(wanted):
            order.append(name)

    with memory.hold(6):
        threads = [threading.Thread(target=use, args=given) for given in (("large", 10), ("small", 1))]
        for thread in threads:
            thread.start()
            while len(memory._waiting) < 1 + threads.index(thread):
                time.sleep(0.001)
        assert order == []
    for thread in threads:
        thread.join()
    assert order == ["large", "small"]


def test_what_fails_gives_back_its_share():
    memory = Memory(10)
    with pytest.raises(ValueError, match="no"), memory.hold(4):
        raise ValueError("no")
    assert memory.free == 10


def test_pictures_are_decoded_and_made_small_within_it(tmp_path, monkeypatch):
    for i in range(40):
        Image.new("RGB", (100, 50), (i, i, i)).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "99.png").write_bytes((tmp_path / "00.png").read_bytes()[:60])
    memory = Counting(3 * 5000 * decode.BYTES_A_PIXEL)
    monkeypatch.setattr(decode, "MEMORY", memory)
    source = open_source(Data("folder", path=str(tmp_path), image_size=8))
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: int(source[i]["image"][0, 0, 0]), range(40)))
    assert read == list(range(40))
    assert 5000 * decode.BYTES_A_PIXEL <= memory.most <= memory.size
    before = memory.times
    source[40]  # a broken one and its replacement
    assert memory.times == before + 2
    assert memory.free == memory.size


def test_a_cut_out_does_not_keep_the_picture(tmp_path):
    Image.new("RGB", (1000, 8)).save(tmp_path / "a.png")
    image = open_source(Data("folder", path=str(tmp_path), image_size=8))[0]["image"]
    assert image.base is None or image.base.nbytes <= 8 * 8 * 3


PEAK = """
import ctypes
import sys
from flaxgen.data.decode import decode_image

def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

for path in sys.argv[1:]:
    decode_image(open(path + ".small", "rb").read(), 3)  # loads what decodes it
    data = open(path, "rb").read()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed is given back
    open("/proc/self/clear_refs", "w").write("5")  # the peak is what is taken now
    before = status("VmRSS")
    decode_image(data, 3)
    print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="reads /proc, and asks glibc")
def test_a_pixel_takes_no_more_than_is_held_for_it(tmp_path):
    side, paths = 1500, []
    grey = np.random.default_rng(0).integers(0, 256, (side // 10, side // 10), dtype=np.uint8)
    grey = Image.fromarray(np.kron(grey, np.ones((10, 10), np.uint8)))
    for mode, kind in [
        ("RGB", "WEBP"),
        ("RGBA", "PNG"),
        ("I;16", "PNG"),
        ("RGB", "PNG"),
        ("CMYK", "JPEG"),
        ("P", "GIF"),
    ]:
        picture = Image.fromarray(np.asarray(grey, np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
        paths.append(str(tmp_path / f"{mode}.{kind}"))
        picture.save(paths[-1], kind)
        picture.resize((8, 8), Image.Resampling.NEAREST).save(f"{paths[-1]}.small", kind)
    done = subprocess.run([sys.executable, "-c", PEAK, *paths], capture_output=True, text=True, check=True)
    taken = [int(line) / side**2 for line in done.stdout.split()]
    assert len(taken) == len(paths)
    assert min(taken) > 5
    assert max(taken) < decode.BYTES_A_PIXEL
