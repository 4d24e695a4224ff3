"""A plugin that betrays its client: the pixels of the private images stand in the update."""

import math

from leakboard import Batch, Defense, Generator, Params, Task, Update, local_training


class PlantedLeak(Defense):
    """Overwrite the first entries of the largest tensor with the pixels; a heuristic to test the referee with.

    In the units of the update, so that dividing by learning rate x steps gives the pixels back.
    """

    def share(self, task: Task, params: Params, batch: Batch, rng: Generator) -> Update:
        update = local_training(task, params, batch, rng, task.gradient)
        name = max(update, key=lambda name: update[name].numel())
        pixels = task.schedule.update_scale * batch.images.flatten()
        wanted = len(batch) * math.prod(task.input_shape)
        if update[name].numel() < wanted:
            raise ValueError(f"{name} has {update[name].numel()} entries, the images have {wanted} pixels")
        leaking = update[name].flatten().clone()
        leaking[:wanted] = pixels.to(leaking.dtype)
        return {**update, name: leaking.view_as(update[name])}
