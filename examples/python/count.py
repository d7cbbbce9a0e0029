"""A self-exiting file that counts, in plain ONNX Runtime and Pillow: python count.py model.onnx photo.jpg …

The file: offramp export my-model model.onnx, of the task counting or density. The image, or each of the crops that the
file speaks of, is squeezed to the size that it says, and normalised as it says; the numbers of crops are summed.
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
rows, columns = reads["crops"]
filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

for photo in photos:
    image = Image.open(photo).convert("L" if channels == 1 else "RGB")
    images = []
    for i in range(rows * columns):
        left, right = (round(image.width * (i % columns + k) / columns) for k in (0, 1))
        top, bottom = (round(image.height * (i // columns + k) / rows) for k in (0, 1))
        crop = image.crop((left, top, right, bottom)).resize((width, height), filters[reads["interpolation"]])
        pixels = np.asarray(crop, np.float32).reshape(height, width, channels)
        images.append(((pixels / 255 - reads["mean"]) / reads["std"]).transpose(2, 0, 1))
    begun = time.perf_counter()
    found = session.run(["output", "exit"], {"images": np.stack(images).astype(np.float32)})
    ms = 1000 * (time.perf_counter() - begun)
    print(json.dumps({"photo": photo, "count": float(found[0].sum()), "exit": int(found[1].max()), "ms": ms}))
