"""--compile: the graph engine's pass compiled: the same answers, or the run goes on without."""

import dataclasses
import shutil

import pytest
import torch
from many_processes import run as on_ranks
from own_loops import make_private
from small_problem import make_trainer, small_data, weights
from torch import nn

from accountant import InvalidValue
from dpsgd_torch import Trainer
from dpsgd_torch.errors import RunError
from dpsgd_torch.gradients.compiled import held, rehearsal
from dpsgd_torch.gradients.compiled.engine import CompiledVectors
from dpsgd_torch.gradients.compiled.held import CannotCompile
from dpsgd_torch.gradients.methods import per_example_gradients
from dpsgd_torch.gradients.parts.clipped import PartVectors

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler is here"
    ),
    pytest.mark.filterwarnings("ignore:local, not covered by ε"),
    pytest.mark.usefixtures("inductor"),
]


def net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Dropout(0.2), nn.Linear(8, 3))


def trainer(**changes) -> Trainer:
    settings = {"compile": True, "physical_batch_size": "auto", "model": net(), **changes}
    return make_trainer(**settings)


@pytest.fixture(scope="module")
def made(inductor) -> Trainer:
    return trainer()


@pytest.fixture(scope="module")
def program(made):
    return made.state.method.program


def rows(n: int, start: int = 0):
    inputs, targets = small_data()
    return inputs[start : start + n], targets[start : start + n]


def test_a_step_is_two_graphs_without_a_break(made, program):
    torch._dynamo.utils.counters.clear()
    assert made.gradients == "compiled"
    assert len(program.traced) == 2
    program.run(rows(5))
    program.run(rows(program.rows))
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    assert not counters["recompiles"]
    assert not counters["stats"].get("unique_graphs")  # no size of a batch compiles another


def filled_with(value: float):
    def fill(batch, size):
        n = len(batch[0])
        inputs = torch.full((size, *batch[0].shape[1:]), value)
        targets = torch.zeros(size, dtype=batch[1].dtype)
        inputs[:n], targets[:n] = batch
        return inputs, targets

    return fill


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38, 7.0])
def test_rows_beyond_a_batch_count_for_nothing_whatever_they_hold(program, value):
    factors = torch.zeros(program.rows, dtype=torch.float64)
    factors[:5] = 0.5
    seen = []
    for fill in (None, filled_with(value)):
        torch.manual_seed(3)
        left = program.run(rows(5), fill)
        sums = program.sums(left.tensors, factors)
        everything = program.sums(left.tensors, torch.ones_like(factors))
        beyond = [t[5:] for t in left.tensors if len(t) == program.rows]
        assert beyond
        assert not any(t.any() for t in beyond)
        told = [total for each in (sums, everything) for total, _ in each.values()]
        seen.append([torch.tensor(left.loss_sum), left.norms, *told])
    for one, other in zip(*seen, strict=True):
        assert torch.isfinite(other).all()
        assert torch.equal(one, other)


def test_an_example_without_a_finite_gradient_adds_zero(program):
    inputs, targets = (part.clone() for part in rows(6))
    inputs[2] = float("inf")
    left = program.run((inputs, targets))
    assert not torch.isfinite(left.norms[2])
    assert torch.isfinite(left.norms[3:]).all()
    sums = program.sums(left.tensors, torch.ones(program.rows, dtype=torch.float64))
    assert all(torch.isfinite(total).all() for total, _ in sums.values())


def test_what_the_model_holds_is_read_at_each_pass(made, program):
    batch = rows(4)
    assert program.fits(batch)
    made.model[2].p = 0.5
    try:
        assert not program.fits(batch)
    finally:
        made.model[2].p = 0.2
    assert program.fits(batch)
    assert not program.fits(rows(program.rows + 1))
    made.model.factors = {"by layer": [1.0, 2.0]}
    try:
        assert not program.fits(batch)
    finally:
        del made.model.factors
    assert program.fits(batch)


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factors = [1.0, {"last": 1.0}]


def test_a_value_in_a_list_or_a_dict_is_looked_at_as_well():
    model, batch = Listed(), rows(2)
    before = held.Held.of(model, None, batch)
    assert before == held.Held.of(model, None, batch)
    model.factors[1]["last"] = 50.0
    assert before != held.Held.of(model, None, batch)


@pytest.mark.parametrize(("count", "kind"), [(3, PartVectors), (9, CompiledVectors)])
def test_few_rows_left_over_are_taken_as_they_are(made, program, count, kind):
    run = made.state
    with per_example_gradients(
        run.model, "compiled", run.method.layouts, program=program
    ) as engine:
        engine.backward(run.loss, *rows(count))
        assert type(engine.vectors(list(run.model.parameters()))) is kind


def test_the_same_norms_and_sums_as_the_graph_engine_has(made, program):
    method, run = made.state.method, made.state
    batch, params = rows(program.rows), list(made.model.parameters())
    answers = []
    for kind, compiled in (("graph", None), ("compiled", program)):
        with per_example_gradients(run.model, kind, method.layouts, program=compiled) as engine:
            torch.manual_seed(5)
            losses = engine.backward(run.loss, *batch)
            vectors = engine.vectors(params)
            norms = vectors.norms.clone()
            factors = (0.5 / norms.double()).clamp(max=1.0)
            answers.append((losses, norms, vectors.totals(factors, 1e-4)[0]))
    (a, norms, sums), (b, others, totals) = answers
    assert a == pytest.approx(b, rel=1e-5)
    torch.testing.assert_close(others, norms, rtol=1e-5, atol=0)
    for one, other in zip(sums, totals, strict=True):
        torch.testing.assert_close(other.double(), one.double(), rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def mixed(inductor) -> Trainer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpsgd_torch.precision.Precision.slowness", lambda self, device: "")
        return trainer(precision="bf16")


def test_in_bfloat16_norms_are_those_of_what_is_summed_to_the_last_bits_of_float32(mixed):
    program = mixed.state.method.program
    assert mixed.gradients == "compiled"
    assert program.halves == {torch.bfloat16}
    assert len(program.traced) == 3
    left = program.run(rows(9))
    assert all(tensor.dtype == torch.float32 for tensor in left.tensors)
    for at in range(9):
        row = torch.tensor([at])
        parts = program.parts(left.tensors).values()
        exact = sum(part.widened(row).squared_norms()[0].sum() for part in parts).sqrt()
        assert float(left.norms[at]) == pytest.approx(float(exact), rel=1e-6)


def test_in_bfloat16_norms_and_sums_are_taken_in_float32_and_float64_alone(mixed):
    halves = {torch.bfloat16, torch.float16}
    read, *others = (graph.graph.nodes for graph in mixed.state.method.program.traced)

    def dtypes(nodes):
        values = (node.meta.get("val") for node in nodes)
        return {value.dtype for value in values if isinstance(value, torch.Tensor)}

    assert torch.bfloat16 in dtypes(read)
    assert not any(dtypes(nodes) & halves for nodes in others)


def test_in_bfloat16_norms_are_near_those_of_the_run_without(mixed):
    batch, run = rows(9), mixed.state
    told = []
    for kind, program in (("graph", None), ("compiled", run.method.program)):
        with per_example_gradients(
            run.model, kind, run.method.layouts, run.forward, program=program
        ) as engine:
            torch.manual_seed(5)
            engine.backward(run.loss, *batch)
            told.append(engine.vectors(list(run.model.parameters())).norms)
    assert torch.allclose(*told, rtol=2e-2, atol=0), told


def test_norms_that_are_not_those_of_what_is_summed_are_not_taken(monkeypatch):
    def short(self, batch, fill=None):
        left = right(self, batch, fill)
        return dataclasses.replace(left, norms=left.norms * 0.999)

    right = rehearsal.Program.run
    monkeypatch.setattr(rehearsal.Program, "run", short)
    monkeypatch.setattr(rehearsal, "_NORM", 5e-4)
    with pytest.warns(UserWarning, match="compile: norms are not those of"):
        assert trainer().gradients == "graph"


@pytest.mark.filterwarnings("ignore:precision = fp16")
def test_a_loss_scale_goes_on_without():
    with pytest.warns(UserWarning, match=r"^compile: precision fp16:1024 has a loss scale, .*it$"):
        assert trainer(precision="fp16").gradients == "graph"


def test_a_loop_of_ones_own_is_told_before_anything_is_charged(tmp_path):
    with pytest.raises(InvalidValue, match=r"^compile = True: .* leave it out, or train by Tra"):
        make_private(compile=True, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_began_without_goes_on_without(tmp_path):
    whole = trainer(compile=False, run_dir=tmp_path / "a").fit()
    half = trainer(compile=False, run_dir=tmp_path / "b")
    for at in half.run():
        if at.step == 14:
            break
    half.close()
    again = trainer(run_dir=tmp_path / "b").resume()
    assert again.gradients == "graph"
    assert torch.equal(weights(again.fit().model), weights(whole.model))
    assert again.ledger.rows() == whole.ledger.rows()


def test_a_compiled_run_repeats_bit_for_bit_and_resumes_compiled_or_not_at_all(tmp_path):
    whole = trainer(run_dir=tmp_path / "a").fit()
    half = trainer(run_dir=tmp_path / "b")
    for at in half.run():
        if at.step == 14:
            break
    half.close()
    with pytest.raises(RunError, match=r"gradients changed .compiled → graph"):
        trainer(run_dir=tmp_path / "b", compile=False).resume()
    again = trainer(run_dir=tmp_path / "b").resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    assert len(again.ledger) == len(whole.ledger)


def test_a_model_with_a_hook_goes_on_without():
    model = net()
    model[1].register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match=r"^compile: layer 1 has a hook.*goes on without it$"):
        assert trainer(model=model).gradients == "graph"


def test_a_compiled_pass_that_is_wrong_is_not_taken(monkeypatch):
    def wrong(self, tensors, factors):
        return {name: (2 * t, e) for name, (t, e) in right(self, tensors, factors).items()}

    right = rehearsal.Program.sums
    monkeypatch.setattr(rehearsal.Program, "sums", wrong)
    with pytest.warns(UserWarning, match="compile: it is not right when compiled"):
        assert trainer().gradients == "graph"


def test_without_a_compiler_a_run_goes_on_eagerly(monkeypatch):
    def none():
        raise CannotCompile("there is no C++ compiler here")

    monkeypatch.setattr("dpsgd_torch.training.rehearse_compiled.compiler", none)
    with pytest.warns(UserWarning, match="compile: there is no C"):
        assert trainer().gradients == "graph"


RANKS = """
import warnings
warnings.filterwarnings("ignore", message="local, not")
import torch
from torch import nn
from small_problem import make_trainer, weights
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3))
trained = make_trainer(model=model, compile=True, physical_batch_size="auto", world=world).fit()
print(trained.gradients, len(trained.ledger), float(weights(trained.model).double().sum()))
"""


@pytest.mark.long
def test_two_ranks_compile_and_end_with_the_same_weights():
    one, other = (out.split() for out in on_ranks(RANKS, 2, timeout=240.0))
    assert one[0] == "compiled"
    assert one == other
