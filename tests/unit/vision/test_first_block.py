"""Proves that candidates share what enters the second block where they may, and that scores keep their bits."""

from collections.abc import Sequence
from typing import Any

import open_clip
import pytest
import torch

from pipeline.learning.normalisation import Calibration, NormalisedModel
from pipeline.merging.methods.base import Experts, Params
from pipeline.merging.resident import ResidentModel
from pipeline.recipe import Number, Recipe
from pipeline.workers.held import HeldRecipe
from tasks.base import KeepsOutputs, KeepsStart
from tasks.vision.classification import Evaluation, ReusesBatches, ZeroShotClassification
from tasks.vision.classifier import build as build_classifier
from tasks.vision.clip.architectures import create
from tasks.vision.clip.backbone import build
from tasks.vision.clip.first_block import FirstBlock, _activate
from tasks.vision.decoded import ImageSet
from tasks.vision.heads import Head

CPU = torch.device("cpu")
MODEL = "embedded/tiny-vit"
#: 22 images in batches of 10, and two shards of whole batches.
COUNT, BATCH, SHARDS, BATCHES = 22, 10, ((0, 20), (20, 22)), 3
IMAGE = 17 * 96 * 4  # bytes of an image's tokens


def linear(alpha: float, beta: float, **params: float) -> Recipe:
    return Recipe.make("sum", "linear", alpha, beta, params=params)


def images() -> ImageSet:
    noise = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (COUNT, 3, 32, 32), dtype=torch.uint8, generator=noise)
    # Two chunks: the second batch straddles them.
    return ImageSet((pixels[:15], pixels[15:]), 15, torch.arange(COUNT) % 5, ("",) * COUNT, "noise")


class Side:
    """A tower with two experts, and a task of 3 batches."""

    def __init__(self, family: str = "open_clip", dtype: torch.dtype = torch.float32, **options: object) -> None:
        torch.manual_seed(0)
        state = create(MODEL, {}).model.state_dict()
        if family == "open_clip":
            self.backbone: Any = build(MODEL, state, CPU, dtype, options)
        else:
            head = {"classification_head.weight": torch.randn(5, 96), "classification_head.bias": torch.randn(5)}
            visual = {f"model.{name}": t for name, t in state.items() if name.startswith("visual.")}
            classes = {"classes": list("abcde")}
            self.backbone = build_classifier(MODEL, visual | head, CPU, dtype, classes | options)
        module = self.backbone.module
        base = {name: p.detach().float().clone() for name, p in module.named_parameters()}
        noise = torch.Generator().manual_seed(0)
        taus = {e: {n: 0.02 * torch.randn(t.shape, generator=noise) for n, t in base.items()} for e in "ab"}
        self.resident = ResidentModel(module, self.backbone.layer_map, base, taus, CPU, dtype, self._gather)
        self.held = HeldRecipe(self.resident, self.backbone)
        rows = 5 if family != "open_clip" else 96
        head = Head(torch.randn(5, rows, generator=noise), "head")
        self.task = ZeroShotClassification("noise", {"val": images()}, head, list("abcde"), Evaluation({}, BATCH))
        self.passes = 0
        self.tower = getattr(module, "visual", module)
        self.tower.conv1.register_forward_hook(self._count)

    def _count(self, *of: object) -> None:
        self.passes += 1

    def _gather(self, method: str, experts: Experts, weights: Sequence[Number], params: Params) -> list[Any]:
        """Overwrite the weights, and run the model, as learning does."""
        with torch.no_grad():
            for parameter in self.backbone.module.parameters():
                parameter.fill_(0.1)
        self.backbone.encode(self.task.splits["val"].slice(0, BATCH))
        return [{name: torch.ones_like(tensor) for name, tensor in delta.items()} for delta in experts.deltas]

    def scores(self, recipe: Recipe) -> list[bytes]:
        """Hold a recipe, and score the task in shards; return the bits of outcomes, and of the features of a batch."""
        self.held.hold(recipe)
        found = [self.task.evaluate(self.backbone, "val", *shard).outcomes.tobytes() for shard in SHARDS]
        split = self.task.splits["val"]
        features = self.backbone.encode_batch(split.slice(10, 20), (split.fingerprint, "range", 10, 20))
        return [*found, features.numpy().tobytes()]

    def passes_of(self, *recipes: Recipe) -> int:
        """Return how many batches run the first block, without the one whose features are compared."""
        before = self.passes
        for recipe in recipes:
            self.held.hold(recipe)
            for shard in SHARDS:
                self.task.evaluate(self.backbone, "val", *shard)
        return self.passes - before


MIXED = (
    linear(0.5, 0.3),
    linear(0.5, 0.6),
    Recipe.make("zero"),
    linear(0.5, 0.9),
    linear(0.2, 0.3),
    Recipe.make("sum", "constant", 0.5),
    Recipe.make("sum", "reversed:linear", 0.5, 0.3),
    linear(0.5, 0.3, lambda_outside=0.1),
    Recipe.make("ties", "linear", 0.5, 0.3, params={"keep": 20}),
    Recipe.make("ties", "quadratic", 0.5, 0.4, params={"keep": 20}),
    Recipe.make("consensus", "linear", 0.5, 0.4),
    Recipe.make("tall_mask", "linear", 0.5, 0.4, (1, 0)),
    Recipe.make("fisher", "linear", 0.5, 0.4),
    Recipe.make("fisher", "linear", 0.5, 0.5),
    Recipe.make("sum", "uniform:linear", 0.5, 0.3),
    Recipe.make("average", "linear", 0.5, 0.3),
    linear(0, 0.5),
    Recipe.make("sum", "linear", "auto", 0.7),
    linear(0.2, 0.9),
    linear(0.5, 0.3),
)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("open_clip", torch.float32), ("open_clip", torch.bfloat16), ("open_clip_classifier", torch.float32)],
)
def test_scores_keep_their_bits_in_any_order(family: str, dtype: torch.dtype) -> None:
    keeps, plain = Side(family, dtype), Side(family, dtype, encoder_memory=0)
    found = [keeps.scores(recipe) for recipe in MIXED]
    assert found == [plain.scores(recipe) for recipe in MIXED]
    assert len({bits[-1] for bits in found}) >= len(MIXED) - 2, "candidates differ"
    assert keeps.backbone.first_block.outputs.size and keeps.passes < plain.passes - 4 * BATCHES


def test_a_search_over_beta_runs_the_first_block_for_two_candidates() -> None:
    side = Side()
    assert side.passes_of(*(linear(0.5, 0.1 * i) for i in range(1, 10))) == 2 * BATCHES
    assert side.passes_of(Recipe.make("sum", "constant", 0.5), linear(0.5, 0.3), linear(0.5, 2)) == 0
    assert side.passes_of(Recipe.make("sum", "quadratic", "auto", 0.1)) == 0, "equation 2 gives 0.5"
    assert side.backbone.first_block.outputs.size == COUNT * IMAGE


def test_what_counts_is_lambda_outside_and_in_the_first_block() -> None:
    side = Side()
    assert side.passes_of(linear(0.5, 0.3), linear(0.5, 0.4)) == 2 * BATCHES
    for other in (
        linear(0.5, 0.3, lambda_outside=0.4),
        linear(0.4, 0.3, lambda_outside=0.5),
        Recipe.make("sum", "reversed:linear", 0.5, 0.3),
        Recipe.make("sum", "uniform:linear", 0.5, 0.3),
        Recipe.make("sum", "equal_norm:linear", 0.5, 0.3),
        Recipe.make("average", "linear", 0.5, 0.3),
        Recipe.make("weighted", "linear", 0.5, 0.3, (1, 2)),
        Recipe.make("ties", "linear", 0.5, 0.3, params={"keep": 30}),
    ):
        assert side.passes_of(other) == BATCHES
        assert side.passes_of(linear(0.5, 0.7)) == 0, "what others need does not replace it while there is room"
    assert side.passes_of(linear(0, 0.3), Recipe.make("average", "linear", 0, 1), Recipe.make("zero")) == 2 * BATCHES


def test_failed_and_learned_rebuilds_leave_nothing_behind() -> None:
    side, plain = Side(), Side(encoder_memory=0)
    wrong, learned = Recipe.make("sum", "linear", 0.5, 0.3, (1, 1, 1)), Recipe.make("fisher", "linear", 0.5, 0.3)
    for recipe in (linear(0.5, 0.3), linear(0.5, 0.4), learned, linear(0.5, 0.6), learned, linear(0.2, 0.1)):
        assert side.scores(recipe) == plain.scores(recipe)
        with pytest.raises(ValueError, match="must be one for each of 2 experts, got 3"):
            side.held.hold(wrong)
        assert side.backbone.first_block.outputs.weights is None
    side.held.hold(learned)
    assert side.backbone.first_block.outputs.weights is None


def test_measured_statistics_share_nothing() -> None:
    side = Side()
    calibration = Calibration(side.backbone, {"noise": side.task}, {"noise": 8})
    side.held = HeldRecipe(NormalisedModel(side.resident, calibration, [{}, {}]), side.backbone)
    side.passes_of(linear(0.5, 0.3), linear(0.5, 0.4), linear(0.5, 0.5))
    assert side.backbone.first_block.outputs.size == 0


def test_what_is_kept_is_bounded_and_planned() -> None:
    side = Side(encoder_memory=13 * IMAGE / 2**30)
    assert isinstance(side.backbone, KeepsStart | ReusesBatches) and not isinstance(side.backbone, KeepsOutputs)
    limit = side.backbone.first_block.outputs.limit
    assert side.passes_of(linear(0.5, 0.3), linear(0.5, 0.4), linear(0.5, 0.5)) == 2 * BATCHES + 1
    assert side.backbone.first_block.outputs.size == 12 * IMAGE <= limit, "the second batch does not fit"
    assert side.passes_of(linear(0.2, 0.3), linear(0.2, 0.4), linear(0.2, 0.5)) == 2 * BATCHES + 1
    assert side.backbone.first_block.outputs.size == 12 * IMAGE, "the oldest weights make room"
    assert side.backbone.kept_start(10, 1) == 0, "one candidate shares nothing"
    assert side.backbone.kept_start(4, 3) == 8 * IMAGE
    assert side.backbone.kept_start(10, 10**6) == limit
    for bad in (-1, "all", True):
        with pytest.raises(ValueError, match=r"^backbone\.options\.encoder_memory: must be a number of GiB, 0 or more"):
            Side(encoder_memory=bad)


def vit(layers: int, heads: int = 2, **more: Any) -> Any:
    return open_clip.transformer.VisionTransformer(32, 16, 48, layers, heads, 4.0, output_dim=8, **more)


OTHERS = {
    "one block": lambda: vit(1),
    "tokens as output": lambda: vit(2, output_tokens=True),
    "ResNet": lambda: open_clip.modified_resnet.ModifiedResNet((1, 1, 1, 1), 8, 2, 32, 8),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_towers_are_run_as_a_whole(kind: str) -> None:
    torch.manual_seed(0)
    tower, pixels = OTHERS[kind]().eval(), torch.randn(2, 3, 32, 32)
    first_block = FirstBlock(tower, 1.0)
    for _ in range(2):
        first_block.set_weights("the same")
        with torch.inference_mode():
            made, whole = first_block.features(lambda: pixels, "batch"), tower(pixels)
        assert all(torch.equal(a, b) for a, b in zip(made, whole, strict=True))
    assert first_block.outputs.size == 0 == first_block.most_bytes(10, 10)


@pytest.mark.parametrize(("pool", "images", "tokens"), [("tok", 16, 1), ("tok", 15, 5), ("avg", 16, 5)])
@pytest.mark.parametrize(("heads", "scale"), [(2, None), (3, 0.5)])
def test_the_last_mlp_reads_the_class_token_alone(
    pool: str, images: int, tokens: int, heads: int, scale: float | None
) -> None:
    torch.manual_seed(0)
    tower, pixels = vit(3, heads, pool_type=pool, ls_init_value=scale).eval(), torch.randn(images, 3, 32, 32)
    for bias in (block.attn.in_proj_bias for block in tower.transformer.resblocks):
        torch.nn.init.normal_(bias)
    expected, seen = tower(pixels), []
    tower.transformer.resblocks[-1].mlp.c_fc.register_forward_hook(lambda _, given, made: seen.append(given[0].shape))
    for kept in (0.0, 1.0):
        torch.testing.assert_close(FirstBlock(tower, kept).features(lambda: pixels, "batch"), expected)
    assert seen == [(images, tokens, 48)] * 2


@pytest.mark.parametrize(("threads", "sizes"), [(1, (1, 2, 3, 5, 15, 16, 17, 32, 50)), (2, (5, 16, 17))])
def test_batches_of_any_size_keep_the_bits_of_the_tower(threads: int, sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    tower = open_clip.transformer.VisionTransformer(96, 32, 192, 2, 3, 4.0, output_dim=8).eval()
    for parameter in (p for p in tower.parameters() if p.dim() == 1):
        torch.nn.init.normal_(parameter, std=0.05)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for images in sizes:
            pixels = torch.randn(images, 3, 96, 96)
            with torch.inference_mode():
                assert torch.equal(FirstBlock(tower, 0.0).features(lambda given=pixels: given, ""), tower(pixels)), (
                    images
                )
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("activation", [open_clip.transformer.QuickGELU(), torch.nn.GELU()])
def test_an_activation_that_overwrites_gives_the_same_bits(activation: torch.nn.Module, threads: int) -> None:
    hidden_BTF = torch.linspace(-9, 9, 3 * 47 * 1001).view(3, 47, 1001)  # three pieces; the last ends in half a vector
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for given in (hidden_BTF, hidden_BTF.transpose(0, 1)):
            expected = activation(given)
            assert torch.equal(_activate(activation, given.clone()), expected)
    finally:
        torch.set_num_threads(before)


def test_two_rows_are_not_taken_for_a_range() -> None:
    side, plain = Side(), Side(encoder_memory=0)
    for beta in (0.3, 0.6, 0.9):
        found = []
        for one in (side, plain):
            one.held.hold(linear(0.5, beta))
            one.task.evaluate(one.backbone, "val", 0, 20)
            found.append(one.task.evaluate_rows(one.backbone, "val", [10, 20]).outcomes.tolist())
        assert found[0] == found[1] and len(found[0]) == 2
