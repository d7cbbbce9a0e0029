"""A self-exiting file that hears, in plain ONNX Runtime and soundfile: python hear.py model.onnx clip.wav …

The file: offramp export my-model model.onnx --preprocess. It takes one window of sound at the rate of the model; a clip
of another is resampled first (ffmpeg -i clip.mp3 -ar 16000 clip.wav).
"""

import json
import sys
import time

import numpy as np
import onnxruntime
import soundfile

if len(sys.argv) < 3:
    sys.exit("usage: python hear.py model.onnx clip.wav …")
file, *clips = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession(file, options)
about = json.loads(session.get_modelmeta().custom_metadata_map["offramp"])
rate, length = about["input"]["sample_rate"], session.get_inputs()[0].shape[1]

for clip in clips:
    wave, found = soundfile.read(clip, dtype="float32", always_2d=True)
    if found != rate:
        sys.exit(f"{clip} has {found} samples a second, and the model hears {rate}: resample it first")
    wave, start = wave.mean(1), (len(wave) - length) // 2  # the middle of a longer clip, silence around a shorter one
    window = np.pad(wave[max(start, 0) :][:length], (max(-start, 0), 0))
    window = np.pad(window, (0, length - len(window)))
    begun = time.perf_counter()
    output, left, score = session.run(["output", "exit", "score"], {"clips": window[None]})
    ms = 1000 * (time.perf_counter() - begun)
    answer = int(output[0].argmax())
    label = about["classes"][answer] if about["classes"] else answer
    print(json.dumps({"clip": clip, "label": label, "exit": int(left[0]), "score": float(score[0]), "ms": ms}))
