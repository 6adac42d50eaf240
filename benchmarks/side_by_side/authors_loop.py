"""The structure of the loop of the LiNeS authors' published code, restated by us; nothing is copied from it.

What it keeps, because it decides the cost of a candidate: the task vector is copied as a whole and scaled name by
name; a new CLIP is built, its pre-trained weights are loaded, its text transformer is dropped, the base's checkpoint
is loaded over them, and a new state dict is made; for each task in turn a pickled head is read, the data sets of
training and of evaluation are listed, and every image is read, decoded and resized again by workers of a DataLoader.
Validation scores every candidate, and the best is scored on test by the same steps. Its experts' accuracies come from
a file.

Run as a script with the JSON of `Workload.to_json` and a number of loader workers; prints one JSON line.
"""

import copy
import json
import sys

import open_clip
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

BATCH = 128


class Encoder(torch.nn.Module):
    """A CLIP without its text transformer, built anew for every candidate."""

    def __init__(self, folder, checkpoint):
        """Build, load the pre-trained weights, and load a checkpoint over them."""
        super().__init__()
        made = open_clip.create_model_and_transforms(f"local-dir:{folder}", load_weights=False)
        self.model, _, self.preprocess = made
        open_clip.load_checkpoint(self.model, f"{folder}/base.safetensors")
        del self.model.transformer
        self.model.load_state_dict(torch.load(checkpoint, weights_only=True), strict=True)

    def forward(self, images):
        """Return the embeddings."""
        return self.model.encode_image(images)


def scaled(vector, alpha, beta, blocks=12):
    """Return a copy of a task vector, scaled by LiNeS."""
    vector, depth = copy.deepcopy(vector), {}
    for name in vector:
        for i in range(blocks):
            if f".{i}." in name:
                depth[name] = alpha + beta * (i / (blocks - 1))
                break
    return {name: vector[name] * depth.get(name, alpha) for name in vector}


def applied(vector, folder):
    """Return a new encoder with the vector added to the base."""
    with torch.no_grad():
        encoder = Encoder(folder, f"{folder}/base.pt")
        state = encoder.model.state_dict()
        encoder.model.load_state_dict({name: state[name] + vector[name] for name in state})
    return encoder.eval()


def correct(encoder, folder, task, split, workers):
    """Return the number of correct answers on a task."""
    head = torch.load(f"{folder}/head_{task}.pt", weights_only=True)
    datasets = [ImageFolder(f"{folder}/data/{task}/{part}", encoder.preprocess) for part in ("train", split)]
    loaders = [DataLoader(d, BATCH, shuffle=not i, num_workers=workers) for i, d in enumerate(datasets)]
    found = 0
    with torch.no_grad():
        for images, labels in loaders[1]:
            embeddings = encoder(images)
            logits = embeddings / embeddings.norm(dim=-1, keepdim=True) @ head.T
            found += (logits.argmax(1) == labels).sum().item()
    return found


def main():
    """Score every candidate on validation, and the best on test."""
    work, workers = json.loads(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    folder, tasks = work["folder"], work["tasks"]
    base = torch.load(f"{folder}/base.pt", weights_only=True)
    experts = [torch.load(f"{folder}/{task}.pt", weights_only=True) for task in tasks]
    vector = {name: sum(expert[name] - base[name] for expert in experts) for name in base}
    counts = {}
    for beta in work["betas"]:
        encoder = applied(scaled(vector, 1 / len(tasks), beta), folder)
        counts[beta] = [correct(encoder, folder, task, "val", workers) for task in tasks]
    best = max(counts, key=lambda beta: sum(counts[beta]))
    encoder = applied(scaled(vector, 1 / len(tasks), best), folder)
    test = [correct(encoder, folder, task, "test", workers) for task in tasks]
    print(json.dumps({"val": list(counts.values()), "best": best, "test": test}))


if __name__ == "__main__":
    main()
