"""A self-exiting file that sees and hears, in plain ONNX Runtime: python see_and_hear.py model.onnx picture [clip.wav].

The file: offramp export my-model model.onnx --preprocess. It takes a picture as it is, one window of sound at the rate
of the model, and whether there is sound; without a clip it answers from what it sees.
"""

import json
import sys
import time

import numpy as np
import onnxruntime
import soundfile
from PIL import Image

if len(sys.argv) not in (3, 4):
    sys.exit("usage: python see_and_hear.py model.onnx picture [clip.wav]")
file, picture, *clips = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession(file, options)
about = json.loads(session.get_modelmeta().custom_metadata_map["offramp"])
rate, length = about["input"]["sound"]["sample_rate"], session.get_inputs()[1].shape[1]
channels = about["input"]["image"]["input_size"][0]

pixels = np.array(Image.open(picture).convert("RGB" if channels == 3 else "L"))
window = np.zeros(length, np.float32)
for clip in clips:
    wave, found = soundfile.read(clip, dtype="float32", always_2d=True)
    if found != rate:
        sys.exit(f"{clip} has {found} samples a second, and the model hears {rate}: resample it first")
    wave, start = wave.mean(1), (len(wave) - length) // 2  # the middle of a longer clip, silence around a shorter one
    window = np.pad(wave[max(start, 0) :][:length], (max(-start, 0), 0))
    window = np.pad(window, (0, length - len(window)))
given = {
    "images": pixels.reshape(1, *pixels.shape[:2], channels),
    "clips": window[None],
    "heard": np.array([[len(clips)]], np.float32),
}
begun = time.perf_counter()
output, left, score = session.run(["output", "exit", "score"], given)
ms = 1000 * (time.perf_counter() - begun)
answer = int(output[0].argmax())
label = about["classes"][answer] if about["classes"] else answer
print(json.dumps({"picture": picture, "label": label, "exit": int(left[0]), "score": float(score[0]), "ms": ms}))
