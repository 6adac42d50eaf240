"""Models and methods of `benchmarks.merge`: a Llama with experts near it, and methods under both programs' names."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from torch import Tensor

_VOCABULARY = 32_000


@dataclass(frozen=True)
class Case:
    """One method under both programs' names and parameters.

    Attributes:
        ours: our name.
        params: our parameters.
        theirs: parameters that mergekit has for each model.
        shared: its parameters of all models.
        draws: whether both draw random numbers, each its own.
        most: experts that it takes at most.
        weighted: whether experts have weights.
    """

    ours: str
    params: tuple[str, ...] = ()
    theirs: dict[str, float] = field(default_factory=dict)
    shared: dict[str, object] = field(default_factory=dict)
    draws: bool = False
    most: int = 20
    weighted: bool = True


_DELLA = {"density": 0.5, "epsilon": 0.1}
_CRUMBS = (("keep=10", "top=1", "rescale=no", "round=down"), {"density": 0.1, "gamma": 0.01})
#: mergekit's name of a method -> the same under ours.
CASES = {
    "linear": Case("weighted", ("aggregate=mean",)),
    "task_arithmetic": Case("weighted"),
    "ties": Case("ties", ("trim=tensor", "keep=20"), {"density": 0.2}),
    "dare_linear": Case("dare", ("drop=0.9", "rescale=l1"), {"density": 0.1}, draws=True),
    "dare_ties": Case("dare_ties", ("drop=0.9",), {"density": 0.1}, draws=True),
    "della": Case("della", ("density=0.5", "epsilon=0.1"), _DELLA, draws=True),
    "della_linear": Case("della_linear", ("density=0.5", "epsilon=0.1"), _DELLA, draws=True),
    "breadcrumbs": Case("breadcrumbs", *_CRUMBS),
    "breadcrumbs_ties": Case("breadcrumbs_ties", *_CRUMBS),
    "model_stock": Case("model_stock", ("negative=keep",), weighted=False),
    "slerp": Case("slerp", ("t=0.3",), shared={"t": 0.3}, most=2, weighted=False),
    "nuslerp": Case("nuslerp", most=2),
    "multislerp": Case("multislerp"),
    "karcher": Case("karcher", weighted=False),
}


@dataclass(frozen=True)
class Models:
    """What is merged.

    Attributes:
        folder: of base and experts.
        experts: their number.
        dtype: of the weights, by torch's name.
    """

    folder: Path
    experts: int
    dtype: str

    def write(self, layers: int, width: int, shard: str) -> None:
        """Write what is missing, in shards of at most `shard`, such as "1GB"."""
        seeds = {"base": 0, **{f"expert_{i}": 1 + i for i in range(self.experts)}}
        base: dict[str, Tensor] | None = None
        for name, seed in seeds.items():
            if not (self.folder / name).exists():
                if base is None and name != "base":
                    base = {
                        k: t
                        for file in (self.folder / "base").glob("*.safetensors")
                        for k, t in load_file(file).items()
                    }
                self._write(self.folder / name, base, seed, (layers, width, shard))

    def _write(self, folder: Path, base: dict[str, Tensor] | None, seed: int, size: tuple[int, int, str]) -> None:
        layers, width, shard = size
        generator = torch.Generator().manual_seed(seed)
        state = {}
        for name, shape in _shapes(layers, width).items():
            noise = torch.randn(shape, generator=generator)
            state[name] = (0.02 * noise if base is None else base[name] + 0.001 * noise).to(getattr(torch, self.dtype))
        folder.mkdir(parents=True)
        save_torch_state_dict(state, folder, max_shard_size=shard)
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": _VOCABULARY}
        config |= {"hidden_size": width, "intermediate_size": _hidden(width), "num_hidden_layers": layers}
        config |= {"num_attention_heads": width // 64, "tie_word_embeddings": False, "dtype": self.dtype}
        (folder / "config.json").write_text(json.dumps(config))

    def weights(self, case: Case) -> list[float]:
        """Return one weight for each expert; 0 for those that the method cannot take."""
        used = min(case.most, self.experts)
        some = [1.0] * used if not case.weighted else [0.5, 0.3, 0.2, 0.4, 0.1][:used]
        return some + [0.0] * (self.experts - used)

    def ours(self, case: Case, out: str) -> str:
        """Return method, parameters, weights, base, experts and output as JSON."""
        experts = [str(self.folder / f"expert_{i}") for i in range(self.experts)]
        return json.dumps([case.ours, case.params, self.weights(case), str(self.folder / "base"), experts, out])

    def command(self, case: Case, out: str) -> list[str]:
        """Return the arguments of `lines merge`."""
        method, params, weights, base, experts, out = json.loads(self.ours(case, out))
        words = ["merge", "--base", base, "--method", method, "--scaling", "constant", "--alpha", "1", "-o", f"{out}/"]
        for option, values in (("--expert", experts), ("--weight", weights), ("--param", params)):
            words += [word for value in values for word in (option, str(value))]
        return [*words, "--overwrite"]

    def theirs(self, name: str, out: str) -> str:
        """Return mergekit's configuration, and its output, as JSON."""
        case = CASES[name]
        used = [(str(self.folder / f"expert_{i}"), w) for i, w in enumerate(self.weights(case)) if w]
        given = {"weight": None} if case.weighted else {}
        models = [{"model": m, "parameters": {**{key: w for key in given}, **case.theirs}} for m, w in used]
        config: dict[str, object] = {"merge_method": name, "models": models, "dtype": self.dtype}
        if case.shared:
            config["parameters"] = case.shared
        if name == "slerp":
            config["base_model"] = used[0][0]
        elif name not in ("linear", "karcher"):
            config["base_model"] = str(self.folder / "base")
        return json.dumps([config, out])


def _hidden(width: int) -> int:
    return width * 8 // 3 // 64 * 64


def _shapes(layers: int, width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (_VOCABULARY, width),
        "lm_head.weight": (_VOCABULARY, width),
        "model.norm.weight": (width,),
    }
    for i in range(layers):
        place = f"model.layers.{i}"
        shapes |= {f"{place}.self_attn.{n}_proj.weight": (width, width) for n in "qkvo"}
        shapes |= {f"{place}.mlp.{n}_proj.weight": (_hidden(width), width) for n in ("gate", "up")}
        shapes[f"{place}.mlp.down_proj.weight"] = (width, _hidden(width))
        shapes |= {f"{place}.{n}_layernorm.weight": (width,) for n in ("input", "post_attention")}
    return shapes


def largest_difference(mine: Path, theirs: Path) -> str:
    """Return the largest difference of two folders' tensors in words, beside the largest number.

    Raises:
        ValueError: if their names differ.
    """
    first, second = (
        {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}
        for folder in (mine, theirs)
    )
    if first.keys() != second.keys():
        raise ValueError(f"{mine} and {theirs} have other names")
    most, root, count = 0.0, 0.0, 0
    for name, tensor in first.items():
        apart = (tensor.float() - second[name].float()).abs()
        most, root, count = max(most, float(apart.max())), root + float(apart.square().sum()), count + apart.numel()
    largest = max(float(t.abs().max()) for t in second.values())
    return f"largest difference {most:.2g}, root mean square {(root / count) ** 0.5:.2g}; largest number {largest:.2g}"
