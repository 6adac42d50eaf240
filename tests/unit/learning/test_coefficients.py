"""Proves that coefficients are learned by the exact gradient, lower their loss, repeat, and cost what is stated."""

from collections.abc import Iterator

import pytest
import torch
from learning_parts import Embedded, LinearEncoder, Rows
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from pipeline.learning.coefficients import RULES, LearningSettings, entropy, learn
from pipeline.learning.inputs import labelled, overwrite
from pipeline.learning.meter import Meter
from pipeline.merging.low_rank import LowRank, LowRankDelta
from pipeline.merging.methods.base import Experts
from tasks.base import NonFiniteOutput

SETTINGS = LearningSettings(steps=30, lr=0.02, batch_size=16, initial=0.3, seed=0, granularity="layer")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("LINES_SWEEP_CACHE", str(tmp_path_factory.mktemp("decoded")))
        yield Embedded.load("mnist", "fashion")


def learned(embedded: Embedded, method: str, settings: LearningSettings = SETTINGS) -> list[dict[str, float]]:
    return learn(embedded.backbone, list(embedded.tasks.values()), embedded.experts, RULES[method], settings)


def loss(embedded: Embedded, method: str, coefficients: list[dict[str, float]]) -> float:
    """Of all validation images, summed over tasks, under theta0 + sum of coefficient times task vector."""
    experts = embedded.experts
    theta = {
        name: base + sum(c[name] * delta[name] for c, delta in zip(coefficients, experts.deltas, strict=True))
        for name, base in experts.base.items()
    }
    total = 0.0
    for task in embedded.tasks.values():
        images, labels = task.batch("val", torch.arange(task.num_samples("val")), torch.device("cpu"))
        total += RULES[method].loss(task.logits(embedded.backbone.embed(images, theta)), labels).item()
    return total


def constant(embedded: Embedded, value: float) -> list[dict[str, float]]:
    return [dict.fromkeys(embedded.experts.base, value) for _ in embedded.experts.deltas]


def test_entropy_is_that_of_the_softmax() -> None:
    uniform, certain = torch.zeros(3, 4), torch.tensor([[100.0, 0, 0, 0]])
    assert entropy(uniform, torch.zeros(3)).item() == pytest.approx(torch.tensor(4.0).log().item())
    assert entropy(certain, torch.zeros(1)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", ["adamerging", "atlas"])
class TestLearn:
    @pytest.mark.training
    def test_lowers_its_loss_on_what_it_saw(self, embedded: Embedded, method: str) -> None:
        found = learned(embedded, method)
        assert loss(embedded, method, found) < 0.95 * loss(embedded, method, constant(embedded, 0.3))

    def test_repeats_bit_for_bit_and_the_seed_matters(self, embedded: Embedded, method: str) -> None:
        short = LearningSettings(3, 0.01, 8, 0.3, 0)
        assert learned(embedded, method, short) == learned(embedded, method, short)
        assert learned(embedded, method, short) != learned(embedded, method, LearningSettings(3, 0.01, 8, 0.3, 1))

    def test_what_shares_a_coefficient_is_as_asked(self, embedded: Embedded, method: str) -> None:
        blocks, names = embedded.backbone.layer_map.blocks, list(embedded.experts.base)
        for granularity, count in (("task", 1), ("layer", 9), ("tensor", len(names))):
            found = learned(embedded, method, LearningSettings(2, 0.01, 8, 0.3, 0, granularity))[0]
            assert len(set(found.values())) == count
        by_layer = learned(embedded, method, LearningSettings(2, 0.01, 8, 0.3, 0, "layer"))[1]
        assert len({(blocks.get(n), by_layer[n]) for n in names}) == 9

    def test_runs_below_no_grad_as_a_worker_does(self, embedded: Embedded, method: str) -> None:
        with torch.no_grad():
            assert learned(embedded, method, LearningSettings(1, 0.1, 8, 0.3, 0))[0]["proj"] != 0.3


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("granularity", "places"), [("tensor", (0, 1)), ("layer", (0, 1)), ("task", (0, 0))])
def test_the_gradient_is_that_of_a_graph_through_the_task_vectors(granularity: str, places: tuple[int, int]) -> None:
    """One step of plain descent by an optimiser, against autograd all the way from the loss to the coefficients."""
    base = {"0.weight": random(3, 3, seed=0), "1.weight": random(4, 3, seed=1)}
    deltas = [{name: random(*t.shape, seed=10 + i) for name, t in base.items()} for i in range(2)]
    tasks = [Rows(random(5, 3, seed=20 + i), [0, 1, 2, 3, 1]) for i in range(2)]
    backbone = LinearEncoder(base["0.weight"], base["1.weight"])
    rule = type(RULES["atlas"])(F.cross_entropy, lambda c, lr: torch.optim.SGD([c], lr=lr))
    found = learn(backbone, tasks, Experts(deltas, base), rule, LearningSettings(1, 0.5, 5, 0.25, 0, granularity))
    c = torch.full((2, 2), 0.25, requires_grad=True)
    theta = {
        name: base[name] + sum(c[t, g] * delta[name] for t, delta in enumerate(deltas))
        for g, name in zip(places, base, strict=True)
    }
    total = sum(F.cross_entropy(functional_call(backbone.module, theta, (task.inputs,)), task.labels) for task in tasks)
    total.backward()
    expected = c.detach() - 0.5 * c.grad
    torch.testing.assert_close(torch.tensor([list(row.values()) for row in found]), expected[:, places])


def test_coefficients_of_adamerging_stay_within_0_and_1(embedded: Embedded) -> None:
    found = learned(embedded, "adamerging", LearningSettings(20, 0.3, 8, 0.3, 0))
    values = [v for row in found for v in row.values()]
    assert min(values) == 0 and max(values) == 1


def test_every_image_is_taken_before_any_is_taken_again() -> None:
    seen: list[int] = []

    class Watched(Rows):
        def batch(self, split: str, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
            seen.extend(rows.tolist())
            return super().batch(split, rows, device)

    base = {"0.weight": torch.eye(3), "1.weight": torch.eye(3)}
    experts = Experts([{name: torch.ones(3, 3) for name in base}], base)
    tasks = [Watched(random(10, 3, seed=0), [0] * 10)]
    learn(LinearEncoder(torch.eye(3), torch.eye(3)), tasks, experts, RULES["atlas"], LearningSettings(6, 0.1, 4, 0, 0))
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and seen[:10] != seen[10:]


def test_a_gradient_that_is_not_finite_is_an_error() -> None:
    base = {"0.weight": torch.eye(3), "1.weight": torch.eye(3)}
    experts = Experts([{name: torch.full((3, 3), torch.inf) for name in base}], base)
    with pytest.raises(NonFiniteOutput, match="NaN or infinite gradient at step 0; try a smaller lr"):
        backbone, task = LinearEncoder(torch.eye(3), torch.eye(3)), Rows(random(4, 3, seed=0), [0] * 4)
        learn(backbone, [task], experts, RULES["atlas"], LearningSettings(2, 0.1, 4, 0.1, 0))


def test_a_task_without_labelled_images_is_named() -> None:
    with pytest.raises(ValueError, match=r"tasks\.reward: object gives no labelled images"):
        labelled(object(), "reward")


def test_overwriting_gives_the_sum_in_the_modules_own_memory() -> None:
    backbone, base = LinearEncoder(torch.eye(2), torch.eye(2)), {"0.weight": torch.eye(2), "1.weight": torch.ones(2, 2)}
    places = [p.data_ptr() for p in backbone.module.parameters()]
    delta = {name: torch.full((2, 2), 2.0) for name in base}
    overwrite(backbone, base, [(delta, {"0.weight": 0.5, "1.weight": 2.0}), (delta, dict.fromkeys(base, 1.0))])
    assert torch.equal(backbone.module[0].weight, torch.eye(2) + 3) and torch.equal(
        backbone.module[1].weight, torch.full((2, 2), 7.0)
    )
    assert [p.data_ptr() for p in backbone.module.parameters()] == places


@pytest.mark.slow
def test_memory_is_one_gradient_of_the_model_whatever_the_number_of_experts() -> None:
    """67 MB of weights and six task vectors of the same size: a graph through these would hold 0.4 GB more."""
    size = 2900
    base = {"0.weight": torch.zeros(size, size), "1.weight": torch.zeros(size, size)}
    deltas = [{name: torch.full((size, size), 1e-4) for name in base} for _ in range(6)]
    backbone, task = LinearEncoder(base["0.weight"], base["1.weight"]), Rows(random(8, size, seed=0), [0] * 8)
    model = 2 * size * size * 4
    with Meter(torch.device("cpu")) as meter:
        learn(backbone, [task], Experts(deltas, base), RULES["atlas"], LearningSettings(3, 0.01, 4, 0.1, 0))
    # One gradient; one tensor while it is put together (half the model here); the allocator's slack.
    assert 0.8 * model < meter.peak_bytes < 2.2 * model


def test_the_meter_sees_time_and_memory_that_was_freed_again() -> None:
    with Meter(torch.device("cpu")) as meter:
        torch.ones(16, 2**20).sum()
    assert 0.9 * 2**26 < meter.peak_bytes < 1.5 * 2**26 and 0 < meter.seconds < 60
    with Meter(torch.device("cpu")) as idle:
        pass
    assert idle.peak_bytes < 2**22, "the peak of what came before is not counted"


def test_half_precision_files_are_added_to_in_float32() -> None:
    backbone, base = (
        LinearEncoder(torch.eye(2), torch.eye(2)),
        {"0.weight": torch.ones(2, 2), "1.weight": torch.ones(2, 2)},
    )
    delta = {name: torch.full((2, 2), 1e-5) for name in base}
    overwrite(backbone, {name: t.half() for name, t in base.items()}, [(delta, dict.fromkeys(base, 1.0))])
    assert backbone.module[0].weight[0, 0] == torch.tensor(1.0) + torch.tensor(1e-5)


def test_task_vectors_of_low_rank_give_the_coefficients_of_dense_ones() -> None:
    base = {"0.weight": random(3, 3, seed=0), "1.weight": random(4, 3, seed=1)}
    low = LowRankDelta(
        {"0.weight": LowRank(random(3, 1, seed=2), random(1, 3, seed=3))}, {n: t.shape for n, t in base.items()}
    )
    backbone, task = LinearEncoder(base["0.weight"], base["1.weight"]), Rows(random(6, 3, seed=4), [0, 1, 2, 3, 0, 1])
    settings = LearningSettings(5, 0.1, 6, 0.1, 0)
    one, two = (learn(backbone, [task], Experts([delta], base), RULES["atlas"], settings) for delta in (low, dict(low)))
    assert one == two and one[0]["0.weight"] != 0.1
