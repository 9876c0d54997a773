"""`StudiedTrainable`: a proxy trial that is looked at more closely than a search may."""

from __future__ import annotations

from typing import Any

from trainables.data import Batches, LabelledImages
from trainables.job import SearchJob
from trainables.proxy import DIVERGED_SCORE, ProxyTrainable
from trainables.training import Diverged, evaluate

DIVERGED_TEST = {"test_loss": DIVERGED_SCORE["val_loss"], "test_accuracy": 0.0}


class StudiedTrainable(ProxyTrainable):
    """Reports what `ProxyTrainable` does and, outside the time and samples that a trial costs:

    - where the protocol averages weights, `last_val_loss` and `last_val_accuracy`, of the weights
      that are not averaged;
    - given test images, `test_loss` and `test_accuracy` at the last epoch. They are for judging
      searches afterwards; no strategy is shown them.
    """

    def setup(
        self,
        config: dict[str, Any],
        job: SearchJob | None = None,
        test: LabelledImages | None = None,
    ) -> None:
        """Take the test images beside what `ProxyTrainable` takes."""
        super().setup(config, job)
        self.test = test.to(self.device) if test else None

    def step(self) -> dict[str, Any]:
        """Train one epoch, evaluate as a search does, then look closer."""
        result = super().step()
        protocol = self.job.protocol
        if self.average:
            last = dict(DIVERGED_SCORE)
            if not result["diverged"]:
                try:
                    found = evaluate(self.model, self.val_batches, protocol, self.device)
                    last = {"val_loss": found.loss, "val_accuracy": found.accuracy}
                except Diverged:  # the average may be finite where the last weights are not
                    pass
            result |= {f"last_{key}": value for key, value in last.items()}
        if self.test and (result["finished"] or result["diverged"]):
            result |= DIVERGED_TEST
            if not result["diverged"]:
                channels_last = protocol.channels_last and self.device.type == "cuda"
                images = Batches(
                    self.test, 512, self.data.normalisation, channels_last=channels_last
                )
                found = evaluate(self.judged, images, protocol, self.device)
                result |= {"test_loss": found.loss, "test_accuracy": found.accuracy}
        return result
