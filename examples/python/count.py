"""A self-exiting file that counts, in plain ONNX Runtime and Pillow: python count.py model.onnx photo.jpg …

The file: offramp export my-model model.onnx, of the task counting or density. The whole image is squeezed to the size
that the file says, and normalised as it says.
"""

import json
import sys
import time

import numpy as np
import onnxruntime
from PIL import Image

if len(sys.argv) < 3:
    sys.exit("usage: python count.py model.onnx photo.jpg …")
file, *photos = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession(file, options)
reads = json.loads(session.get_modelmeta().custom_metadata_map["offramp"])["input"]
channels, height, width = reads["input_size"]
filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

for photo in photos:
    image = Image.open(photo).convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(image.resize((width, height), filters[reads["interpolation"]]), np.float32)
    images = (pixels.reshape(height, width, channels) / 255 - reads["mean"]) / reads["std"]
    begun = time.perf_counter()
    found = session.run(["output", "exit"], {"images": images.transpose(2, 0, 1)[None].astype(np.float32)})
    ms = 1000 * (time.perf_counter() - begun)
    print(json.dumps({"photo": photo, "count": float(found[0][0, 0]), "exit": int(found[1][0]), "ms": ms}))
