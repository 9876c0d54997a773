"""Training passes as CUDA graphs: the same numbers as without, or a clear refusal."""

from __future__ import annotations

import copy
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.genotype import PUBLISHED
from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.space import SearchSpace
from trainables.proxy import candidate, warm_host
from trainables.proxy.trainable import ProxyTrainable
from trainables.training.cuda_graphs import MOST_GRAPHS, GraphedNetwork, as_graphs
from trainables.training.loop import Trainer, evaluate, place
from trainables.training.protocol import TrainingProtocol

CPU = torch.device("cpu")
SPEC = NetworkSpec("resnet8", 10, 1, (8, 8), {"width": 8})
SPACE = SearchSpace.load("sase")


def batches(count, size=6, device=CPU):
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(size, 1, 8, 8, generator=generator).to(device),
            torch.randint(10, (size,), generator=generator).to(device),
        )
        for _ in range(count)
    ]


def trained(network, forward, data, **protocol):
    trainer = Trainer(
        forward, network.parameters(), TrainingProtocol(lr=0.05, **protocol), len(data), CPU
    )
    losses = [float(trainer.step(batch)) for batch in data]
    return losses, network.state_dict()


@pytest.mark.parametrize("protocol", [{}, {"optimizer": "adamw"}, {"clip": 0.01}])
def test_a_network_trains_as_without_graphs(protocol, pretended_graphs, assert_same):
    network = SPEC.with_genotype(PUBLISHED)
    twin = copy.deepcopy(network)
    expected = trained(network, network, batches(5), **protocol)
    found = trained(twin, GraphedNetwork(twin), batches(5), **protocol)
    assert_same(found, expected)
    assert [graph.replays for graph in pretended_graphs] == [5, 5]


def test_weights_of_the_mixture_reach_the_graph_and_have_their_gradients(
    pretended_graphs, assert_same
):
    supernet = Supernet(SPEC, SPACE)
    twin = copy.deepcopy(supernet)
    graphed = GraphedNetwork(twin)
    generator = torch.Generator().manual_seed(0)
    for images, labels in batches(3):
        weights = [torch.rand(7, generator=generator) for _ in SPACE.variables]
        joins = torch.rand(2, 2, generator=generator)
        found = []
        for forward in (supernet, graphed):
            leaves = [w.clone().requires_grad_() for w in (*weights, *joins)]
            mixture = Mixture(leaves[:6], (leaves[6], leaves[7]))
            loss = F.cross_entropy(forward(images, mixture), labels)
            gradients = torch.autograd.grad(loss, leaves)
            found.append((loss.detach(), dict(enumerate(g.clone() for g in gradients))))
        assert_same(found[1], found[0])
    assert_same(twin.state_dict(), supernet.state_dict())


@pytest.mark.parametrize("enabled", [False, True])
def test_both_passes_have_the_precision_of_autocast(enabled, pretended_graphs, assert_same):
    """The backward pass runs outside of it, and must be recorded so."""
    network = SPEC.with_genotype(PUBLISHED)
    twin = copy.deepcopy(network)
    gradients = []
    for own, forward in ((network, network), (twin, GraphedNetwork(twin))):
        for images, labels in batches(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                logits = forward(images)
            assert logits.dtype == (torch.bfloat16 if enabled else torch.float32)
            own.zero_grad()
            F.cross_entropy(logits.float(), labels).backward()
        gradients.append({name: p.grad for name, p in own.named_parameters()})
    assert_same(*gradients)


def test_each_kind_of_pass_has_its_graph_up_to_a_number(pretended_graphs):
    network = SPEC.build()
    graphed = GraphedNetwork(network)
    for size in range(2, 2 + MOST_GRAPHS + 2):
        for images, _ in batches(2, size=size):
            graphed(images).sum().backward()
    assert len(pretended_graphs) == 2 * MOST_GRAPHS
    assert all(graph.replays == 2 for graph in pretended_graphs)


def test_evaluation_and_paths_run_without_graphs(pretended_graphs):
    supernet = Supernet(SPEC, SPACE)
    graphed = GraphedNetwork(supernet)
    (images, labels), full = batches(1)[0], Mixture([torch.full((7,), 1 / 7)] * 6)
    path = Mixture.of(PUBLISHED, SPACE)
    assert torch.equal(graphed(images, path), supernet(images, path))
    with torch.no_grad():
        graphed(images, full)
    evaluate(
        supernet,
        [(images, labels)],
        TrainingProtocol(),
        CPU,
        forward=lambda x: graphed(x, full),
    )
    assert pretended_graphs == []


def test_what_waits_for_the_device_trains_without_graphs(pretended_graphs, assert_same):
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.Linear(3, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.own(x) if float(x.sum()) > -1e9 else x

    network = Looks()
    graphed = GraphedNetwork(network)
    with pytest.warns(UserWarning, match=r"trains without CUDA graphs: .*capturing"):
        found = graphed(torch.ones(2, 3))
    assert network.calls == 1  # the passes before the recording left no trace
    assert torch.equal(found, network.own(torch.ones(2, 3)))
    assert torch.equal(graphed(torch.ones(2, 3)), found)  # without a second warning


@pytest.mark.parametrize("then", [None, "capture_end"])
def test_memory_that_runs_out_is_told_as_such(then, monkeypatch):
    """The trial needs this error to be continued with twice its share of the GPU."""

    def no_memory(*_, **__):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            if then:
                raise RuntimeError(then)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        GraphedNetwork(SPEC.build())(batches(1)[0][0])


def test_a_pass_in_another_precision_has_a_graph_of_its_own(pretended_graphs):
    network = SPEC.build()
    graphed = GraphedNetwork(network)
    images, _ = batches(1)[0]
    for enabled, dtype in ((True, torch.bfloat16), (False, torch.float32), (True, torch.bfloat16)):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert graphed(images).dtype == dtype
    assert len(pretended_graphs) == 4


def test_graphs_do_not_keep_what_made_the_mixture(pretended_graphs):
    alpha = torch.zeros(7, requires_grad=True)
    graphed = GraphedNetwork(Supernet(SPEC, SPACE))
    made = alpha.softmax(0)
    kept = weakref.ref(made)
    graphed(batches(1)[0][0], Mixture([made] * 6)).sum().backward()
    del made
    assert kept() is None


@pytest.mark.parametrize(
    ("wanted", "device", "graphs"),
    [(True, "cuda", True), (True, "cpu", False), (False, "cuda", False)],
)
def test_graphs_are_for_gpus_and_those_who_ask(wanted, device, graphs):
    network = SPEC.build()
    found = as_graphs(network, TrainingProtocol(cuda_graphs=wanted), torch.device(device))
    assert isinstance(found, GraphedNetwork) == graphs
    assert graphs or found is network


def test_a_trial_trains_as_without_graphs(make_job, monkeypatch, pretended_graphs, assert_same):
    """In a warm host at a rate of its own, with several seeds and averaged weights."""
    warm = TrainingProtocol(epochs=1, batch_size=16)
    job = make_job(warm_host=warm, host_lr=0.1, seeds=2, averaging=0.5)

    def run():
        ready = replace(job, host=warm_host.train_host(job))

        class Bound(ProxyTrainable):
            def setup(self, config):
                super().setup(config, job=ready)
                self.go_on()

        trial = Bound(config=job.space.to_config(job.space[5]))
        losses = [trial.train()["val_loss"] for _ in range(2)]
        return losses, trial.state()["candidates"]

    expected = run()
    for module in (candidate, warm_host):
        monkeypatch.setattr(module, "as_graphs", lambda network, *_: GraphedNetwork(network))
    assert_same(run(), expected)
    assert len(pretended_graphs) == 2 * (1 + 2)  # the host, and one candidate per seed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("kind", ["discrete", "supernet"])
def test_on_a_gpu_too(kind, amp):
    device = torch.device("cuda")
    protocol = TrainingProtocol(lr=0.05, amp=amp, cuda_graphs=True)
    mixture = Mixture([torch.full((7,), 1 / 7, device=device)] * 6)
    found = []
    for graphs in (False, True):
        network = Supernet(SPEC, SPACE) if kind == "supernet" else SPEC.with_genotype(PUBLISHED)
        place(network, protocol, device)
        called = as_graphs(network, protocol, device) if graphs else network
        forward = called if kind == "discrete" else lambda x, called=called: called(x, mixture)
        trainer = Trainer(forward, network.parameters(), protocol, 5, device)
        found.append(torch.stack([trainer.step(b) for b in batches(5, device=device)]))
    assert torch.allclose(found[1], found[0], rtol=2e-2 if amp else 1e-4)
