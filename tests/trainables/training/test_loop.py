"""The training loop against arithmetic done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainables.training.loop import (
    EXPLODED,
    Diverged,
    Trainer,
    cosine_schedule,
    evaluate,
    place,
    train_epoch,
)
from trainables.training.protocol import TrainingProtocol

CPU = torch.device("cpu")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def batches(count=3, size=8, features=5, classes=4, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    return [
        (
            scale * torch.randn(size, features, generator=generator, dtype=dtype),
            torch.randint(classes, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def linear(features=5, classes=4, dtype=torch.float64):
    model = nn.Linear(features, classes, dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(-1, 1, features * classes).view(classes, features))
        model.bias.copy_(torch.linspace(0.5, -0.5, classes))
    return model


def cross_entropy_gradient(weight, bias, images, labels):
    """Loss and its gradients for softmax regression, from the textbook's formula."""
    logits = images @ weight.T + bias
    p = (logits - logits.logsumexp(1, keepdim=True)).exp()
    loss = -p[torch.arange(len(labels)), labels].log().mean()
    p[torch.arange(len(labels)), labels] -= 1
    return loss, p.T @ images / len(labels), p.sum(0) / len(labels)


@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
def test_sgd_steps_equal_hand_computed_arithmetic(clip):
    protocol = TrainingProtocol(
        lr=0.3, lr_min=0.01, momentum=0.9, weight_decay=0.02, clip=clip, warmup=0.34
    )
    data = batches(count=3, scale=3.0)
    model = linear()
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    trainer = Trainer(model, model.parameters(), protocol, total_steps=3, device=CPU)
    mean_loss = train_epoch(trainer, data)

    buffers = [torch.zeros_like(weight), torch.zeros_like(bias)]
    losses = []
    # One step of warm-up: 1/2 of the peak; then the cosine over the two steps that are left.
    for (images, labels), rate in zip(data, [0.15, 0.3, (0.3 + 0.01) / 2], strict=True):
        loss, *gradients = cross_entropy_gradient(weight, bias, images, labels)
        losses.append(loss)
        norm = math.sqrt(sum(float((g * g).sum()) for g in gradients))
        shrink = 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))
        assert clip != 0.5 or shrink < 1, "the data must make the clip bite"
        for i, (parameter, gradient) in enumerate(zip((weight, bias), gradients, strict=True)):
            buffers[i] = 0.9 * buffers[i] + shrink * gradient + 0.02 * parameter
            parameter -= rate * buffers[i]
    torch.testing.assert_close(model.weight.detach(), weight, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(model.bias.detach(), bias, rtol=1e-10, atol=1e-12)
    assert mean_loss == pytest.approx(float(sum(losses) / 3), rel=1e-6)


def test_adamw_step_equals_hand_computed_arithmetic():
    protocol = TrainingProtocol(optimizer="adamw", lr=0.1, weight_decay=0.2, clip=None)
    ((images, labels),) = batches(count=1)
    model = linear()
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    _, gradient, _ = cross_entropy_gradient(weight, bias, images, labels)
    Trainer(model, model.parameters(), protocol, 10, CPU).step((images, labels))
    # The first step of Adam: both moments are the gradient's, so it moves by the sign.
    expected = weight * (1 - 0.1 * 0.2) - 0.1 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(model.weight.detach(), expected, rtol=1e-10, atol=1e-12)


def test_cosine_schedule_equals_its_closed_form():
    protocol = TrainingProtocol(lr=0.2, lr_min=0.02)
    factor = cosine_schedule(protocol, 40)
    for step in range(41):
        closed = 0.02 + 0.5 * (0.2 - 0.02) * (1 + math.cos(math.pi * step / 40))
        assert 0.2 * factor(step) == pytest.approx(closed)
    assert 0.2 * factor(0) == pytest.approx(0.2)
    assert 0.2 * factor(40) == pytest.approx(0.02)
    assert 0.2 * factor(100) == pytest.approx(0.02), "the rate stays down after the end"


def test_warm_up_rises_linearly_to_the_peak():
    factor = cosine_schedule(TrainingProtocol(lr=0.1, warmup=0.25), 40)
    assert [factor(step) for step in range(10)] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert factor(10) == 1.0
    assert factor(25) == pytest.approx(0.5)
    assert factor(40) == pytest.approx(0.0)


def test_a_loss_that_is_not_a_number_is_divergence():
    data = batches()
    data[1][0][0, 0] = float("nan")
    model = linear()
    trainer = Trainer(model, model.parameters(), TrainingProtocol(), 10, CPU)
    with pytest.raises(Diverged, match="not finite"):
        train_epoch(trainer, data)


def test_an_exploding_loss_is_divergence_and_a_bad_one_is_not():
    def constant_loss(value):
        # Logits (0, value) and label 0: the loss is log(1 + e^value), nearly `value`.
        bias = nn.Parameter(torch.tensor([0.0, value]))
        trainer = Trainer(lambda x: x + bias, [bias], TrainingProtocol(lr=1e-9), 10, CPU)
        return train_epoch(trainer, [(torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))] * 2)

    assert constant_loss(EXPLODED - 1) == pytest.approx(EXPLODED - 1, rel=1e-4)
    with pytest.raises(Diverged, match="rose to 101"):
        constant_loss(EXPLODED + 1)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 4))


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_equals_a_plain_loop_and_restores_the_mode(training):
    data = batches(count=3, dtype=torch.float32)
    data.append((data[0][0][:3], data[0][1][:3]))  # a short last batch
    model = small_network()
    model(data[0][0])  # moves the running statistics
    model.train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = evaluate(model, data, TrainingProtocol(label_smoothing=0.3), CPU)
    assert model.training is training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())

    model.eval()
    losses, right = [], []
    for images, labels in data:
        for image, label in zip(images, labels, strict=True):
            logits = model(image[None])[0].detach().double()
            losses.append(float(logits.logsumexp(0) - logits[label]))
            right.append(int(logits.argmax()) == int(label))
    assert len(losses) == 27
    assert result.loss == pytest.approx(sum(losses) / 27, rel=1e-5)
    assert result["accuracy"] == pytest.approx(sum(right) / 27)


def test_evaluate_calls_a_divergence_by_its_name_and_restores_the_mode():
    model = small_network()
    with torch.no_grad():
        model[0].bias.fill_(float("nan"))
    with pytest.raises(Diverged, match="validation"):
        evaluate(model, batches(dtype=torch.float32), TrainingProtocol(), CPU)
    assert model.training


def test_label_smoothing_is_in_the_training_loss_only():
    protocol = TrainingProtocol(label_smoothing=0.2)
    model = linear()
    ((images, labels),) = batches(count=1)
    logs = torch.log_softmax(model(images), 1)
    hard = -logs[torch.arange(len(labels)), labels].mean()
    smooth = 0.8 * hard - 0.2 * logs.mean(1).mean()
    trainer = Trainer(model, model.parameters(), protocol, 10, CPU)
    assert float(trainer.loss((images, labels))) == pytest.approx(float(smooth))
    plain = evaluate(model, [(images, labels)], protocol, CPU).loss
    assert plain == pytest.approx(float(hard), rel=1e-6)
    assert plain != pytest.approx(float(smooth), rel=1e-3)


def test_mixed_precision_and_channels_last_are_left_out_on_a_cpu():
    protocol = TrainingProtocol(amp=True, channels_last=True)
    seen = []
    conv = place(nn.Conv2d(3, 8, 3), protocol, CPU)
    assert conv.weight.is_contiguous()

    def forward(images):
        out = conv(images)
        seen.append(out.dtype)
        return out.mean((2, 3))

    batch = (torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
    Trainer(forward, conv.parameters(), protocol, 10, CPU).step(batch)
    evaluate(conv, [batch], protocol, CPU, forward=forward)
    assert seen == [torch.float32, torch.float32]


def test_before_step_comes_before_each_weight_step():
    model = linear()
    trainer = Trainer(model, model.parameters(), TrainingProtocol(), 10, CPU)
    data = batches()
    seen = []
    train_epoch(
        trainer,
        data,
        before_step=lambda batch: seen.append((batch[0], model.weight.detach().clone())),
    )
    assert [id(images) for images, _ in seen] == [id(images) for images, _ in data]
    assert torch.equal(seen[0][1], linear().weight)
    assert not torch.equal(seen[1][1], seen[0][1])


def test_only_the_parameters_handed_over_are_trained():
    model = small_network()
    model[3].bias.requires_grad_(False)
    before = {key: value.clone() for key, value in model.named_parameters()}
    trainer = Trainer(model, model[3].parameters(), TrainingProtocol(lr=0.1), 10, CPU)
    train_epoch(trainer, batches(dtype=torch.float32))
    changed = {k for k, v in model.named_parameters() if not torch.equal(v, before[k])}
    assert changed == {"3.weight"}


def test_deterministic_mode_is_switched_on_by_the_protocol():
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        place(linear(), TrainingProtocol(deterministic=True), CPU)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_GPU])]
)
def test_a_parameter_may_have_its_first_gradient_later(optimizer, device):
    """As in searches that train one path per step."""
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    both = nn.ModuleList([first, second]).to(device)
    paths = iter([first, second, first])
    trainer = Trainer(
        lambda x: next(paths)(x),
        both.parameters(),
        TrainingProtocol(optimizer=optimizer),
        3,
        torch.device(device),
    )
    before = second.weight.detach().clone()
    batch = torch.randn(4, 3, device=device), torch.zeros(4, dtype=torch.long, device=device)
    trainer.step(batch)
    assert torch.equal(second.weight, before)
    trainer.step(batch)
    assert not torch.equal(second.weight, before)
    trainer.step(batch)
