"""Proves Fisher and Gram statistics against closed forms, autograd on one sample at a time, and direct products."""

from collections.abc import Iterator

import pytest
import torch
from learning_parts import Embedded, LinearEncoder, Rows
from torch import Tensor, nn

from pipeline.learning.inputs import overwrite
from pipeline.learning.merged_grams import merged_grams
from pipeline.learning.statistics import fisher, gram
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts
from tasks.base import NonFiniteOutput


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("LINES_SWEEP_CACHE", str(tmp_path_factory.mktemp("decoded")))
        found = Embedded.load("mnist")
        assert found.experts.base is not None
        overwrite(found.backbone, found.experts.base, [(found.experts.deltas[0], dict.fromkeys(found.experts.base, 1))])
        yield found


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TestFisher:
    def test_tends_to_its_expectation_over_labels(self) -> None:
        """For W in softmax(W x): E_y (d log p_y / dW)^2 = p (1 - p) x^2, whatever the labels of the data are."""
        x, w = torch.tensor([0.5, -1.0, 2.0]), random(4, 3) / 4
        found = fisher(LinearEncoder(torch.eye(3), w), Rows(x.expand(3000, 3), [0] * 3000), 3000)
        p = (w @ x).softmax(0)
        torch.testing.assert_close(found["1.weight"], torch.outer(p * (1 - p), x**2), rtol=0.15, atol=0.005)

    def test_is_the_mean_over_samples_of_squared_gradients(self, embedded: Embedded) -> None:
        task, module, count = embedded.tasks["mnist"], embedded.backbone.module, 6
        generator = torch.Generator().manual_seed(0)
        sums = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
        module.requires_grad_(True)
        for row in range(count):
            images, _ = task.batch("val", torch.tensor([row]), torch.device("cpu"))
            log_p = task.logits(embedded.backbone.embed(images)).log_softmax(-1)[0]
            label = int(torch.multinomial(log_p.detach().exp(), 1, generator=generator))
            module.zero_grad()
            nn.functional.nll_loss(log_p[None], torch.tensor([label])).backward()
            for name, p in module.named_parameters():
                sums[name] += p.grad**2
        module.requires_grad_(False)
        module.zero_grad()
        found = fisher(embedded.backbone, task, count)
        assert found.keys() == sums.keys()
        for name, total in sums.items():
            torch.testing.assert_close(found[name], total / count, rtol=1e-4, atol=1e-9)
        assert all(bool(f.any()) for f in found.values())

    def test_repeats_bit_for_bit_and_takes_no_more_samples_than_there_are(self, embedded: Embedded) -> None:
        task = embedded.tasks["mnist"]
        seen: list[tuple[int, int]] = []
        once = fisher(embedded.backbone, task, 40)
        again = fisher(embedded.backbone, task, 10**6, lambda done, total: seen.append((done, total)))
        assert all(torch.equal(once[name], again[name]) for name in once) and seen[-1] == (40, 40)

    def test_leaves_the_module_without_gradients(self, embedded: Embedded) -> None:
        fisher(embedded.backbone, embedded.tasks["mnist"], 1)
        assert all(p.grad is None and not p.requires_grad for p in embedded.backbone.module.parameters())


class TestGram:
    def test_is_the_product_of_inputs_over_rows(self) -> None:
        x, a = random(100, 3), random(5, 3, seed=1)
        found = gram(LinearEncoder(a, random(2, 5, seed=2)), Rows(x, [0] * 100), 70)
        x = x[:70]
        assert found.keys() == {"0.weight", "1.weight"}
        torch.testing.assert_close(found["0.weight"], x.T @ x / 70)
        torch.testing.assert_close(found["1.weight"], (x @ a.T).T @ (x @ a.T) / 70)

    def test_covers_every_linear_layer_of_a_vision_transformer(self, embedded: Embedded) -> None:
        found = gram(embedded.backbone, embedded.tasks["mnist"], 3)
        shapes = {name: p.shape for name, p in embedded.backbone.module.named_parameters()}
        layers = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
        assert found.keys() == {f"transformer.resblocks.{b}.{layer}" for b in range(8) for layer in layers}
        assert all(g.shape == (shapes[name][1], shapes[name][1]) for name, g in found.items())

    def test_attention_gives_the_inputs_of_both_projections(self, embedded: Embedded) -> None:
        """An oracle by hand of the first block: softmax(q k^T / sqrt(d)) v, head by head."""
        task, module = embedded.tasks["mnist"], embedded.backbone.module
        images, _ = task.batch("val", torch.arange(3), torch.device("cpu"))
        block, seen = module.transformer.resblocks[0], []
        with block.ln_1.register_forward_hook(lambda m, inputs, output: seen.append(output)):
            embedded.backbone.encode(images)
        x, heads = seen[0].clone(), block.attn.num_heads
        q, k, v = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in nn.functional.linear(x, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
        )
        attended = ((q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        found = gram(embedded.backbone, task, 3)
        for name, inputs in (("in_proj_weight", x), ("out_proj.weight", attended)):
            rows = inputs.flatten(0, 1)
            expected = rows.T @ rows / len(rows)
            torch.testing.assert_close(found[f"transformer.resblocks.0.attn.{name}"], expected, rtol=1e-4, atol=1e-5)

    def test_leaves_no_hook_behind(self, embedded: Embedded) -> None:
        gram(embedded.backbone, embedded.tasks["mnist"], 1)
        assert not any(m._forward_pre_hooks for m in embedded.backbone.module.modules())

    def test_regmean_with_it_is_the_least_squares_fit_of_all_data(self) -> None:
        """Two layers' worth of linear regressions, each fitted on data of its own (Jin et al., 2023, section 3)."""
        data = [(random(60, 3, seed=s), random(60, 2, seed=s + 10)) for s in (1, 2)]
        fits = [torch.linalg.lstsq(x, y).solution.T for x, y in data]
        grams = [
            gram(LinearEncoder(w, torch.eye(2)), Rows(x, [0] * 60), 60) for w, (x, _) in zip(fits, data, strict=True)
        ]
        base = {"0.weight": torch.zeros(2, 3)}
        experts = Experts([{"0.weight": w} for w in fits], base, grams)
        merged = METHODS["regmean"].combine(experts, (1, 1), {"samples": 60, "reduce": 1.0})
        together = torch.linalg.lstsq(torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])).solution.T
        torch.testing.assert_close(merged["0.weight"], together, rtol=1e-4, atol=1e-5)


class TestMergedGrams:
    def test_inputs_of_a_block_come_from_the_merged_one_before(self) -> None:
        """An oracle by hand of two linear blocks, each merged by (G_1 + G_2)^-1 (G_1 W_1 + G_2 W_2)."""
        xs = [random(30, 4, seed=s) for s in (1, 2)]
        first, second = (
            [random(*shape, seed=s) for s in seeds] for shape, seeds in (((3, 4), (3, 4)), ((2, 3), (5, 6)))
        )
        base = {"0.weight": random(3, 4, seed=7), "1.weight": random(2, 3, seed=8)}
        deltas = [
            {"0.weight": a - base["0.weight"], "1.weight": b - base["1.weight"]}
            for a, b in zip(first, second, strict=True)
        ]
        encoder = LinearEncoder(first[0], second[0])
        tasks = [Rows(x, [0] * 30) for x in xs]
        found = merged_grams(encoder, tasks, Experts(deltas, base), {"samples": 30, "reduce": 1.0})
        weights = (first, second)
        for block in range(2):
            grams = [x.T @ x / 30 for x in xs]
            for i in range(2):
                torch.testing.assert_close(found[i][f"{block}.weight"], grams[i], rtol=1e-3, atol=1e-4)
            merged = torch.linalg.solve(sum(grams), sum(g @ w.T for g, w in zip(grams, weights[block], strict=True)))
            torch.testing.assert_close(encoder.module[block].weight, merged.T, rtol=1e-3, atol=1e-4)
            xs = [x @ merged for x in xs]

    def test_a_pass_that_ends_early_counts_the_same(self, embedded: Embedded) -> None:
        """For the first block and the last one of a vision transformer, whose other parts are averaged."""
        task, base = embedded.tasks["mnist"], embedded.experts.base
        assert base is not None
        params = {"samples": 3, "reduce": 0.9}
        (found,) = merged_grams(embedded.backbone, [task], embedded.experts, params)
        whole = gram(embedded.backbone, task, 3)  # one expert merges to itself
        assert found.keys() == whole.keys()
        for name, expected in whole.items():
            torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-3)
        assert not any(m._forward_pre_hooks for m in embedded.backbone.module.modules())


def test_logits_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(NonFiniteOutput, match=r"rows: val\[0\]: non-finite logits"):
        fisher(LinearEncoder(torch.eye(3), torch.full((2, 3), torch.inf)), Rows(random(5, 3), [0] * 5), 5)


def test_statistics_are_of_validation_alone() -> None:
    task = Rows(random(5, 3), [0] * 5)
    with pytest.raises(AssertionError, match="another split"):
        task.batch("test", torch.tensor([0]), torch.device("cpu"))
    fisher(LinearEncoder(torch.eye(3), random(2, 3)), task, 5)
    gram(LinearEncoder(torch.eye(3), random(2, 3)), task, 5)
