"""A sweep as people write it: open_clip for the model, Optuna for the grid, one file, no cache.

Run as a script with the JSON of `Workload.to_json`; prints one JSON line.
"""

import json
import re
import sys

import open_clip
import optuna
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

work = json.loads(sys.argv[1])
folder, tasks = work["folder"], work["tasks"]
torch.set_num_threads(1)
optuna.logging.set_verbosity(optuna.logging.WARNING)
model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", load_weights=False)
tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
base = load_file(f"{folder}/base.safetensors")
experts = [load_file(f"{folder}/{task}.safetensors") for task in tasks]
total = {name: sum(expert[name] - base[name] for expert in experts) for name in base}
model.load_state_dict(base)
model.eval()


def loader(task, split):
    """Return batches of a task."""
    return DataLoader(ImageFolder(f"{folder}/data/{task}/{split}", preprocess), batch_size=128)


@torch.no_grad()
def head(task):
    """Return the zero-shot head of a task."""
    names = loader(task, "val").dataset.classes
    return model.encode_text(tokenize([work["template"].format(name) for name in names]), normalize=True)


def merge(beta):
    """Load base + lambda(depth) * sum of task vectors."""
    state = {}
    for name in base:
        block = re.search(r"visual\..*resblocks\.(\d+)\.", name)
        scale = 1 / len(tasks) + (beta * int(block[1]) / 11 if block else 0)
        state[name] = base[name] + scale * total[name]
    model.load_state_dict(state)


@torch.no_grad()
def correct(task, split):
    """Return the number of correct answers on a task."""
    found = 0
    for images, labels in loader(task, split):
        logits = model.encode_image(images, normalize=True) @ heads[task].T
        found += (logits.argmax(1) == labels).sum().item()
    return found


def objective(trial):
    """Score one candidate."""
    merge(trial.suggest_float("beta", 0, 1))
    counts = [correct(task, "val") for task in tasks]
    trial.set_user_attr("counts", counts)
    return sum(counts)


heads = {task: head(task) for task in tasks}
study = optuna.create_study(sampler=optuna.samplers.GridSampler({"beta": work["betas"]}, seed=0), direction="maximize")
study.optimize(objective, n_trials=len(work["betas"]))
trials = sorted(study.trials, key=lambda trial: trial.params["beta"])
best = max(trials, key=lambda trial: trial.value).params["beta"]
merge(best)
test = [correct(task, "test") for task in tasks]
val = [trial.user_attrs["counts"] for trial in trials]
print(json.dumps({"val": val, "best": best, "test": test}))
