"""A training run that a test kills: python run_to_kill.py FOLDER."""

import json
import sys
from pathlib import Path

import torch
from helpers import squares, tiny_model
from safetensors.torch import save_file

import offramp
from offramp.training import book
from offramp.training.checkpoint import checkpoints

torch.set_num_threads(1)
book._LOG_EVERY = 1
folder = Path(sys.argv[1])
started = int(checkpoints(folder)[-1].name.split("-")[1]) if checkpoints(folder) else 0
model = tiny_model(proj_drop_rate=0.1, drop_path_rate=0.1)
offramp.train(
    model,
    squares(256),
    folder=folder,
    epochs=4,
    batch_size=16,
    precision="fp32",
    device="cpu",
    augment={"color_jitter": 0.4, "hflip": 0.5, "scale": (0.7, 1.0)},
    checkpoint_seconds=0.05,
)
save_file({k: v.clone() for k, v in model.state_dict().items()}, folder / "end.safetensors")
(folder / "result.json").write_text(json.dumps({"steps": 64, "started_at": started}))
