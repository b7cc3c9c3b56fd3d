"""The overlay video has the frames, times and sound of its source, and its text is legible."""

from pathlib import Path

import av
import numpy as np
import pytest
from affect.pipeline.inference.trace import Moment, TraceData
from affect.pipeline.ingest.video.decode import decode
from affect.pipeline.ingest.video.timeline import read_timeline
from affect.pipeline.progress import Reporter
from affect.pipeline.visualization.overlay import MAX_WIDTH, Overlay, shown_size
from affect.pipeline.visualization.overlay_video import write_overlay_video

QUIET = Reporter(quiet=True)


def trace_of(path: Path, person: int | None = None, away: slice = slice(0, 0)) -> TraceData:
    """Waves for values, and a box that stands still."""
    time = read_timeline(path).time
    n = len(time)
    seen = np.ones(n, bool)
    seen[away] = False
    box = np.tile(np.array([[40, 20, 110, 90]], np.float32), (n, 1))
    wave = np.sin(np.arange(n) / 5)
    return TraceData(
        path.stem, path, np.arange(n), time, seen.astype(np.float32), seen, 0.8 * wave, -0.6 * wave, box, person=person
    )


def sound_of(path: Path) -> tuple[str, int, float]:
    """Codec, packets, and seconds of the sound."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        last = packets[-1]
        assert last.pts is not None
        return stream.codec_context.name, len(packets), float((last.pts + (last.duration or 0)) * last.time_base)


def pixels_of(path: Path) -> np.ndarray:
    with decode(path, None) as decoding:
        return np.concatenate([batch.pixels for batch in decoding])


def test_frames_times_and_sound_stay(video_with_sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    write_overlay_video(out, [trace_of(video_with_sound, away=slice(10, 15))], QUIET, "overlay")
    np.testing.assert_allclose(read_timeline(out).time, read_timeline(video_with_sound).time, atol=1e-4)
    codec, packets, end = sound_of(out)
    assert (codec, packets) == sound_of(video_with_sound)[:2], "copied, not made again"
    assert end == pytest.approx(sound_of(video_with_sound)[2], abs=0.05)
    before, after = pixels_of(video_with_sound).astype(int), pixels_of(out).astype(int)
    assert after.shape == before.shape
    assert np.abs(after - before)[:, 2:14, 2:150].mean() < 6, "where nothing is drawn, the picture is what it was"
    corner = after[:, 17:24, 37:48]
    assert (corner[0].min(axis=-1) < 70).any(), "the box's halo"
    assert np.abs(after[12] - before[12])[17:24, 37:48].mean() < 8, "no box where there is no face"
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4"}


def test_sound_that_mp4_does_not_support_is_encoded_again(video_with_sound: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "talk.mov", tmp_path / "out.mp4"
    with av.open(str(video_with_sound)) as old, av.open(str(source), "w") as new:
        picture, sound = old.streams.video[0], old.streams.audio[0]
        kept, pcm = new.add_stream_from_template(picture), new.add_stream("pcm_s16le", rate=16000)
        assert isinstance(pcm, av.AudioStream)
        pcm.codec_context.layout = "mono"
        for packet in old.demux(picture, sound):
            if packet.stream.type == "video" and packet.dts is not None:
                packet.stream = kept
                new.mux(packet)
            elif packet.stream.type == "audio":
                for frame in packet.decode():
                    assert isinstance(frame, av.AudioFrame)
                    for part in av.AudioResampler("s16", "mono", 16000).resample(frame):
                        new.mux(pcm.encode(part))
    write_overlay_video(out, [trace_of(source)], QUIET, "overlay")
    codec, _, end = sound_of(out)
    assert codec == "aac"
    assert end == pytest.approx(sound_of(source)[2], abs=0.15)


def test_a_video_without_sound_stays_silent(video_with_sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    write_overlay_video(out, [trace_of(video_with_sound.with_name("silent.mp4"))], QUIET, "overlay")
    with av.open(str(out)) as container:
        assert not container.streams.audio


@pytest.mark.parametrize("scene", [0, 128, 255])
@pytest.mark.parametrize("people", [1, 2])
def test_numbers_can_be_read_on_any_scene(scene: int, people: int) -> None:
    """Light letters on what is dark, wherever a meter stands."""
    picture = np.full((360, 640, 3), scene, np.uint8)
    overlay = Overlay(640, 360, people)
    moments = [Moment(0, 0.0, 1.0, True, 0.5, -0.5, (300, 50, 400, 150)) for _ in range(people)]
    shown = overlay.draw(picture, moments).astype(int)
    for person in range(people):
        for row in (0, 1):
            x0, y0, x1, _ = (round(edge) for edge in overlay._meter(person, row))
            words = shown[y0 - 16 : y0 - 3, x0:x1].mean(axis=2)
            assert np.percentile(words, 30) < 105, "the ground"
            assert words.max() - np.percentile(words, 30) > 100, "the letters"


def test_of_two_people_each_has_a_colour_of_their_own() -> None:
    overlay = Overlay(640, 360, 2)
    boxes = [(60, 60, 160, 180), (420, 60, 520, 180)]
    shown = overlay.draw(
        np.full((360, 640, 3), 90, np.uint8), [Moment(0, 0.0, 1.0, True, 0.1, 0.1, box) for box in boxes]
    ).astype(int)
    corners = [shown[y0 - 1 : y0 + 2, x0 + 8 : x0 + 16].mean(axis=(0, 1)) for x0, y0, _, _ in boxes]
    assert corners[0][1] > corners[0][0] + 60, "green"
    assert corners[1][0] > corners[1][1] + 40, "pink"


def test_sizes_are_even_and_bounded() -> None:
    assert shown_size(640, 360) == (640, 360)
    assert shown_size(641, 361)[0] % 2 == 0
    wide, high = shown_size(3840, 2160)
    assert (wide, high) == (MAX_WIDTH, 720)


def test_it_draws_where_there_is_nothing_to_say_and_whatever_the_size() -> None:
    nan = float("nan")
    for width, height in ((1920, 1080), (64, 48), (200, 900)):
        overlay = Overlay(width, height)
        for seen, value in ((False, nan), (True, 1.0), (True, -1.0)):
            moment = Moment(0, 0.0, 0.0, seen, value, value, (0, 0, width, height))
            shown = overlay.draw(np.zeros((height, width, 3), np.uint8), [moment])
            assert shown.shape[:2] == overlay.size[::-1]
