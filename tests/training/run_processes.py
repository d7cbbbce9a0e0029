"""Training runs for one or several processes: python run_processes.py FOLDER OBJECTIVE [OBJECTIVE ...]."""

import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from helpers import squares, tiny_model
from safetensors.torch import save_file

import offramp

torch.set_num_threads(1)
settings = {"epochs": 2, "batch_size": 16, "precision": "fp32", "device": "cpu"}
settings["seed"] = int(os.environ.get("OFFRAMP_TEST_SEED", "0"))
for objective in sys.argv[2:]:
    folder = Path(sys.argv[1]) / objective
    model = tiny_model()
    offramp.train(model, squares(64), objective, folder=folder, **settings)
    if PartialState().is_main_process:
        (folder / "processes").write_text(str(PartialState().num_processes))
        save_file({k: v.clone() for k, v in model.state_dict().items()}, folder / "end.safetensors")
