"""`StudiedTrainable`: a proxy trial that reports more than a search may read."""

from __future__ import annotations

from contextlib import suppress

from trainables.data import Batches, LabelledImages
from trainables.persistence.resumable import Result
from trainables.proxy.trainable import ProxyTrainable
from trainables.search_job import SearchJob
from trainables.training.loop import Diverged


class StudiedTrainable(ProxyTrainable):
    """A `ProxyTrainable` that reports more, not counted in the time and samples of a trial.

    It adds:

    - where the protocol averages weights, `last_val_loss` and `last_val_accuracy` of the weights
      that are not averaged;
    - given test images, `test_loss` and `test_accuracy` at the last epoch. They are for scoring
      searches afterwards; no strategy reads them.
    """

    def prepare(
        self,
        job: SearchJob | None = None,
        test: LabelledImages | None = None,
        last_weights: bool = True,
    ) -> None:
        """Prepare as `ProxyTrainable`; store the test images and the settings of the reports."""
        super().prepare(job)
        self.last_weights = last_weights
        self.test = test.to(self.device) if test else None

    def train_epoch(self) -> Result:
        """Train one epoch, evaluate as in a search, then add the other metrics."""
        result = super().train_epoch()
        protocol = self.job.protocol
        if protocol.averaging and self.last_weights:
            result |= self.job.task.lost("last_val")
            if not result["diverged"]:
                # The average may be finite where the last weights are not.
                with suppress(Diverged):
                    result |= self.evaluate(lambda c: c.model, self.val_batches, "last_val")
        if self.test and (result["finished"] or result["diverged"]):
            result |= self.job.task.lost("test")
            if not result["diverged"]:
                channels_last = protocol.channels_last and self.device.type == "cuda"
                images = Batches(
                    self.test, 512, self.data.normalisation, channels_last=channels_last
                )
                with suppress(Diverged):
                    result |= self.evaluate(lambda c: c.evaluated_model, images, "test")
        return result
