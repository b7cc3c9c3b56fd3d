"""Decoders and models in processes that fork, end, or have few file descriptors."""

import json
import os
import sys
from pathlib import Path


def decode_twice(video: str, out: str) -> None:
    """Appends the mean of each frame to a file, twice as a line of JSON. The second decoder finds other descriptors
    free."""
    from affect.pipeline.ingest.video.decode import decode

    for _ in range(2):
        with decode(Path(video), 64, batch=7) as decoding:
            means = [float(picture.mean()) for batch in decoding for picture in batch.pixels]
        with Path(out).open("a") as file:
            file.write(json.dumps(means) + "\n")


def decode_with_few_descriptors(video: str, free: str) -> None:
    """Decodes with only `free` file descriptors, twice, and prints the errors; then with many, and prints the number of
    frames."""
    import resource

    from affect.pipeline.errors import AffectError
    from affect.pipeline.ingest.video.decode import decode

    with decode(Path(video), 64) as decoding:
        list(decoding)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + int(free), 4096))  # noqa: PTH208
    for _ in range(2):
        try:
            decode(Path(video), 64)
        except AffectError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    print(sum(len(batch) for batch in decode(Path(video), 64)))


def hold_decoder(video: str, memory: str) -> None:
    """Starts a decoder that may prefetch `memory` bytes, prints its process id and waits."""
    from affect.pipeline.ingest.video import decode

    decode.MAX_PREFETCH_BYTES = int(memory)
    decoding = decode.decode(Path(video), 1024, batch=4)
    next(decoding)
    print(decoder_of(decoding), flush=True)
    sys.stdin.read()


def hold_decoder_and_fork(video: str, memory: str) -> None:
    """Starts a decoder in a thread, then forks. Prints the process ids of the fork and the decoder. Both processes
    wait."""
    import threading

    from affect.pipeline.ingest.video import decode

    decode.MAX_PREFETCH_BYTES = int(memory)
    begun: list[decode.Decoding] = []

    def begin() -> None:
        decoding = decode.decode(Path(video), 1024, batch=4)
        next(decoding)
        begun.append(decoding)

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    decoder = decoder_of(begun[0])
    if os.fork():
        os.wait()
    print(os.getpid(), decoder, flush=True)  # the fork, that has all the pipes too
    sys.stdin.read()


def decoder_of(decoding: object) -> int:
    """The process id of a decoder."""
    return vars(vars(decoding)["_child"])["_process"].pid


def share_decoder_with_fork(video: str) -> None:
    """Prints the numbers of the first batch, what a fork gets from the same decoder and from its own, and the rest."""
    import gc

    from affect.pipeline.errors import AffectError
    from affect.pipeline.ingest.video.decode import decode

    decoding = decode(Path(video), 64, batch=4, zero_copy=True)
    print(next(decoding).index.tolist(), flush=True)
    if not os.fork():
        try:
            next(decoding)
        except AffectError as error:
            print(error, flush=True)
        del decoding
        gc.collect()
        print(sum(len(batch) for batch in decode(Path(video), 64)), flush=True)
        os._exit(0)
    os.wait()
    print([number for batch in decoding for number in batch.index.tolist()])


def use_model_in_forks(run: str, video: str) -> None:
    """Uses a loaded model in forks and prints the error of each. Then prints whether the parent goes on as before."""
    import multiprocessing

    import affect

    model = affect.load(run)
    before = model.predict(video)
    stream = model.stream(video)
    next(stream)
    calls = [
        lambda: model.predict(video),
        lambda: model.predict_people(video),
        lambda: next(model.stream(video)),
        lambda: next(model.stream([])),
        lambda: next(stream),
        lambda: affect.load(run),
    ]
    for call in calls:
        sys.stdout.flush()
        if not os.fork():
            try:
                call()
                print("no error")
            except affect.AffectError as error:
                print(error)
            sys.stdout.flush()
            os._exit(0)
        os.wait()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        try:
            pool.apply(model.predict, (video,))
        except affect.AffectError as error:
            print(error)
    print(len(list(stream)) == len(before) - 1, bool((model.predict(video).valence == before.valence).all()))


def load_model_in_forks(run: str, video: str) -> None:
    """Loads a model in two forks and in the parent. Each prints the valence of the video."""
    import affect

    def show() -> None:
        print(affect.load(run).predict(video).valence.tolist(), flush=True)

    for _ in range(2):
        if not os.fork():
            show()
            os._exit(0)
        os.wait()
    show()
