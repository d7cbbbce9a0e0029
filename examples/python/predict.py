"""A self-exiting file in plain ONNX Runtime, without torch, timm or Offramp: python predict.py model.onnx photo.jpg …

The file: offramp export my-model model.onnx --preprocess. It leaves early by itself; there is nothing to do here.
"""

import json
import sys
import time

import numpy as np
import onnxruntime
from PIL import Image

if len(sys.argv) < 3:
    sys.exit("usage: python predict.py model.onnx photo.jpg …")
file, *photos = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession(file, options)
about = json.loads(session.get_modelmeta().custom_metadata_map["offramp"])

for photo in photos:
    images = np.asarray(Image.open(photo).convert("RGB"))[None]
    start = time.perf_counter()
    output, left, score = session.run(["output", "exit", "score"], {"images": images})
    ms = 1000 * (time.perf_counter() - start)
    answer = int(output[0].argmax())
    label = about["classes"][answer] if about["classes"] else answer
    print(json.dumps({"photo": photo, "label": label, "exit": int(left[0]), "score": float(score[0]), "ms": ms}))
