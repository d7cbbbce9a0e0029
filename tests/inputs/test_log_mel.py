"""Clips of sound: every format, rate and length becomes one image, in a file as outside, or one sentence."""

import io
import pickle

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from offramp import DataError, UsageError
from offramp.inputs import LogMelInput, input_from_json
from offramp.inputs._sound import MAX_SAMPLES, Clip, read_clip

READS = LogMelInput((1, 32, 50), 16_000, 0.5, mean=0.0, std=1.0)


def tone(hertz=1_000.0, seconds=0.5, rate=16_000):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def written(wave, rate=16_000, **kind):
    file = io.BytesIO()
    soundfile.write(file, wave, rate, **kind)
    return io.BytesIO(file.getvalue())


FORMATS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "wav, 8 bits": {"format": "WAV", "subtype": "PCM_U8"},
    "wav, float": {"format": "WAV", "subtype": "FLOAT"},
    "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_tone_is_a_line_at_its_height_in_every_format(kind, rate, channels):
    wave = np.repeat(tone(seconds=1.0, rate=rate)[:, None], channels, axis=1)
    clip = read_clip(written(wave, rate, **kind))
    image = READS.transform()(clip)[0]
    centres = torchaudio.functional.melscale_fbanks(257, 20.0, 8_000.0, 32, 16_000).argmax(0) * 31.25
    loudest = centres[image[:, 10:40].mean(1).argmax()]
    assert abs(float(loudest) - 1_000) < 100


def test_channels_are_mixed_down():
    wave = np.stack([tone(), np.zeros_like(tone())], axis=1)
    clip = read_clip(written(wave, subtype="FLOAT", format="WAV"))
    assert clip.rate == 16_000
    assert np.allclose(clip.waveform, tone() / 2, atol=1e-6)


def test_the_image_is_torchaudios():
    wave = torch.from_numpy(tone())
    power = torchaudio.transforms.MelSpectrogram(16_000, 512, None, READS.hop, 20.0, 8_000.0, n_mels=32)(wave)
    assert torch.equal(READS.transform()(Clip(tone(), 16_000))[0], (power[:, :50] + 1e-6).log())


@pytest.mark.parametrize("length", [1, 2, 100, 7_999, 8_000, 8_001, 8_002, 20_001, 200_000])
def test_of_a_long_clip_the_middle_is_taken_and_a_short_one_stands_in_the_middle(length):
    wave = np.arange(1, length + 1, dtype=np.float32)
    found = READS.raw(Clip(wave, 16_000))[0].numpy()
    assert found.shape == (8_000,)
    sound = found[found > 0]
    assert len(sound) == min(length, 8_000)
    assert (np.diff(sound) == 1).all()
    if length > 8_000:
        assert abs(sound.mean() - wave.mean()) <= 1
    else:
        first, last = np.flatnonzero(found)[[0, -1]]
        assert abs(first - (7_999 - last)) <= 1


@pytest.mark.parametrize("rate", [4_000, 11_025, 44_100, 192_000])
def test_of_a_long_clip_no_more_is_resampled_than_a_window_needs(rate):
    wave = np.random.default_rng(0).normal(0, 0.1, 20 * rate).astype(np.float32)
    found = READS._resampled(Clip(wave, rate))
    assert len(found) < 0.6 * 16_000
    start = (len(wave) - rate) // 2  # a second around the middle
    alike = READS.raw(Clip(wave[start : start + rate], rate))
    assert torch.allclose(READS.raw(Clip(wave, rate)), alike, atol=1e-4)


@pytest.mark.parametrize("rate", [1, 7, 44_101, 2**31 - 1])
def test_odd_rates_take_no_more_memory_than_others(rate):
    clip = Clip(np.ones(1_000_000, np.float32), rate)
    try:
        assert READS.transform()(clip).shape == READS.input_size
    except DataError as error:
        assert "cannot be resampled" in str(error)  # noqa: PT017


def test_silence_is_a_clip():
    image = READS.transform()(Clip(np.zeros(100, np.float32), 8_000))
    assert torch.equal(image, torch.full_like(image, float(np.log(np.float32(1e-6)))))


def corrupt(kind):
    whole = bytearray(written(tone(), **kind).getvalue())
    whole[:4] = b"none"
    return io.BytesIO(bytes(whole))


BAD = {
    "empty": (lambda: io.BytesIO(b""), "could not be read as sound"),
    "text": (lambda: io.BytesIO(b"no sound at all, but a sentence"), "could not be read as sound"),
    "no samples": (lambda: written(np.zeros((0,), np.float32), format="WAV"), "holds no sound: it has no samples"),
    "a damaged header": (lambda: corrupt({"format": "FLAC"}), "could not be read as sound"),
    "a damaged page": (lambda: corrupt({"format": "OGG", "subtype": "OPUS"}), "could not be read as sound"),
    "not a number": (
        lambda: written(np.full(100, np.nan, np.float32), format="WAV", subtype="FLOAT"),
        "has samples that are not finite numbers",
    ),
}


@pytest.mark.parametrize(("file", "said"), BAD.values(), ids=BAD)
def test_what_is_no_sound_is_named_in_one_sentence(file, said):
    with pytest.raises(DataError, match=f"^the clip {said}") as error:
        read_clip(file(), "the clip")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no\.wav could not be read as sound"):
        READS.read(tmp_path / "no.wav")


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_a_file_that_was_cut_off_is_read_to_there_or_named(kind):
    whole, said = written(tone(), **kind).getvalue(), []
    for end in (*range(1, 40), *range(40, len(whole), len(whole) // 40)):
        try:
            clip = read_clip(io.BytesIO(whole[:end]), "the clip")
            assert 0 < len(clip.waveform) <= 24_000
        except DataError as error:
            said.append(str(error))
    assert said, "a few bytes are no sound"
    assert all(sentence.startswith("the clip ") and "\n" not in sentence for sentence in said)


def test_a_clip_past_the_limit_is_not_decoded_to_its_end(monkeypatch):
    monkeypatch.setattr("offramp.inputs._sound.MAX_SAMPLES", 4_000)
    with pytest.raises(DataError, match="longer than any clip"):
        read_clip(written(tone(), format="FLAC"))
    with pytest.raises(DataError, match="longer than any clip"):
        read_clip(written(np.repeat(tone(seconds=0.2)[:, None], 2, axis=1), format="FLAC"))
    assert MAX_SAMPLES == 2**26


WRONG = {
    "rate": {"sample_rate": 0},
    "window": {"seconds": 0.01},
    "endless": {"seconds": float("inf")},
    "bands": {"f_min": 9_000.0},
    "past half the rate": {"f_max": 8_001.0},
    "deviation": {"std": 0.0},
    "too few frequencies": {"n_fft": 32},
    "huge": {"seconds": 1e6},
    "unknown": {"hop": 160},
    "no whole number": {"n_fft": 512.5},
    "no number": {"sample_rate": "fast"},
}


@pytest.mark.parametrize("values", WRONG.values(), ids=WRONG)
def test_values_of_which_nothing_can_be_made_are_refused(values):
    with pytest.raises(UsageError):
        LogMelInput.for_backbone(None, (1, 64, 100), **values)
    with pytest.raises(UsageError):
        input_from_json({"name": "log-mel", "input_size": [1, 64, 100], **values})


@pytest.mark.parametrize("size", [(0, 4, 4), (1, 4), (1, 4, 9_000)])
def test_sizes_of_which_nothing_can_be_made_are_refused(size):
    with pytest.raises(UsageError):
        LogMelInput(size, 16_000, 0.5)


def test_without_the_library_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(UsageError, match=r"sound needs soundfile: pip install 'offramp\[audio\]'"):
        READS.read("a.wav")


ALL = {"shift": 0.1, "noise": [0, 20], "noise_share": 1.0, "bands": 8, "frames": 10, "stripes": 2}


@pytest.mark.parametrize(
    "changed",
    [
        {"shift": 0.1},
        {"noise": [0, 20], "noise_share": 1.0},
        {"bands": 8},
        {"speeds": [0.7, 1.4]},
        {"gain": 6},
        {"curve": 6},
        ALL,
    ],
)
def test_augmentation_follows_the_seed_alone(changed):
    clip, plain = Clip(tone(seconds=0.4), 16_000), READS.transform()
    training = pickle.loads(pickle.dumps(READS.transform(changed)))
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(training(clip))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0], plain(clip))
    assert found[0].shape == READS.input_size
    assert all(image.isfinite().all() for image in found)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("speed", [0.8, 1, 1.25])
def test_at_another_speed_a_tone_is_shorter_and_higher(rate, speed):
    training = READS.transform({"speeds": [speed]})
    wave = READS._resampled(training._sped(Clip(tone(1_000.0, 0.4, rate), rate)))
    assert len(wave) == pytest.approx(0.4 * READS.sample_rate / speed, rel=1e-3)  # rates are rounded
    heard = int(torch.fft.rfft(wave, 16_000).abs().argmax()) * READS.sample_rate / 16_000
    assert heard == pytest.approx(1_000 * speed, abs=5)


def test_a_curve_stays_within_its_decibels_and_leaves_silence_silent():
    noise = Clip(np.random.default_rng(0).standard_normal(8_000).astype(np.float32), 16_000)
    plain, training = READS.transform(), READS.transform({"curve": 6})
    seen = []
    for seed in range(20):
        torch.manual_seed(seed)
        louder = 10 / np.log(10) * (training(noise) - plain(noise))[0]  # decibels: loud noise has no floor
        assert torch.allclose(louder, louder[:, :1].expand_as(louder), atol=1e-3), "the same at every time"
        assert louder.abs().max() <= 6 + 1e-3
        bends = louder[:, 0].diff().diff().abs() > 1e-3
        assert bends.sum() <= 2 * 4, "straight between its bends, each of which two differences see"
        seen.append(louder[:, 0])
    assert torch.stack(seen).std(0).min() > 1, "all notes are changed"
    silent = Clip(np.zeros(8_000, np.float32), 16_000)
    assert torch.equal(training(silent), plain(silent))


def test_noise_comes_from_a_folder_at_the_level_that_was_asked(tmp_path):
    soundfile.write(tmp_path / "hum.wav", tone(3_000.0, 2.0, 22_050), 22_050)
    soundfile.write(tmp_path / "short.wav", tone(3_000.0, 0.1), 16_000)
    (tmp_path / "notes.txt").write_text("no noise")
    training = READS.transform({"noise": [0, 0], "noise_share": 1.0, "noise_folder": str(tmp_path)})
    for seed in range(5):
        torch.manual_seed(seed)
        added = training._noisy(torch.from_numpy(tone())) - torch.from_numpy(tone())
        assert float(added.square().sum() / np.square(tone()).sum()) == pytest.approx(1, rel=0.01)
        assert int(torch.fft.rfft(added).abs().argmax()) / 0.5 == pytest.approx(3_000, abs=10)
    assert torch.equal(training._noisy(torch.zeros(8_000)), torch.zeros(8_000)), (
        "silence has no level to be relative to"
    )
    with pytest.raises(DataError, match="holds no clips of noise"):
        READS.transform({"noise": [0, 0], "noise_folder": str(tmp_path / "none")})


@pytest.mark.parametrize(
    "wrong",
    [
        {"pitch": 2},
        {"shift": -1},
        {"noise": [5]},
        {"noise": [9, 3]},
        {"noise_share": 2},
        {"noise": 5},
        {"shift": "far"},
        {"shift": float("inf")},
        {"bands": 1.5},
        {"noise": [0, float("nan")]},
        {"speeds": 0.9},
        {"gain": -3},
        {"curve": -1},
        {"curve": float("nan")},
        {"speeds": [0.9, 0]},
        {"speeds": [float("nan")]},
    ],
)
def test_other_augmentation_is_refused(wrong):
    with pytest.raises(UsageError):
        READS.transform(wrong)
