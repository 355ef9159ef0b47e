"""Pictures a second: decoders alone, reading alone, and the pipeline, by number of processes.

python benchmarks/pictures.py DATA [ROUNDS], DATA being ImageNet's folder or one with a few of its pictures. They are
measured as they are, and about as large as those of the whole training set are on average, which is 110 kB: enlarged to
a short side of 375 and compressed less. grain is compared where it is installed; ways take turns, medians are printed.
"""

from __future__ import annotations

import importlib.util
import io
import multiprocessing
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from sgdscope.imagenet.images import labelled_square
from sgdscope.streaming.workers import Workers
from sgdscope.system import cores

SIDE, BATCH_SIZE = 224, 100
LAYOUT = {"picture": ((SIDE, SIDE, 3), np.dtype(np.uint8)), "label": ((), np.dtype(np.uint16))}
VISITS = 1000
ENLARGED_SIDE, ENLARGED_QUALITY = 375, 99
read = partial(labelled_square, SIDE)


def visits(files):
    return [(files[i % len(files)], 0, (0, i // len(files), i % len(files))) for i in range(VISITS)]


def enlarged(files, folder):
    made = []
    for number, file in enumerate(files):
        with Image.open(file) as image:
            scale = ENLARGED_SIDE / min(image.size)
            size = tuple(round(length * scale) for length in image.size)
            made.append(f"{folder}/{number}.JPEG")
            image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(made[-1], quality=ENLARGED_QUALITY)
    return made


def by_pillow(content):
    Image.open(io.BytesIO(content)).load()


def by_simplejpeg(content):
    import simplejpeg

    simplejpeg.decode_jpeg(content, strict=False)


def by_opencv(content):
    import cv2

    cv2.setNumThreads(0)
    cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_BGR)


def loop(what, files):
    """In a process: pictures a second of a loop around one way, files read beforehand where it is a decoder."""
    if what == "reading":
        todo, way = visits(files), lambda visit: read(*visit)
    else:
        contents = [Path(file).read_bytes() for file in files]
        todo = [contents[i % len(files)] for i in range(VISITS)]
        way = {"Pillow": by_pillow, "simplejpeg": by_simplejpeg, "OpenCV": by_opencv}[what]
    for one in todo[: len(files)]:  # once beforehand
        way(one)
    begun = time.perf_counter()
    for one in todo:
        way(one)
    return VISITS / (time.perf_counter() - begun)


def alone(what, count, files):
    with multiprocessing.get_context("spawn").Pool(count) as processes:
        return sum(processes.map(partial(loop, what), [files] * count, chunksize=1))


def pipeline(count, files):
    """From the second third on: in the first, processes begin and the shared memory is touched for the first time."""
    workers = Workers(read, LAYOUT, count)
    asked = visits(files) * 3 * count
    wanted = [asked[first : first + BATCH_SIZE] for first in range(0, len(asked), BATCH_SIZE)]
    begun = time.perf_counter()
    for number, batch in enumerate(workers.batches(wanted)):
        if number == 0:
            first = time.perf_counter()
        if number == len(wanted) // 3:
            later, left = time.perf_counter(), len(asked) - (number + 1) * len(batch["label"])
    rate = left / (time.perf_counter() - later)
    workers.close()
    return rate, first - begun


class Visits:
    """A source of grain's."""

    def __init__(self, asked):
        self.asked = asked

    def __len__(self):
        return len(self.asked)

    def __getitem__(self, index):
        return read(*self.asked[index])


def by_grain(count, files):
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain refuses to begin processes otherwise
    source = grain.MapDataset.source(Visits(visits(files) * count)).batch(BATCH_SIZE)
    dataset = source.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=count, per_worker_buffer_size=2))
    begun = time.perf_counter()
    for number, batch in enumerate(dataset):
        if number == 0:
            first = time.perf_counter()
        done = len(batch["label"])
    return (VISITS * count - done) / (time.perf_counter() - first), first - begun


def measure(name, files, rounds):
    size = sum(Path(file).stat().st_size for file in files) / len(files)
    print(
        f"{name}: {len(files)} pictures of {size / 1e3:.0f} kB on average, {cores()} cores, {VISITS} visits a process"
    )
    with_grain = {"grain": by_grain} if importlib.util.find_spec("grain") else {}
    for count in range(1, cores() + 1):
        found: dict[str, list[float]] = {}
        begins: dict[str, list[float]] = {}
        for _ in range(rounds):
            for what in ("Pillow", "simplejpeg", "OpenCV", "reading"):
                found.setdefault(what, []).append(alone(what, count, files))
            for what, way in ({"pipeline": pipeline} | with_grain).items():
                rate, begin = way(count, files)
                found.setdefault(what, []).append(rate)
                begins.setdefault(what, []).append(begin)
        for what, rates in found.items():
            low, middle, high = min(rates), statistics.median(rates), max(rates)
            begin = f", first batch after {statistics.median(begins[what]):.1f} s" if what in begins else ""
            shares = [rate / decoder for rate, decoder in zip(rates, found["simplejpeg"], strict=True)]
            share = f", {statistics.median(shares):.2f} of simplejpeg"
            print(
                f"{count} processes, {what}: {middle:.0f} a second ({low:.0f} to {high:.0f}){share}{begin}", flush=True
            )


def main(data, rounds=3):
    files = sorted(str(file) for file in (Path(data) / "val").rglob("*.JPEG"))[:1000]
    measure("as they are", files, rounds)
    with tempfile.TemporaryDirectory() as folder:
        measure("enlarged", enlarged(files, folder), rounds)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
